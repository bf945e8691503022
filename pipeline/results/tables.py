"""Tables of results for the terminal: plain text, aligned, the best run marked."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

__all__ = ["Table", "aligned", "table"]


def table(records: Sequence[Mapping[str, Any]], *, split: str = "test") -> Table:
    """Lay out records as an aligned plain-text table, one line a run.

    The accuracy stands with its 95 % interval, or, for a summary, with the standard deviation
    over its runs; ``*`` marks the highest accuracy (of equals, the lowest log-loss). Columns
    for network, layers, views and seed appear where the records differ in them. An empty string
    where there are no records.
    """
    shown = [record for record in records if split in record["metrics"]]
    if not shown:
        return Table([], text_columns=0)
    varying = [
        key
        for key in ("data", "model", "layers", "views", "size", "seed")
        if len({str(record[key]) for record in shown}) > 1
    ]

    def rank(record: Mapping[str, Any]) -> tuple[float, float]:
        figures = record["metrics"][split]
        return figures["accuracy"], -(figures.get("log_loss") or math.inf)

    best = max(shown, key=rank)
    header = ["", "method", *varying, "accuracy", "95% interval", "macro-F1", "AUROC"]
    header += ["log-loss", "ECE", "C", "fit s"]
    lines = [header]
    for record in shown:
        figures = record["metrics"][split]
        lines.append(
            [
                "*" if record is best else "",
                str(record["method"]),
                *(_cell(record[key]) for key in varying),
                _number(figures["accuracy"], 4),
                _interval(record, split),
                *(_number(figures.get(key), 4) for key in ("macro_f1", "auroc")),
                *(_number(figures.get(key), 3) for key in ("log_loss", "ece")),
                _chosen_c(record["chosen"]),
                _number(record["times_s"].get("fit"), 2),
            ]
        )
    return aligned(lines, text_columns=2 + len(varying))


class Table(str):
    """A table as aligned plain text that also knows its cells.

    Parameters
    ----------
    lines : sequence of sequence of str
        Cells; the header first.
    text_columns : int
        So many columns stand flush left, the others right.
    """

    lines: tuple[tuple[str, ...], ...]

    def __new__(cls, lines: Sequence[Sequence[str]], *, text_columns: int) -> Self:
        """Lay out the lines in columns."""
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join(
            "  ".join(
                cell.ljust(width) if k < text_columns else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        table = super().__new__(cls, text)
        table.lines = tuple(tuple(line) for line in lines)
        return table

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        rows = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
            for tag, line in zip(("th", *["td"] * len(self.lines)), self.lines, strict=False)
        ]
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def aligned(lines: Sequence[Sequence[str]], *, text_columns: int) -> Table:
    """Lay out lines of cells in columns: the first `text_columns` flush left, the rest right."""
    return Table(lines, text_columns=text_columns)


def _cell(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _interval(record: Mapping[str, Any], split: str) -> str:
    if record["kind"] == "summary":
        sd = record["spread"][split]["accuracy"]["sd"]
        return f"± {sd:.4f} (n={len(record['runs'])})" if sd is not None else "-"
    ends = record["metrics"][split].get("accuracy_ci95")
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"


def _chosen_c(chosen: Mapping[str, Any]) -> str:
    if "each" in chosen:
        values = sorted({_chosen_c(one) for one in chosen["each"]}, key=_as_number)
        return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{chosen['C']:.1e}".replace("e-0", "e-").replace("e+0", "e+") if "C" in chosen else "-"


def _as_number(text: str) -> float:
    return float(text) if text != "-" else -math.inf
