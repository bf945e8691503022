"""Marked objects as labels of images: YOLO's texts, XML of Pascal VOC and CVAT, LabelMe's JSON.

An image has the classes of the objects in it. Where each image shows one class only, that is its
label; where some show several, ``LABEL=`` decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...errors import DataError
from ...settings import DataSettings
from ..file_kinds import image_stem
from ..phrases import plural
from ..split_words import SPLITS, split_of
from ..texts import read_bytes, read_text
from ..tree import Node
from ..words import ANNOTATIONS, GENERIC, annotates, nfc, words_of
from .form import Form, form_of, lines_of, texts_of, xml_of
from .voc import classes_of_xml

_LEAST = 0.5  # share of the images that must have an annotation
_MOST_YAML_BYTES = 1 << 20
_LOOKED_AT = 20
_BOX = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}", re.IGNORECASE)
_Mark = tuple[str, str, list[str]]  # folder, name without suffix, classes
_Text = tuple[str, str, Path]  # the same, and where it is
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
    texts = {suffix: list(texts_of(node, suffix)) for suffix in (".xml", ".txt", ".json")}
    top = Path(node.path)
    if len(texts[".xml"]) >= _LEAST * n_images:
        yield "XML files", classes_of_xml(node)[0], top
    elif len(texts[".xml"]) <= _LOOKED_AT:
        for _, _, path in texts[".xml"]:
            if marks := _cvat(path):
                yield path.name, marks, path
    if len(texts[".txt"]) >= _LEAST * n_images:
        yield "YOLO's texts", _yolo(texts[".txt"], _names(node)), top
    if len(texts[".json"]) >= _LEAST * n_images:
        yield "JSON files", _labelme(texts[".json"]), top


def _yolo(texts: Sequence[_Text], names: Mapping[int, str]) -> list[_Mark]:
    marks: list[_Mark] = []
    for folder, stem, path in texts:
        try:
            lines = lines_of(path)
        except DataError:
            continue
        if all(_BOX.fullmatch(line) for line in lines):
            numbers = dict.fromkeys(int(line.split()[0]) for line in lines)
            marks.append((folder, stem, [names.get(n, str(n)) for n in numbers]))
    return marks


def _names(node: Node) -> dict[int, str]:
    """Give the names of YOLO's classes: of ``data.yaml``, ``obj.names`` or ``classes.txt``."""
    for one in node.walk():
        for name in one.texts:
            path, lower = Path(one.path) / name, name.lower()
            try:
                if lower in ("classes.txt", "labels.txt") or lower.endswith(".names"):
                    lines = read_text(path)[0].splitlines()  # a blank one has a number too
                    return {n: line.strip() for n, line in enumerate(lines) if line.strip()}
                if lower.endswith((".yaml", ".yml")) and (found := _yaml_names(path)):
                    return found
            except DataError:
                continue
    return {}


def _yaml_names(path: Path) -> dict[int, str]:
    """Give the ``names`` of a YOLO data file by their numbers: a list, or a mapping."""
    import yaml

    if path.stat().st_size > _MOST_YAML_BYTES:
        return {}
    try:
        held = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    names = held.get("names") if isinstance(held, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    return {int(n): str(name) for n, name in names.items() if str(n).isdigit()}


def _labelme(texts: Sequence[_Text]) -> list[_Mark]:
    marks: list[_Mark] = []
    for folder, stem, path in texts:
        try:
            held = json.loads(read_bytes(path))
        except (DataError, ValueError, RecursionError):
            continue
        shapes = held.get("shapes") if isinstance(held, dict) else None
        if isinstance(shapes, list):
            said = [one.get("label") for one in shapes if isinstance(one, dict)]
            flags = held.get("flags")
            if not said and isinstance(flags, dict):
                said = [key for key, value in flags.items() if value is True]
            classes = [str(label).strip() for label in said if label]
            marks.append((folder, stem, list(dict.fromkeys(classes))))
    return marks


def _cvat(path: Path) -> list[_Mark]:
    """Read the images of one XML of CVAT: tags and the labels of shapes."""
    root = xml_of(path)
    marks: list[_Mark] = []
    for image in root.iter("image") if root is not None else ():
        folder, _, name = image.get("name", "").replace("\\", "/").rpartition("/")
        tags = [one.get("label", "") for one in image if one.tag == "tag"]
        said = tags or [one.get("label", "") for one in image]
        classes = list(dict.fromkeys(label for label in said if label))
        marks.append((folder, image_stem(name), classes))
    return marks
