"""The child process of :mod:`.arrays`: reads arrays, writes image files and their table.

Names of arrays say what they are: ``train_images`` and ``train_labels``, ``x_test`` and ``y_test``,
``images`` and ``labels``, or, in two files, ``split_train_x.h5`` and ``split_train_y.h5``.
Parquet and Arrow files are those of Hugging Face: a column of images with their bytes, a column of
labels whose names are in the metadata, the split in the file's name.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cells import csv_bytes
from .phrases import few
from .split_words import SPLITS, split_in
from .words import LABELS, key_of, words_of

__all__ = ["run"]

_IMAGES = {"images", "image", "imgs", "img", "x", "data", "pixels", "pictures", "photos"}
_LABELS = {"labels", "label", "y", "target", "targets", "class", "classes", "category"}
_MOST_BYTES = 64 << 30
_MOST_RATIO = 2000  # bytes of an array for each byte of its file


class _Problem(Exception):
    """What the user can correct: found, expected, next."""


def run(folder: str, files: list[str]) -> None:
    """Write the images of `files` into `folder`; a problem into ``.problem`` there."""
    place = Path(folder)
    try:
        _limit(sum(Path(name).stat().st_size for name in files))
        tables = [
            name for name in files if name.lower().endswith((".parquet", ".arrow", ".feather"))
        ]
        rows = _from_tables(tables, place) if tables else _from_arrays(files, place)
        if len(rows) < 2:
            raise _Problem("there is no image in it", "images with labels", "")
        (place / "labels.csv").write_bytes(csv_bytes(rows, paths=(0,)))
    except _Problem as problem:
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


# --- arrays


def _from_arrays(files: list[str], place: Path) -> list[list[str]]:
    named: dict[str, Any] = {}
    for name in files:
        try:
            named |= _npz(name) if name.lower().endswith(".npz") else _hdf5(name)
        except _Problem:
            raise
        except Exception as error:  # numpy, zipfile and h5py raise many kinds on damaged files
            raise _Problem(
                f"{Path(name).name} cannot be read ({str(error).splitlines()[0][:200]})",
                "a complete .npz or .h5 file, without pickled objects",
                "fetch it again",
            ) from error
    images: dict[int | None, tuple[str, Any]] = {}
    labels: dict[int | None, tuple[str, Any]] = {}
    for name, array in named.items():
        role, split = _role(name, array)
        if role == "images" and split not in images:
            images[split] = (name, array)
        elif role == "labels" and split not in labels:
            labels[split] = (name, array)
    shown = few([f"{name} {tuple(array.shape)}" for name, array in named.items()], 8)
    if not images or set(images) - set(labels):
        raise _Problem(
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


def _npz(name: str) -> dict[str, Any]:
    import zipfile

    with zipfile.ZipFile(name) as opened:
        total = sum(info.file_size for info in opened.infolist())
    _check_size(total, name)
    with np.load(name, allow_pickle=False) as saved:
        return {key: saved[key] for key in saved.files}


def _check_size(total: int, name: str) -> None:
    size = Path(name).stat().st_size
    if total > min(_MOST_BYTES, size * _MOST_RATIO + (1 << 28)):
        raise _Problem(
            f"{Path(name).name} has {size:,} bytes and unpacks to {total:,}",
            f"arrays of at most {_MOST_RATIO} times their file",
            "do not trust this file",
        )


def _hdf5(name: str) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    opened = h5py.File(name, "r", locking=False)

    def take(key: str, one: Any) -> None:
        if isinstance(one, h5py.Dataset) and one.dtype.kind in "uifSU" and one.ndim:
            if one.external or one.is_virtual:
                raise _Problem(
                    f"{key} in {Path(name).name} lies in another file", "all data in one file",
                    "do not trust this file",
                )  # fmt: skip
            _check_size(one.nbytes, name)
            found[f"{Path(name).stem} {key}"] = one

    opened.visititems(take)  # follows no link
    return found


def _role(name: str, array: Any) -> tuple[str, int | None]:
    """Tell whether an array is images or labels, and of which split."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    found = split_in(" ".join(words))
    split = found[0] if found else None
    last = words[-2:] if words else []
    if array.ndim in (3, 4) and array.dtype.kind in "uif" and set(words) & _IMAGES:
        if not (set(last) & _LABELS) and min(array.shape[1:3]) > 1:
            return "images", split
    if set(words) & _LABELS and (array.ndim <= 2 or int(np.prod(array.shape[1:])) == 1):
        return "labels", split
    return "", split


def _labels(name: str, array: Any, n: int) -> list[str]:
    values = np.asarray(array[...])
    if values.ndim > 1 and int(np.prod(values.shape[1:])) == 1:
        values = values.reshape(len(values))
    if values.ndim == 2:  # one column per class
        if not np.all((values == 0) | (values == 1)) or not np.all(values.sum(axis=1) == 1):
            raise _Problem(
                f"{name} has several labels for an image, or none", "one label for each image", ""
            )
        values = values.argmax(axis=1)
    if len(values) != n:
        raise _Problem(f"{name} has {len(values):,} labels for {n:,} images", "one for each", "")
    if values.dtype.kind == "S":
        return [one.decode("utf-8", "replace") for one in values.tolist()]
    if values.dtype.kind == "f" and np.all(values == np.round(values)):
        values = values.astype(np.int64)
    return [str(one) for one in values.tolist()]


