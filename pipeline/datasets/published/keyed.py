"""Texts that say one thing of each image by its number: CUB-200-2011, NABirds and their like.

``images.txt`` has the number and the path of each image, ``image_class_labels.txt`` its number and
that of its class, ``classes.txt`` the names of classes, ``train_test_split.txt`` whether an image
is for training.
"""

from __future__ import annotations

from collections import Counter

from ...settings import DataSettings
from ..tree import Node
from .form import Form, form_of, pairs_of, texts_named

_IMAGES, _LABELS, _CLASSES, _SPLIT = (
    "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt",
)  # fmt: skip
_MOST_LACKING = 0.01  # share of images that a text may say nothing of


def find_keyed(node: Node, ask: DataSettings) -> Form | None:
    """Find a set whose texts name images by number; None where there is none.

    Raises
    ------
    DataError
        A text cannot be read.
    """
    for holder, found in texts_named(node, (_IMAGES, _LABELS, _CLASSES, _SPLIT)):
        if _IMAGES not in found or not {_LABELS, _SPLIT} & set(found):
            continue
        paths = pairs_of(found[_IMAGES])
        labels = pairs_of(found[_LABELS]) if _LABELS in found else {}
        split = pairs_of(found[_SPLIT]) if _SPLIT in found else {}
        keys = set(paths)
        if not keys or (labels and not _covers(labels, keys)):
            continue
        if labels:
            names = pairs_of(found[_CLASSES]) if _CLASSES in found else {}
            again = {name for name, n in Counter(names.values()).items() if n > 1}
            if not set(labels.values()) <= set(names):
                names = {}
        use_split = _covers(split, keys) and set(split.values()) == {"0", "1"}
        base = holder.rel[len(node.rel) :].strip("/")
        rows = []
        for key, path in paths.items():
            if labels:
                number = labels.get(key, "")
                label = names.get(number, number)
                label = f"{label} ({number})" if label in again else label
            else:
                label = path.rpartition("/")[0].rpartition("/")[2]
            side = {"1": "train", "0": "test"}.get(split.get(key, ""), "") if use_split else ""
            rows.append([f"{base}/{path}" if base else path, label, side])
        files = [found[name].name for name in (_IMAGES, _LABELS, _CLASSES, _SPLIT)
                 if name in found and (name != _SPLIT or use_split)]  # fmt: skip
        return form_of(
            found.get(_LABELS, found[_IMAGES]), ("file", "class", "split"), rows, files, ask,
            name="a set with a number for each image (as CUB-200-2011 has them)",
        )  # fmt: skip
    return None


def _covers(some: dict[str, str], keys: set[str]) -> bool:
    return len(keys - set(some)) <= _MOST_LACKING * len(keys)
