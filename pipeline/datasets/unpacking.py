"""The child process of :mod:`.arrays`: reads arrays, writes image files and their table.

Names of arrays say what they are: ``train_images`` and ``train_labels``, ``x_test`` and ``y_test``,
``images`` and ``labels``, or, in two files, ``split_train_x.h5`` and ``split_train_y.h5``.
Parquet and Arrow files are those of Hugging Face: a column of images with their bytes, a column of
labels whose names are in the metadata, the split in the file's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cells import csv_bytes
from .array_files import arrays_of
from .arrow_tables import IMAGE_WORDS, from_tables, split_name
from .phrases import few
from .pixel_tables import read_pixels
from .problem import Problem
from .split_words import SPLITS, TRAIN, split_in

_LABELS = {"labels", "label", "y", "target", "targets", "class", "classes", "category"}
_Arrays = dict[int | None, tuple[str, Any]]


def run(folder: str, files: list[str]) -> None:
    """Write the images of `files` into `folder`; a problem into ``.problem`` there."""
    place = Path(folder)
    try:
        _limit(sum(Path(name).stat().st_size for name in files))
        tables = [
            name for name in files if name.lower().endswith((".parquet", ".arrow", ".feather"))
        ]
        notes: list[str] = []
        pixels = [name for name in files if name.lower().endswith((".csv", ".tsv"))]
        if tables:
            rows = from_tables(tables, place)
        else:
            rows = _from_pixels(pixels, place, notes) if pixels else (
                _from_arrays(files, place, notes))  # fmt: skip
        if len(rows) < 2:
            raise Problem("there is no image in it", "images with labels", "")
        (place / "labels.csv").write_bytes(csv_bytes(rows, paths=(0,)))
        if notes:
            (place / ".notes").write_text("\n".join(dict.fromkeys(notes)), encoding="utf-8")
    except Problem as problem:
        found, expected, todo = problem.args
        names = few([Path(name).name for name in files], 3)
        text = "\n".join(part.replace("\n", " ") for part in (f"{names}: {found}.", expected, todo))
        (place / ".problem").write_text(text, encoding="utf-8")
    except MemoryError:
        (place / ".problem").write_text(
            f"{few(files, 3)} needs more memory than its size allows.\ncomplete files of images\n"
            "write the images out as files",
            encoding="utf-8",
        )


def _limit(n_bytes: int) -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    most = 6 * n_bytes + (8 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _from_arrays(files: list[str], place: Path, notes: list[str]) -> list[list[str]]:
    named = arrays_of(files, notes)
    images: _Arrays = {}
    labels: _Arrays = {}
    for name, array in named.items():
        role, split = _role(name, array)
        held = images if role == "images" else labels
        if role and split not in held:
            held[split] = (name, array)
        elif role and _same_but_for_number(name, held[split][0]):  # data_batch_1, data_batch_2
            held[split] = (name, np.concatenate([held[split][1], array]))
    if not labels and len(named) > 1:
        images, labels = _by_file(named, notes)
    if set(images) & set(labels) == {TRAIN} and len(images) == 1:
        images, labels = {None: images[TRAIN]}, {None: labels[TRAIN]}
    shown = few([f"{name} {tuple(array.shape)}" for name, array in named.items()], 8)
    if not images or set(images) - set(labels):
        raise Problem(
            f"its arrays are {shown}; which are images and which are labels is not certain",
            "names such as train_images and train_labels, x_test and y_test, images and labels; "
            "images as (N, H, W), (N, H, W, C) or (N, C, H, W)",
            "name the arrays so: numpy.savez('set.npz', train_images=x, train_labels=y)",
        )
    rows = [["path", "label", *(["split"] if None not in images else [])]]
    for split, (name, array) in sorted(images.items(), key=lambda one: str(one[0])):
        ours = _labels(*labels[split], len(array))
        sub = "images" if split is None else SPLITS[split]
        (place / sub).mkdir()
        for number, picture in enumerate(_pictures(name, array)):
            path = f"{sub}/{number:07d}.png"
            picture.save(place / path, compress_level=1)
            rows.append([path, ours[number], *([] if split is None else [SPLITS[split]])])
    return rows


def _from_pixels(files: list[str], place: Path, notes: list[str]) -> list[list[str]]:
    """Write the pictures of tables of pixels; tables that are called after splits are these."""
    tables = {Path(name).stem: read_pixels(Path(name), notes) for name in files}
    labelled = {name: one for name, one in tables.items() if one.label}
    for name in sorted(set(tables) - set(labelled)):
        if labelled or not tables[name].columns:
            notes.append(f"{name} holds pixels without a column of labels, and was left out.")
    used = labelled or {name: one for name, one in tables.items() if one.columns}
    if not used:
        raise Problem(
            "it holds pixels without a column of labels",
            "a column of labels next to the columns of pixels, such as label",
            "give the table that has the labels (train.csv), or add the column to this one",
        )
    if len(used) > 1:
        named = {name: split_name(name) for name in used}
        if not all(named.values()) or len(set(named.values())) < len(named):
            raise Problem(
                "several tables of pixels, which are not called after splits",
                "one table, or train and test",
                "give one of them as DATA, or rename them",
            )
        for name, one in used.items():
            one.split = [named[name]] * len(one.split)
    with_split = any(split for one in used.values() for split in one.split)
    further = list(dict.fromkeys(
        name for one in used.values() for name in one.columns if name != one.label))  # fmt: skip
    label = ["label"] if labelled else []
    rows = [["path", *label, *(["split"] if with_split else []), *further]]
    (place / "images").mkdir()
    for name, one in used.items():
        if one.label:
            notes.append(f"{name}: the labels are those of {one.label}.")
        for number, picture in enumerate(_pictures("its pixels", one.pictures)):
            path = f"images/{len(rows) - 1:07d}.png"
            picture.save(place / path, compress_level=1)
            rows.append([
                path,
                *([one.columns[one.label][number]] if labelled else []),
                *([one.split[number]] if with_split else []),
                *(one.columns[name][number] if name in one.columns else "" for name in further),
            ])  # fmt: skip
    return rows


def _role(name: str, array: Any) -> tuple[str, int | None]:
    """Tell whether an array is images or labels, and of which split."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    found = split_in(" ".join(words))
    split = found[0] if found else None
    last = words[-2:] if words else []
    if array.ndim in (3, 4) and array.dtype.kind in "uif" and set(words) & IMAGE_WORDS:
        if not (set(last) & _LABELS) and min(array.shape[1:3]) > 1:
            return "images", split
    if array.ndim == 2 and array.dtype.kind == "u" and set(words) & IMAGE_WORDS and _square(array):
        return "images", split
    if set(words) & _LABELS and (array.ndim <= 2 or int(np.prod(array.shape[1:])) == 1):
        return "labels", split
    return "", split


