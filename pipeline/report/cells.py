"""What the sections of a report have in common: names, marks, commands, tables of figures."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from ..compare.words import label
from ..context import Context
from ..errors import command_line
from ..results.tables import Figures
from ..settings import PlaceSettings
from .blocks import Table
from .gather import Evidence, comparison_command


def names_of(evidence: Evidence) -> list[str]:
    """Name each entry as the comparison's sentences do."""
    return [label(run.entry, evidence.comparison) for run in evidence.runs]


def mark_of(entry: Mapping[str, Any]) -> str:
    """Give an entry's mark: best, alike or nothing."""
    return "best" if entry["best"] else "alike" if entry["alike"] else ""


def one_split(evidence: Evidence) -> str:
    """Say, where there are several splits, that what is shown is of the first."""
    n = evidence.comparison["n_splits"]
    return "" if n == 1 else f" Of the first of the {n} random splits."


def with_methods(evidence: Evidence, *more: str) -> str:
    """Give the command that adds methods to those compared."""
    return comparison_command(evidence.context, evidence.comparison, more)


def figures_table(figures: Figures, caption: str, key: str, note: str = "") -> Table:
    """Make a table of the page of the figures that the terminal shows too."""
    return Table(caption, figures.columns, figures.rows, key, sortable=True, note=note)


def updated(texts: Iterable[str], commands: Iterable[str], context: Context) -> list[str]:
    """Give texts with the commands in them as they run now, wherever the folders are by now."""
    now = {old: relocated(old, context) for old in sorted(commands, key=len, reverse=True)}
    result = []
    for text in texts:
        old = next((one for one in now if one and one in text), None)
        result.append(text if old is None else text.replace(old, now[old]))
    return result


def relocated(command: str, context: Context) -> str:
    """Give a command of a record with the data set and the folders of this report.

    One that is not of ``make`` or ``cnn-codes`` with settings alone is given as it is.
    """
    try:
        program, stage, *parts = shlex.split(command)
    except ValueError:
        return command
    pairs = [part.partition("=") for part in parts]
    if program not in ("make", "cnn-codes") or not all(
        sign and name.isupper() for name, sign, _ in pairs
    ):
        return command
    dollar = "$$" if program == "make" else "$"
    named = {name: value.replace(dollar, "$") for name, _, value in pairs}
    named["DATA"] = context.data.data
    for name, usual in vars(PlaceSettings()).items():
        value = getattr(context.places, name)
        if value == usual:
            named.pop(name.upper(), None)
        else:
            named[name.upper()] = value
    return command_line(stage, named)
