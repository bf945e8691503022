"""Recognise how a data set is laid out, and list its files.

Where the reading is certain, it is read and said in a line; where it is likely, the command stops
and shows what the set is taken for and the command that confirms it; where it is not known, it
says what was found and what can be read. Files that name labels (lists, tables) are looked for
first, then folders: splits, classes, things that hold classes; see :mod:`.folders`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..settings import DataSettings
from .arrays import array_problem, is_pickle
from .beside import files_beside, say_unlisted, use_side_tables, without_labels
from .folders import EXPECTED, read_folders
from .formats import extra_for
from .listing import (
    UNSPLIT,
    Listing,
    archive_stem,
    few,
    image_stem,
    is_archive,
    is_image,
    nature,
    plural,
    split_in,
    split_of,
)
from .lists import LIST_SUFFIXES, chosen, is_list, list_files_in, names_in, read_lists
from .records import RECORD_SUFFIXES
from .resolve import Index
from .tables import TABLE_SUFFIXES, Roles, quoted, read_table, table_of
from .texts import Sheet
from .tree import Node, Tree, scan
from .words import nfc, words_of

__all__ = ["read_layout"]

_MOST_TABLES = 40
_DEEPEST_TABLE = 3
_MOST_BESIDE = 200_000  # images in the folder above a list that names are looked up among
_RAW = tuple(".cr2 .cr3 .nef .nrw .arw .dng .raf .orf .rw2 .pef .srw .raw .3fr .iiq".split())
_NO_LABELS = frozenset("submission samplesubmission sample template".split())


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
    if path.is_dir():
        listing = _read_folder(path, ask, confined=confined, given=given)
    elif suffix in (*TABLE_SUFFIXES, *RECORD_SUFFIXES):
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


# --- what the user named itself


def _given_index(path: Path, ask: DataSettings) -> Index:
    return Index(os.path.realpath(path.parent), "", free=True)


def _wider(path: Path, index: Index) -> Index:
    """Index the images in the folder of a list and, where there are none, in the one above it."""
    tree = scan(path.parent)
    node, base = tree.root, ""
    if not node.n_images and path.parent.resolve().parent != path.parent.resolve():
        above = scan(path.parent.resolve().parent)
        if 0 < above.root.n_images <= _MOST_BESIDE:
            node = above.root
            base = os.path.relpath(index.root, node.path)
    return Index.of(node, node.path, base, free=True)


def _given_table(path: Path, ask: DataSettings, given: str) -> Listing:
    index = _given_index(path, ask)
    sheet, roles = table_of(path, index, ask)
    if roles.share < 1:
        index = _wider(path, index)
        sheet, roles = table_of(path, index, ask)
    return read_table(path, sheet, roles, index, ask, given=given)


def _given_list(path: Path, ask: DataSettings, given: str) -> Listing:
    split = is_list(path.name)
    files = {UNSPLIT: path} if split is None else list_files_in(path.parent, path.name)
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


# --- a folder


def _read_folder(path: Path, ask: DataSettings, *, confined: bool, given: str) -> Listing:
    tree = scan(path)
    node = tree.root
    if not node.n_images:
        if confined or not any(_names_labels(name) for name in node.texts):
            raise _nothing(path, tree)
        listing = _by_files(node, ask, confined=confined, given=given)
        if not listing.paths:
            raise _nothing(path, tree)
        return listing
    while (inner := _wrapped(node)) is not None:
        node = inner
    if ask.layout == "auto":
        listing = _by_files(node, ask, confined=confined, given=given)
    else:
        listing = read_folders(node, ask, given=given)
    if listing.by_folder:
        _name_what_was_not_read(listing, tree)
    _say_what_was_left(listing, tree)
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


def _base(node: Node, top: Node) -> str:
    return node.rel[len(top.rel) :].strip("/")


def _by_files(node: Node, ask: DataSettings, *, confined: bool, given: str) -> Listing:
    """Read labels from tables or lists where there are such, else from folders."""
    lists = _lists(node)
    tables = _tables(node, ask, confined=confined)
    explicit = [one for one in tables if one[2].explicit]
    labelled = [one for one in tables if one[2].labelled]
    if lists and explicit:
        names = [path.name for path in (*lists[1].values(), *(one[0] for one in explicit))]
        raise _several(node, names)
    if lists:
        listing = _from_lists(node, lists[0], lists[1], ask, confined=confined, given=given)
        if listing is not None:
            say_unlisted(listing, node, few([path.name for path in lists[1].values()]))
            return _with_note(listing, node, lists[1].values())
    side = [one for one in tables if one[2].path >= 0 and one[2].share >= 0.5 and (
        not one[2].labelled or (explicit and one not in explicit))]  # fmt: skip
    if len(explicit) > 1 or (not explicit and len(labelled) > 1):
        some = explicit or labelled
        parts = _split_tables(some, node)
        if parts is None:
            one = _same_labels(some, node, ask, given)
            say_unlisted(one, node, few([table[0].name for table in some]))
            return one
        joined = _joined_tables(parts, ask, given)
        say_unlisted(joined, node, few([_place(one[0], node) for one in parts.values()]))
        return joined
    if explicit or labelled:
        best = (explicit or labelled)[0]
        listing = (_one_table if explicit else _table_or_folders)(best, node, ask, given)
        if not listing.by_folder:
            use_side_tables(listing, [one for one in side if one is not best])
            say_unlisted(listing, node, best[0].name)
        return _with_note(listing, node, [best[0]]) if explicit else listing
    try:
        if not node.n_images and tables:
            return read_table(tables[0][0], *tables[0][1:], ask, given=given)
        listing = read_folders(node, ask, given=given)
        if tables and len(set(listing.labels)) == 1:
            raise DataError(f"{given} has one class folder only: {listing.labels[0]!r}.")
        use_side_tables(listing, side)
        if len(set(listing.labels)) == 1:
            files = files_beside(node)
            if any(files):
                raise without_labels(node, [*files[0], *files[1]], given, listing.labels[0])
        return listing
    except DataError as doubt:
        if not tables or not node.n_images:
            raise
        table, sheet, roles, index = tables[0]
        try:
            return read_table(table, sheet, roles, index, ask, given=str(table))
        except DataError as error:
            raise DataError(
                f"{doubt.found} {error.found}", expected=error.expected, todo=error.todo
            ) from error


def _name_what_was_not_read(listing: Listing, tree: Tree) -> None:
    """Name files that seem to say which images are of which split or class."""
    said = " ".join(listing.warnings)
    naming, _ = files_beside(tree.root)
    naming = [one for one in naming if Path(one).name not in said]
    if not naming:
        return
    cut = set(listing.split.tolist()) == {UNSPLIT}
    listing.warnings.append(
        f"{few(naming)}, next to the images, {'names' if len(naming) == 1 else 'name'} images or "
        f"splits and {'was' if len(naming) == 1 else 'were'} not read: the classes are those of "
        f"the folders{', and the splits are cut here' if cut else ''}."
    )


def _place(path: Path, node: Node) -> str:
    return os.path.relpath(path, node.path)


def _same_labels(tables: list[_Table], node: Node, ask: DataSettings, given: str) -> Listing:
    """Use the larger of several tables where they agree; ask where they do not.

    Raises
    ------
    DataError
        They give some image different labels, or name different images.
    """
    found: list[tuple[Listing, Path]] = []
    problem = ""
    for table, sheet, roles, index in tables:
        try:
            found.append((read_table(table, sheet, roles, index, ask, given=str(table)), table))
        except DataError as error:
            problem = f"{_place(table, node)}: {error.found}"
    found.sort(key=lambda one: -len(one[0].paths))
    names = [_place(one[0], node) for one in tables]
    if found and not problem:
        largest, table = found[0]
        labels = dict(zip(largest.paths, largest.labels, strict=True))
        differ = absent = 0
        for other, _ in found[1:]:
            for path, label in zip(other.paths, other.labels, strict=True):
                absent += path not in labels
                differ += path in labels and labels[path] != label
        if not differ and not absent:
            others = few([name for name in names if name != _place(table, node)])
            largest.warnings.append(f"{others} gives the same labels and was not used.")
            return largest
        problem = f"{differ:,} images have different labels in them" if differ else (
            "they name different images")  # fmt: skip
    choices = [f"make data DATA={quoted(str(one[0]))}" for one in tables[:4]]
    raise DataError(
        f"{node.path} has several files that name labels: {few(names)}; {problem}.",
        expected="list files, or one CSV",
        todo=f"choose one: {' or '.join(choices)}; or join them into one CSV",
    )


_Table = tuple[Path, Sheet, Roles, Index]


def _tables(node: Node, ask: DataSettings, *, confined: bool) -> list[_Table]:
    """Tables of which a column names images that are there, and more than one class."""
    found: list[_Table] = []
    cache: dict[str, Index] = {}
    tried = 0
    for one in node.walk():
        base = _base(one, node)
        if base.count("/") >= _DEEPEST_TABLE:
            continue
        for name in sorted(one.texts):
            lower = name.lower()
            if not lower.endswith((*TABLE_SUFFIXES, *RECORD_SUFFIXES)) or (
                set(words_of(name)) & _NO_LABELS
            ):
                continue
            if lower.endswith(RECORD_SUFFIXES) and (one.images or is_image(Path(name).stem)):
                if one is not node and lower.startswith("metadata.") is False:
                    continue  # a file about one image
                if is_image(Path(name).stem):
                    continue
            tried += 1
            if tried > _MOST_TABLES:
                return found
            index = cache.get(base)
            if index is None:
                index = cache[base] = Index.of(node, node.path, base, free=False)
            path = Path(one.path) / name
            try:
                sheet, roles = table_of(path, index, ask)
            except DataError:
                if one is node and len([t for t in one.texts if t.endswith(".csv")]) == 1:
                    raise
                continue
            if roles.share == 0 and (roles.explicit or not node.n_images) and not confined:
                index = cache[base] = _beside(node, base) or index
                sheet, roles = table_of(path, index, ask)
            if not roles.explicit and (roles.path < 0 or roles.share < 0.3):
                continue
            if roles.label >= 0 and not roles.explicit:
                labels = {row[roles.label] for row in sheet.rows[roles.start :]
                          if len(row) > roles.label}  # fmt: skip
                if len(labels) < 2:
                    continue
            found.append((path, sheet, roles, index))
    return found


def _beside(node: Node, base: str) -> Index | None:
    """Index the folder above: where a list beside its images begins its paths with ``../``."""
    above = os.path.dirname(node.path)  # noqa: PTH120
    if above == node.path or len(Path(above).parts) < 3:
        return None
    try:
        tree = scan(Path(above))
    except DataError:
        return None
    if tree.root.n_images > _MOST_BESIDE:
        return None
    wide = Index.of(tree.root, tree.root.path, "", free=False)
    here = os.path.basename(node.path)  # noqa: PTH119
    moved = Index(node.path, base, free=False, least_tail=1)
    for path in wide.paths:
        if "/" not in path:
            continue  # nothing that lies loose in the folder above
        place = path[len(here) + 1 :] if path.startswith(f"{here}/") else f"../{path}"
        moved.paths.add(place)
        name = nfc(path.rpartition("/")[2]).casefold()
        moved.by_name.setdefault(name, []).append(place)
        for stem in {name, image_stem(name)}:
            moved.by_stem.setdefault(stem, []).append(place)
    return moved


def _split_tables(tables: list[_Table], node: Node) -> dict[int, _Table] | None:
    """Tables named after splits (``train.csv``, ``test/metadata.csv``); None if they are not."""
    parts: dict[int, _Table] = {}
    for one in tables:
        split = split_of(one[0].stem)
        if split is None and (found := split_in(one[0].stem)):
            split = found[0]
        folders = _place(one[0], node).split("/")[:-1]
        for name in folders if split is None else ():
            split = split_of(name) if split is None else split
        if split is None or split in parts or one[2].split >= 0 or one[2].flags:
            return None
        parts[split] = one
    return parts


def _joined_tables(parts: dict[int, _Table], ask: DataSettings, given: str) -> Listing:
    listings = []
    for split, (table, sheet, roles, index) in sorted(parts.items()):
        listing = read_table(table, sheet, roles, index, ask, given=given)
        listing.split = np.full(len(listing.paths), split, np.int8)
        listings.append(listing)
    shared = set.intersection(*(set(one.extra) for one in listings))
    return Listing(
        root=listings[0].root,
        paths=[path for one in listings for path in one.paths],
        labels=[label for one in listings for label in one.labels],
        split=np.concatenate([one.split for one in listings]),
        extra={
            name: np.concatenate([one.extra[name].astype(str) for one in listings])
            for name in listings[0].extra
            if name in shared
        },
        rejects=[reject for one in listings for reject in one.rejects],
        warnings=[text for one in listings for text in one.warnings],
    )


def _one_table(one: _Table, node: Node, ask: DataSettings, given: str) -> Listing:
    table, sheet, roles, index = one
    listing = read_table(table, sheet, roles, index, ask, given=given)
    if set(listing.split.tolist()) == {UNSPLIT}:
        _split_by_lists(listing, node, index)
    return listing


def _split_by_lists(listing: Listing, node: Node, index: Index) -> None:
    """Use lists of names alone (``train_val_list.txt``) as the splits of a table."""
    files: dict[str, Path] = {}
    for one in node.walk():
        if _base(one, node).count("/") < _DEEPEST_TABLE:
            files |= {
                name: Path(one.path) / name for name in one.texts if is_list(name) is not None
            }
    place = {path: row for row, path in enumerate(listing.paths)}
    used = []
    split = listing.split.copy()
    for number, path in chosen(files, node.path).items():
        rows = [place[name] for name in names_in(path, index) if name in place]
        split[rows] = number
        if rows:
            used.append(path.name)
    if len(used) < 2:
        return
    if np.any(split == UNSPLIT):
        listing.warnings.append(
            f"{few(used)} do not name all images and were not used as splits: "
            f"{int(np.sum(split == UNSPLIT)):,} of {len(split):,} are in none."
        )
        return
    listing.split = split
    listing.warnings.append(f"Splits were read from {few(used)}.")


def _table_or_folders(one: _Table, node: Node, ask: DataSettings, given: str) -> Listing:
    """Use a table found by its content; ask where the folders say something else as clearly."""
    by_table = _one_table(one, node, ask, given)
    if ask.label_column:
        return by_table
    by_table.warnings[0] = by_table.warnings[0].rstrip(".") + (
        f"; images in {plural(len(node.kids()), 'folder', 'folders')}." if node.kids() else "."
    )
    try:
        by_folder = read_folders(node, ask, given=given)
        by_folder.check(Path(node.path))
    except DataError:
        return by_table
    labels = dict(zip(by_folder.paths, by_folder.labels, strict=True))
    pairs = {
        (label, labels[path])
        for path, label in zip(by_table.paths, by_table.labels, strict=True)
        if path in labels
    }
    same = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    if same and len(by_table.paths) * 2 > len(by_folder.paths):
        return by_table
    if len(by_table.paths) * 4 < len(by_folder.paths):
        by_folder.warnings.append(
            f"{one[0].name} names {len(by_table.paths):,} of {len(by_folder.paths):,} images and "
            "was not used."
        )
        return by_folder
    raise DataError(
        f"{given} has labels in {one[0].name} (column {one[2].header[one[2].label]}: "
        f"{few(sorted(set(by_table.labels)), 4)}) and, otherwise, by its folders "
        f"({few(sorted(set(by_folder.labels)), 4)}).",
        expected="one of the two",
        todo=f"make data DATA={quoted(str(one[0]))} for the table, or "
        f"make data DATA={quoted(given)} LAYOUT=classes for the folders",
    )


def _lists(node: Node) -> tuple[Node, dict[int, Path]] | None:
    """List files named after splits, in the folder or (where labels are kept) below it."""
    for one in node.walk():
        if _base(one, node).count("/") >= 1:
            continue
        files = {name: Path(one.path) / name for name in one.texts if is_list(name) is not None}
        if files and (one is node or not one.n_images):
            return one, chosen(files, one.path)
    return None


def _from_lists(
    node: Node,
    holder: Node,
    files: dict[int, Path],
    ask: DataSettings,
    *,
    confined: bool,
    given: str,
) -> Listing | None:
    index = Index.of(node, node.path, _base(holder, node), free=False)
    tables = [name for one in node.walk() for name in one.texts
              if name.lower().endswith(TABLE_SUFFIXES)]  # fmt: skip
    if tables and all(names_in(path, index) for path in files.values()):
        return None  # lists of names alone: the splits of a table
    try:
        return read_lists(files, index, ask, given=quoted(given))
    except DataError as error:
        if confined or "are not there" not in error.found:
            raise
        wide = _beside(node, index.base)
        if wide is None:
            raise
        return read_lists(files, wide, ask, given=quoted(given))


def _with_note(listing: Listing, node: Node, files: object) -> Listing:
    names = [path.name for path in files]  # type: ignore[attr-defined]
    if len(node.folders) > 1 and not listing.warnings[:1] == []:
        listing.warnings[0] = listing.warnings[0].rstrip(".") + (
            "; the names of the folders beside it were not used."
        )
    elif len(node.folders) > 1:
        listing.warnings.insert(
            0, f"Labels were read from {few(names)}; the names of the folders beside it were not "
            "used.",
        )  # fmt: skip
    return listing


def _several(node: Node, names: list[str]) -> DataError:
    return DataError(
        f"{node.path} has several files that name labels: {few(names)}.",
        expected="list files, or one CSV",
        todo=f"choose one: DATA={quoted(str(Path(node.path) / names[-1]))}",
    )


def _nothing(path: Path, tree: Tree) -> DataError:
    """Say what was found in a folder without an image that is read."""
    nodes = list(tree.root.walk())
    arrays = [str(Path(node.path) / name) for node in nodes for name in node.arrays]
    if not arrays and not tree.root.n_images:
        arrays = [one for one in _loose(nodes) if is_pickle(one)]
    archives = _archives(tree.root)
    others = sum((node.others for node in nodes), start=type(tree.foreign)())
    if tree.foreign:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in tree.foreign.most_common())
        return DataError(
            f"{path} holds no images that can be read, but {kinds}.",
            expected="JPEG, PNG and the like",
            todo=extra_for(tree.foreign.most_common(1)[0][0]),
        )
    if arrays:
        return array_problem(path, arrays)
    found = f", but {nature(others)}" if others else ""
    todo = "point DATA= at the folder that holds the class folders"
    if archives:
        steps = " && ".join(
            f"python3 -m {'zipfile' if name.lower().endswith('.zip') else 'tarfile'} -e "
            f"{shlex.quote(name)} {shlex.quote(archive_stem(name))}"
            for name in archives[:6]
        )
        here = shlex.quote(tree.root.path)
        todo = f"unpack them: cd {here} && {steps}; then give the command again"
        found = f", but archives: {few(archives)}"
    return DataError(f"{path} holds no images{found}.", expected=EXPECTED, todo=todo)


def _loose(nodes: list[Node]) -> list[str]:
    """Paths of some files of any kind."""
    paths: list[str] = []
    for node in nodes[:20]:
        with contextlib.suppress(OSError):
            paths += sorted(str(one) for one in Path(node.path).iterdir() if one.is_file())[:50]
    return paths


def _archives(node: Node) -> list[str]:
    try:
        return sorted(one.name for one in Path(node.path).iterdir() if is_archive(one.name))
    except OSError:
        return []


def _say_what_was_left(listing: Listing, tree: Tree) -> None:
    others = sum((node.others for node in tree.root.walk()), start=type(tree.foreign)())
    for node in tree.root.walk():
        for name in (*node.texts, *node.arrays) if listing.by_folder else ():
            others[Path(name).suffix.lower()] += 1
    n_others = sum(others.values())
    if n_others:
        listing.warnings.append(
            f"{plural(n_others, 'file is no image and was', 'files are no images and were')} "
            f"ignored: {nature(others)}."
        )
    tree.odd.sort()
    if tree.odd:
        used = set(listing.paths)
        prefix = len(os.path.relpath(listing.root, tree.root.path)) + 1
        inner = os.path.realpath(listing.root) != tree.root.path
        odd = [one for one in tree.odd if (one[prefix:] if inner else one) in used]
        if odd:
            listing.warnings.append(
                f"{plural(len(odd), 'file was', 'files were')} recognised as images by their "
                f"content, whatever the suffix: {few(odd, 3)}."
            )
    for kind, count in tree.foreign.most_common():
        listing.warnings.insert(
            0,
            f"{plural(count, f'{kind} image is', f'{kind} images are')} left out: "
            f"{extra_for(kind)}.",
        )
    if tree.repeated:
        listing.warnings.append(
            f"{plural(len(tree.repeated), 'link leads', 'links lead')} to a folder that was read "
            f"already and was not followed: {few(tree.repeated, 3)}."
        )
