"""Codes of the images that a network was trained on, ``<run>.train.safetensors``; without torch.

Prediction measures with them how unlike the training images a new image is, and names the
nearest. A head's are in the cache; a fine-tuned network's codes are its own, so they lie next to
it. The file holds bare arrays: loading it runs no code, and what does not fit is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import CacheError
from ..files import sha256_file, write_atomic

_SCHEMA = "1"
_LIMIT_BYTES = 8 * 2**30  # three million images of 1,280 numbers
_ARRAYS = {"codes": ("F16", 2), "labels": ("I32", 1), "paths": ("U8", 1)}


@dataclass(frozen=True, eq=False)
class TrainingCodes:
    """M training images, each of other bytes.

    Attributes
    ----------
    codes : floating (M, D)
        What goes into the network's last layer, the mean over the evaluation views; kept at
        length 1, as float16.
    paths : tuple of str, length M
        Relative to the data root.
    labels : int32 (M,)
        Their classes, 0 to K - 1.
    """

    codes: NDArray[np.floating]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]


def training_codes_path(stem: Path) -> Path:
    """Name the file next to a run's others."""
    return stem.with_name(stem.name + ".train.safetensors")


def save_training_codes(stem: Path, found: TrainingCodes, weights: Path) -> Path:
    """Write the codes, completely or not at all.

    Parameters
    ----------
    stem : Path
        Folder and name of the run, without a suffix.
    found : TrainingCodes
        Codes of any length.
    weights : Path
        The network's weights as they were written: the file is good for these alone.
    """
    codes = np.asarray(found.codes, np.float32)
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    # At length 1 no number is too large for float16; its rounding moves a code by some 3e-4.
    units = (codes / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float16)
    names = "\0".join(found.paths).encode("utf-8", "surrogateescape")  # no path has a NUL in it
    arrays = {
        "codes": np.ascontiguousarray(units),
        "labels": np.ascontiguousarray(found.labels, np.int32),
        "paths": np.frombuffer(names, np.uint8),
    }
    path = training_codes_path(stem)
    write_atomic(path, save(arrays, {"schema": _SCHEMA, "network": sha256_file(weights)}))
    return path


def load_training_codes(
    stem: Path, *, network: str, code_dim: int, n_classes: int
) -> TrainingCodes:
    """Read the codes, which may be a stranger's.

    Parameters
    ----------
    stem : Path
        Folder and name of the run, without a suffix.
    network : str
        SHA-256 of the weights' file.
    code_dim : int
        D, numbers that the network's last layer takes.
    n_classes : int
        K.

    Raises
    ------
    CacheError
        There are none, they are damaged, or not of this network.
    """
    path = training_codes_path(stem)
    if not path.is_file():
        raise CacheError(
            f"{path} is missing, which holds the codes of the training images.",
            expected="that file next to the network, as make finetune leaves it there",
            todo="copy it too; of a run that has none yet, remove its .json and fine-tune again",
        )
    try:
        return _read(path, network, code_dim, n_classes)
    except (OSError, ValueError, SafetensorError) as error:
        raise CacheError(
            f"{path} cannot be used: {error}.",
            expected=f"codes of schema {_SCHEMA}, as make finetune wrote them with this network",
            todo="fetch all files of the run again; or remove its .json and fine-tune again",
        ) from error


def _read(path: Path, network: str, code_dim: int, n_classes: int) -> TrainingCodes:
    """Look at the shapes first: they are as large as the file, not as it claims."""
    if path.stat().st_size > _LIMIT_BYTES:
        raise ValueError(f"it is larger than {_LIMIT_BYTES >> 30} GiB")
    with safe_open(path, framework="np") as file:
        about = file.metadata() or {}
        if about.get("schema") != _SCHEMA:
            raise ValueError(f"its schema is {about.get('schema')!r}")
        if about.get("network") != network:
            raise ValueError("it was written with another network")
        if set(file.keys()) != _ARRAYS.keys():
            raise ValueError(f"it holds {', '.join(sorted(file.keys())) or 'nothing'}")
        for name, (dtype, n_axes) in _ARRAYS.items():
            one = file.get_slice(name)
            if one.get_dtype() != dtype or len(one.get_shape()) != n_axes:
                raise ValueError(f"{name} is {one.get_dtype()} {one.get_shape()}")
        n_images, width = file.get_slice("codes").get_shape()
        if not n_images or width != code_dim:
            raise ValueError(f"codes has shape ({n_images}, {width}), D is {code_dim}")
        codes, labels = file.get_tensor("codes"), file.get_tensor("labels")
        paths = file.get_tensor("paths").tobytes().decode("utf-8", "surrogateescape").split("\0")
    if len(labels) != n_images or len(paths) != n_images:
        raise ValueError(f"it has {n_images} codes, {len(labels)} labels, {len(paths)} paths")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"its labels are not all from 0 to {n_classes - 1}")
    if not np.isfinite(codes).all():
        raise ValueError("its codes are not all finite")
    return TrainingCodes(codes, tuple(paths), labels)
