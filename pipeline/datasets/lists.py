"""List files (``path label`` a line) and tables (CSV with ``path,label[,split]``).

Paths are relative to the folder of the file that names them, or absolute; both may hold spaces.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import write_atomic
from .listing import SPLITS, UNSPLIT, Listing, few, plural, split_of

__all__ = [
    "TABLE_SUFFIXES",
    "list_files_in",
    "read_lists",
    "read_table",
    "table_header",
    "write_table",
]

TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    split: int
    where: str
    further: tuple[str, ...] = ()


def list_files_in(folder: Path) -> dict[int, Path]:
    """Find ``train.txt``, ``val.txt``, ``test.txt`` (any case, any of the split's names).

    Raises
    ------
    DataError
        Two files mean the same split.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        split = split_of(path.stem)
        if path.suffix.lower() != ".txt" or split is None or not path.is_file():
            continue
        if split in found:
            raise DataError(
                f"{found[split].name} and {path.name} in {folder} both mean {SPLITS[split]}.",
                expected="one list file a split",
                todo="join them, or rename one",
            )
        found[split] = path
    return found


def read_lists(files: Mapping[int, Path]) -> Listing:
    """Read list files of one folder.

    Parameters
    ----------
    files : mapping of split (index into ``SPLITS``, or -1 for no split) to list file

    Raises
    ------
    DataError
        A line without a label, a path with two labels, files that are not there, no UTF-8.
    """
    rows = [row for split, path in sorted(files.items()) for row in _lines(path, split)]
    source = next(iter(files.values()))
    return _listing(rows, (), source if len(files) == 1 else source.parent, source.parent)


def _lines(path: Path, split: int) -> Iterator[_Row]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        parts = stripped.rsplit(maxsplit=1)
        if len(parts) < 2:
            raise DataError(
                f"{path}, line {number}, has no label: {stripped[:80]!r}.",
                expected="one 'path label' a line; the label is what stands after the last space",
                todo="mend that line",
            )
        yield _Row(parts[0], parts[1], split, f"{path.name}:{number}")


def table_header(path: Path) -> tuple[list[str], str]:
    """Give a table's column names, trimmed, in lower case, and its delimiter."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            line = stream.readline(65_536)
    except OSError as error:
        raise _unreadable(path, error) from error
    delimiter = max(",;\t", key=line.count)
    cells = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    return [cell.strip().lower() for cell in cells], delimiter


def read_table(path: Path) -> Listing:
    """Read a CSV (or TSV) whose header names ``path``, ``label`` and perhaps ``split``.

    Further columns are kept as ``extra``: integers or floats where every cell is one, else text.

    Raises
    ------
    DataError
        Columns missing, cells missing or empty, an unknown split, a path with two labels, files
        that are not there, no UTF-8.
    """
    header, delimiter = table_header(path)
    missing = [name for name in ("path", "label") if name not in header]
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if missing or twice:
        wrong = f"lacks the column {missing[0]!r}" if missing else f"has {twice[0]!r} twice"
        raise DataError(
            f"{path} {wrong}; its first line has {few([repr(name) for name in header], 8)}.",
            expected="a first line path,label or path,label,split (further columns are kept)",
            todo="mend the first line",
        )
    kept = [
        column for column in range(len(header)) if header[column] not in ("path", "label", "split")
    ]
    split_at = header.index("split") if "split" in header else None
    rows = []
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter)
    next(reader)
    try:
        for cells in reader:
            if not any(cells):
                continue
            where = f"{path.name}:{reader.line_num}"
            if len(cells) != len(header):
                raise DataError(
                    f"{where} has {plural(len(cells), 'cell', 'cells')}.",
                    expected=f"{len(header)}, as in the first line; "
                    "a cell that holds the delimiter stands in double quotes",
                    todo="mend that row",
                )
            word = cells[split_at] if split_at is not None else ""
            rows.append(
                _Row(
                    cells[header.index("path")].strip(),
                    cells[header.index("label")],
                    _split_cell(word, where),
                    where,
                    tuple(cells[column] for column in kept),
                )
            )
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}.",
            expected="a CSV file",
            todo="mend that line",
        ) from error
    names = tuple(header[column] or f"column{column + 1}" for column in kept)
    return _listing(rows, names, path, path.parent)


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
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    grouped = bool(manifest.grouping)
    writer.writerow(["path", "label", "split", *(["group"] if grouped else [])])
    for row, name in enumerate(manifest.paths):
        cells = [
            os.path.relpath(f"{manifest.root}/{name}", folder).replace(os.sep, "/"),
            manifest.class_names[manifest.labels[row]],
            SPLITS[manifest.split[row]],
        ]
        writer.writerow([*cells, *([str(int(manifest.groups[row]))] if grouped else [])])
    write_atomic(path, stream.getvalue().encode("utf-8", "surrogateescape"))


def _split_cell(word: str, where: str) -> int:
    if not word.strip():
        return UNSPLIT
    split = split_of(word)
    if split is None:
        raise DataError(
            f"{where}: the split {word!r} is not known.",
            expected=", ".join(SPLITS),
            todo="mend that row",
        )
    return split


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start:,}).",
            expected="a text file in UTF-8",
            todo="save it again as UTF-8",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror}).",
        expected="a readable file",
        todo="mend its permissions",
    )


def _listing(rows: Sequence[_Row], columns: tuple[str, ...], source: Path, folder: Path) -> Listing:
    empty = [row.where for row in rows if not row.label.strip() or not row.path]
    if empty:
        raise DataError(
            f"{plural(len(empty), 'row has', 'rows have')} an empty path or label in {source}: "
            f"{few(empty)}.",
            expected="a path and a label in every row",
            todo="fill in or remove those rows",
        )
    root = Path(os.path.realpath(folder))
    paths = [_relative(row.path, root) for row in rows]
    absent = [
        f"{row.path} ({row.where})"
        for row, path in zip(rows, paths, strict=True)
        if not os.path.exists(f"{root}/{path}")  # noqa: PTH110 (a Path an image costs 10 µs)
    ]
    if absent:
        raise DataError(
            f"{len(absent):,} of {len(rows):,} files named by {source} are not there: "
            f"{few(absent)}.",
            expected=f"paths relative to {root}, or absolute",
            todo="mend the paths, or put the list beside the images",
        )
    rows, paths, repeated = _once(rows, paths, source)
    listing = Listing(
        root=root,
        paths=paths,
        labels=[row.label for row in rows],
        split=np.array([row.split for row in rows], dtype=np.int8),
        extra={name: _column([row.further[at] for row in rows]) for at, name in enumerate(columns)},
    )
    if repeated:
        listing.warnings.append(
            f"{plural(repeated, 'row of', 'rows of')} {source.name} repeat another and were "
            "counted once."
        )
    return listing


def _relative(path: str, root: Path) -> str:
    if os.name != "nt" and "\\" in path and not os.path.exists(root / path):  # noqa: PTH110
        path = path.replace("\\", "/")  # a list made on Windows
    if os.path.isabs(path):  # noqa: PTH117
        path = os.path.relpath(path, root)
    return os.path.normpath(path).replace(os.sep, "/") if ".." not in path else path


def _once(
    rows: Sequence[_Row], paths: Sequence[str], source: Path
) -> tuple[list[_Row], list[str], int]:
    """Keep one row a path and split; a path with two labels is an error."""
    first: dict[str, _Row] = {}
    seen: set[tuple[str, int]] = set()
    kept_rows, kept_paths, doubtful = [], [], []
    for row, path in zip(rows, paths, strict=True):
        before = first.setdefault(path, row)
        if before.label != row.label:
            doubtful.append(
                f"{path}: {before.label!r} ({before.where}), {row.label!r} ({row.where})"
            )
        if (path, row.split) not in seen:
            seen.add((path, row.split))
            kept_rows.append(row)
            kept_paths.append(path)
    if doubtful:
        raise DataError(
            f"{plural(len(doubtful), 'row', 'rows')} of {source} with a second label for a file: "
            f"{few(doubtful)}.",
            expected="one label a file",
            todo="take the wrong rows out",
        )
    return kept_rows, kept_paths, len(rows) - len(kept_rows)


def _column(cells: list[str]) -> NDArray[Any]:
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(cell) for cell in cells], dtype=kind)
        except (ValueError, OverflowError):
            continue
    return np.array(cells, dtype=np.str_)
