"""Rows that name files and labels become a listing: tables and list files end here alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .file_kinds import image_stem
from .listing import Listing
from .phrases import few, plural
from .resolve import Index
from .texts import MAX_CELL

_MAX_LABEL = 500
_MOST_TEXT = 64 << 20  # bytes of a further column of text, else it is left out


@dataclass
class Row:
    """One row: what it says, and where it stands."""

    path: str
    labels: tuple[str, ...]
    split: int
    where: str
    further: tuple[str, ...] = ()
    found: str | None = field(default=None)


def several(ask_label: str, rows: Sequence[Row], source: str, command: str) -> list[Row]:
    """Treat rows with several labels or none as ``LABEL=`` says.

    Raises
    ------
    DataError
        There are rows with several labels, and LABEL is not given.
    """
    many = [row for row in rows if len(row.labels) > 1]
    if not many:
        return list(rows)
    if not ask_label:
        raise DataError(
            f"{len(many):,} of {len(rows):,} rows of {source} have several labels: "
            f"{few([f'{row.path}: ' + ' and '.join(row.labels) for row in many], 3)}.",
            expected="one label for each image: a classifier gives one class",
            todo=f"choose one of: {command} LABEL=drop (leave such images out), LABEL=first (use "
            "the first label), LABEL=combine (each combination is a class)",
        )
    if ask_label == "drop":
        return [row for row in rows if len(row.labels) < 2]
    for row in many:
        row.labels = row.labels[:1] if ask_label == "first" else ("+".join(row.labels),)
    return list(rows)


def listing_of(
    rows: list[Row],
    columns: Sequence[str],
    index: Index,
    source: Path,
    *,
    ask_label: str,
    command: str,
) -> Listing:
    """Look the files up, and give the listing; what is left out is counted and named.

    Parameters
    ----------
    rows : list of Row
        In the order of the file.
    columns : sequence of str
        Names of the further columns.
    index : Index
        The images that are there.
    source : Path
        The table, or the folder of the lists.
    ask_label : str
        ``LABEL=``.
    command : str
        The command that a further setting is added to.

    Raises
    ------
    DataError
        Rows without path or label, most files missing, several labels for one file.
    """
    empty = [row for row in rows if not row.path or not any(row.labels)]
    warnings: list[str] = []
    if empty and ask_label != "drop":
        raise DataError(
            f"{plural(len(empty), 'row has', 'rows have')} an empty path or label in {source}: "
            f"{few([row.where for row in empty])}.",
            expected="a path and a label in every row",
            todo=f"fill them in, or leave these rows out: {command} LABEL=drop",
        )
    if empty:
        warnings.append(
            f"{plural(len(empty), 'row', 'rows')} without path or label left out: "
            f"{few([row.where for row in empty])}."
        )
        rows = [row for row in rows if row.path and any(row.labels)]
    long = [row for row in rows if any(len(label) > _MAX_LABEL for label in row.labels)]
    if long:
        raise DataError(
            f"{source}: {long[0].where} has a label of {max(map(len, long[0].labels)):,} "
            "characters.",
            expected=f"labels of at most {_MAX_LABEL} characters",
            todo="choose the column of the labels with LABEL_COLUMN=",
        )
    _look_up(rows, index)
    absent = [row for row in rows if row.found is None]
    if len(absent) * 2 > len(rows) or not rows:
        names = few([f"{_short(row.path)} ({row.where})" for row in absent])
        outside = any(_leads_out(row.path) for row in absent)
        raise DataError(
            f"{len(absent):,} of {len(rows):,} files named by {source} are not there"
            f"{' (or outside of the data set)' if outside else ''}: {names}.",
            expected=f"paths relative to {os.path.join(index.root, index.base) if index.base else index.root}, "  # noqa: E501, PTH118
            "or names of images below it, with or without their suffix",
            todo=f"give the list itself, if you trust it: DATA={source}/<list>"
            if outside and source.is_dir()
            else "correct the paths, or put the list in the folder that holds the images",
        )
    rows = [row for row in rows if row.found is not None]
    n_several = sum(len(row.labels) > 1 for row in rows)
    dropped_paths = [str(row.found) for row in rows if len(row.labels) > 1]
    rows = several(ask_label, rows, str(source), command)
    rows, repeated, dropped = _once(rows, source, ask_label, command)
    listing = Listing(
        root=Path(index.root),
        paths=[str(row.found) for row in rows],
        labels=[row.labels[0] for row in rows],
        split=np.array([row.split for row in rows], dtype=np.int8),
    )
    for at, name in enumerate(columns):
        values = column([row.further[at] for row in rows])
        if values is None:
            warnings.append(f"The column {name[:100]} of {source.name} is too long and not kept.")
        else:
            listing.extra[name] = values
    listing.rejects += [
        (row.path.encode("utf-8", "backslashreplace").decode()[:300], "no such file")
        for row in absent
    ]
    if repeated:
        warnings.append(
            f"{plural(repeated, 'row of', 'rows of')} {source.name} repeat another and were "
            "counted once."
        )
    if ask_label == "drop":
        dropped += n_several
        listing.dropped = dropped_paths
    if dropped:
        warnings.append(f"{plural(dropped, 'file', 'files')} with several labels left out.")
    elif n_several:
        how = "the first was taken" if ask_label == "first" else "each combination is a class"
        warnings.append(f"{plural(n_several, 'file has', 'files have')} several labels: {how}.")
    beyond = [row for row in rows if str(row.found).startswith("../")]
    if beyond:
        places = Counter(os.path.dirname(str(row.found)) for row in beyond)  # noqa: PTH120
        warnings.append(
            f"{plural(len(beyond), 'image lies', 'images lie')} outside of the folder, in "
            f"{few(list(places), 3)}."
        )
    first = next((row for row in rows if _stem(row) != row.path), None)
    if index.by_number and first is not None:
        warnings.append(
            f"Numbers were read with their leading zeros: {first.path} is "
            f"{os.path.basename(str(first.found))}."  # noqa: PTH119
        )
    if index.n_ambiguous:
        warnings.append(
            f"{plural(index.n_ambiguous, 'name fits', 'names fit')} several files and were left "
            "out."
        )
    listing.warnings += warnings
    return listing


def _stem(row: Row) -> str:
    return image_stem(str(row.found).rpartition("/")[2])


def _look_up(rows: Sequence[Row], index: Index) -> None:
    """Find the file of each row; each list decides for itself whether its names are paths."""
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row.where.rpartition(":")[0], []).append(row)
    index.n_ambiguous = 0
    least = index.least_tail
    for some in by_source.values():
        before, index.least_tail = index.n_ambiguous, least
        index.settle([row.path for row in some[:: max(1, len(some) // 2000)]])
        index.n_ambiguous = before
        for row in some:
            row.found = index.find(row.path)
        if not index.exact:
            _one_name_a_file(some, index)


def _one_name_a_file(rows: Sequence[Row], index: Index) -> None:
    """Drop what several different names were taken for: at most one of them is meant."""
    names: dict[str, set[str]] = {}
    for row in rows:
        if row.found is not None:
            names.setdefault(row.found, set()).add(row.path)
    for row in rows:
        if row.found is not None and len(names[row.found]) > 1:
            row.found = None
            index.n_ambiguous += 1


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text):,} characters)"


def _leads_out(text: str) -> bool:
    return ".." in text.split("/") or text.startswith("/")


def _once(
    rows: Sequence[Row], source: Path, ask_label: str, command: str
) -> tuple[list[Row], int, int]:
    """Keep one row per file and split; a file with two labels is an error unless LABEL= says."""
    labels: dict[str, list[str]] = {}
    first: dict[str, Row] = {}
    doubtful: dict[str, str] = {}
    for row in rows:
        path, label = str(row.found), row.labels[0]
        before = first.setdefault(path, row)
        here = labels.setdefault(path, [])
        if label not in here:
            here.append(label)
        if before.labels[0] != label:
            doubtful[path] = (
                f"{_short(path)}: {before.labels[0]!r} ({before.where}), {label!r} ({row.where})"
            )
    if doubtful and not ask_label:
        raise DataError(
            f"{plural(len(doubtful), 'row', 'rows')} of {source} with a second label for a file: "
            f"{few(list(doubtful.values()))}.",
            expected="one label per file",
            todo=f"correct the rows, or choose one of: {command} LABEL=drop, LABEL=first, "
            "LABEL=combine",
        )
    kept: list[Row] = []
    seen: set[tuple[str, int]] = set()
    for row in rows:
        path = str(row.found)
        if path in doubtful:
            if ask_label == "drop":
                continue
            row.labels = (labels[path][0] if ask_label == "first" else "+".join(labels[path]),)
        if (path, row.split) not in seen:
            seen.add((path, row.split))
            kept.append(row)
    n_dropped = len(doubtful) if ask_label == "drop" else 0
    return kept, 0 if n_dropped else len(rows) - len(kept), n_dropped


def column(cells: list[str]) -> NDArray[Any] | None:
    """Give a column as integers, floats or text; None where its text is too long to keep."""
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(cell) for cell in cells], dtype=kind)
        except (ValueError, OverflowError):
            continue
    longest = max(map(len, cells), default=0)
    if longest > MAX_CELL or longest * 4 * len(cells) > max(_MOST_TEXT, 256 * len(cells)):
        return None
    return np.array(cells, dtype=np.str_)
