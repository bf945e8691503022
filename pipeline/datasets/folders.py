"""Folders as classes, splits and things: what each of them is, by evidence.

Folders are not classes because they are folders. Splits have their words; parts of a download are
numbered; masks have the names of other images; versions of the same pictures hold the same class
folders; a thing (a patient) holds class folders that recur under others. What cannot be decided
is asked, with the command that answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .class_folders import read_classes
from .file_names import by_names, no_folders
from .folder_reading import Reader
from .listing import Listing
from .phrases import few, plural
from .split_folders import read_splits, split_and_class, splits_among, splits_of_names
from .split_words import SPLITS, UNSPLIT
from .tree import Node
from .words import (
    nfc,
)


def read_folders(node: Node, ask: object, *, given: str) -> Listing:
    """Read classes and splits from the folders below `node`.

    Parameters
    ----------
    node : Node
        The folder, past what wraps it.
    ask : DataSettings
        Its ``layout``.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        Folders that are not classes, or that could be read in several ways.
    """
    reader = Reader(node, str(ask.layout), given)  # type: ignore[attr-defined]
    found = reader.found
    if reader.layout == "names":
        by_names(reader, node)
    else:
        both = reader.layout == "auto" and split_and_class(reader, node)
        splits = {} if both else splits_among(reader, node)
        if splits:
            read_splits(reader, node, splits)
        elif not both:
            found.stray += len(node.images)
            read_classes(reader, node, UNSPLIT)
    splits_of_names(found)
    listing = Listing(
        root=Path(node.path),
        paths=found.paths,
        labels=[nfc(label) for label in found.labels],
        split=np.array(found.split, dtype=np.int8),
        by_folder=True,
    )
    above = set(found.groups)
    if len(above) > 1 and len(above) < len(SPLITS) and UNSPLIT in found.split:
        found.notes.append(
            f"{few(sorted(above))}, above the classes, are too few to be kept apart: images of "
            "each are in every split."
        )
    elif any(found.groups):
        listing.groups = found.groups
        listing.groups_from = "the folders above the class folders"
    listing.warnings += _alike(found.labels) + found.notes
    if not listing.paths and found.stray:
        raise no_folders(reader, node)
    if found.empty:
        listing.warnings.append(f"Empty class folders: {few(found.empty)}.")
    if found.stray:
        listing.warnings.append(
            f"{plural(found.stray, 'image lies', 'images lie')} in no class folder and were "
            "ignored."
        )
    return listing


def _alike(labels: list[str]) -> list[str]:
    """Name classes whose names look the same, written in two ways."""
    ways: dict[str, set[str]] = {}
    for label in set(labels):
        ways.setdefault(nfc(label), set()).add(label)
    return [
        f"{name!r} is written in {len(of)} ways that look the same (composed and decomposed "
        "letters); they are one class."
        for name, of in sorted(ways.items())
        if len(of) > 1
    ]
