"""Codes that stay on disk: rows of memory-mapped matrices, read a block at a time.

For sets whose codes do not fit into memory. It has what the heads use of an array (shape, dtype,
slices, lists of rows), so that solvers read it as they read a matrix; what is read is given back to
the system as it goes, so that memory stays flat. Of matrices in memory it is a part without a copy.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RELEASE_BYTES = 32 * 2**20  # mapped between two releases
_FAULT_BYTES = 2 * 2**20  # that the system may map around one row


def release(array: Any) -> None:
    """Let the system drop the pages of a read-only file map that were read.

    Parameters
    ----------
    array : array
        What its memory belongs to is looked up; an array in memory is left alone.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        if isinstance(base, memoryview):
            base = base.obj
            continue
        if getattr(getattr(base, "flags", None), "writeable", False):
            return
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


class FileRows:
    """Some rows of matrices on disk, their columns side by side.

    Parameters
    ----------
    parts : sequence of arrays (M, V, D_part), or (M, D_part) with one view
        Of float32 or float16: memory maps, matrices in memory, or rows of some.
    n_views : int
        V.
    rows : int64 (N,), optional
        Which of the M rows, in order; default: all.

    Attributes
    ----------
    shape : tuple of int
        (N, V, D), D being the sum over the parts.
    dtype : dtype
        float16 where all parts are, else float32.
    """

    ndim = 3

    def __init__(
        self,
        parts: Sequence[NDArray[Any] | FileRows],
        n_views: int,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._parts: tuple[NDArray[Any] | FileRows, ...] = tuple(
            part if isinstance(part, FileRows) else part.reshape(len(part), n_views, -1)
            for part in parts
        )
        self._n_views, self._rows = n_views, rows
        half = all(part.dtype == np.float16 for part in parts)
        self.dtype: np.dtype[Any] = np.dtype(np.float16 if half else np.float32)
        n = len(self._parts[0]) if rows is None else len(rows)
        self.shape: tuple[int, int, int] = (n, n_views, sum(part.shape[2] for part in self._parts))
        self._mapped_bytes = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Read some rows, (n, V, D)."""
        at: Any = index if self._rows is None else self._rows[index]
        blocks = [part[at] for part in self._parts]
        found: NDArray[Any] = (
            blocks[0]
            if len(blocks) == 1 and blocks[0].dtype == self.dtype
            else np.concatenate(blocks, axis=2, dtype=self.dtype)
        )
        self._mapped_bytes += self._touched(at, found)  # by several threads: it need not be exact
        if self._mapped_bytes > _RELEASE_BYTES:
            self.release()
        return found

    @staticmethod
    def _touched(at: slice | NDArray[np.int64], found: NDArray[Any]) -> int:
        """Bytes that a read maps at most: rows far apart bring their neighbourhoods with them."""
        if isinstance(at, slice) or not len(at):
            return found.nbytes
        span = (int(at.max()) - int(at.min()) + 1) * (found.nbytes // len(at))
        return max(found.nbytes, min(span, len(at) * _FAULT_BYTES))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all rows."""
        return np.array(self[:], dtype=dtype)

    def take(self, rows: NDArray[np.int64]) -> FileRows:
        """Give some of the rows; nothing is read."""
        return FileRows(
            self._parts, self._n_views, rows if self._rows is None else self._rows[rows]
        )

    def release(self) -> None:
        """Let the system drop the pages that were read."""
        self._mapped_bytes = 0
        for part in self._parts:
            if isinstance(part, FileRows):
                part.release()
            else:
                release(part)
