"""Groups: images of one thing (a patient, a module, a scene), never on two sides of a cut.

A group comes from what the user names with ``GROUP=``, or from the data set itself (elpv:
modules). Images of equal bytes are always one group. Where an image has both, the two relations
are joined: groups are the connected components.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, SettingsError
from .file_kinds import image_stem
from .listing import Listing
from .phrases import few, plural
from .split_words import split_of

__all__ = ["AUTO", "NONE", "group_values", "joined", "offered", "twins"]

AUTO, NONE, PARENT = "auto", "none", "parent"

_WORDS = frozenset(
    "animal batch camera case clip donor family film group identity individual lesion module "
    "movie mouse panel participant patient person plant plate product rat recording scan scene "
    "sequence series session slide specimen subject tree video visit volunteer wafer wsi".split()
)  # a column of such a name, whose values repeat, is offered as GROUP=


def group_values(listing: Listing, wanted: str) -> tuple[list[str] | None, str, list[str]]:
    """Give the group of each image that ``GROUP=`` asks for.

    Parameters
    ----------
    listing : Listing
        N images, with the columns that came with them.
    wanted : str
        The name of a column (in any case), ``parent``, ``auto``, ``none``, a regular expression
        on the path, or an empty text: what the data set itself brings. In a regular expression
        the text of the whole match is the group, or that of the group named ``group``
        (``(?P<group>...)``) where there is one.

    Returns
    -------
    values : list of str, length N, or None
        Equal where images are of one group; an empty text where an image has a group of its own.
        None: nothing beyond equal bytes.
    how : str
        Where the groups come from, for the record.
    remarks : list of str
        What to say about it.

    Raises
    ------
    SettingsError
        A regular expression that is none.
    DataError
        Nothing fits: no such column, no path with such a text, no folder between.
    """
    wanted = wanted.strip()
    if wanted.lower() in (NONE, AUTO):
        return None, wanted.lower() if wanted.lower() == AUTO else "", []
    if not wanted:
        return listing.groups, listing.groups_from if listing.groups is not None else "", []
    names = {name.casefold(): name for name in listing.extra}
    if wanted.casefold() in names:
        name = names[wanted.casefold()]
        values = ["" if _blank(cell) else str(cell) for cell in listing.extra[name].tolist()]
        how = f"column {name}"
    elif wanted.lower() == PARENT:
        values, how = _folders(listing), "folder of the image"
        if not any(values):
            raise DataError(
                "GROUP=parent: the images lie directly in their class folders.",
                expected="a folder for each thing below (or above) the class folders",
                todo="give a pattern on the file names, such as GROUP='patient\\d+', or GROUP=none",
            )
    else:
        values, how = _matches(listing, wanted), f"pattern {wanted} on the path"
        if not any(values):
            raise _unknown(listing, wanted, names.values())
    return values, how, _remarks(values, how)


def twins(paths: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Give the name that images of one class and folder share but for the suffix; empty for others.

    ``a.jpg`` and ``a.png`` next to each other are one picture, exported twice.
    """
    different = set(paths)
    if len({path.rpartition(".")[0] for path in different}) == len(different):
        return [""] * len(paths)
    stems = [path[: len(path) - len(name) + len(image_stem(name))]
             for path in paths for name in [path.rpartition("/")[2]]]  # fmt: skip
    pairs = [f"{stem}\n{label}" for stem, label in zip(stems, labels, strict=True)]
    files = dict.fromkeys(zip(pairs, paths, strict=True))  # a file with several rows counts once
    counts = Counter(pair for pair, _ in files)
    return [pair if counts[pair] > 1 else "" for pair in pairs]


def _blank(cell: Any) -> bool:
    return cell != cell or not str(cell).strip()  # NaN differs from itself


