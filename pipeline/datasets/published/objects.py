"""Marked objects as labels of images: YOLO's texts, XML of Pascal VOC and CVAT, LabelMe's JSON.

An image has the classes of the objects in it. Where each image shows one class only, that is its
label; where some show several, ``LABEL=`` decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from ...errors import DataError
from ...settings import DataSettings
from ..file_kinds import image_stem
from ..phrases import plural
from ..split_words import SPLITS, split_of
from ..texts import read_bytes
from ..tree import Node
from ..words import ANNOTATIONS, GENERIC, annotates, nfc, words_of
from .form import Form, form_of, lines_of
from .voc import classes_of_xml

_LEAST = 0.5  # share of the images that must have an annotation
_MOST_BYTES = 64 << 20
_LOOKED_AT = 20
_BOX = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}", re.IGNORECASE)
_Mark = tuple[str, str, list[str]]  # folder, name without suffix, classes
_Key = tuple[tuple[str, ...], str]


def find_objects(node: Node, ask: DataSettings) -> Form | None:
    """Find annotations of objects for most images; None where there are none."""
    images: dict[_Key, str] = {}
    cut = len(node.rel) + 1 if node.rel else 0
    for path in (one[cut:] for one in node.paths()):
        folder, _, name = path.rpartition("/")
        if not any(annotates(part) for part in folder.split("/") if part):
            images.setdefault(_key(folder, image_stem(name)), path)
    for kind, marks, source in _marks(node, len(images)):
        labels = {
            images[key]: classes for folder, stem, classes in marks
            if (key := _key(folder, stem)) in images
        }  # fmt: skip
        if len(labels) < _LEAST * len(images) or len({x for y in labels.values() for x in y}) < 2:
            continue
        with_class = {path: classes for path, classes in labels.items() if classes}
        splits = _splits(list(with_class))
        rows = [
            [path, "\x1f".join(classes), splits.get(path, "")]
            for path, classes in sorted(with_class.items())
        ]
        form = form_of(source, ("file", "class", "split"), rows, [kind], ask,
                       name="the classes of marked objects")  # fmt: skip
        if splits:
            form.roles.notes.append("splits from the names of folders")
        if len(with_class) < len(labels):
            n = len(labels) - len(with_class)
            form.roles.notes.append(f"{plural(n, 'image', 'images')} without an object left out")
        return form
    return None


def _key(folder: str, stem: str) -> _Key:
    parts = [part for part in folder.split("/") if part]
    telling = (part for part in parts if not set(words_of(part)) <= GENERIC | ANNOTATIONS)
    return tuple(nfc(part).casefold() for part in telling), nfc(stem).casefold()


def _splits(paths: Sequence[str]) -> dict[str, str]:
    """Give the split of each path by its folders; empty where some have none."""
    found: dict[str, str] = {}
    for path in paths:
        said = [split for part in path.split("/")[:-1] if (split := split_of(part)) is not None]
        if not said:
            return {}
        found[path] = SPLITS[said[0]]
    return found if "train" in found.values() and len(set(found.values())) > 1 else {}


def _marks(node: Node, n_images: int) -> Iterable[tuple[str, list[_Mark], Path]]:
    """Give the annotations of each kind that are as many as half of the images."""
    folders = [(one.rel[len(node.rel) :].strip("/"), one) for one in node.walk()]
    count = {
        suffix: sum(name.lower().endswith(suffix) for _, one in folders for name in one.texts)
        for suffix in (".xml", ".txt", ".json")
    }
    top = Path(node.path)
    if count[".xml"] >= _LEAST * n_images:
        yield "XML files", classes_of_xml(node)[0], top
    elif 0 < count[".xml"] <= _LOOKED_AT:
        for _, one in folders:
            for name in one.texts:
                if name.lower().endswith(".xml") and (marks := _cvat(Path(one.path) / name)):
                    yield name, marks, Path(one.path) / name
    if count[".txt"] >= _LEAST * n_images:
        yield "YOLO's texts", _yolo(folders), top
    if count[".json"] >= _LEAST * n_images:
        yield "JSON files", _labelme(folders), top


def _yolo(folders: Sequence[tuple[str, Node]]) -> list[_Mark]:
    names = _names(folders)
    marks: list[_Mark] = []
    for folder, one in folders:
        for name in one.texts:
            if not name.lower().endswith(".txt"):
                continue
            try:
                lines = lines_of(Path(one.path) / name)
            except DataError:
                continue
            if not all(_BOX.fullmatch(line) for line in lines):
                continue
            numbers = list(dict.fromkeys(int(line.split()[0]) for line in lines))
            classes = [names[n] if n < len(names) else str(n) for n in numbers]
            marks.append((folder, name[:-4], classes))
    return marks


def _names(folders: Sequence[tuple[str, Node]]) -> list[str]:
    """Give the names of YOLO's classes: of ``data.yaml``, ``obj.names`` or ``classes.txt``."""
    for _, one in folders:
        for name in one.texts:
            path, lower = Path(one.path) / name, name.lower()
            try:
                if lower in ("classes.txt", "labels.txt") or lower.endswith(".names"):
                    return lines_of(path)
                if lower.endswith((".yaml", ".yml")) and (found := _yaml_names(lines_of(path))):
                    return found
            except DataError:
                continue
    return []


def _yaml_names(lines: Sequence[str]) -> list[str]:
    """Give the ``names`` of a YOLO data file: a list in one line, or an entry a line."""
    for at, line in enumerate(lines):
        if not line.startswith("names:"):
            continue
        rest = line[len("names:") :].strip()
        if rest:
            inner = rest.strip("[]{} ")
            parts = [re.sub(r"^\d+\s*:\s*", "", part.strip()) for part in inner.split(",")]
            return [part.strip("'\" ") for part in parts if part]
        found = []
        for entry in lines[at + 1 :]:
            match = re.fullmatch(r"(?:-|\d+\s*:)\s*(.+)", entry)
            if match is None:
                break
            found.append(match[1].strip("'\" "))
        return found
    return []


def _labelme(folders: Sequence[tuple[str, Node]]) -> list[_Mark]:
    marks: list[_Mark] = []
    for folder, one in folders:
        for name in one.texts:
            if not name.lower().endswith(".json"):
                continue
            try:
                held = json.loads(read_bytes(Path(one.path) / name))
            except (DataError, ValueError, RecursionError):
                continue
            shapes = held.get("shapes") if isinstance(held, dict) else None
            if isinstance(shapes, list):
                said = [one.get("label") for one in shapes if isinstance(one, dict)]
                flags = held.get("flags")
                if not said and isinstance(flags, dict):
                    said = [key for key, value in flags.items() if value is True]
                classes = [str(label).strip() for label in said if label]
                marks.append((folder, name[:-5], list(dict.fromkeys(classes))))
    return marks


def _cvat(path: Path) -> list[_Mark]:
    """Read the images of one XML of CVAT: tags and the labels of shapes."""
    try:
        data = read_bytes(path)
        if len(data) > _MOST_BYTES or b"<!ENTITY" in data or b"<!DOCTYPE" in data:
            return []
        root = ElementTree.fromstring(data)
    except (DataError, ElementTree.ParseError, ValueError):
        return []
    marks: list[_Mark] = []
    for image in root.iter("image"):
        folder, _, name = image.get("name", "").replace("\\", "/").rpartition("/")
        tags = [one.get("label", "") for one in image if one.tag == "tag"]
        said = tags or [one.get("label", "") for one in image]
        classes = list(dict.fromkeys(label for label in said if label))
        marks.append((folder, image_stem(name), classes))
    return marks
