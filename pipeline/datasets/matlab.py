"""Label files of MATLAB: vectors and records of one length become a table.

Versions 4 to 7 are read by SciPy, which runs nothing that is in them. Version 7.3 is HDF5 with
references between its parts, and is named.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..notation import size
from .file_kinds import is_image
from .texts import Sheet, read_bytes

MATLAB_SUFFIX = ".mat"
_MOST_BYTES = 64 << 20  # of a file, and of what is packed in it
_COMPRESSED = 15  # miCOMPRESSED, MAT-File Format (MathWorks), table 1-1
_DEEPEST = 3


def read_matlab(path: Path) -> Sheet:
    """Read a label file as a table: the variables that are as long as the one of file names.

    Numbers of classes become names where another variable holds as many names.

    Raises
    ------
    DataError
        It cannot be read, or no variable holds names of images.
    """
    found = variables_of(path)
    files = [name for name, column in found.items() if _are_files(column)]
    if not files:
        shown = ", ".join(f"{name} ({len(column):,})" for name, column in list(found.items())[:8])
        raise DataError(
            f"{path}: no variable names images; there are {shown or 'none with one value each'}.",
            expected="a variable of file names, and one of classes of the same length",
            todo="write a CSV with path,label from it",
        )
    n_rows = len(found[files[0]])
    columns = {name.rpartition(".")[2]: column for name, column in found.items()
               if len(column) == n_rows}  # fmt: skip
    for column in found.values():
        if len(column) == n_rows or _are_files(column) or all(map(_is_whole, column)):
            continue
        for name, numbers in columns.items():
            if "class" in name.casefold() or "label" in name.casefold():
                columns[name] = named(numbers, column)
    rows = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    return Sheet(rows, list(range(1, len(rows) + 1)), "MATLAB", "")


def named(numbers: list[str], names: list[str]) -> list[str]:
    """Give the names of classes that are numbered from 1; the numbers where they do not fit."""
    if all(map(_is_whole, numbers)) and {int(one) for one in numbers} <= {
        *range(1, len(names) + 1)
    }:
        if len(set(numbers)) * 2 > len(names) and len(set(names)) == len(names):
            return [names[int(one) - 1] for one in numbers]
    return numbers


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _are_files(column: list[str]) -> bool:
    some = column[:: max(1, len(column) // 200)]
    return bool(some) and sum(is_image(one) for one in some) * 2 > len(some)


def variables_of(path: Path) -> dict[str, list[str]]:
    """Give the vectors of a MATLAB file as texts; fields of records as ``name.field``.

    Raises
    ------
    DataError
        It cannot be read, is of version 7.3, or too large.
    """
    data = read_bytes(path)
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:10] == b"MATLAB 7.3":
        raise DataError(
            f"{path} is a MATLAB file of version 7.3, which is not read.",
            expected="version 7 or older, or a CSV",
            todo="in MATLAB: load it, then save(file, '-v7'); or write a CSV with path,label",
        )
    if len(data) > _MOST_BYTES or _unpacked(data) > _MOST_BYTES:
        raise DataError(
            f"{path} holds more than {size(_MOST_BYTES)}.",
            expected="a file of labels",
            todo="write a CSV with path,label from it",
        )
    from scipy.io import loadmat

    try:
        held = loadmat(path, simplify_cells=True, chars_as_strings=True)
    except MemoryError:
        raise
    except Exception as error:  # SciPy raises many kinds on damaged files
        raise DataError(
            f"{path} cannot be read as a MATLAB file: {str(error)[:200]}.",
            expected="a complete file of MATLAB, version 4 to 7",
            todo="fetch it again, or write a CSV with path,label",
        ) from error
    found: dict[str, list[str]] = {}
    for name, value in held.items():
        if not name.startswith("__"):
            _take(name, value, found, 0)
    return found


def _unpacked(data: bytes) -> int:
    """Count the bytes that the compressed elements of a version 5 file unpack to."""
    order = "<" if data[126:128] == b"IM" else ">"
    at, total = 128, 0
    while at + 8 <= len(data) and total <= _MOST_BYTES:
        kind, n_bytes = struct.unpack(f"{order}II", data[at : at + 8])
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                total += len(unpacker.decompress(data[at + 8 : at + 8 + n_bytes], _MOST_BYTES + 1))
            except zlib.error:
                break
        at += 8 + n_bytes
    return total


def _take(name: str, value: Any, found: dict[str, list[str]], depth: int) -> None:
    if isinstance(value, Mapping) and depth < _DEEPEST:
        for key, one in value.items():
            _take(f"{name}.{key}", one, found, depth + 1)
        return
    if isinstance(value, np.ndarray) and value.ndim == 2 and 1 in value.shape:
        value = value.reshape(-1)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim == 1 else None
    if not isinstance(value, list) or len(value) < 2:
        return
    if all(isinstance(one, Mapping) for one in value):
        for key in value[0]:
            column = [_text(one.get(key)) for one in value]
            if not any(one is None for one in column):
                found[f"{name}.{key}"] = [str(one) for one in column]
        return
    texts = [_text(one) for one in value]
    if not any(one is None for one in texts):
        found[name] = [str(one) for one in texts]


def _text(value: Any) -> str | None:
    """Give a text or a number as text, whole numbers without a point; None for all else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return None