def _matches(listing: Listing, pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise SettingsError(
            f"GROUP={pattern} is not a regular expression ({error}).",
            expected="the name of a column, 'parent', 'none', 'auto', or a regular expression",
            todo="put the pattern in single quotes, such as GROUP='patient\\d+'",
        ) from error
    key: int | str = "group" if "group" in expression.groupindex else 0
    found = (expression.search(path) for path in listing.paths)
    return ["" if match is None else match[key] or "" for match in found]


def _unknown(listing: Listing, wanted: str, columns: Any) -> DataError:
    columns = sorted(columns)
    near = difflib.get_close_matches(wanted.lower(), [one.lower() for one in columns], n=1)
    has = f"columns {few(columns, 8)}" if columns else "no further columns"
    return DataError(
        f"GROUP={wanted}: there is no column of that name ({has}), and as a pattern it matches "
        f"none of {plural(len(listing.paths), 'path', 'paths')}, such as {few(listing.paths, 2)}.",
        expected="the name of a column, 'parent', 'none', 'auto', or a regular expression that "
        "matches a part of the path",
        todo=f"did you mean GROUP={near[0]}?" if near else "correct GROUP, or give GROUP=none",
    )


def _folders(listing: Listing) -> list[str]:
    """Folder that stands for the thing: below or above the class, or directly above the image."""
    parts = [path.split("/")[:-1] for path in listing.paths]
    if not listing.by_folder:
        return ["/".join(folders) if folders else "" for folders in parts]
    values = []
    for folders, label in zip(parts, listing.labels, strict=True):
        rest = list(folders)
        if rest and split_of(rest[0]) is not None and len(rest) > 1:
            rest = rest[1:]
        if label in rest:
            rest.remove(label)
        values.append(rest[0] if rest else "")
    return values


def _remarks(values: Sequence[str], how: str) -> list[str]:
    counts = Counter(value for value in values if value)
    alone = len(values) - sum(counts.values())
    remarks = []
    if alone:
        remarks.append(
            f"{plural(alone, 'image', 'images')} of {len(values):,} have no group ({how}); each is "
            "a group of its own."
        )
    if max(counts.values()) == 1:
        remarks.append(f"No two images are of one group ({how}): grouping changes nothing.")
    elif len(counts) == 1:
        remarks.append(f"All images are of one group ({how}): nothing can be split by it.")
    return remarks


def joined(sha256: NDArray[np.bytes_], values: Sequence[Any] | NDArray[Any]) -> NDArray[np.bytes_]:
    """Give each image a key that is equal within a group and depends on nothing but its members.

    Parameters
    ----------
    sha256 : array of shape (N,), S64
        Digests of the bytes.
    values : sequence of length N, of str or int
        Equal where images are of one group; an empty text or a negative number for an image of
        its own.

    Returns
    -------
    array of shape (N,), S64
        Of each connected component of equal bytes and equal values: the digest of its lowest
        value, or of its bytes where it has no value. Independent of the order of the rows.
    """
    texts = np.array([_text(value) for value in values], dtype=object)
    has = texts != ""
    image = np.unique(sha256, return_inverse=True)[1]  # (N,)
    names, group = np.unique(texts[has].astype(str), return_inverse=True)
    if not len(names):
        return sha256
    lowest = np.full(image.max() + 1, len(names))  # of each image, the lowest of its values
    highest = np.full(image.max() + 1, -1)
    np.minimum.at(lowest, image[has], group)
    np.maximum.at(highest, image[has], group)
    root = np.arange(len(names))
    if np.any((highest >= 0) & (lowest != highest)):  # copies in several groups join them
        root = _components(image[has], group, len(names))
    keys = np.array([hashlib.sha256(f"group {one}".encode()).hexdigest() for one in names], "S64")
    of_image = lowest[image]  # (N,)
    grouped = of_image < len(names)
    result = sha256.copy()
    result[grouped] = keys[root[of_image[grouped]]]
    return result


def _text(value: Any) -> str:
    if isinstance(value, int | np.integer):
        return "" if value < 0 else str(value)
    return "" if _blank(value) else str(value)


def _components(
    image: NDArray[np.intp], group: NDArray[np.intp], n_groups: int
) -> NDArray[np.intp]:
    """Lowest group (G,) of each group's connected component, through images in several groups."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_nodes = n_groups + int(image.max()) + 1
    edges = coo_array(
        (np.ones(len(image), np.int8), (group, image + n_groups)), shape=(n_nodes, n_nodes)
    )
    _, part = connected_components(edges, directed=False)
    first = np.full(part.max() + 1, n_groups)
    np.minimum.at(first, part[:n_groups], np.arange(n_groups))
    return np.asarray(first[part[:n_groups]])


def offered(listing: Listing) -> list[str]:
    """Name the columns and folders that look like groups, with the setting that uses them."""
    n_images, n_classes = len(listing.paths), len(set(listing.labels))
    remarks = []
    for name, column in listing.extra.items():
        words = set(re.split(r"[^a-z]+", name.casefold()))
        words |= {word.removesuffix("s") for word in words} | {word[:-2] for word in words}
        if not words & _WORDS:
            continue
        n_values = len(np.unique(column.astype(str)))
        if n_classes < n_values < n_images:
            quoted = name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"
            remarks.append(
                f"The column {name} looks like a group ({n_values:,} values, {n_images:,} "
                f"images). To keep images of one {name} on one side of every split, add "
                f"GROUP={quoted}; otherwise the figures are likely too high."
            )
    places = {path.rpartition("/")[0] for path in listing.paths}
    if listing.by_folder and len(places) > 3 * n_classes:  # more than splits and classes
        folders = [value for value in _folders(listing) if value]
        if len(folders) > n_images / 2 and n_classes < len(set(folders)) < len(folders):
            remarks.append(
                f"The images lie in {len(set(folders)):,} folders besides those of the classes "
                f"({few(sorted(set(folders)), 3)}). If each holds images of one thing, add "
                "GROUP=parent to keep them on one side of every split."
            )
    return remarks
