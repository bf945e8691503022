"""Files that lie next to the images and say something about them, without naming their classes.

A table of patients or of splits next to class folders is used; what seems to name images, splits or
labels and was not read is named, so that nothing that a set brings is passed over in silence.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..settings import DataSettings
from .columns import Roles
from .file_kinds import is_image
from .listing import Listing
from .named import column
from .phrases import few, plural, quoted
from .resolve import Index
from .split_words import TEST, TRAIN, UNSPLIT, split_of
from .tables import check_splits, split_cell
from .texts import Sheet, read_text
from .tree import Node
from .words import annotates, words_of

_MOST_FILES = 30
_LINES = 60
_MOST_BYTES = 8 << 20
_DEEPEST = 3
_TABLE = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_OTHERS = (".mat", ".xml", ".yaml", ".yml", ".toml", ".db", ".sqlite", ".pkl", ".pickle", ".rda")
_TEXTS = (".csv", ".tsv", ".tab", ".txt", ".lst", ".list", ".json", ".jsonl", ".ndjson")
_SPLIT_WORDS = frozenset("split splits setid fold folds partition partitions".split())


def use_side_tables(
    listing: Listing,
    tables: Sequence[tuple[Path, Sheet, Roles, Index]],
    given: str,
    ask: DataSettings,
) -> None:
    """Take splits and further columns from tables that name the images but not their classes.

    A column is taken where the table has a row for nine of ten images; a split where it has one for
    each of them. What is not taken is said.

    Parameters
    ----------
    listing : Listing
        What folders, a list or another table gave; changed in place.
    tables : sequence of (path, sheet, roles, index)
        Tables of which a column names images that are there.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        A column of splits has words that are not known.
    """
    for path, sheet, roles, index in tables:
        body = [row for row in sheet.rows[roles.start :] if len(row) == len(roles.header)]
        index.by_number = roles.by_number
        index.settle([row[roles.path] for row in body[:: max(1, len(body) // 2000)]])
        at = {found: row for row in body if (found := index.find(row[roles.path])) is not None}
        mine = [at.get(one) for one in listing.paths]
        known = [row for row in mine if row is not None]
        if len(known) * 10 < len(mine) * 9:
            if not known:
                continue  # it is about other images, such as those to be predicted
            listing.warnings.append(
                f"{path.name} names {len(known):,} of {len(mine):,} images and was not used."
            )
            continue
        used = []
        if (roles.split >= 0 or roles.flags) and set(listing.split.tolist()) == {UNSPLIT}:
            if len(known) == len(mine):
                check_splits(roles, path.name, given, ask)
                split = [split_cell(row, roles) for row in mine if row is not None]
                if TRAIN in split and len(set(split)) > 1 and UNSPLIT not in split:
                    listing.split = np.array(split, np.int8)
                    used.append("the splits")
            else:
                listing.warnings.append(
                    f"The splits in {path.name} lack {len(mine) - len(known):,} of {len(mine):,} "
                    "images and were not used."
                )
        taken = {roles.path, roles.split, *roles.flags}
        for number, name in enumerate(roles.header):
            if number in taken or name in listing.extra or len(listing.extra) >= 50:
                continue
            values = column(["" if row is None else row[number] for row in mine])
            if values is not None:
                listing.extra[name] = values
                used.append(f"column {name}")
        if used:
            listing.warnings.append(f"From {path.name}, next to the images: {few(used, 8)}.")


def say_unlisted(listing: Listing, node: Node, source: str) -> None:
    """Say how many images are in no row, by folder; whole folders of them can be predicted."""
    named = {*listing.paths, *listing.dropped}
    n_cut = len(node.rel) + 1 if node.rel else 0
    paths = [path[n_cut:] for path in node.paths()]
    paths = [one for one in paths if not any(annotates(part) for part in one.split("/")[:-1])]
    left = [path for path in paths if path not in named]
    if not left:
        return
    total = Counter(path.rpartition("/")[0] for path in paths)
    missing = Counter(path.rpartition("/")[0] for path in left)
    places = [f"{n:,} in {name or 'the folder itself'}" for name, n in missing.most_common()]
    text = (
        f"{plural(len(left), 'image is', 'images are')} in no row of {source} and "
        f"{'was' if len(left) == 1 else 'were'} left out ({few(places, 3)})"
    )
    whole = [name for name, count in missing.items() if name and count == total[name]]
    if whole:
        images = quoted(f"{node.path}/{whole[0]}")
        text += f"; to predict them: make predict IMAGES={images} RUN=<run>"
    listing.warnings.append(f"{text}.")


def without_labels(node: Node, files: Sequence[str], given: str, folder: str) -> DataError:
    """Say that all images lie in one folder, and what may name their labels."""
    return DataError(
        f"{given} has its images in one folder only: {folder!r}; no labels were read from "
        f"{few(list(files), 6)}, next to it.",
        expected="at least two class folders; or a table, with a column of file names and one of "
        "classes",
        todo=advice(files, node.path),
    )


def advice(files: Sequence[str], folder: str) -> str:
    """Say how labels come out of files of formats that are not read."""
    suffixes = {Path(name).suffix.lower(): name for name in reversed(files)}
    for suffix in _TABLE:
        if suffix in suffixes:
            return (
                f"open {suffixes[suffix]} in a spreadsheet and save it as CSV, with columns path "
                "and label"
            )
    if ".mat" in suffixes:
        matlab = f"{folder}/{suffixes['.mat']}"
        return (
            "write a CSV with path,label from it; what it holds: python3 -c 'import sys, scipy.io; "
            f"print(scipy.io.loadmat(sys.argv[1]))' {shlex.quote(matlab)}"
        )
    texts = [name for name in files if Path(name).suffix.lower() in _TEXTS]
    if texts:
        table = quoted(f"{folder}/{texts[0]}")
        return (
            f"if one of them names the labels: make data DATA={table}; else write a CSV with "
            "path,label"
        )
    return "write a CSV with path,label, or sort the images into one folder a class"


def files_beside(node: Node) -> tuple[list[str], list[str]]:
    """Find files that seem to say something of the images: by their lines, and by their names.

    Parameters
    ----------
    node : Node
        The folder.

    Returns
    -------
    naming : list of str
        Files, relative to `node`, of which most lines name images that are there, or that are
        called after splits.
    others : list of str
        Further files that may hold labels, by their suffix.
    """
    naming: list[str] = []
    others: list[str] = []
    some = _some_files(node)
    index = Index.of(node, node.path, "", free=False) if some else Index(node.path)
    for path, name in some:
        suffix = Path(name).suffix.lower()
        if is_image(Path(name).stem):
            continue
        words = words_of(Path(name).stem)
        said = {split_of(word) for word in words} - {None}
        if suffix in (*_TEXTS, *_TABLE, *_OTHERS, ".npy") and (
            set(words) & _SPLIT_WORDS or {TRAIN, TEST} <= said
        ):
            naming.append(name)
        elif suffix in _TEXTS and _names_images(path, index):
            naming.append(name)
        elif suffix in (*_TEXTS, *_TABLE, *_OTHERS):
            others.append(name)
    return naming, others


def _some_files(node: Node) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for one in node.walk():
        place = one.rel[len(node.rel) :].strip("/")
        if place.count("/") >= _DEEPEST or (one is not node and len(one.images) > 5):
            continue
        try:
            with os.scandir(one.path) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file())
        except OSError:
            continue
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in (*_TEXTS, *_TABLE, *_OTHERS, ".npy") and not name.startswith("."):
                found.append((Path(one.path) / name, f"{place}/{name}" if place else name))
        if len(found) >= _MOST_FILES:
            return found[:_MOST_FILES]
    return found


def _names_images(path: Path, index: Index) -> bool:
    """Tell whether most lines of a text have a word that is the name of an image that is there."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return False
        text, _ = read_text(path)
    except (OSError, DataError):
        return False
    if path.suffix.lower() == ".json":
        text = text.replace(",", ",\n")
    lines = [line for line in text.splitlines() if line.strip()]
    lines = lines[1:] if len(lines) > 3 else lines
    lines = lines[:: max(1, len(lines) // _LINES)]
    hits = 0
    for line in lines:
        words = [one for one in re.split(r"[\s,;:|\"'\[\]{}]+", line[:2000]) if len(one) > 3]
        hits += any(index.find(word) is not None for word in words[:20])
    index.n_ambiguous = 0
    return hits >= 2 and hits * 2 >= len(lines)
