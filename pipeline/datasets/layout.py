"""Recognise how a data set is laid out, and list its files.

Where the reading is certain, it is read and said in a line; where it is likely, the command stops
and shows what the set is taken for and the command that confirms it; where it is not known, it
says what was found and what can be read. Files that name labels (lists, tables) are looked for
first, then folders: splits, classes, things that hold classes; see :mod:`.folders`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError
from ..settings import DataSettings
from .beside import use_side_tables
from .columns import Roles
from .containers import step_for
from .file_kinds import image_stem
from .folders import read_folders
from .label_files import read_by_files
from .leftovers import name_what_was_not_read, no_images, say_what_was_left
from .listing import Listing
from .lists import LIST_SUFFIXES, family_of, is_list, list_files_in, read_lists
from .matlab import MATLAB_SUFFIX
from .phrases import few, plural, quoted
from .published import read_published
from .records import RECORD_SUFFIXES
from .resolve import Index
from .split_words import UNSPLIT, split_of
from .table_search import MOST_BESIDE, holds_tables
from .tables import TABLE_SUFFIXES, read_table, table_of
from .texts import Sheet
from .tree import Node, scan
from .words import annotates, nfc

_MOST_SIBLINGS = 10
_LARGEST_SIBLING = 64 << 20
_RAW = tuple(".cr2 .cr3 .nef .nrw .arw .dng .raf .orf .rw2 .pef .srw .raw .3fr .iiq".split())


def read_layout(
    path: Path, ask: DataSettings | None = None, *, confined: bool = False, given: str = ""
) -> Listing:
    """List the images of a folder, of a table or of list files, with labels and splits.

    Parameters
    ----------
    path : Path
        A folder, a table (``.csv``, ``.tsv``), or a list file. Beside a list file named after a
        split, those of the other splits are read too.
    ask : DataSettings, optional
        What the user says of it: ``layout``, ``label``, ``label_column``, ``path_column``.
    confined : bool
        Nothing outside of `path` is used (it came out of an archive).
    given : str
        What the user named as DATA, for the commands in messages; default: `path`.

    Raises
    ------
    DataError
        The layout is not one of those known, is not certain, or contradicts itself; see
        :meth:`Listing.check`.
    """
    ask = ask or DataSettings()
    given = given or str(path)
    suffix = path.suffix.lower()
    published = None if path.is_dir() else _given_published(path, ask, given)
    if published is not None:
        listing = published
    elif path.is_dir():
        listing = _read_folder(path, ask, confined=confined, given=given)
    elif suffix in (*TABLE_SUFFIXES, *RECORD_SUFFIXES, MATLAB_SUFFIX):
        listing = _given_table(path, ask, given)
    elif suffix in LIST_SUFFIXES:
        listing = _given_list(path, ask, given)
    else:
        if suffix in (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"):
            raise DataError(
                f"{path} is a spreadsheet, which is not read.",
                expected="a CSV with a column of file names and one of classes",
                todo="save it as CSV in the spreadsheet program, in the same folder, and give that",
            )
        if step := step_for(path):
            raise DataError(
                f"{path} is {step[0]}, which is not read here.",
                expected="a folder, a .zip or .tar archive, a table or a list of images",
                todo=step[1],
            )
        raise DataError(
            f"{path} is a file of a kind that holds no data set.",
            expected="a folder, a .zip or .tar archive, a .csv, a .txt list file, or a .npz, .h5, "
            ".parquet or .arrow file of images",
            todo="point DATA= at the folder that holds the class folders",
        )
    if listing.by_folder and (ask.label_column or ask.path_column):
        asked = f"LABEL_COLUMN={ask.label_column}" if ask.label_column else (
            f"PATH_COLUMN={ask.path_column}")  # fmt: skip
        raise DataError(
            f"{asked} was given, but no table with that column was found: {given} would be read by "
            "its folders.",
            expected="a table that names the images, next to them or given itself",
            todo=f"make data DATA=<table.csv> {quoted(asked)}; or, for the folders, leave it out",
        )
    listing.labels = [nfc(label) for label in listing.labels]
    listing = _without_raw(listing).in_order()
    listing.check(path)
    return listing


def _without_raw(listing: Listing) -> Listing:
    """Leave camera RAW files out that lie next to a picture of the same name."""
    raw = [path.lower().endswith(_RAW) for path in listing.paths]
    if not any(raw):
        return listing
    place = [path[: len(path) - len(name) + len(image_stem(name))]
             for path in listing.paths for name in [path.rpartition("/")[2]]]  # fmt: skip
    others = {stem for stem, is_raw in zip(place, raw, strict=True) if not is_raw}
    left = [row for row, stem in enumerate(place) if raw[row] and stem in others]
    if not left:
        return listing
    names = few([listing.paths[row] for row in left], 3)
    listing.warnings.append(
        f"{plural(len(left), 'camera RAW file', 'camera RAW files')} next to a picture of the same "
        f"name left out: {names}."
    )
    gone = set(left)
    return listing.take([row for row in range(len(place)) if row not in gone])


def _given_published(path: Path, ask: DataSettings, given: str) -> Listing | None:
    """Read a file that is one of those of a published form, in its folder or the one above."""
    if path.suffix.lower() not in (".txt", ".mat", ".xml"):
        return None
    bare = True
    for folder in (path.parent.resolve(), path.parent.resolve().parent):
        if len(folder.parts) < 3:
            break
        node = scan(folder).root
        if node.n_images > MOST_BESIDE:
            break
        if folder != path.parent.resolve() and not bare:
            break  # the images lie next to the file
        bare = not node.n_images
        found = read_published(node, ask, given=given, holding=path.name)
        if found is not None:
            return found
    return None


def _given_index(path: Path, ask: DataSettings) -> Index:
    return Index(os.path.realpath(path.parent), "", free=True)


def _wider(path: Path, index: Index) -> Index:
    """Index the images in the folder of a list and, where there are none, in the one above it."""
    tree = scan(path.parent)
    node, base = tree.root, ""
    masks = all(any(annotates(part) for part in one.split("/")[:-1]) for one in node.paths())
    if masks and path.parent.resolve().parent != path.parent.resolve():
        above = scan(path.parent.resolve().parent)
        if 0 < above.root.n_images <= MOST_BESIDE:
            node = above.root
            base = os.path.relpath(index.root, node.path)
    return Index.of(node, node.path, base, free=True)


def _given_table(path: Path, ask: DataSettings, given: str) -> Listing:
    index = _given_index(path, ask)
    sheet, roles = table_of(path, index, ask)
    if roles.share < 1:
        index = _wider(path, index)
        sheet, roles = table_of(path, index, ask)
    listing = read_table(path, sheet, roles, index, ask, given=given)
    if set(listing.split.tolist()) == {UNSPLIT} and ask.split_column != "none":
        use_side_tables(listing, _split_tables_beside(path, index), given, ask)
    return listing


def _split_tables_beside(path: Path, index: Index) -> list[tuple[Path, Sheet, Roles, Index]]:
    """Find tables next to the one that was given which have a column of splits and no labels."""
    found = []
    for other in sorted(path.parent.glob("*.csv"))[:_MOST_SIBLINGS]:
        if other == path or other.stat().st_size > _LARGEST_SIBLING:
            continue
        try:
            sheet, roles = table_of(other, index, DataSettings())
        except DataError:
            continue
        if roles.path >= 0 and not roles.labelled and (roles.split >= 0 or roles.flags):
            found.append((other, sheet, roles, index))
    return found


def _given_list(path: Path, ask: DataSettings, given: str) -> Listing:
    split = is_list(path.name)
    if split is None:
        files = family_of(path) or {UNSPLIT: path}
    else:
        files = list_files_in(path.parent, path.name)
    if split is not None and path not in files.values():
        files = {split: path}
    index = _given_index(path, ask)
    try:
        listing = read_lists(files, index, ask, given=given)
        if not listing.rejects:
            return listing
    except DataError:
        if not index.free:
            raise
    return read_lists(files, _wider(path, index), ask, given=given)


def _read_folder(path: Path, ask: DataSettings, *, confined: bool, given: str) -> Listing:
    tree = scan(path)
    node = tree.root
    if not node.n_images:
        if confined or not any(_names_labels(name) for name in node.texts):
            raise no_images(path, tree)
        listing = read_by_files(node, ask, top=tree.root, confined=confined, given=given)
        if not listing.paths:
            raise no_images(path, tree)
        return listing
    published = read_published(node, ask, given=given) if ask.layout == "auto" else None
    if published is not None:
        say_what_was_left(published, tree)
        return published
    while (inner := _wrapped(node)) is not None and not holds_tables(node, inner, ask):
        node = inner
    if ask.layout == "auto":
        listing = read_by_files(node, ask, top=tree.root, confined=confined, given=given)
    else:
        listing = read_folders(node, ask, given=given)
    if listing.by_folder:
        name_what_was_not_read(listing, tree)
    say_what_was_left(listing, tree)
    return listing


def _wrapped(node: Node) -> Node | None:
    """Give the one folder that wraps everything, as archives have it; None if there is none."""
    kids = node.kids()
    if len(kids) != 1 or node.images:
        return None
    (name, inner), *_ = kids.items()
    if split_of(name) is not None or not (inner.kids() or inner.texts):
        return None
    if any(_names_labels(text) for one in node.walk() if not one.n_images for text in one.texts):
        return None
    if any(_names_labels(text) for text in node.texts) and not inner.texts:
        return None
    return inner


def _names_labels(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES) or is_list(name) is not None
