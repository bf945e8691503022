"""A part: the rows of one block of work, a small HDF5 file that counts once it is complete.

The format is in ``cache/README.md``. Damage is found from the bytes alone, before HDF5 reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CacheError
from ..files import write_atomic
from .hdf5 import pack, unpack

_SEAL_BYTES = len("sha256:") + 64


class DamagedPartError(CacheError):
    """A part's bytes are not those that were written."""


def _seal(data: bytes) -> bytes:
    """Digest behind a part's bytes: what is damaged is known without reading it as HDF5."""
    return b"sha256:" + hashlib.sha256(data).hexdigest().encode()


def read_part(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a part's arrays and attributes.

    Raises
    ------
    DamagedPartError
        Its bytes are not those that were written.
    CacheError
        It cannot be read just now, or is of another version; that says nothing of its bytes.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(
            f"{path} cannot be read ({error.strerror}).",
            todo="make it readable, and give the same command again; it is kept",
        ) from error
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    sealed = seal.startswith(b"sha256:")  # parts of earlier versions are not
    if sealed and seal != _seal(body):
        raise DamagedPartError("its checksum is another")
    try:
        arrays, attributes = unpack(body if sealed else data)
    except MemoryError as error:
        raise CacheError(
            f"{path} cannot be read: there is no memory left.",
            todo="end other programs, and give the same command again; it is kept",
        ) from error
    except CacheError as error:
        if sealed:
            raise CacheError(
                f"{path} is as it was written, but cannot be read here ({error.found}).",
                todo="give the same command again; it is kept",
            ) from error
        raise DamagedPartError(error.found) from error
    wanted = {"sha256", "row_digest", "reject_sha256", "reject_reason"}
    if not wanted <= arrays.keys() or not {"fingerprint", "seconds"} <= attributes.keys():
        raise DamagedPartError("not a part of a cache")
    if attributes.get("checksum") != _checksum(arrays):
        raise DamagedPartError("its checksum is another")
    return arrays, attributes


def write_part(
    folder: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
) -> str:
    """Write a part into `folder`, named by its checksum.

    Parameters
    ----------
    folder : Path
        That of the parts of one file of codes.
    arrays : mapping of str to array
        Codes, digests and refusals.
    attributes : mapping
        Fingerprint, decoder and seconds; the checksum is added.

    Returns
    -------
    str
        The part's file name.
    """
    checksum = _checksum(arrays)
    data = pack(arrays, {**attributes, "checksum": checksum})
    name = f"{checksum[:24]}.part"
    write_atomic(folder / name, data + _seal(data))
    return name


def rejects_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Give the refusals in a part's arrays: digest of the image, and the reason."""
    digests, reasons = arrays["reject_sha256"].tolist(), arrays["reject_reason"].tolist()
    return {d.decode(): r.decode() for d, r in zip(digests, reasons, strict=True)}


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()
