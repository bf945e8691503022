"""The names, text and digests of the files of codes; ``cache/README.md`` specifies the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
MATTERS = (  # names in the config that the fingerprint is taken of
    "backbone", "weights_digest", "layers", "pool", "views", "preprocessing", "precision", "dtype",
)  # fmt: skip


def matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the part of a config that its fingerprint is taken of."""
    names = [*MATTERS, *(name for name in ("final", "calibration") if name in config)]
    return {name: config[name] for name in names}


def row_digests(blocks: list[NDArray[Any]]) -> NDArray[np.uint64]:
    """Digest each row over all its layers.

    Parameters
    ----------
    blocks : list of array of shape (n, ...)
        One a layer.

    Returns
    -------
    array of shape (n,), uint64
        BLAKE2b of 8 bytes.
    """
    blocks = [np.ascontiguousarray(block) for block in blocks]
    digests = np.empty(len(blocks[0]), np.uint64)
    for i in range(len(digests)):
        total = hashlib.blake2b(digest_size=8)
        for block in blocks:
            total.update(block[i].data)
        digests[i] = int.from_bytes(total.digest(), "little")
    return digests


def dataset_name(layer: str) -> str:
    """Give the dataset's full name of a layer; HDF5 takes a slash for a group."""
    return "codes/" + layer.replace("/", "|")


def probe_name(layer: str) -> str:
    """Give the full name of the dataset of a layer's codes of the fixed batch."""
    return "probe/" + layer.replace("/", "|")


def columns_digest(columns: Mapping[str, NDArray[Any]], class_names: Iterable[str]) -> str:
    """SHA-256 over all columns and the names of the classes, 64 hexadecimal digits."""
    total = hashlib.sha256(json.dumps(list(class_names)).encode())
    for name in sorted(columns):
        array = np.ascontiguousarray(columns[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


def text_column(values: Iterable[str]) -> NDArray[np.bytes_]:
    """Encode strings as fixed-length UTF-8, never variable-length."""
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
