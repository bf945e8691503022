"""Tables of results: columns and cells once, laid out as plain text here, as HTML in reports."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..notation import DASH, duration, interval, number, percent, scientific
from .measures import MEASURES, Measure, measure_named

MARKS = {"best": "*", "advised": "*", "alike": "~"}  # of rows, in plain text


@dataclass(frozen=True)
class Column:
    """A column's title, what the title means where that is not plain, and how it is set."""

    title: str
    hint: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the number it is sorted by, and how it stands out.

    Attributes
    ----------
    text : str
    value : float, optional
        What sorting compares; without it, the text.
    mark : str
        ``best``, ``alike``, ``advised`` or nothing; that of the first cell is the row's.
    heat : float, optional
        Shade of the ground, 0 to 1.
    code : bool
        Set as a name of the machine's: fingerprints, paths.
    """

    text: str
    value: float | None = None
    mark: str = ""
    heat: float | None = None
    code: bool = False


def number_cell(value: float | None, digits: int = 3) -> Cell:
    """Write a number with so many decimals; a dash for None."""
    return Cell(number(value, digits), value)


def percent_cell(value: float | None) -> Cell:
    """Write a share (0 to 1) in percent; a dash for None."""
    return Cell(percent(value), value)


@dataclass(frozen=True)
class Figures:
    """Columns and rows of a table, however it is shown."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def plain(self) -> Table:
        """Lay it out for a terminal; rows are marked in a column of their own."""
        marks = [MARKS.get(row[0].mark, "") for row in self.rows]
        lines = [[one.title for one in self.columns]]
        lines += [[cell.text for cell in row] for row in self.rows]
        n_text = next((at for at, one in enumerate(self.columns) if one.numeric), len(lines[0]))
        if not any(marks):
            return aligned(lines, text_columns=n_text)
        marked = [[mark, *line] for mark, line in zip(["", *marks], lines, strict=True)]
        return aligned(marked, text_columns=n_text + 1)


def table(records: Sequence[Mapping[str, Any]], *, split: str = "test") -> Table:
    """Lay out records as an aligned plain-text table, one line per run.

    The accuracy stands with its 95 % interval, or, for a summary, with the standard deviation
    over its runs; ``*`` marks the best METRIC (of equals, the lowest log-loss). Columns
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

    measure = _measure_of(shown)

    def rank(record: Mapping[str, Any]) -> tuple[float, float]:
        figures = record["metrics"][split]
        value = figures.get(measure.key)
        merit = -math.inf if value is None else measure.sign * value
        return merit, -(figures.get("log_loss") or math.inf)

    best = max(shown, key=rank)
    others = ("macro_f1", "auroc", "log_loss")
    own = [] if measure.key in ("accuracy", *others) else [measure]
    header = ["", "Method", *varying, *(one.title for one in own), "Accuracy, %", "95 % CI"]
    header += [*(MEASURES[key].title for key in others), "ECE", "C", "Fit"]
    lines = [header]
    for record in shown:
        figures = record["metrics"][split]
        lines.append(
            [
                "*" if record is best else "",
                str(record["method"]),
                *(_cell(record[key]) for key in varying),
                *(one.cell(figures.get(one.key)) for one in own),
                percent(figures["accuracy"]),
                _interval(record, split),
                *(number(figures.get(key)) for key in (*others, "ece")),
                _chosen_c(record["chosen"]),
                duration(record["times_s"].get("fit")),
            ]
        )
    return aligned(lines, text_columns=2 + len(varying))


def _measure_of(records: Sequence[Mapping[str, Any]]) -> Measure:
    """Give the figure that all records were made for; the accuracy where they differ."""
    asked = [record.get("provenance", {}).get("settings", {}) for record in records]
    found = {(one.get("metric", "accuracy"), one.get("cost", "")) for one in asked}
    known = all("cost" in figures for one in records for figures in one["metrics"].values())
    if len(found) > 1:
        return MEASURES["accuracy"]
    metric, cost = found.pop()
    return measure_named(metric, cost if known else "")


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


def _interval(record: Mapping[str, Any], split: str) -> str:
    if record["kind"] == "summary":
        sd = record["spread"][split]["accuracy"]["sd"]
        return f"\u00b1 {percent(sd)} (n={len(record['runs'])})" if sd is not None else DASH
    ends = record["metrics"][split].get("accuracy_ci95")
    return interval(*ends) if ends else DASH


def _chosen_c(chosen: Mapping[str, Any]) -> str:
    if "each" in chosen:
        values = sorted({_chosen_c(one) for one in chosen["each"]}, key=_as_number)
        return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return scientific(chosen.get("C"))


def _as_number(text: str) -> float:
    return float(text) if text != DASH else -math.inf
