"""A report as one HTML file: nothing outside it, readable without a script, safe to pass on.

Its security policy allows the one style and the one script that are in it, by their digests, and
pictures that are in it; nothing is fetched and nothing else runs, whatever a class or a file is
called.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import __version__
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
    Heat,
    Missing,
    Picture,
    Projection,
    Report,
    Table,
    Text,
)
from .maps import legend_mark
from .markup import Html, data_block, joined, tag
from .pictures import Thumbnail, heat_png

_MARKS = {"best": "best", "alike": "not significantly different", "advised": "advised"}
_SHADES = 10
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+"
_COMMAND = re.compile(rf"((?:make|cnn-codes|python -m pipeline) [a-z-]+(?: [A-Z_]+={_VALUE})+)")


def as_html(report: Report, pictures: Mapping[str, Thumbnail], large: Sequence[str]) -> str:
    """Write a report as HTML.

    Parameters
    ----------
    report : Report
        From :func:`cnn_codes.report.sections.compose`.
    pictures : mapping of str to Thumbnail
        Small pictures by path; an image that lacks one is named instead.
    large : sequence of str
        Paths of the images that stand in the page itself; the others come up under the pointer.
    """
    style = _asset("page.css")
    script = _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    standing = {pictures[path].key: pictures[path] for path in large if path in pictures}
    writer = _Writer(pictures, frozenset(standing))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"cnn-codes {__version__}"),
        tag("title", f"{report.title}: comparison of image classifiers"),
        tag("style", style),
    )
    contents = tag(
        "nav",
        tag("details", tag("summary", "Contents"), _links(report), class_="contents"),
        aria_label="Contents",
    )
    sections = [
        tag(
            "section",
            tag("h2", section.title, id=f"{section.key}-title"),
            [writer(block) for block in section.blocks],
            id=section.key,
            aria_labelledby=f"{section.key}-title",
        )
        for section in report.sections
    ]
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#main", class_="skip"),
        _store(standing),
        tag("div", contents, tag("main", _head(report), sections, id="main"), class_="page"),
        tag("footer", f"Made by cnn-codes {__version__} from result records. This file loads "
            "nothing from elsewhere."),
        tag("div", role="status", aria_live="polite", id="status", class_="unseen"),
        tag("script", script),
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> Html:
    """Read the style or the script; both are ours, and hold nothing that would end them."""
    return Html("\n" + Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(one: Thumbnail) -> str:
    return "data:image/webp;base64," + base64.b64encode(one.data).decode()


def _store(pictures: Mapping[str, Thumbnail]) -> Html:
    """Hold every picture once; the galleries refer to them."""
    images = [
        tag("image", id=key, width=one.width, height=one.height, href=_data_uri(one))
        for key, one in pictures.items()
    ]
    return tag("svg", tag("defs", images), class_="store", aria_hidden="true", width=0, height=0)


def _links(report: Report) -> Html:
    return tag(
        "ol",
        [tag("li", tag("a", one.title, href=f"#{one.key}")) for one in report.sections],
    )


def _head(report: Report) -> Html:
    return tag(
        "header",
        tag("p", "Comparison of image classifiers", class_="eyebrow"),
        tag("h1", report.title, [" ", tag("small", report.digest)] if report.digest else None),
        tag("p", " ".join(report.verdict), class_="verdict"),
        tag("ul", [tag("li", one) for one in report.more], class_="plain") if report.more else None,
        _facts(report.facts),
    )


def _facts(pairs: Sequence[tuple[str, str]]) -> Html:
    pairs_ = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", pairs_, class_="facts")


class _Writer:
    """Writes blocks; knows the pictures, and which of them stand in the page itself."""

    def __init__(self, pictures: Mapping[str, Thumbnail], standing: frozenset[str]) -> None:
        self._pictures = pictures
        self._standing = standing

    def __call__(self, block: Block) -> Html:
        """Write one block."""
        match block:
            case Text(text, role):
                return tag("p", text, class_=None if role == "body" else role)
            case Bullets(items):
                return tag("ul", [tag("li", _spoken(one)) for one in items]) if items else Html()
            case Missing(text, command):
                return tag("p", f"{text} Command: ", tag("code", command), class_="missing")
            case Facts(pairs, title):
                return joined(tag("h3", title) if title else None, _facts(pairs))
            case Commands(lines):
                return tag("pre", tag("code", "\n".join(lines)))
            case Table():
                return _table(block)
            case Chart():
                return _chart(block)
            case Charts(items, small):
                inner = [_chart(one) if isinstance(one, Chart) else _table(one) for one in items]
                return tag("div", inner, class_="panels small" if small else "panels")
            case Folded(summary, blocks):
                return tag("details", tag("summary", summary), [self(one) for one in blocks])
            case Gallery(pictures, caption):
                return joined(
                    tag("h3", caption) if caption else None,
                    tag("ul", [self._item(one) for one in pictures], class_="gallery"),
                )
            case Projection():
                return self._projection(block)

    def _item(self, picture: Picture) -> Html:
        images = [self._image(path, picture.title) for path in picture.paths]
        if picture.heat is not None and picture.paths[0] in self._pictures:
            images.append(self._image(picture.paths[0], picture.title, picture.heat))
        lines = [tag("span", line, class_="line") for line in picture.lines]
        return tag(
            "li",
            tag(
                "figure",
                tag("div", images, class_="pair" if len(images) > 1 else "single"),
                tag("figcaption", tag("b", picture.title), lines),
            ),
        )

    def _image(self, path: str, title: str, heat: Heat | None = None) -> Html:
        one = self._pictures.get(path)
        if one is None:
            return tag("span", "no picture", class_="absent")
        return tag(
            "svg",
            tag("use", href=f"#{one.key}"),
            heat and _heat(heat, one.width, one.height),
            viewBox=f"0 0 {one.width} {one.height}",
            role="img",
            aria_label=f"{path}: {title}{', regions that speak for it' if heat else ''}",
            class_="heat" if heat else None,
        )

    def _projection(self, block: Projection) -> Html:
        """Write the drawings, and as data what each point is."""
        embedded: dict[str, str] = {}
        keys = []
        for path in block.paths:
            one = self._pictures.get(path)
            keys.append(one.key if one else "")
            if one and one.key not in self._standing:
                embedded.setdefault(one.key, base64.b64encode(one.data).decode())
        splits = list(dict.fromkeys(block.splits))
        used = sorted(set(block.labels))
        data = {
            "paths": list(block.paths),
            "labels": list(block.labels),
            "splits": [splits.index(one) for one in block.splits],
            "split_names": splits,
            "class_names": list(block.class_names),
            "keys": keys,
            "pictures": embedded,
        }
        legend = tag(
            "ul",
            [tag("li", Html(legend_mark(label)), block.class_names[label]) for label in used[:24]],
            tag("li", f"and {len(used) - 24} more") if len(used) > 24 else None,
            class_="legend",
            aria_label="Classes",
        )
        charts = [_chart(one, explorable=True) for one in block.charts]
        return joined(
            legend,
            tag("div", charts, class_="panels maps"),
            data_block(data, name="map-data"),
        )


def _heat(heat: Heat, width: int, height: int) -> Html:
    """Colour the regions that speak for a class, in a picture of these sides."""
    left, top, across, down = heat.box
    return tag(
        "image",
        href=f"data:image/png;base64,{base64.b64encode(heat_png(heat.evidence)).decode()}",
        x=round(left * width, 2),
        y=round(top * height, 2),
        width=round(across * width, 2),
        height=round(down * height, 2),
        preserveAspectRatio="none",
    )


def _spoken(text: str) -> Html:
    """Set the commands in a sentence as code."""
    parts = _COMMAND.split(text)
    return joined([tag("code", one) if at % 2 else one for at, one in enumerate(parts)])


def _chart(chart: Chart, *, explorable: bool = False) -> Html:
    drawing = Html(chart.svg)  # markup of our own making: see cnn_codes.report.svg
    caption = [
        tag("b", chart.title) if chart.title else None,
        tag("span", chart.caption) if chart.caption else None,
    ]
    inside = tag("div", drawing, class_="drawing", data_map=explorable)
    return tag(
        "figure",
        inside,
        tag("figcaption", caption) if chart.title or chart.caption else None,
        class_="chart-figure",
        id=f"figure-{chart.key}",
    )


def _table(table: Table) -> Html:
    heads = [
        tag(
            "th",
            column.title,
            scope="col",
            class_="number" if column.numeric else None,
            title=column.hint or None,
        )
        for column in table.columns
    ]
    rows = []
    for row in table.rows:
        cells = []
        for at, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
            cells.append(_cell(cell, "th" if at == 0 else "td", numeric=column.numeric))
        best = any(cell.mark == "best" for cell in row)
        rows.append(tag("tr", cells, class_="best" if best and table.key == "methods" else None))
    kind = "matrix" if table.matrix else "sortable" if table.sortable else None
    element = tag(
        "table",
        tag("caption", table.caption),
        tag("thead", tag("tr", heads)),
        tag("tbody", rows),
        class_=kind,
        id=f"table-{table.key}",
    )
    scroller = tag(
        "div", element, class_="scroll", tabindex=0, role="region", aria_label=table.caption
    )
    hints = [(one.title, one.hint) for one in table.columns if one.hint]
    meanings = [joined(tag("dt", title), tag("dd", hint)) for title, hint in hints]
    cut = tag("p", "Scroll sideways for more columns \N{RIGHTWARDS ARROW}", class_="cut")
    return joined(
        None if table.matrix else cut,
        scroller,
        tag("p", table.note, class_="note") if table.note else None,
        tag("details", tag("summary", "What the columns mean"), tag("dl", meanings), class_="note")
        if hints
        else None,
    )


def _cell(cell: Cell, name: str, *, numeric: bool) -> Html:
    classes = ["number"] if numeric else []
    if cell.heat is not None:
        classes.append(f"heat-{round(_SHADES * min(1.0, max(0.0, cell.heat)))}")
    mark = _MARKS.get(cell.mark) if name == "th" else None
    return tag(
        name,
        tag("code", cell.text) if cell.code else cell.text,
        [" ", tag("span", mark, class_=f"mark {cell.mark}")] if mark else None,
        scope="row" if name == "th" else None,
        class_=" ".join(classes) or None,
        data_value=repr(float(cell.value)) if cell.value is not None else None,
    )
