"""Tables that are written as JSON: records, one per line or in a list, COCO, and maps of names.

They become a :class:`.Sheet`, so that columns of files, labels and splits are found as in a CSV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..notation import size
from .file_kinds import is_image
from .texts import Sheet, read_text

RECORD_SUFFIXES = (".json", ".jsonl", ".ndjson")
_MOST_BYTES = 64 << 20  # objects in memory take ten times as much
_DEEPEST = 3
_MOST_COLUMNS = 500


def read_records(path: Path) -> Sheet:
    """Read a JSON file as a table.

    Known forms: a list of objects; an object a line; ``{"images": [...], "annotations": [...],
    "categories": [...]}`` (COCO, cocodataset.org/#format-data); an object of file names and labels;
    an object of classes and lists of file names; a list of pairs of file name and label.

    Raises
    ------
    DataError
        It cannot be read, is too large, or has none of these forms.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path} has {size(path.stat().st_size)}.",
            expected=f"JSON of at most {size(_MOST_BYTES)}",
            todo="write it as a CSV with path,label",
        )
    text, encoding = read_text(path)
    try:
        records = _records(_parsed(text))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON: {str(error)[:200]}.",
            expected="a list of objects, or an object per line",
            todo="write a CSV with path,label",
        ) from error
    if not records:
        raise DataError(
            f"{path} holds no table.",
            expected="a list of objects such as {\"file\": ..., \"label\": ...}, an object per "
            "line, COCO, or an object of file names and labels",
            todo="write a CSV with path,label",
        )  # fmt: skip
    names = list(dict.fromkeys(key for record in records for key in record))[:_MOST_COLUMNS]
    rows = [names, *([str(record.get(name, "")) for name in names] for record in records)]
    return Sheet(rows, list(range(1, len(rows) + 1)), "JSON", encoding)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def _records(value: Any, depth: int = 0) -> list[dict[str, str]]:
    """Give the rows of any of the known forms; none where it has none of them."""
    if isinstance(value, Mapping) and isinstance(value.get("images"), list):
        return _coco(value)
    if isinstance(value, list):
        if value and all(isinstance(one, Mapping) for one in value):
            return [_flat(one) for one in value]
        if value and all(_is_pair(one) for one in value):
            return [{"file": str(name), "label": str(label)} for name, label in value]
        return []
    if not isinstance(value, Mapping) or not value:
        return []
    items = [(str(key), one) for key, one in value.items()]
    if all(isinstance(one, str | int | float) for _, one in items):
        if sum(is_image(key) for key, _ in items) * 2 > len(items):
            return [{"file": key, "label": str(one)} for key, one in items]
        return []
    if all(isinstance(one, Mapping) for _, one in items):
        return [{"file": key, **_flat(one)} for key, one in items]
    if all(isinstance(one, list) and all(isinstance(x, str) for x in one) for _, one in items):
        if sum(is_image(key) for key, _ in items) * 2 > len(items):
            return [{"file": key, "label": "|".join(one)} for key, one in items]
        return [{"file": name, "label": key} for key, one in items for name in one]
    lists = [one for _, one in items if isinstance(one, list)]
    return _records(lists[0], depth + 1) if len(lists) == 1 and depth < _DEEPEST else []


def _coco(value: Mapping[str, Any]) -> list[dict[str, str]]:
    categories = {
        str(one.get("id")): str(one.get("name", one.get("id")))
        for one in _objects(value.get("categories"))
    }
    labels: dict[str, list[str]] = {}
    for one in _objects(value.get("annotations")):
        number = str(one.get("category_id", ""))
        labels.setdefault(str(one.get("image_id")), []).append(categories.get(number, number))
    rows = []
    for one in _objects(value["images"]):
        row = _flat({k: v for k, v in one.items() if not str(k).endswith("url")})
        found = labels.get(str(one.get("id")))
        if found is not None:
            row["label"] = "|".join(dict.fromkeys(found))
        if labels and found is None:
            continue  # an image that nothing was annotated in
        rows.append(row)
    return rows


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _said_of_objects(value: Mapping[str, Any]) -> list[str]:
    """Give the classes in the marks of one image: of CreateML, VIA, Label Studio, Hugging Face."""
    found: list[str] = []
    for one in (*_marks(value.get("annotations")), *_marks(value.get("regions"))):
        if isinstance(one.get("label"), str):
            found.append(one["label"])
        attributes = one.get("region_attributes")
        if isinstance(attributes, Mapping):
            found += [str(text) for text in attributes.values() if isinstance(text, str) and text]
        for result in _marks(one.get("result")):
            said = result.get("value")
            for key, texts in said.items() if isinstance(said, Mapping) else ():
                if str(key).endswith(("choices", "labels")) and isinstance(texts, list):
                    found += [str(text) for text in texts]
    objects = value.get("objects")
    held = objects.get("categories", objects.get("category")) if isinstance(
        objects, Mapping) else None  # fmt: skip
    found += [str(one) for one in held] if isinstance(held, list) else []
    return list(dict.fromkeys(found))


def _marks(value: Any) -> list[Mapping[str, Any]]:
    values = list(value.values()) if isinstance(value, Mapping) else value
    return _objects(values)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], str | int)
    )


def _flat(value: Mapping[str, Any], before: str = "", depth: int = 0) -> dict[str, str]:
    """Give the texts and numbers of an object, those of objects in it by ``outer.inner``."""
    row: dict[str, str] = {}
    if not depth and (said := _said_of_objects(value)):
        row["label"] = "|".join(said)
    for key, one in value.items():
        name = f"{before}{key}"
        if isinstance(one, Mapping) and depth < _DEEPEST:
            row |= _flat(one, f"{name}.", depth + 1)
        elif isinstance(one, list) and all(isinstance(x, str) for x in one):
            row[name] = "|".join(one)
        elif isinstance(one, str | int | float):
            row[name] = " ".join(str(one).split("\n"))
    return row
