"""Tables that name labels: their rows become a listing, and a manifest becomes a table.

Which column is which is decided in :mod:`.columns`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cells import csv_bytes, plain
from ..errors import DataError
from ..files import write_atomic
from ..settings import DataSettings
from .columns import TRUE, Roles, roles_of
from .listing import Listing
from .matlab import MATLAB_SUFFIX, read_matlab
from .named import Row, listing_of
from .phrases import confirming, few, plural
from .records import RECORD_SUFFIXES, read_records
from .resolve import Index
from .split_words import SPLITS, TEST, TRAIN, UNSPLIT
from .texts import Sheet, read_sheet

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
_JOINERS = ("|", ";", ",")
_LOOSE = ("/", "&", "+", " ")
_MISSING = frozenset("nan null n/a #n/a <na> nat".split())


def table_of(path: Path, index: Index, ask: DataSettings) -> tuple[Sheet, Roles]:
    """Read a table and find its columns."""
    suffix = path.suffix.lower()
    if suffix in RECORD_SUFFIXES:
        sheet = read_records(path)
    else:
        sheet = read_matlab(path) if suffix == MATLAB_SUFFIX else read_sheet(path)
    return sheet, roles_of(sheet, index, ask)


def read_table(
    path: Path, sheet: Sheet, roles: Roles, index: Index, ask: DataSettings, *, given: str
) -> Listing:
    """Give the listing of a table whose columns are known.

    Further columns are kept as ``extra``: integers or floats where every cell is one, else text.

    Parameters
    ----------
    path : Path
        The table.
    sheet, roles, index
        Its rows, its columns, the images that are there.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        Columns missing or not certain, cells missing or empty, an unknown split, several labels.
    """
    command = confirming(given, ask)
    header = roles.header
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise DataError(
            f"{path} has {twice[0]!r} twice; its first line has "
            f"{few([repr(name) for name in header], 8)}.",
            expected="columns of different names",
            todo="rename one of them in the first line",
        )
    if len(sheet.rows) < 2:
        raise DataError(
            f"{path} has {plural(len(sheet.rows), 'row', 'rows')}.",
            expected="a first line such as path,label[,split], and a row per image",
            todo="export the table again",
        )
    if roles.path < 0 and roles.n_ambiguous:
        raise DataError(
            f"{path}: its names fit several files each, in different folders.",
            expected="paths that say which of them, such as folder/name.jpg",
            todo="write the folder in front of each name, or put the table in the folder that is "
            "meant",
        )
    if roles.path < 0:
        first = sheet.rows[roles.start : roles.start + 2]
        raise DataError(
            f"{path}: no column names images that are there. Its columns are "
            f"{few([repr(name[:60]) for name in header], 12)}; its first rows begin "
            f"{few([' | '.join(cell[:60] for cell in row[:4]) for row in first], 2)}.",
            expected="a first line such as path,label[,split], and paths relative to the table, or "
            "names of images in its folder or below, with or without their suffix",
            todo="put the table in the folder that holds the images, or name the column with "
            "PATH_COLUMN=",
        )
    if not roles.labelled:
        shown = [header[at] for at in roles.candidates]
        raise DataError(
            f"{path}: the files are named by the column {header[roles.path]!r}, but which column "
            f"is the label is not certain; there are {few([repr(one) for one in header], 12)}.",
            expected="one column called label, class, category or the like",
            todo="name it: "
            + "; or ".join(confirming(given, ask, label_column=one) for one in shown[:4])
            if shown
            else f"add a column label to {path}, with the class of each image",
        )
    check_splits(roles, path.name, given, ask)
    used = {roles.path, roles.label, roles.split, *roles.flags, *roles.one_hot}
    kept = [at for at in range(len(header)) if at not in used]
    rows: list[Row] = []
    for cells, line in zip(sheet.rows[roles.start :], sheet.lines[roles.start :], strict=True):
        where = f"{path.name}:{line}"
        if len(cells) != len(header):
            raise DataError(
                f"{where} has {plural(len(cells), 'cell', 'cells')}.",
                expected=f"{len(header)}, as in the first line; "
                "a cell that holds the delimiter stands in double quotes",
                todo="correct that row",
            )
        split = split_cell(cells, roles)
        if roles.one_hot:
            labels = tuple(header[at] for at in roles.one_hot if cells[at].casefold() in TRUE)
        else:
            labels = (cells[roles.label],)
        further = [cells[at] for at in kept]
        if roles.explicit:  # as csv_bytes writes it
            labels, further = tuple(map(plain, labels)), list(map(plain, further))
        rows.append(Row(cells[roles.path], labels, split, where, tuple(further)))
    joiner = "" if roles.one_hot else sheet.joiner or _joiner(rows)
    if not roles.one_hot and _are_lists(rows):
        for row in rows:
            row.labels = _listed(row.labels[0])
    elif joiner:
        for row in rows:
            parts = (part.strip() for part in row.labels[0].split(joiner))
            row.labels = tuple(dict.fromkeys(part for part in parts if part))
    notes = []
    if roles.one_hot:
        names = _original(sheet, roles)
        for row in rows:
            row.labels = tuple(names[label] for label in row.labels)
        none = [row for row in rows if not row.labels]
        if none:
            rows = [row for row in rows if row.labels]
            notes.append(f"{plural(len(none), 'row', 'rows')} of no class left out.")
        have = {label for row in rows for label in row.labels}
        without = [name for name in names.values() if name not in have]
        if without:
            notes.append(f"Classes without an image: {few(without)}.")
    index.by_number = roles.by_number
    odd = Counter(label for row in rows for label in row.labels if label.casefold() in _MISSING)
    if odd:
        notes.append(
            f"{few([f'{label!r} ({n:,} rows)' for label, n in odd.items()])} may mean that the "
            "label is missing; it is read as a class. To leave such rows out, empty these cells "
            "and add LABEL=drop."
        )
    _refuse_measurements(path, rows, header[roles.label] if roles.label >= 0 else "")
    listing = listing_of(
        rows, [header[at] for at in kept], index, path, ask_label=ask.label, command=command
    )
    if joiner and ask.label and not sheet.joiner:
        notes.append(f"Several labels joined by {joiner!r}: LABEL={ask.label}.")
    said = _said(path, sheet, roles)
    if roles.explicit and not roles.notes and not sheet.encoding:
        said = ""  # the header says it itself
    listing.warnings[:0] = [*([said] if said else []), *notes]
    return listing


def _original(sheet: Sheet, roles: Roles) -> dict[str, str]:
    first = sheet.rows[0] if roles.start else roles.header
    return {roles.header[at]: first[at] for at in roles.one_hot}


def _said(path: Path, sheet: Sheet, roles: Roles) -> str:
    if roles.one_hot:
        what = f"{len(roles.one_hot)} columns, one for each class"
    else:
        what = f"column {roles.header[roles.label]}"
    if roles.form:
        said = f"Read as {roles.form}; the label is the column {roles.header[roles.label]}"
    else:
        said = f"Labels were read from {path.name}: {what}; files from the column "
        said += roles.header[roles.path]
    said += "".join(f"; {note}" for note in roles.notes)
    return said + (f"; decoded as {sheet.encoding}." if sheet.encoding else ".")


def _refuse_measurements(path: Path, rows: Sequence[Row], name: str) -> None:
    """Refuse labels that are decimals, most of them different, as measurements are."""
    labels = [row.labels[0] for row in rows if row.labels]
    values = set(labels)
    decimals = [one for one in values if re.fullmatch(r"-?\d+[.,]\d*[1-9]\d*", one)]
    if len(values) > 10 and len(values) * 2 > len(labels) and len(decimals) * 2 > len(values):
        raise DataError(
            f"{path}: the column {name!r} holds {len(values):,} different numbers, such as "
            f"{few(sorted(decimals), 3)}: measurements, not classes.",
            expected="a column of classes, each of several images",
            todo="write a column of classes, such as ranges of these numbers, and name it with "
            "LABEL_COLUMN=",
        )


def _are_lists(rows: Sequence[Row]) -> bool:
    """Tell whether all labels are written as lists, such as ``['cat', 'dog']``."""
    given = [row.labels[0] for row in rows if row.labels[0]]
    return bool(given) and all(re.fullmatch(r"\[.*\]", one, re.DOTALL) for one in given)


def _listed(text: str) -> tuple[str, ...]:
    found = re.findall(r"'([^']*)'|\"([^\"]*)\"|([^\[\],'\"\s][^\[\],'\"]*)", text)
    parts = (next((part for part in one if part), "").strip() for one in found)
    return tuple(dict.fromkeys(part for part in parts if part)) or ("",)


def _joiner(rows: Sequence[Row]) -> str:
    """Give what joins several labels in one cell; empty where labels are single ones."""
    labels = {row.labels[0] for row in rows}
    for joiner in _JOINERS:
        joined = [label for label in labels if joiner in label]
        if not joined:
            continue
        parts = Counter(part.strip() for label in labels for part in set(label.split(joiner)))
        enough = any if joiner == "|" else all  # hardly a name of a class holds that
        again = [
            label
            for label in joined
            if enough(parts[one.strip()] > 1 for one in label.split(joiner))
        ]
        if len(again) * 2 >= len(joined):
            return joiner
    for joiner in _LOOSE:  # a name of one class may hold these: all parts must be classes too
        parted = [label.split(joiner) for label in labels if joiner in label]
        if parted and all(part.strip() in labels for one in parted for part in one):
            return joiner
    return ""


def check_splits(roles: Roles, source: str, given: str, ask: DataSettings) -> None:
    """Refuse a column of splits with words that are not known, and say how they can be named.

    Raises
    ------
    DataError
        There are such words.
    """
    strange = sorted(word for word, split in roles.words.items() if split is None and word)
    if roles.split < 0 or not strange:
        return
    name = roles.header[roles.split]
    words = sorted(word for word in roles.words if word)
    plain = [word.removesuffix(".0") for word in words]
    if plain == ["0", "1", "2"]:
        meant = f"{name}:train=0,val=1,test=2"
    elif plain == ["1", "2", "3"]:
        meant = f"{name}:train=1,val=2,test=3"
    else:
        meant = f"{name}:test={strange[-1].removesuffix('.0')}"
    raise DataError(
        f"{source}: the column {name!r} looks like the splits; its "
        f"{few([repr(word) for word in strange], 4)} {'means' if len(strange) == 1 else 'mean'} no "
        "split that is known.",
        expected=f"{', '.join(SPLITS)}, or a setting that says what the words mean",
        todo="correct the words, or say what they mean (words that are not named are train): "
        f"{confirming(given, ask, split_column=meant)}; or leave the column out, so that the "
        f"splits are cut here: {confirming(given, ask, split_column='none')}",
    )


def split_cell(cells: Sequence[str], roles: Roles) -> int:
    """Give the split of a row, an index into ``SPLITS``; -1 where its cell is empty.

    Words that mean no split are refused before, by :func:`check_splits`.
    """
    if roles.flags:
        for at, split in sorted(roles.flags.items(), key=lambda one: -one[1]):
            if cells[at].casefold() in TRUE:
                return split
        return TRAIN if TRAIN not in roles.flags.values() else TEST
    if roles.split < 0 or not cells[roles.split]:
        return UNSPLIT
    found = roles.words.get(cells[roles.split])
    return UNSPLIT if found is None else found


def write_table(manifest: Any, path: Path) -> None:
    """Write a manifest as a table that :func:`read_table` reads: path, label, split.

    Parameters
    ----------
    manifest : Manifest
        Where it has groups, a column ``group`` numbers them, for ``GROUP=group``.
    path : Path
        A ``.csv``; paths in it are relative to its folder.

    Raises
    ------
    NoSpaceError, CacheError
        It cannot be written.
    """
    folder = os.path.realpath(path.parent)
    grouped = bool(manifest.grouping)
    table = [["path", "label", "split", *(["group"] if grouped else [])]]
    for row, name in enumerate(manifest.paths):
        cells = [
            os.path.relpath(f"{manifest.root}/{name}", folder).replace(os.sep, "/"),
            manifest.class_names[manifest.labels[row]],
            SPLITS[manifest.split[row]],
        ]
        table.append([*cells, *([str(int(manifest.groups[row]))] if grouped else [])])
    write_atomic(path, csv_bytes(table, paths=(0,)))