def _square(array: Any) -> bool:
    """Tell whether each row of an array may be a square picture of 8 x 8 pixels or more."""
    side = math.isqrt(array.shape[1])
    return side >= 8 and side * side == int(array.shape[1])


def _same_but_for_number(one: str, other: str) -> bool:
    return re.sub(r"\d+", "", one) == re.sub(r"\d+", "", other)


def _by_file(named: dict[str, Any], notes: list[str]) -> tuple[_Arrays, _Arrays]:
    """Read arrays of which each holds the pictures of one class, which it is called after."""
    if not all(one.ndim in (2, 3, 4) and one.dtype == np.uint8 for one in named.values()):
        return {}, {}
    shaped = {name: _squares(one) if one.ndim == 2 and _square(one) else one
              for name, one in named.items()}  # fmt: skip
    if (
        len({one.shape[1:] for one in shaped.values()}) > 1
        or min(one.ndim for one in shaped.values()) < 3
    ):
        return {}, {}
    names = {name: re.sub(r"^full_numpy_bitmap_", "", name) for name in shaped}
    if any(split_in(name) for name in names.values()):
        return {}, {}
    pictures = np.concatenate(list(shaped.values()))
    labels = np.concatenate([[names[name]] * len(one) for name, one in shaped.items()])
    notes.append(f"Each array was read as one class: {few(sorted(names.values()))}.")
    return {None: ("images", pictures)}, {None: ("labels", labels)}


