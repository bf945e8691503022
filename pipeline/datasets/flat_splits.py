"""A split whose images lie in no class folders, with a text that names their classes.

As Tiny ImageNet's ``val/val_annotations.txt`` and GTSRB's ``GT-final_test.csv``: each line names an
image, and one of its columns holds a class that train has as a folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import DataError
from .file_kinds import image_stem
from .texts import read_text
from .tree import Node
from .words import LABELS, key_of

_MOST_TEXTS = 20
_MOST_BYTES = 64 << 20
_LEAST = 0.95  # share of the images that must be named


def labels_of_flat(
    split: Node, around: Node, known: Collection[str]
) -> tuple[dict[str, str], str] | None:
    """Find the classes of the images of a split in a text within it or next to it.

    Parameters
    ----------
    split : Node
        The folder of the split; all images in it and below have different names.
    around : Node
        The folder that holds the splits.
    known : collection of str
        Classes of train.

    Returns
    -------
    labels : dict of str to str
        Class of each image, by its path from the root of the tree.
    source : str
        Name of the text. None where no text names them.
    """
    images: dict[str, str] = {}
    for path in split.paths():
        images.setdefault(image_stem(path.rpartition("/")[2]), path)
    if not images or len(images) < split.n_images:
        return None
    texts = [Path(one.path) / name for one in (*split.walk(), around) for name in one.texts
             if name.lower().endswith((".txt", ".csv", ".tsv"))]  # fmt: skip
    for text in texts[:_MOST_TEXTS]:
        found = _read(text, images, set(known))
        if found is not None and len(found) >= _LEAST * len(images):
            return {images[stem]: label for stem, label in found.items()}, text.name
    return None


def _read(path: Path, images: dict[str, str], known: set[str]) -> dict[str, str] | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        text, _ = read_text(path)
    except (OSError, DataError):
        return None
    rows = [re.split(r"[\s,;|]+", line.strip()) for line in text.splitlines() if line.strip()]
    named = [(row, at) for row in rows for at, cell in enumerate(row)
             if _stem(cell) in images]  # fmt: skip
    if not named or len({at for _, at in named}) != 1:
        return None
    at = named[0][1]
    width = len(named[0][0])
    body = [row for row, _ in named if len(row) == width]
    header = rows[0] if _stem(rows[0][at] if len(rows[0]) > at else "") not in images else []
    column = _column(body, at, header, known)
    if column is None:
        return None
    plain = {_number(name): name for name in known}
    exact = all(row[column] in known for row in body)
    if not exact and len(plain) < len(known):
        return None  # classes that are one number: 1 and 01
    return {
        _stem(row[at]): row[column] if row[column] in known else plain[_number(row[column])]
        for row in body
    }


def _column(
    body: Sequence[Sequence[str]], at: int, header: Sequence[str], known: set[str]
) -> int | None:
    """Find the one column of classes: equal to those of train, or called so and equal by number."""
    others = [one for one in range(len(body[0])) if one != at]
    called = [one for one in others if one < len(header) and key_of(header[one]) in LABELS]
    numbers = {_number(name) for name in known}
    for one in called:
        if all(_number(row[one]) in numbers for row in body):
            return one
    fitting = [one for one in others if all(row[one] in known for row in body)]
    return fitting[0] if len(fitting) == 1 else None


def _stem(cell: str) -> str:
    return image_stem(cell.strip("\"'").rpartition("/")[2])


def _number(name: str) -> str:
    return name.lstrip("0") or "0" if name.isdigit() else name
