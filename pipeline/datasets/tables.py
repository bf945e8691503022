"""Tables that name labels: which column names the files, which the class, which the split.

A column of files is known by what it holds (names of images that are there), a column of classes
by its usual names. Where two columns would do, the user is asked.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cells import csv_bytes, plain
from ..errors import DataError
from ..files import write_atomic
from ..settings import DataSettings
from .listing import SPLITS, TEST, TRAIN, UNSPLIT, Listing, few, plural, split_of, splits_of
from .named import Row, listing_of
from .records import RECORD_SUFFIXES, read_records
from .resolve import Index
from .texts import Sheet, read_sheet
from .words import LABELS, PATHS, SPLIT_COLUMNS, key_of

__all__ = ["TABLE_SUFFIXES", "Roles", "read_table", "roles_of", "split_cell", "table_of",
           "write_table"]  # fmt: skip

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
_SAMPLE = 500
_JOINERS = ("|", ";", ",")
_FOLDERS = frozenset("folder dir directory subdir subfolder ordner dossier carpeta".split())
_LOOSE = ("/", "&", "+", " ")
_TRUE, _FALSE = {"true", "1", "1.0", "yes", "t", "y"}, {"false", "0", "0.0", "no", "f", "n", ""}
_NOT = _FALSE | {"-1", "-1.0"}  # of a column for one class
_MISSING = frozenset("nan null n/a #n/a <na> nat".split())


@dataclass
class Roles:
    """What the columns of a table are.

    Attributes
    ----------
    header : list of str
        Names of the columns, in lower case; ``column1`` and so on where there is no header.
    start : int
        First row of data.
    path, label, split : int
        Columns; -1 for none.
    flags : dict of int to int
        Columns of yes and no that say whether a row is of a split: column → split.
    one_hot : list of int
        One column per class.
    explicit : bool
        Whether the header has the very names path and label.
    share : float
        Share of the rows (0 to 1) whose file is there.
    notes : list of str
        What was taken for what.
    """

    header: list[str]
    start: int
    path: int = -1
    label: int = -1
    split: int = -1
    flags: dict[int, int] = field(default_factory=dict)
    one_hot: list[int] = field(default_factory=list)
    explicit: bool = False
    share: float = 0.0
    candidates: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    words: dict[str, int | None] = field(default_factory=dict)
    n_ambiguous: int = 0
    by_number: bool = False

    @property
    def labelled(self) -> bool:
        """Whether it is certain where the labels are."""
        return self.label >= 0 or bool(self.one_hot)


def roles_of(sheet: Sheet, index: Index, ask: DataSettings) -> Roles:
    """Find the columns of files, labels and splits; those that are not found are -1."""
    rows = sheet.rows
    width = Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 0
    first = rows[0] if rows else []
    named = {key_of(cell) for cell in first}
    has_header = bool(named & {*PATHS, *LABELS, *SPLIT_COLUMNS}) or not any(
        index.find(cell) for cell in first
    )
    if has_header:
        header = [cell.casefold() for cell in first]
    else:
        header = [f"column{number + 1}" for number in range(width)]
    roles = Roles([name or f"column{at + 1}" for at, name in enumerate(header)], int(has_header))
    keys = [key_of(name) for name in (first if has_header else roles.header)]
    body = [row for row in rows[roles.start :] if len(row) == len(header)]
    step = max(1, len(body) // _SAMPLE)
    sample = body[::step][: 2 * _SAMPLE]
    if has_header and {"path", "label"} <= set(keys):
        roles.explicit = True
        roles.path, roles.label = keys.index("path"), keys.index("label")
    if not sample:
        return roles
    wanted_path = _asked(ask.path_column, roles)
    index.by_number = False
    path, roles.share = _path_column(sample, keys, index, wanted_path)
    if not roles.share and not index.n_ambiguous:
        index.by_number = True  # of columns that are called after files, and nothing else fits
        usual = [at for at, key in enumerate(keys) if key in PATHS and at != wanted_path]
        for at in [wanted_path] if wanted_path is not None else usual:
            path, roles.share = _path_column(sample, keys, index, at)
            if roles.share:
                break
        roles.by_number = index.by_number = bool(roles.share)
    if roles.explicit and not ask.path_column and path not in (-1, roles.path):
        if roles.share > 0.5 and not any(index.find(row[roles.path]) for row in sample[:50]):
            raise DataError(
                f"The column {roles.header[path]!r} names images that are there, and the column "
                f"{roles.header[roles.path]!r} does not.",
                expected="file names in the column path, classes in the column label",
                todo=f"correct the first line, or add PATH_COLUMN={path + 1} "
                f"LABEL_COLUMN={roles.path + 1}",
            )
    if not roles.explicit or ask.path_column:
        roles.path = path
    roles.n_ambiguous, index.n_ambiguous = index.n_ambiguous, 0
    if roles.share < 0.5 and not roles.explicit and not ask.path_column:
        _folder_and_file(body, keys, index, roles)
    if roles.path < 0:
        return roles
    _split_columns(body, keys, roles)
    wanted = _asked(ask.label_column, roles)
    if wanted is not None:
        roles.label = wanted
        return roles
    _label_columns(body, keys, roles)
    return roles


def _asked(wanted: str, roles: Roles) -> int | None:
    if not wanted:
        return None
    keys = [key_of(name) for name in roles.header]
    if wanted.casefold() in roles.header:
        return roles.header.index(wanted.casefold())
    if key_of(wanted) in keys:
        return keys.index(key_of(wanted))
    if wanted.isdigit() and 1 <= int(wanted) <= len(roles.header):
        return int(wanted) - 1
    raise DataError(
        f"There is no column {wanted!r}; there are {few(roles.header, 12)}.",
        expected="the name of a column, or its number from 1",
        todo="correct LABEL_COLUMN or PATH_COLUMN",
    )


def _path_column(
    sample: Sequence[Sequence[str]], keys: list[str], index: Index, wanted: int | None
) -> tuple[int, float]:
    """Column whose cells are names of images that are there, and the share of those that are."""
    best, most = -1, (0.0, 0)
    for at, key in enumerate(keys):
        if wanted is not None and at != wanted:
            continue
        cells = [row[at] for row in sample]
        rank = len(PATHS) - PATHS.index(key) if key in PATHS else 0
        if len(set(cells)) * 2 < len(cells) and not rank:
            continue  # names of files hardly repeat
        share = sum(index.find(cell) is not None for cell in cells) / len(cells)
        if share and (share, rank) > most:
            best, most = at, (share, rank)
    return best, most[0]


def _folder_and_file(
    body: Sequence[list[str]], keys: list[str], index: Index, roles: Roles
) -> None:
    """Join a column of folders and one of files where together they name images that are there."""
    files = [at for at, key in enumerate(keys) if key in PATHS]
    folders = [at for at, key in enumerate(keys) if set(key.split("_")) & _FOLDERS]
    some = body[:: max(1, len(body) // 100)]
    for at in folders:
        for other in files:
            if at == other:
                continue
            found = sum(index.find(f"{row[at]}/{row[other]}") is not None for row in some)
            index.n_ambiguous = 0
            if found * 2 > len(some):
                for row in body:
                    row[other] = f"{row[at]}/{row[other]}"
                roles.path, roles.share, roles.n_ambiguous = other, found / len(some), 0
                roles.notes.append(f"folders from the column {roles.header[at]}")
                return


def _split_columns(body: Sequence[Sequence[str]], keys: list[str], roles: Roles) -> None:
    for at, key in enumerate(keys):
        if at == roles.path:
            continue
        cells = {row[at].casefold() for row in body}
        if key == "split":
            roles.split = at
        elif roles.split < 0 and all(split_of(cell) is not None for cell in cells):
            if key in SPLIT_COLUMNS or key == "dataset" or roles.start == 0 or len(cells) > 1:
                roles.split = at
                roles.notes.append(f"splits from the column {roles.header[at]}")
        elif (flag := _flag(key)) is not None and cells <= _TRUE | _FALSE and len(cells) > 1:
            roles.flags[at] = flag
        elif key in SPLIT_COLUMNS and len(cells) > 1:
            roles.notes.append(
                f"the column {roles.header[at]} looks like a split or folds, with words that are "
                f"not known ({few(sorted(cells), 4)}), and is not used"
            )
    if roles.split >= 0:
        roles.flags = {}
        roles.words = splits_of({row[roles.split] for row in body})
    for at in roles.flags:
        roles.notes.append(f"splits from the column {roles.header[at]}")


def _is_flag(cells: set[str]) -> bool:
    return len(cells) == 2 and bool(cells & _TRUE) and cells <= _TRUE | _NOT


def _flag(key: str) -> int | None:
    """Give the split that a column of yes and no is for: ``is_valid``, ``in_train``."""
    words = [one for one in key.split("_") if one not in ("is", "in", "for", "set", "flag", "use")]
    return split_of(words[0]) if len(words) == 1 else None


def _label_columns(body: Sequence[Sequence[str]], keys: list[str], roles: Roles) -> None:
    free = [at for at in range(len(keys)) if at not in (roles.path, roles.split, *roles.flags)]
    ranked = sorted((LABELS.index(keys[at]), at) for at in free if keys[at] in LABELS)
    if ranked:
        telling = [at for _, at in ranked if len({row[at] for row in body}) > 1] or [ranked[0][1]]
        if keys[telling[0]] == "label" or len(telling) == 1:
            roles.label = telling[0]
            others = [roles.header[at] for at in telling[1:]]
        else:
            same = [at for at in telling[1:] if _equivalent(body, telling[0], at)]
            if len(same) == len(telling) - 1:  # numbers and names of the same classes
                words = [at for at in telling if not all(_number(row[at]) for row in body)]
                roles.label = (words or telling)[0]
                others = []
            else:
                roles.candidates = telling
                return
        if others:
            roles.notes.append(f"other columns that could be labels: {few(others)}")
        return
    flags = [at for at in free if {row[at] for row in body} <= {"0", "1", "0.0", "1.0"}]
    if len(flags) >= 2:
        sums = [sum(float(row[at]) for at in flags) for row in body]
        if sum(one == 1 for one in sums) * 2 >= len(sums) or len(flags) >= 3:
            roles.one_hot = flags
            return
    flags = [at for at in free if _is_flag({row[at].casefold() for row in body})]
    ones = [sum(row[at].casefold() in _TRUE for at in flags) for row in body]
    if len(flags) >= 2 and set(ones) == {1}:
        roles.one_hot = flags
        return
    n = len(body)
    roles.candidates = [
        at
        for at in free
        if keys[at] and 2 <= len({row[at] for row in body}) <= max(2, n // 2) and keys[at] != ""
    ]
    if roles.start == 0 and len(roles.candidates) == 1:
        roles.label = roles.candidates[0]


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", cell))


def _equivalent(body: Sequence[Sequence[str]], one: int, other: int) -> bool:
    pairs = {(row[one], row[other]) for row in body}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def table_of(path: Path, index: Index, ask: DataSettings) -> tuple[Sheet, Roles]:
    """Read a table and find its columns."""
    is_json = path.suffix.lower() in RECORD_SUFFIXES
    sheet = read_records(path) if is_json else read_sheet(path)
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
    command = f"make data DATA={quoted(given)}"
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
            + " or ".join(f"{command} LABEL_COLUMN={quoted(one)}" for one in shown[:4] or ["..."]),
        )
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
        split = split_cell(cells, roles, where)
        if roles.one_hot:
            labels = tuple(header[at] for at in roles.one_hot if cells[at].casefold() in _TRUE)
        else:
            labels = (cells[roles.label],)
        further = [cells[at] for at in kept]
        if roles.explicit:  # as csv_bytes writes it
            labels, further = tuple(map(plain, labels)), list(map(plain, further))
        rows.append(Row(cells[roles.path], labels, split, where, tuple(further)))
    joiner = "" if roles.one_hot else _joiner(rows)
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
    if joiner and ask.label:
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
        again = [
            label for label in joined if all(parts[one.strip()] > 1 for one in label.split(joiner))
        ]
        if len(again) * 2 >= len(joined):
            return joiner
    for joiner in _LOOSE:  # a name of one class may hold these: all parts must be classes too
        parted = [label.split(joiner) for label in labels if joiner in label]
        if parted and all(part.strip() in labels for one in parted for part in one):
            return joiner
    return ""


def split_cell(cells: Sequence[str], roles: Roles, where: str) -> int:
    """Give the split of a row, an index into ``SPLITS``; -1 where its cell is empty.

    Raises
    ------
    DataError
        A word that means no split.
    """
    if roles.flags:
        for at, split in sorted(roles.flags.items(), key=lambda one: -one[1]):
            if cells[at].casefold() in _TRUE:
                return split
        return TRAIN if TRAIN not in roles.flags.values() else TEST
    if roles.split < 0 or not cells[roles.split]:
        return UNSPLIT
    found = roles.words.get(cells[roles.split], split_of(cells[roles.split]))
    if found is None:
        raise DataError(
            f"{where}: the split {cells[roles.split]!r} is not known.",
            expected=", ".join(SPLITS),
            todo="correct that row, or remove the column",
        )
    return found


def quoted(text: str) -> str:
    """Write a value as it can be pasted behind ``make data NAME=``."""
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return "'" + text.replace("$", "$$").replace("'", "'\\''") + "'"


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
