"""Parquet and Arrow files of Hugging Face: images with their bytes, labels with their names."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from .phrases import few
from .problem import Problem
from .split_words import SPLITS, split_in
from .words import LABELS, key_of, words_of

IMAGE_WORDS = {"images", "image", "imgs", "img", "x", "data", "pixels", "pictures", "photos"}


def from_tables(files: list[str], place: Path) -> list[list[str]]:
    """Write the images of Parquet and Arrow files; give the rows of their table.

    Raises
    ------
    Problem
        pyarrow is missing, a file is damaged, or its columns are not images and labels.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise Problem(
            "reading it needs the package pyarrow",
            "the extra arrow",
            "pip install 'cnn-codes[arrow]'; or write the images out as files",
        ) from error
    rows: list[list[str]] = []
    header: list[str] = []
    count = 0
    splits = {name: split_name(name) for name in files}
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
                        raise Problem(
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
        except Problem:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Problem(
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
    images.sort(key=lambda key: (not set(words_of(key)) & IMAGE_WORDS, key))
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
        raise Problem(
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


def split_name(name: str) -> str:
    """Give the split that a file is called after; empty for none."""
    found = split_in(re.sub(r"\d+-of-\d+", "", Path(name).stem))
    return SPLITS[found[0]] if found else ""


def _suffix(data: bytes) -> str:
    try:
        form = Image.open(io.BytesIO(data)).format
    except Exception:  # what is no image is found, and said, where it is read
        return ".jpg"
    return {"JPEG": ".jpg", "MPO": ".jpg"}.get(form or "", f".{(form or 'jpg').lower()}")
