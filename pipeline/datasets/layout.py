"""Recognise how a data set is laid out, and list its files.

Known: ``root/<split>/<class>/*``, ``root/<class>/*``, list files, a CSV; each perhaps inside one
wrapping folder, as archives have it. A file that names labels (list, CSV) is explicit and wins
over folder names.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError
from .listing import (
    SPLITS,
    UNSPLIT,
    Listing,
    few,
    is_image,
    is_junk,
    is_text,
    nature,
    plural,
    split_of,
)
from .lists import TABLE_SUFFIXES, list_files_in, read_lists, read_table, table_header

__all__ = ["read_layout"]

_EXPECTED = (
    "root/<class>/<image>, root/<split>/<class>/<image> (train, val, test), list files "
    "(train.txt, val.txt, test.txt) or a CSV with path,label[,split]"
)
_MAX_WRAPPERS = 4


def read_layout(path: Path) -> Listing:
    """List the images of a folder, of a CSV or of list files, with labels and splits.

    Parameters
    ----------
    path : Path
        A folder, a ``.csv`` or ``.tsv``, or a ``.txt`` list file. Beside a list file named
        after a split, those of the other splits are read too.

    Raises
    ------
    DataError
        The layout is not one of those known, or contradicts itself; see :meth:`Listing.check`.
    """
    if path.is_dir():
        listing = _read_folder(path)
    elif path.suffix.lower() in TABLE_SUFFIXES:
        listing = read_table(path)
    elif path.suffix.lower() == ".txt":
        split = split_of(path.stem)
        listing = read_lists({UNSPLIT: path} if split is None else list_files_in(path.parent))
    else:
        raise DataError(
            f"{path} is a file of a kind that holds no data set.",
            expected="a folder, a .zip or .tar archive, a .csv, or a .txt list file",
            todo="point DATA= at the folder that holds the class folders",
        )
    listing = listing.in_order()
    listing.check(path)
    return listing


@dataclass
class _Level:
    """What lies directly in one folder."""

    folders: dict[str, str] = field(default_factory=dict)  # name → path
    images: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # suffix → count
    tables: list[str] = field(default_factory=list)


@dataclass
class _Found:
    """Images below one folder, and what was passed over."""

    images: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def _look(folder: str) -> _Level:
    level = _Level()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                if _is_folder(entry):
                    level.folders[entry.name] = entry.path
                elif is_image(entry.name):
                    level.images.append(entry.name)
                else:
                    level.others[_suffix(entry.name)] += 1
                    if _suffix(entry.name) in TABLE_SUFFIXES:
                        level.tables.append(entry.path)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be read ({error.strerror}).",
            expected="a folder this user may read",
            todo="mend its permissions",
        ) from error
    level.folders = dict(sorted(level.folders.items()))
    return level


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else "no suffix"


def _gather(folder: str, prefix: str, found: _Found, above: frozenset[tuple[int, int]]) -> None:
    """Collect the images of `folder` and below; links to folders above end there, not in a loop."""
    status = os.stat(folder)  # noqa: PTH116
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    level = _look(folder)
    found.ignored.update(level.others)
    found.images.extend(prefix + name for name in level.images)
    for name, path in level.folders.items():
        _gather(path, f"{prefix}{name}/", found, above | {here})


def _below(folder: str, prefix: str) -> _Found:
    found = _Found()
    _gather(folder, prefix, found, frozenset())
    return found


def _read_folder(path: Path) -> Listing:
    root = os.path.realpath(path)
    for _ in range(_MAX_WRAPPERS):
        level = _look(root)
        lists = list_files_in(Path(root))
        tables = [
            Path(one) for one in level.tables if {"path", "label"} <= {*table_header(Path(one))[0]}
        ]
        if lists or tables:
            return _read_named(Path(root), lists, tables, level)
        wrapped = _wrapped(level)
        if wrapped is None:
            break
        root = wrapped
    return _read_class_folders(path, Path(root), level)


def _wrapped(level: _Level) -> str | None:
    """Path of the one folder that wraps everything, as archives have it; None if there is none."""
    if len(level.folders) != 1 or level.images:
        return None
    (name, path), *_ = level.folders.items()
    if split_of(name) is not None:
        return None
    inner = _look(path)
    return path if inner.folders or inner.tables or list_files_in(Path(path)) else None


def _read_named(root: Path, lists: dict[int, Path], tables: list[Path], level: _Level) -> Listing:
    names = [path.name for path in (*lists.values(), *sorted(tables))]
    if (lists and tables) or len(tables) > 1:
        raise DataError(
            f"{root} has several files that name labels: {few(names)}.",
            expected="list files, or one CSV",
            todo=f"choose one: DATA={root / names[-1]}",
        )
    listing = read_lists(lists) if lists else read_table(tables[0])
    if len(level.folders) > 1:
        listing.warnings.append(
            f"Labels were read from {few(names)}; the names of the folders beside it were not used."
        )
    return listing


def _read_class_folders(given: Path, root: Path, level: _Level) -> Listing:
    splits = _split_folders(root, level)
    listing = Listing(root=root, paths=[], labels=[], split=np.zeros(0, np.int8), by_folder=True)
    rows_split: list[int] = []
    ignored: Counter[str] = Counter()
    empty: list[str] = []
    stray = len(level.images)
    for split, (name, path) in splits.items() if splits else {UNSPLIT: ("", str(root))}.items():
        inside = _look(path) if splits else level
        prefix = f"{name}/" if splits else ""
        ignored.update(inside.others)
        stray += len(inside.images) if splits else 0
        for class_name, folder in inside.folders.items():
            if not is_text(class_name):
                raise DataError(
                    f"The name of the class folder {os.fsencode(class_name)!r} in {path} is not "
                    "UTF-8.",
                    expected="names in UTF-8",
                    todo="rename the folder",
                )
            found = _below(folder, f"{prefix}{class_name}/")
            ignored.update(found.ignored)
            if not found.images:
                empty.append(prefix + class_name)
            listing.paths += found.images
            listing.labels += [class_name] * len(found.images)
            rows_split += [split] * len(found.images)
    listing.split = np.array(rows_split, dtype=np.int8)
    if not listing.paths and stray:
        raise DataError(
            f"{given} holds {plural(stray, 'image', 'images')} but no class folders.",
            expected=_EXPECTED,
            todo="sort the images into one folder a class, or write a CSV that names their labels",
        )
    if splits:
        beside = [name for name in level.folders if split_of(name) is None]
        if beside:
            listing.warnings.append(f"Folders beside the splits, without images: {few(beside)}.")
    else:
        listing.warnings += _doubts(level)
    if empty:
        listing.warnings.append(f"Empty class folders: {few(empty)}.")
    if stray:
        listing.warnings.append(
            f"{plural(stray, 'image lies', 'images lie')} in no class folder and were ignored."
        )
    if ignored:
        listing.warnings.append(
            f"{plural(sum(ignored.values()), 'file is no image', 'files are no images')} by the "
            f"suffix and were ignored: {nature(ignored)}."
        )
    return listing


def _split_folders(root: Path, level: _Level) -> dict[int, tuple[str, str]]:
    """Find the split folders of `root`: {split: (name, path)}; empty where it has none.

    A folder counts as a split by its name and by holding folders, not images: ``train`` may be a
    class too (a locomotive), and then holds images itself.
    """
    named = {name: path for name, path in level.folders.items() if split_of(name) is not None}
    if not named:
        return {}
    inside = {name: _look(path) for name, path in named.items()}
    splits = {name for name, look in inside.items() if look.folders}
    flat = {name for name, look in inside.items() if look.images and not look.folders}
    classes = {
        name
        for name, path in level.folders.items()
        if name not in splits | flat and _below(path, "").images
    }
    if flat and (splits or not classes):
        raise DataError(
            f"{root}: {few(sorted(flat))} holds images directly, in no class folders"
            + (f", while {few(sorted(splits))} has class folders." if splits else "."),
            expected=_EXPECTED,
            todo="sort the images into class folders, take unlabelled ones out of the folder, or "
            "write a CSV that names labels and splits",
        )
    if splits and classes:
        raise DataError(
            f"{root} mixes splits ({few(sorted(splits))}) with what look like classes "
            f"({few(sorted(classes))}).",
            expected="only splits at the top (train, val, test), or only classes",
            todo="move what does not belong there, or write a CSV that names labels and splits",
        )
    found: dict[int, tuple[str, str]] = {}
    for name in sorted(splits):
        split = split_of(name)
        assert split is not None
        if split in found:
            raise DataError(
                f"{found[split][0]} and {name} in {root} both mean {SPLITS[split]}.",
                expected="one folder a split",
                todo="move the images of one into the other",
            )
        found[split] = (name, named[name])
    return found


def _doubts(level: _Level) -> list[str]:
    """Warn of class folders that look like splits under unknown names."""
    inner: set[tuple[str, ...]] = set()
    for path in level.folders.values():
        look = _look(path)
        if look.images:
            return []  # the usual case, told by the first folder
        if look.folders:
            inner.add(tuple(look.folders))
    if len(inner) != 1 or len(level.folders) < 2:
        return []
    shared = inner.pop()
    if len(shared) < 2:
        return []
    return [
        f"Every class folder ({few(list(level.folders))}) holds the same folders ({few(shared)}) "
        "and no image itself; if those are the classes, name the folders above train, val, test."
    ]
