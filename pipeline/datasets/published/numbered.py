"""MATLAB vectors of labels without file names: the images are numbered from 1 (Oxford flowers).

``imagelabels.mat`` has a class for each of ``image_00001.jpg`` and so on, ``setid.mat`` the numbers
of the images of each split.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import DataError
from ...settings import DataSettings
from ..file_kinds import image_stem
from ..matlab import MATLAB_SUFFIX, variables_of
from ..split_words import SPLITS
from ..tree import Node
from .form import Form, form_of

_LABELS = ("labels", "label", "classes", "class", "y")
_PARTS = {"trnid": 0, "train": 0, "valid": 1, "val": 1, "tstid": 2, "test": 2}
_NUMBER = re.compile(r"(\d+)$")


def find_numbered(node: Node, ask: DataSettings) -> Form | None:
    """Find vectors of labels for images that are numbered from 1; None where there are none."""
    texts = [Path(one.path) / name for one in node.walk() for name in one.texts
             if name.lower().endswith(MATLAB_SUFFIX)][:20]  # fmt: skip
    if not texts:
        return None
    found: dict[Path, dict[str, list[str]]] = {}
    for text in texts:
        try:
            found[text] = variables_of(text)
        except DataError:
            continue
    numbers: dict[int, str] = {}
    cut = len(node.rel) + 1 if node.rel else 0
    for path in (one[cut:] for one in node.paths()):
        digits = _NUMBER.search(image_stem(path.rpartition("/")[2]))
        if digits is None or int(digits[1]) in numbers:
            return None
        numbers[int(digits[1])] = path
    if set(numbers) != {*range(1, len(numbers) + 1)}:
        return None
    for source, columns in found.items():
        for name, column in columns.items():
            if name.casefold() not in _LABELS or len(column) != len(numbers):
                continue
            split, used = _split(found, len(numbers))
            rows = [
                [numbers[at], column[at - 1], SPLITS[split[at]] if split else ""] for at in
                sorted(numbers)
            ]  # fmt: skip
            return form_of(
                source, ("file", "class", "split"), rows, [source.name, *used], ask,
                name="a class for each number of an image",
            )  # fmt: skip
    return None


def _split(found: dict[Path, dict[str, list[str]]], n: int) -> tuple[dict[int, int], list[str]]:
    """Give the split of each number where one file has all of them, each once."""
    for path, columns in found.items():
        split: dict[int, int] = {}
        count = 0
        for name, column in columns.items():
            if name.casefold() in _PARTS and all(one.isdigit() for one in column):
                count += len(column)
                split |= dict.fromkeys(map(int, column), _PARTS[name.casefold()])
        if count == len(split) == n and set(split) == {*range(1, n + 1)}:
            return split, [path.name]
    return {}, []
