"""Rows moved between files: found by digest, written at their offsets.

Plain I/O at known offsets, since a file written so is what survived every kill and full disk.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hdf5 import SEAL, Field, seal_of


def match_rows(
    have: NDArray[np.bytes_],
    want: NDArray[np.bytes_],
    order: NDArray[np.int64],
    filled: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair a source's rows with the unfilled rows that want them, by increasing wanted row.

    Returns
    -------
    at : array of shape (m,)
        Rows of the source.
    rows : array of shape (m,)
        Rows of the new file, increasing.
    """
    first = np.searchsorted(want, have, "left", sorter=order)
    last = np.searchsorted(want, have, "right", sorter=order)
    counts = np.where(have == b"", 0, last - first)  # b"": a damaged row
    at = np.repeat(np.arange(len(have)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = order[np.repeat(first, counts) + within]
    fresh = ~filled[rows]
    rows, unique = np.unique(rows[fresh], return_index=True)
    return at[fresh][unique], rows


def write_rows(
    handle: int,
    where: Field,
    rows: NDArray[np.int64],
    block: NDArray[Any],
    at: NDArray[np.int64] | None = None,
) -> None:
    """Write `block` (or its rows `at`) to `rows` of a dataset, runs of neighbours at once.

    Parameters
    ----------
    handle : int
        Of the file, open for writing.
    where : Field
        The dataset's place.
    rows : array of shape (m,)
        Rows to write, increasing.
    block : array of shape (n, ...)
        Rows of the dataset's dtype.
    at : array of shape (m,), optional
        Which rows of `block`; default: all, in order.
    """
    if not len(rows) or not where.n_bytes:
        return
    row_bytes = where.n_bytes // where.shape[0]
    most = max(1, 8_000_000 // row_bytes)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(np.arange(len(rows)), breaks):
        for start in range(0, len(run), most):
            some = run[start : start + most]
            data = block[some if at is None else at[some]]
            view = memoryview(np.ascontiguousarray(data).tobytes())
            offset = where.offset + int(rows[some[0]]) * row_bytes
            while len(view):
                written = os.pwrite(handle, view, offset)
                view, offset = view[written:], offset + written


def put_seal(handle: int, fields: Mapping[str, Field]) -> None:
    """Seal a complete file that is open for reading and writing."""
    with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
        digest = seal_of(data, fields)
    write_rows(handle, fields[SEAL], np.arange(1), np.array([digest.encode()], "S64"))
