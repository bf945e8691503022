"""Tables in a folder and beside it: those of which a column names images that are there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..settings import DataSettings
from .columns import Roles
from .file_kinds import is_image
from .matlab import MATLAB_SUFFIX
from .records import RECORD_SUFFIXES
from .resolve import Index
from .split_words import split_of, split_said
from .tables import TABLE_SUFFIXES, table_of
from .texts import Sheet
from .tree import Node, scan
from .words import words_of

_MOST_TABLES = 40
DEEPEST_TABLE = 3
_FEW_RECORDS = 3  # JSON files next to images; more are about one image each
MOST_BESIDE = 200_000  # images in the folder above a list that names are looked up among
_NO_LABELS = frozenset("submission samplesubmission sample template".split())


def folder_below(node: Node, top: Node) -> str:
    """Give the path of a folder from `top`."""
    return node.rel[len(top.rel) :].strip("/")


def path_below(path: Path, node: Node) -> str:
    """Give the path of a file from a folder."""
    return os.path.relpath(path, node.path)


Table = tuple[Path, Sheet, Roles, Index]


def tables_in(node: Node, ask: DataSettings, *, confined: bool) -> list[Table]:
    """Tables of which a column names images that are there, and more than one class."""
    found: list[Table] = []
    cache: dict[str, Index] = {}
    tried = 0
    for one in node.walk():
        base = folder_below(one, node)
        if base.count("/") >= DEEPEST_TABLE:
            continue
        for name in sorted(one.texts):
            lower = name.lower()
            if not lower.endswith((*TABLE_SUFFIXES, *RECORD_SUFFIXES, MATLAB_SUFFIX)) or (
                set(words_of(name)) & _NO_LABELS
            ):
                continue
            if lower.endswith(RECORD_SUFFIXES) and (one.images or is_image(Path(name).stem)):
                n_json = sum(text.lower().endswith(RECORD_SUFFIXES) for text in one.texts)
                if one is not node and n_json > _FEW_RECORDS:
                    continue  # files about one image each
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
                side = _as_side_table(path, index, ask)
                if side is None:
                    if one is node and len([t for t in one.texts if t.endswith(".csv")]) == 1:
                        raise
                    continue
                sheet, roles = side
            split = split_of_table(path_below(path, node))
            if roles.n_ambiguous and split is not None:
                only = _of_split(node, base, split)
                again = table_of(path, only, ask) if only.paths else (sheet, roles)
                if again[1].share > roles.share:
                    (sheet, roles), index = again, only
            if roles.share == 0 and (roles.explicit or not node.n_images) and not confined:
                index = cache[base] = index_beside(node, base) or index
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


def holds_tables(node: Node, inner: Node, ask: DataSettings) -> bool:
    """Tell whether tables beside the one folder `inner` of `node` name the labels of its images."""
    suffixes = (*RECORD_SUFFIXES, MATLAB_SUFFIX)
    beside = [one for one in node.walk() if not one.n_images or one is node]
    if not any(text.lower().endswith(suffixes) for one in beside for text in one.texts):
        return False
    found = [one for one in tables_in(node, ask, confined=True)
             if one[2].labelled and not str(one[0]).startswith(f"{inner.path}/")]  # fmt: skip
    return 2 * sum(one[2].share * (len(one[1].rows) - 1) for one in found) >= node.n_images


def _as_side_table(path: Path, index: Index, ask: DataSettings) -> tuple[Sheet, Roles] | None:
    """Read a table without the columns that were asked for: another one has them."""
    if not (ask.label_column or ask.path_column or ask.split_column):
        return None
    plain = replace(ask, label_column="", path_column="", split_column="")
    try:
        sheet, roles = table_of(path, index, plain)
    except DataError:
        return None
    roles.label, roles.one_hot, roles.explicit = -1, [], False
    return sheet, roles


def _of_split(node: Node, base: str, split: int) -> Index:
    """Index the images in folders of one split: names such as 1.jpg may be in each of them."""
    index = Index(node.path, base)
    cut = len(node.rel) + 1 if node.rel else 0
    for path in (one[cut:] for one in node.paths()):
        if any(split_said(part) == split for part in path.split("/")[:-1]):
            index.add(path)
    return index


def index_beside(node: Node, base: str) -> Index | None:
    """Index the folder above: where a list beside its images begins its paths with ``../``."""
    above = os.path.dirname(node.path)  # noqa: PTH120
    if above == node.path or len(Path(above).parts) < 3:
        return None
    try:
        tree = scan(Path(above))
    except DataError:
        return None
    if tree.root.n_images > MOST_BESIDE:
        return None
    wide = Index.of(tree.root, tree.root.path, "", free=False)
    here = os.path.basename(node.path)  # noqa: PTH119
    moved = Index(node.path, base, free=False, least_tail=1)
    for path in wide.paths:
        if "/" not in path:
            continue  # nothing that lies loose in the folder above
        place = path[len(here) + 1 :] if path.startswith(f"{here}/") else f"../{path}"
        moved.add(place)
    return moved


def split_of_table(place: str) -> int | None:
    """Give the split that a table's name, or else the folder that it lies in, is called after."""
    *folders, name = place.split("/")
    split = split_said(Path(name).stem)
    for folder in folders if split is None else ():
        split = split_of(folder) if split is None else split
    return split
