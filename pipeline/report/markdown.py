"""A report as Markdown (GitHub's): the same texts and figures; charts as the numbers behind them.

Markdown cannot hold a drawing or a picture without a second file, so charts are told in their
words and tables, and images are named.
"""

from __future__ import annotations

import re

from .blocks import (
    Block,
    Bullets,
    Cell,
    Chart,
    Charts,
    Commands,
    Facts,
    Folded,
    Gallery,
    Missing,
    Projection,
    Report,
    Table,
    Text,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$])")
_LEADING = re.compile(r"^(\s*\d*)([-+=#.)])")
_MARKS = {"best": " (best)", "alike": " (not significantly different from the best)",
          "advised": " (advised)"}  # fmt: skip


def as_markdown(report: Report) -> str:
    """Write a report as Markdown."""
    parts = [f"# {_plain(report.title)}: comparison of image classifiers"]
    parts.append(f"**{_plain(' '.join(report.verdict))}**")
    if report.more:
        parts.append("\n".join(f"- {_plain(one)}" for one in report.more))
    parts.append("; ".join(f"{_plain(name)}: {_plain(value)}" for name, value in report.facts))
    for section in report.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text, _):
            return _plain(text)
        case Bullets(items):
            return "\n".join(f"- {_plain(one)}" for one in items)
        case Missing(text, command):
            return f"{_plain(text)} Command: {_code(command)}"
        case Facts(pairs, title):
            lines = [f"- {_plain(name)}: {_plain(value)}" for name, value in pairs]
            return "\n".join([f"### {_plain(title)}\n", *lines] if title else lines)
        case Commands(lines):
            text = "\n".join(lines)
            return f"{_fence(text)}sh\n{text}\n{_fence(text)}"
        case Table():
            return _table(block)
        case Chart():
            return _chart(block)
        case Charts(items, _):
            return "\n\n".join(_chart(one) if isinstance(one, Chart) else _table(one)
                               for one in items)  # fmt: skip
        case Folded(_, blocks):
            return "\n\n".join(_block(one) for one in blocks)
        case Gallery(pictures, caption):
            lines = [
                f"- {_plain(one.title)}: {'; '.join(map(_plain, one.lines))}" for one in pictures
            ]
            return "\n".join([f"### {_plain(caption)}\n", *lines] if caption else lines)
        case Projection():
            return "\n\n".join(_chart(one) for one in block.charts)


def _chart(chart: Chart) -> str:
    return " ".join(_plain(part) for part in (chart.alt, chart.caption) if part)


def _table(table: Table) -> str:
    heads = " | ".join(_inline(column.title) for column in table.columns)
    rules = " | ".join("---:" if column.numeric else "---" for column in table.columns)
    lines = [f"| {heads} |", f"| {rules} |"]
    for row in table.rows:
        cells = [_cell(cell, first=at == 0) for at, cell in enumerate(row)]
        lines.append(f"| {' | '.join(cells)} |")
    hints = [f"{one.title}: {one.hint}." for one in table.columns if one.hint]
    below = " ".join([table.note, *hints] if table.note else hints)
    text = f"**{_inline(table.caption)}**\n\n" + "\n".join(lines)
    return f"{text}\n\n{_plain(below)}" if below else text


def _cell(cell: Cell, *, first: bool) -> str:
    text = _code(cell.text) if cell.code else _inline(cell.text)
    return text + (_MARKS.get(cell.mark, "") if first else "")


def _plain(text: str) -> str:
    """Escape text so that none of it is markup, HTML included."""
    return _LEADING.sub(r"\1\\\2", _inline(text))


def _inline(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _code(text: str) -> str:
    """Set as code, with as many ticks as the text needs; a bar would end a table's cell."""
    text = " ".join(text.encode("utf-8", "replace").decode().split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
