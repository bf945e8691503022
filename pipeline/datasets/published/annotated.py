"""Tables that say more of an image than its class: Kaggle's PredictionString, Open Images.

``PredictionString`` holds a class and four numbers for each object (ImageNet's localisation task).
Open Images has a row for each label that people verified; a confidence of 0 says that the image
does *not* have it.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import DataError
from ...settings import DataSettings
from ..phrases import plural
from ..split_words import SPLITS, split_in
from ..texts import Sheet, read_sheet
from ..tree import Node
from ..words import key_of
from .form import Form, form_of

_MOST_TABLES = 40
_DESCRIBES = re.compile(r"(?i)(oidv\d+-)?class-descriptions.*\.csv")


def find_annotated(node: Node, ask: DataSettings) -> Form | None:
    """Find tables of one of these forms; None where there are none."""
    tables = [
        Path(one.path) / name
        for one in node.walk()
        for name in one.texts
        if name.lower().endswith(".csv") and not one.images
    ][:_MOST_TABLES]
    labels: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    used: list[Path] = []
    denied, name = 0, ""
    for path in tables:
        if "sample" in path.name.lower() or _DESCRIBES.fullmatch(path.name):
            continue
        keys = _header(path)
        if keys[:2] == ["image_id", "prediction_string"]:
            name = "objects in a PredictionString"
        elif keys[:4] == ["image_id", "source", "label_name", "confidence"]:
            name = "verified labels (Open Images)"
        else:
            continue
        try:
            sheet = read_sheet(path)
        except DataError:
            continue
        used.append(path)
        found = split_in(path.stem)
        for row in sheet.rows[1:]:
            if len(row) < len(keys):
                continue
            if len(keys) > 2 and not _positive(row[3]):
                denied += 1
                continue
            said = row[1].split()[::5] if keys[1] == "prediction_string" else [row[2]]
            held = labels.setdefault(row[0], [])
            held += [label for label in said if label not in held]
            splits[row[0]] = "" if found is None else SPLITS[found[0]]
    if not used:
        return None
    names = _descriptions(node)
    rows = [
        [image, "\x1f".join(names.get(label, label) for label in labels[image]), splits[image]]
        for image in labels if labels[image]
    ]  # fmt: skip
    known = set(splits.values())
    if "" in known or "train" not in known or len(known) < 2:
        rows = [[*row[:2], ""] for row in rows]
    files = [path.name for path in used]
    form = form_of(used[0], ("file", "class", "split"), rows, files, ask, name=name)
    if denied:
        form.roles.notes.append(
            f"{plural(denied, 'row', 'rows')} of confidence 0, which say that a label is absent, "
            "left out"
        )
    return form


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            first = stream.readline(4096)
    except OSError:
        return []
    return [key_of(cell) for cell in first.strip().split(",")]


def _positive(cell: str) -> bool:
    try:
        return float(cell) > 0
    except ValueError:
        return False


def _descriptions(node: Node) -> dict[str, str]:
    """Give the names of Open Images' classes: ``/m/01yrx,Cat``."""
    for one in node.walk():
        for name in one.texts:
            if _DESCRIBES.fullmatch(name):
                try:
                    sheet: Sheet = read_sheet(Path(one.path) / name)
                except DataError:
                    continue
                return {row[0]: row[1] for row in sheet.rows if len(row) == 2}
    return {}