def _squares(array: Any) -> Any:
    side = math.isqrt(array.shape[1])
    return np.asarray(array).reshape(-1, side, side)


def _labels(name: str, array: Any, n: int) -> list[str]:
    values = np.asarray(array[...])
    if values.ndim > 1 and int(np.prod(values.shape[1:])) == 1:
        values = values.reshape(len(values))
    if values.ndim == 2:  # one column per class
        if not np.all((values == 0) | (values == 1)) or not np.all(values.sum(axis=1) == 1):
            raise Problem(
                f"{name} has several labels for an image, or none", "one label for each image", ""
            )
        values = values.argmax(axis=1)
    if len(values) != n:
        raise Problem(f"{name} has {len(values):,} labels for {n:,} images", "one for each", "")
    if values.dtype.kind == "S":
        return [one.decode("utf-8", "replace") for one in values.tolist()]
    if values.dtype.kind == "f" and np.all(values == np.round(values)):
        values = values.astype(np.int64)
    return [str(one) for one in values.tolist()]


def _pictures(name: str, array: Any) -> Iterator[Image.Image]:
    """Give the pictures of (N, H, W), (N, H, W, C), (N, C, H, W) or (N, H * H)."""
    array = _squares(array) if array.ndim == 2 else array
    channels_first = (
        array.ndim == 4 and array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 3, 4)
    )
    scale = _scale(name, array)
    for at in range(0, len(array), 256):
        block = np.asarray(array[at : at + 256])
        if channels_first:
            block = block.transpose(0, 2, 3, 1)
        if scale != 1:
            block = np.clip(block * scale + 0.5, 0, 255)
        block = block.astype(np.uint16 if block.dtype.itemsize > 1 and scale == 1 else np.uint8)
        for one in block:
            if one.ndim == 3 and one.shape[2] == 1:
                one = one[:, :, 0]
            if one.ndim == 3 and one.shape[2] not in (3, 4):
                raise Problem(
                    f"{name} has {one.shape[2]} channels", "1 (grey), 3 (RGB) or 4 (RGBA)", ""
                )
            yield Image.fromarray(np.ascontiguousarray(one))


def _scale(name: str, array: Any) -> float:
    """Factor that brings the numbers to 0 to 255; 1 where they are bytes."""
    if array.dtype == np.uint8:
        return 1.0
    low, high = np.inf, -np.inf
    for at in range(0, len(array), 1024):
        block = np.asarray(array[at : at + 1024])
        if not np.all(np.isfinite(block)):
            raise Problem(
                f"{name} has numbers that are not finite", "numbers 0 to 1 or 0 to 255", ""
            )
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if low < 0 or (high > 255 and array.dtype.kind == "f"):
        raise Problem(
            f"{name} has numbers from {low:g} to {high:g}: standardised, it seems",
            "numbers from 0 to 1 or from 0 to 255",
            "bring them to bytes: ((x - x.min()) / (x.max() - x.min()) * 255).astype('uint8')",
        )
    if array.dtype.kind == "f" and high <= 1:
        return 255.0
    if high > 255:
        if array.ndim == 4 and 1 not in (array.shape[1], array.shape[3]):
            return 255 / 65535
        return 1.0  # 16-bit greys stay as they are
    return 1.0000001 if array.dtype.itemsize > 1 else 1.0
