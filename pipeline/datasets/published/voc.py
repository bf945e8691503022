"""Pascal VOC: an XML for each image, and lists of splits in ``ImageSets/Main``.

Where lists of classes are there (``aeroplane_train.txt``: a name and 1, 0 or -1), they say which
classes an image has; else the objects of its XML do.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError
from ...settings import DataSettings
from ..phrases import plural, quoted
from ..split_words import SPLITS, split_of
from ..tree import Node
from .form import Form, form_of, lines_of, texts_of, xml_of


def find_voc(node: Node, ask: DataSettings) -> Form | None:
    """Find ``ImageSets/Main`` with lists of splits; None where there is none.

    Raises
    ------
    DataError
        Several sets of this form, or a list that cannot be read.
    """
    holders = [
        one
        for outer in node.walk()
        if "ImageSets" in outer.folders
        for one in [outer.folders["ImageSets"].folders.get("Main", outer.folders["ImageSets"])]
        if any(name.lower().endswith(".txt") for name in one.texts)
    ]
    if not holders:
        return None
    if len(holders) > 1:
        tops = [str(Path(one.path.rpartition("/ImageSets")[0])) for one in holders]
        raise DataError(
            f"{node.path} holds {len(tops)} sets in the form of Pascal VOC.",
            expected="one set",
            todo="choose one: " + "; or ".join(f"make data DATA={quoted(one)}" for one in tops[:4]),
        )
    (holder,) = holders
    top = holder.path.rpartition("/ImageSets")[0]
    splits, by_class = _lists(holder)
    if not splits:
        return None
    labels, source = by_class, Path(holder.path)
    if not labels:
        found, _ = classes_of_xml(node)
        labels = {name: classes for _, name, classes in found}
    if not labels:
        return None
    base = top[len(node.path) :].strip("/")
    rows, without = [], 0
    for name, split in splits.items():
        if name not in labels or not labels[name]:
            without += 1
            continue
        path = f"{base}/JPEGImages/{name}".lstrip("/")
        rows.append([path, "\x1f".join(labels[name]), split])
    form = form_of(
        source, ("file", "class", "split"), rows, _names(splits, by_class), ask, name="Pascal VOC"
    )
    if without:
        form.roles.notes.append(f"{plural(without, 'image', 'images')} without a class left out")
    return form


def _names(splits: dict[str, str], by_class: dict[str, list[str]]) -> list[str]:
    lists = [f"{split}.txt" for split in SPLITS if split in splits.values()]
    return [*lists, "the lists of classes" if by_class else "the XML files"]


def _lists(holder: Node) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the split of each name, and the classes that the lists of classes give it."""
    splits: dict[str, str] = {}
    by_class: dict[str, list[str]] = {}
    texts = [name for name in sorted(holder.texts) if name.lower().endswith(".txt")]
    parts = {name: Path(name).stem.rpartition("_") for name in texts}
    words = {part[2].casefold() for part in parts.values()}
    both = {"train", "val"} <= words  # then trainval is the two of them again
    for name in texts:
        label, _, word = parts[name]
        split = split_of(word)
        if split is None or (both and word.casefold() == "trainval"):
            continue
        rows = [line.split() for line in lines_of(Path(holder.path) / name)]
        if not label:
            splits |= {row[0]: SPLITS[split] for row in rows}
        elif all(len(row) == 2 and row[1] in ("1", "0", "-1") for row in rows):
            for row in rows:
                splits.setdefault(row[0], SPLITS[split])
                if row[1] == "1":
                    by_class.setdefault(row[0], []).append(label)
    return splits, by_class


def classes_of_xml(node: Node) -> tuple[list[tuple[str, str, list[str]]], list[str]]:
    """Give the classes of the objects in each ``<annotation>``.

    Returns
    -------
    classes : list of (str, str, list of str)
        Folder of the XML relative to `node`, its name without suffix, its classes in their order.
    unreadable : list of str
        Files that are no XML of this form.
    """
    classes: list[tuple[str, str, list[str]]] = []
    unreadable: list[str] = []
    for folder, stem, path in texts_of(node, ".xml"):
        root = xml_of(path)
        if root is None or root.tag != "annotation":
            unreadable.append(path.name)
            continue
        names = [one.findtext("name", "").strip() for one in root.iter("object")]
        classes.append((folder, stem, list(dict.fromkeys(name for name in names if name))))
    return classes, unreadable
