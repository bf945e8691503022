"""What the sections of a report have in common: names, marks, cells of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.words import label
from .blocks import Cell
from .gather import Evidence, comparison_command
from .numbers import percent

__all__ = [
    "mark_of",
    "names_of",
    "number_cell",
    "one_split",
    "share_cell",
    "with_methods",
]


_DASH = "\N{EN DASH}"


def names_of(evidence: Evidence) -> list[str]:
    """Name each entry as the comparison's sentences do."""
    return [label(run.entry, evidence.comparison) for run in evidence.runs]


def mark_of(entry: Mapping[str, Any]) -> str:
    """Give an entry's mark: best, alike or nothing."""
    return "best" if entry["best"] else "alike" if entry["alike"] else ""


def number_cell(value: float | None, digits: int) -> Cell:
    """Write a number with so many digits, grouped; a dash for None."""
    return Cell(_DASH if value is None else f"{value:,.{digits}f}", value)


def share_cell(value: float | None) -> Cell:
    """Write a share as a percentage; a dash for None."""
    return Cell(percent(value), value)


def one_split(evidence: Evidence) -> str:
    """Say, where there are several splits, that what is shown is of the first."""
    n = evidence.comparison["n_splits"]
    return "" if n == 1 else f" Of the first of the {n} random splits."


def with_methods(evidence: Evidence, *more: str) -> str:
    """Give the command that adds methods to those compared."""
    return comparison_command(evidence.context, evidence.comparison, more)
