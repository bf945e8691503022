"""Labelled codes as the heads see them, and their checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import HeadError
from .file_rows import FileRows

Codes: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | FileRows
LEAST_VAL = 20  # different images that val needs, to choose anything on it
BLOCK_BYTES = 32 * 2**20
COPIED_BYTES = 64 * 2**20  # of codes of which a part is copied


@dataclass(frozen=True, eq=False)
class Examples:
    """Codes of images with their classes.

    Attributes
    ----------
    codes : float32 or float16 (N, V, D)
        V views of each image (1: no augmentation); may be a memory map or rows of several
        (:class:`FileRows`), which are read in blocks. Codes of several layers stand side by side
        along D.
    labels : int32 (N,)
        Classes, 0 to K - 1.
    groups : int64 (N,)
        Equal for images of equal bytes: they stay in one fold.
    """

    codes: Codes
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shape = self.codes.shape
        if self.codes.ndim != 3 or self.codes.dtype not in (np.float32, np.float16):
            raise HeadError(
                f"Codes of shape {shape} and type {self.codes.dtype}.",
                expected="(images, views, code_dim), float32 or float16",
            )
        if 0 in shape or self.labels.shape != shape[:1] or self.groups.shape != shape[:1]:
            raise HeadError(
                f"Codes of shape {shape} with labels {self.labels.shape} and groups "
                f"{self.groups.shape}.",
                expected="at least one image, and one label and one group for each",
            )
        if self.labels.dtype.kind not in "iu" or self.groups.dtype.kind not in "iu":
            raise HeadError(
                f"Labels of type {self.labels.dtype}, groups of type {self.groups.dtype}.",
                expected="integers",
            )

    @property
    def n_images(self) -> int:
        """N."""
        return int(self.codes.shape[0])

    @property
    def n_views(self) -> int:
        """V."""
        return int(self.codes.shape[1])

    @property
    def code_dim(self) -> int:
        """D."""
        return int(self.codes.shape[2])


def row_blocks(codes: Codes) -> Iterator[slice]:
    """Cut the rows into blocks of some 32 MB, so that a memory map is never read at once."""
    row_bytes = 4 * max(1, int(np.prod(codes.shape[1:])))
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(codes), step):
        yield slice(start, start + step)


def take(codes: Codes, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Codes:
    """Take some rows, numbered or by a mask: a copy; of codes on disk, a view without reading."""
    mask = rows.dtype == np.bool_
    at = np.flatnonzero(rows) if mask else rows.astype(np.int64, copy=False)
    if isinstance(codes, np.memmap) and not codes.flags.writeable:
        codes = FileRows([codes], codes.shape[1])
    return codes.take(at) if isinstance(codes, FileRows) else codes[at]


def part_of(codes: Codes, rows: NDArray[np.int64]) -> Codes:
    """Give some rows for solvers: a copy, or where that would be large, blocks as they are read."""
    if isinstance(codes, FileRows) or codes.nbytes <= COPIED_BYTES:
        return take(codes, rows)
    return FileRows([codes], codes.shape[1], rows)


def mean_view(codes: NDArray[Any]) -> NDArray[np.float32]:
    """Average the views of each image: (N, V, D) to float32 (N, D).

    The one place where this is computed, so that training and prediction agree to the bit; the
    average is taken in float64.
    """
    if codes.shape[1] == 1:
        return np.ascontiguousarray(codes[:, 0], dtype=np.float32)
    out = np.empty((codes.shape[0], codes.shape[2]), dtype=np.float32)
    for rows in row_blocks(codes):
        out[rows] = codes[rows].mean(axis=1, dtype=np.float64)
    return out


def check_examples(
    examples: Examples, *, what: str, n_classes: int, class_names: Sequence[str], code_dim: int
) -> None:
    """Raise HeadError unless labels are classes and codes are finite and of the right length.

    `what` calls the examples by name in messages: ``train`` or ``val``.
    """
    if examples.code_dim != code_dim:
        raise HeadError(
            f"The codes of {what} have {examples.code_dim} numbers.", expected=f"{code_dim}"
        )
    low, high = int(examples.labels.min()), int(examples.labels.max())
    if low < 0 or high >= n_classes:
        raise HeadError(
            f"The labels of {what} run from {low} to {high}.",
            expected=f"0 to {n_classes - 1}: {', '.join(class_names)}",
        )
    for rows in row_blocks(examples.codes):
        finite = np.isfinite(examples.codes[rows]).all(axis=(1, 2))
        if not finite.all():
            first = rows.start + int(np.flatnonzero(~finite)[0])
            raise HeadError(
                f"The codes of {what} are not finite (first at row {first}).",
                expected="finite numbers",
                todo="extract them again: make verify names what is wrong with the cache",
            )
