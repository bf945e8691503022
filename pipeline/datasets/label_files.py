"""Tables and lists in a folder: which of them name labels, and how several go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..settings import DataSettings
from .beside import files_beside, say_unlisted, use_side_tables, without_labels
from .file_names import likely_names
from .folders import read_folders
from .listing import Listing
from .lists import chosen, families_in, is_list, names_in, read_lists
from .matlab import MATLAB_SUFFIX
from .phrases import confirming, few, plural, quoted
from .published import read_objects, read_published
from .resolve import Index
from .split_words import TRAIN, UNSPLIT
from .table_search import (
    DEEPEST_TABLE,
    Table,
    folder_below,
    index_beside,
    path_below,
    split_of_table,
    tables_in,
)
from .tables import TABLE_SUFFIXES, read_table
from .tree import Node
from .words import annotates


def read_by_files(
    node: Node, ask: DataSettings, *, top: Node, confined: bool, given: str
) -> Listing:
    """Read labels from tables or lists where there are such, else from folders.

    Parameters
    ----------
    node : Node
        The folder, past what wraps it.
    ask : DataSettings
        What the user says of it.
    top : Node
        The folder that the user named: annotations may lie beside `node`.
    confined : bool
        Nothing outside of the folder is used.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        Nothing names labels, or several files do.
    """
    published = read_published(node, ask, given=given)
    if published is not None:
        return published
    lists = _lists(node)
    families = _families(node, lists)
    if len(families) > 1:
        raise DataError(
            f"{given} has lists of {len(families)} kinds of labels: "
            f"{few([f'{name}...' for name, _ in families])}.",
            expected="one list for each split",
            todo="choose one: "
            + "; or ".join(confirming(str(files[TRAIN]), ask) for _, files in families[:4]),
        )
    if families:
        lists = node, families[0][1]
    tables = tables_in(node, ask, confined=confined)
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
        parts, others = _split_tables(some, node)
        if parts is None:
            one = _same_labels(some, node, ask, given)
            say_unlisted(one, node, few([table[0].name for table in some]))
            return one
        joined = _joined_tables(parts, ask, given)
        _name_by_folders(joined, [one[0] for one in parts.values()])
        if others:
            joined.warnings.append(f"{few([path_below(one[0], node) for one in others])} not used.")
        say_unlisted(joined, node, few([path_below(one[0], node) for one in parts.values()]))
        return joined
    if explicit or labelled:
        best = (explicit or labelled)[0]
        listing = (_one_table if explicit else _table_or_folders)(best, node, ask, given)
        if not listing.by_folder:
            _name_by_folders(listing, [best[0]])
            use_side_tables(listing, [one for one in side if one is not best], given, ask)
            say_unlisted(listing, node, best[0].name)
        return _with_note(listing, node, [best[0]]) if explicit else listing
    if not node.n_images and tables:
        return read_table(tables[0][0], *tables[0][1:], ask, given=given)
    try:
        listing = read_folders(node, ask, given=given)
        _doubt_one_class(listing, node, tables, given, ask)
    except DataError as doubt:
        marked = read_objects(top, ask, given=given)
        if marked is not None:
            return marked
        if not tables or not node.n_images:
            raise
        table, sheet, roles, index = tables[0]
        try:
            return read_table(table, sheet, roles, index, ask, given=given)
        except DataError as error:
            raise DataError(
                f"{doubt.found} {error.found}", expected=error.expected, todo=error.todo
            ) from error
    use_side_tables(listing, side, given, ask)
    return listing


def _families(
    node: Node, lists: tuple[Node, dict[int, Path]] | None
) -> list[tuple[str, dict[int, Path]]]:
    """Find lists of labels with something before their split, where no others name labels."""
    found = families_in(node)
    if not found or lists is None:
        return found
    index = Index.of(node, node.path, folder_below(lists[0], node), free=False)
    return found if all(names_in(path, index) for path in lists[1].values()) else []


def _doubt_one_class(
    listing: Listing, node: Node, tables: list[Table], given: str, ask: DataSettings
) -> None:
    """Refuse folders that are one class, where something beside them may name more."""
    if len(set(listing.labels)) != 1:
        return
    (name,) = set(listing.labels)
    if tables:
        raise DataError(f"{given} has one class folder only: {name!r}.")
    files = files_beside(node)
    if any(files):
        raise without_labels(node, [*files[0], *files[1]], given, name)
    names = likely_names([image for one in node.walk() for image in one.images])
    if names:
        shown = few([f"{word} {count:,}" for word, count in names.most_common()])
        raise DataError(
            f"{given} has its images in one folder only: {name!r}; their names begin with "
            f"{len(names)} words: {shown}.",
            expected="at least two class folders",
            todo=f"if these words are the classes: {confirming(given, ask, layout='names')}; else "
            "sort the images into one folder a class, or write a CSV with path,label",
        )
    listing.check(Path(node.path))


def _same_labels(tables: list[Table], node: Node, ask: DataSettings, given: str) -> Listing:
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
            problem = f"{path_below(table, node)}: {error.found}"
    found.sort(key=lambda one: -len(one[0].paths))
    names = [path_below(one[0], node) for one in tables]
    if found and not problem:
        largest, table = found[0]
        labels = dict(zip(largest.paths, largest.labels, strict=True))
        differ = absent = 0
        for other, _ in found[1:]:
            for path, label in zip(other.paths, other.labels, strict=True):
                absent += path not in labels
                differ += path in labels and labels[path] != label
        if not differ and not absent:
            others = few([name for name in names if name != path_below(table, node)])
            largest.warnings.append(f"{others} gives the same labels and was not used.")
            return largest
        problem = f"{differ:,} images have different labels in them" if differ else (
            "they name different images")  # fmt: skip
    choices = [confirming(str(one[0]), ask) for one in tables[:4]]
    raise DataError(
        f"{node.path} has several files that name labels: {few(names)}; {problem}.",
        expected="list files, or one CSV",
        todo=f"choose one: {'; or '.join(choices)}; or join them into one CSV",
    )


def _split_tables(tables: list[Table], node: Node) -> tuple[dict[int, Table] | None, list[Table]]:
    """Find tables named after splits (``train.csv``, ``test/metadata.csv``).

    Returns
    -------
    parts : dict of split to table, or None
        None where they are not that.
    others : list of table
        Tables of no split next to those of train and another: of all images, or of examples.
    """
    parts: dict[int, Table] = {}
    others: list[Table] = []
    for one in tables:
        split = split_of_table(path_below(one[0], node))
        if split is None:
            others.append(one)
        elif split in parts or one[2].split >= 0 or one[2].flags:
            return None, []
        else:
            parts[split] = one
    if others and (TRAIN not in parts or len(parts) < 2):
        return None, []
    return parts, others


def _name_by_folders(listing: Listing, tables: list[Path]) -> None:
    """Call classes that a MATLAB file numbers by the folders of their images, where these agree."""
    if not all(one.suffix.lower() == MATLAB_SUFFIX for one in tables):
        return
    folders = [path.rpartition("/")[0].rpartition("/")[2] for path in listing.paths]
    pairs = set(zip(listing.labels, folders, strict=True))
    one_to_one = len(pairs) == len(set(folders)) == len(set(listing.labels)) > 1
    if one_to_one and all(map(str.isdigit, listing.labels)) and not any(map(str.isdigit, folders)):
        listing.labels = folders
        listing.warnings.append("The classes, which are numbers, are called by their folders.")


def _joined_tables(parts: dict[int, Table], ask: DataSettings, given: str) -> Listing:
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


def _one_table(one: Table, node: Node, ask: DataSettings, given: str) -> Listing:
    table, sheet, roles, index = one
    listing = read_table(table, sheet, roles, index, ask, given=given)
    if set(listing.split.tolist()) == {UNSPLIT}:
        _split_by_lists(listing, node, index)
    return listing


def _split_by_lists(listing: Listing, node: Node, index: Index) -> None:
    """Use lists of names alone (``train_val_list.txt``) as the splits of a table."""
    files: dict[str, Path] = {}
    for one in node.walk():
        if folder_below(one, node).count("/") < DEEPEST_TABLE:
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


def _table_or_folders(one: Table, node: Node, ask: DataSettings, given: str) -> Listing:
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
    if same and one[0].name in " ".join(by_folder.warnings):
        return by_folder
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
        todo=f"{confirming(str(one[0]), ask)} for the table, or "
        f"{confirming(given, ask, layout='classes')} for the folders",
    )


def _lists(node: Node) -> tuple[Node, dict[int, Path]] | None:
    """List files named after splits, in the folder or (where labels are kept) below it."""
    for one in node.walk():
        if folder_below(one, node).count("/") >= 1:
            continue
        files = {name: Path(one.path) / name for name in one.texts if is_list(name) is not None}
        if files and (one is node or not one.n_images or annotates(one.name)):
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
    index = Index.of(node, node.path, folder_below(holder, node), free=False)
    tables = [name for one in node.walk() for name in one.texts
              if name.lower().endswith(TABLE_SUFFIXES)]  # fmt: skip
    if tables and all(names_in(path, index) for path in files.values()):
        return None  # lists of names alone: the splits of a table
    try:
        return read_lists(files, index, ask, given=given)
    except DataError as error:
        if confined or "are not there" not in error.found:
            raise
        wide = index_beside(node, index.base)
        if wide is None:
            raise
        return read_lists(files, wide, ask, given=given)


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
