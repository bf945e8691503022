"""Arrays as files hold them: NumPy, HDF5, MATLAB, IDX (MNIST), CIFAR and STL-10 binaries.

Read in the child process of :mod:`.arrays`. Every reader gives arrays by name; which of them are
images and labels, and of which split, is decided in :mod:`.unpacking`.
"""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problem import Problem

_MOST_BYTES = 64 << 30
_MOST_RATIO = 2000  # bytes of an array for each byte of its file
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_SIDE = 32  # of CIFAR's pictures
_STL = 96


def arrays_of(files: list[str], notes: list[str]) -> dict[str, Any]:
    """Read the arrays of all files, by names that say what they are.

    Parameters
    ----------
    files : list of str
        Paths.
    notes : list of str
        What is to be said is added here.

    Raises
    ------
    Problem
        A file is damaged, too large, or holds pickled objects.
    """
    named: dict[str, Any] = {}
    done: set[str] = set()
    for name in sorted(files, key=lambda one: (one.lower().endswith(".gz"), one)):
        plain = re.sub(r"[.]gz$|[^a-z0-9]", "", Path(name).name.lower())
        if plain in done:
            continue  # the same file, packed and not
        done.add(plain)
        try:
            named |= _arrays(name, notes)
        except (Problem, MemoryError):
            raise
        except Exception as error:  # the libraries raise many kinds on damaged files
            raise Problem(
                f"{Path(name).name} cannot be read ({(str(error).splitlines() or ['?'])[0][:200]})",
                "a complete file of arrays, without pickled objects",
                "fetch it again",
            ) from error
    return named


def _arrays(name: str, notes: list[str]) -> dict[str, Any]:
    lower, path = name.lower(), Path(name)
    if lower.endswith(".npz"):
        return _npz(name)
    if lower.endswith(".npy"):
        return {path.stem: np.load(name, mmap_mode="r", allow_pickle=False)}
    if lower.endswith(".mat"):
        return _mat(path)
    if lower.endswith(".bin"):
        return _bin(path, notes)
    if "ubyte" in lower.rpartition("idx")[2]:
        return {_idx_name(path): _idx(path, notes)}
    return _hdf5(name)


def _npz(name: str) -> dict[str, Any]:
    with zipfile.ZipFile(name) as opened:
        total = sum(info.file_size for info in opened.infolist())
    _check_size(total, name)
    with np.load(name, allow_pickle=False) as saved:
        return {key: saved[key] for key in saved.files}


def _check_size(total: int, name: str) -> None:
    size = Path(name).stat().st_size
    if total > min(_MOST_BYTES, size * _MOST_RATIO + (1 << 28)):
        raise Problem(
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
                raise Problem(
                    f"{key} in {Path(name).name} lies in another file", "all data in one file",
                    "do not trust this file",
                )  # fmt: skip
            _check_size(one.nbytes, name)
            found[f"{Path(name).stem} {key}"] = one

    opened.visititems(take)  # follows no link
    return found


def _idx_name(path: Path) -> str:
    """Give a name that says role and split: ``t10k-images-idx3-ubyte.gz`` → t10k images (test)."""
    role = "images" if "idx3" in path.name.lower() else "labels"
    words = re.sub(r"idx\d|ubyte|gz|images?|labels?|[^a-z0-9]+", " ", path.name.lower())
    return f"{words.replace('t10k', 'test')} {role}"


def _idx(path: Path, notes: list[str]) -> NDArray[Any]:
    """Read an IDX file (yann.lecun.com/exdb/mnist): magic number, sizes, numbers."""
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or head[3] > 4:
            raise Problem(
                f"{path.name} is no IDX file", "files as MNIST has them", "fetch it again"
            )
        shape = struct.unpack(f">{head[3]}I", stream.read(4 * head[3]))
        kind = np.dtype(_IDX_TYPES[head[2]])
        total = int(np.prod([int(one) for one in shape], dtype=object)) * kind.itemsize
        _check_size(total, str(path))
        data = stream.read(total)
    if len(data) != total:
        raise Problem(f"{path.name} is cut short", f"{total:,} bytes of numbers", "fetch it again")
    values = np.frombuffer(data, kind).reshape(shape)
    if "emnist" in path.name.lower() and values.ndim == 3:
        values = values.transpose(0, 2, 1)
        notes.append(f"The pictures of {path.name} were turned upright, as EMNIST stores columns.")
    return values


def _bin(path: Path, notes: list[str]) -> dict[str, Any]:
    """Read CIFAR's binaries (a label or two, then 3,072 bytes) and STL-10's."""
    lower, n_bytes = path.name.lower(), path.stat().st_size
    split = "test" if lower.startswith("test") else "train"
    if match := re.fullmatch(r"(train|test|unlabeled)_(x|y)\.bin", lower):
        if match[1] == "unlabeled":
            notes.append(f"{path.name} holds pictures without labels, which were left out.")
            return {}
        values = np.fromfile(path, np.uint8)
        if match[2] == "x":
            shape = (-1, 3, _STL, _STL)  # column by column
            return {f"{match[1]} images": values.reshape(shape).transpose(0, 3, 2, 1)}
        names = _names(path.parent / "class_names.txt")
        return {f"{match[1]} labels": _named(values.astype(np.int64) - 1, names, 1)}
    for n_labels, meta in ((1, "batches.meta.txt"), (2, "fine_label_names.txt")):
        width = n_labels + 3 * _SIDE * _SIDE
        if n_bytes and n_bytes % width == 0:
            rows = np.fromfile(path, np.uint8).reshape(-1, width)
            labels = _named(rows[:, n_labels - 1].astype(np.int64), _names(path.parent / meta), 0)
            pictures = rows[:, n_labels:].reshape(-1, 3, _SIDE, _SIDE)
            return {f"{path.stem} {split} images": pictures, f"{path.stem} {split} labels": labels}
    raise Problem(f"{path.name} is no file of CIFAR or STL-10", "their binaries", "fetch it again")


def _names(path: Path) -> list[str]:
    """Give a name for each line; none where a line between them is empty."""
    try:
        names = [line.strip() for line in path.read_text("utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
    return names if all(names) else []


def _named(numbers: NDArray[np.int64], names: list[str], first: int) -> NDArray[Any]:
    if names and 0 <= numbers.min() and numbers.max() < len(names):
        return np.array(names)[numbers]
    return numbers + first


def _mat(path: Path) -> dict[str, Any]:
    """Read pictures and labels of a MATLAB file: pictures along the last axis, as SVHN has them."""
    from scipy.io import loadmat, whosmat

    _check_size(sum(int(np.prod(shape)) for _, shape, _ in whosmat(path)), str(path))
    found: dict[str, Any] = {}
    for name, value in loadmat(path).items():
        if name.startswith("__") or not isinstance(value, np.ndarray):
            continue
        if value.ndim in (3, 4) and value.dtype.kind in "uif":
            found[f"{path.stem} {name} images"] = np.moveaxis(value, -1, 0)
        elif value.dtype.kind in "uif" and value.size == max(value.shape):
            labels = value.reshape(-1).astype(np.int64)
            if "32x32" in path.stem and set(np.unique(labels).tolist()) == {*range(1, 11)}:
                labels %= 10  # SVHN writes the digit 0 as 10
            found[f"{path.stem} {name} labels"] = labels
    return found