def _pictures(name: str, array: Any) -> Iterator[Image.Image]:
    """Give the pictures of (N, H, W), (N, H, W, C) or (N, C, H, W)."""
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
                raise _Problem(
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
            raise _Problem(
                f"{name} has numbers that are not finite", "numbers 0 to 1 or 0 to 255", ""
            )
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if low < 0 or (high > 255 and array.dtype.kind == "f"):
        raise _Problem(
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


# --- tables


def _from_tables(files: list[str], place: Path) -> list[list[str]]:
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise _Problem(
            "reading it needs the package pyarrow",
            "the extra arrow",
            "pip install 'cnn-codes[arrow]'; or write the images out as files",
        ) from error
    rows: list[list[str]] = []
    header: list[str] = []
    count = 0
    splits = {name: _split_name(name) for name in files}
    known = {split for split in splits.values() if split}
    for name in sorted(files):
        try:
            for batch, schema in _batches(name, pa):
                image, label, names, further = _columns(schema, name)
                if not header:
                    header = ["path", "label", *(["split"] if len(known) > 0 else []), *further]
                columns = {key: batch.column(key).to_pylist() for key in (image, label, *further)}
                for number in range(batch.num_rows):
                    data = columns[image][number]
                    data = data.get("bytes") if isinstance(data, dict) else data
                    if not isinstance(data, bytes):
                        raise _Problem(
                            f"{Path(name).name} names images but does not hold their bytes",
                            "image bytes in the column of images",
                            "write the set with embedded images, or put the files next to it",
                        )
                    sub = splits[name] or "images"
                    (place / sub).mkdir(exist_ok=True)
                    path = f"{sub}/{count:08d}{_suffix(data)}"
                    (place / path).write_bytes(data)
                    value = columns[label][number]
                    text = names[value] if names and isinstance(value, int) else str(value)
                    rows.append(
                        [path, text, *([splits[name]] if known else []),
                         *(str(columns[key][number])[:1000] for key in further)]
                    )  # fmt: skip
                    count += 1
        except _Problem:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _Problem(
                f"{Path(name).name} cannot be read ({str(error).splitlines()[0][:200]})",
                "a complete .parquet or .arrow file",
                "fetch it again",
            ) from error
    return [header, *rows]


def _batches(name: str, pa: Any) -> Iterator[tuple[Any, Any]]:
    if name.lower().endswith(".parquet"):
        import pyarrow.parquet as pq

        opened = pq.ParquetFile(name)
        for batch in opened.iter_batches(batch_size=256):
            yield batch, opened.schema_arrow
        return
    with pa.OSFile(name) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        for batch in batches:
            yield batch, reader.schema


def _columns(schema: Any, name: str) -> tuple[str, str, list[str] | None, list[str]]:
    """Find the column of images, that of labels, the labels' names, and the other columns."""
    kinds = {one.name: str(one.type) for one in schema}
    images = [
        key
        for key, kind in kinds.items()
        if "binary" in kind and kind.startswith(("struct", "binary", "large_binary"))
    ]
    images.sort(key=lambda key: (not set(words_of(key)) & _IMAGES, key))
    labels = [key for key in kinds if key_of(key) in LABELS]
    labels.sort(key=lambda key: LABELS.index(key_of(key)))
    meta = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = meta.get("info", {}).get("features", {}) if isinstance(meta, dict) else {}
    classed = [
        key for key, one in features.items()
        if isinstance(one, dict) and one.get("_type") == "ClassLabel" and key in kinds
    ]  # fmt: skip
    labels = classed or labels
    if not images or not labels:
        shown = few([f"{key} ({kind[:40]})" for key, kind in kinds.items()])
        raise _Problem(
            f"the columns of {Path(name).name} are {shown}",
            "a column image with bytes, and a column label",
            "rename the columns, or write the images out as files",
        )
    names = features.get(labels[0], {}).get("names") if classed else None
    plain = ("int", "uint", "float", "double", "string", "large_string", "bool")
    further = [
        key for key, kind in kinds.items()
        if key not in (images[0], labels[0]) and kind.startswith(plain)
        and key.casefold() not in ("path", "label", "split")
    ]  # fmt: skip
    return images[0], labels[0], names, further


def _split_name(name: str) -> str:
    found = split_in(re.sub(r"\d+-of-\d+", "", Path(name).stem))
    return SPLITS[found[0]] if found else ""


def _suffix(data: bytes) -> str:
    try:
        form = Image.open(io.BytesIO(data)).format
    except Exception:  # what is no image is found, and said, where it is read
        return ".jpg"
    return {"JPEG": ".jpg", "MPO": ".jpg"}.get(form or "", f".{(form or 'jpg').lower()}")
