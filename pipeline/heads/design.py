"""Codes as the solvers see them: standardised blocks of rows, and a basis that decorrelates them.

The standardised matrix is never held unless it is small: blocks of rows are read from the codes
(memory, or a memory map), averaged over views, centred and scaled when a solver passes over
them. A small matrix is standardised and rotated into its basis once. The eigenvectors of the
correlation matrix are computed once for all folds and all values of C: in their basis the
Hessians of all linear heads are nearly diagonal, which is what makes the solver's iterations few
(:mod:`cnn_codes.heads.solver`).

Its standardisation and basis may serve several folds at once (:mod:`cnn_codes.heads.linear`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .examples import Codes
from .file_rows import FileRows, release

Floats = NDArray[np.floating[Any]]
T = TypeVar("T")

LEAST_VARIANCE = 0.01  # of a number, in the median variance, times the number of examples
BLOCK_BYTES = 4 * 2**20  # of one block of standardised codes, float32
CHUNKS = 8  # partial sums of a pass: fixed, so that the number of threads changes no bit
CACHED_BYTES = 64 * 2**20  # a standardised copy is kept where it is at most so large
PRIMAL_DIM = 1536  # up to here the eigenvectors are those of the (D, D) matrix
PRIMAL_ROWS = 8192  # examples that these are computed from, evenly spaced
DUAL_ROWS = 1024  # up to here the eigenvectors are had from the (N, N) matrix


def _release(codes: Codes) -> None:
    """Let the system drop the pages of a file that were read, so that memory stays flat."""
    if isinstance(codes, FileRows):
        codes.release()
    elif isinstance(codes, np.memmap):
        release(codes)


def _block_rows(code_dim: int) -> int:
    return max(64, BLOCK_BYTES // (4 * code_dim))


def examples_of(block: NDArray[Any], way: str) -> NDArray[np.float32]:
    """Examples of images (N, V, D): the mean of the views, or each view, float32 (n, D)."""
    if way == "mean" and block.shape[1] > 1:
        block = block.mean(axis=1, dtype=np.float64)
    rows: NDArray[np.float32] = block.reshape(-1, block.shape[-1]).astype(np.float32, copy=False)
    return rows


def moments(codes: Codes, way: str = "mean") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of each number of the examples; the scale of a constant one is 1.

    Parameters
    ----------
    codes : float32 or float16 (N, V, D)
        May be a memory map: one pass, block by block.
    way : str
        ``"mean"``: one example per image, the mean of its views; ``"all"``: one per view.

    Returns
    -------
    mean, scale : float64 (D,)
        Of the population (divided by N); the scale is at least the median one times
        ``sqrt(LEAST_VARIANCE / N)``. Blocks are merged by Chan's update (Chan, Golub and
        LeVeque 1983), in float64.
    """
    n_seen, code_dim = 0, codes.shape[2]
    mean, square = np.zeros(code_dim), np.zeros(code_dim)
    step = _block_rows(code_dim * codes.shape[1])
    for start in range(0, len(codes), step):
        block = examples_of(codes[start : start + step], way).astype(np.float64)
        block_mean = block.mean(axis=0)
        block -= block_mean
        n = len(block)
        gap = block_mean - mean
        mean += gap * (n / (n_seen + n))
        square += np.einsum("nd,nd->d", block, block) + gap * gap * (n_seen * n / (n_seen + n))
        n_seen += n
        if start // step % 64 == 63:
            _release(codes)
    _release(codes)
    variance = square / n_seen
    # What rounding leaves of a constant number is no variance (as scikit-learn judges it).
    eps = np.finfo(np.float64).eps
    constant = variance <= n_seen * eps * variance + (n_seen * mean * eps) ** 2
    scale = np.where(constant, 1.0, np.sqrt(variance))
    if not constant.all():
        # A unit that hardly fires in these n images may fire elsewhere: in units of its own
        # scatter here, thousands of times as strong (a picture changed sides by its encoding).
        usual = float(np.median(scale[~constant]))
        scale = np.maximum(scale, usual * np.sqrt(LEAST_VARIANCE / n_seen))
    return mean, scale


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a design.

    Attributes
    ----------
    z : float (n, R)
        Standardised codes, in the basis where the design is rotated.
    rows : slice
        Which examples of the design they are.
    """

    z: Floats
    rows: slice


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal directions of the standardised codes and the variance along each.

    Attributes
    ----------
    vectors : float (D, Q)
        Orthonormal columns.
    variance : float64 (Q,)
        Mean square of the codes along each.
    rest : float
        Mean variance along the directions outside of the Q.
    complete : bool
        No example has anything outside of the Q directions.
    """

    vectors: Floats
    variance: NDArray[np.float64]
    rest: float
    complete: bool


class Design:
    """Standardised examples, passed over block by block.

    Parameters
    ----------
    codes : float32 or float16 (N, V, D)
    way : str
        ``"mean"`` or ``"all"``, see :func:`moments`.
    mean, scale : float64 (D,)
    dtype : type
        ``np.float32`` or ``np.float64``: of the blocks.
    jobs : int
        Threads; each block is worked on by one.
    basis : Basis, optional
        Of an earlier design of the same codes; by default it is computed.

    Attributes
    ----------
    n_examples, n_columns : int
        Rows, and columns R of the blocks.
    basis : Basis
    rotated : bool
        Columns are directions of the basis, not numbers of the codes.
    """

    def __init__(
        self,
        codes: Codes,
        way: str,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        *,
        dtype: type = np.float32,
        jobs: int = 1,
        basis: Basis | None = None,
    ) -> None:
        self.codes, self.way, self.jobs = codes, way, jobs
        self.dtype = np.dtype(dtype)
        self._mean, self._scale = mean, scale
        self.code_dim = codes.shape[2]
        self.per_image = 1 if way == "mean" else codes.shape[1]
        self.n_examples = len(codes) * self.per_image
        small = self.n_examples * self.code_dim * self.dtype.itemsize <= CACHED_BYTES
        self._cached: Floats | None = None
        if small:
            self.basis = basis or self._find_basis()
            exact = self.basis.vectors.dtype.itemsize >= self.dtype.itemsize
            self.rotated = self.basis.complete and exact
            whole = self._standardised(slice(0, len(codes)))
            vectors = self.basis.vectors.astype(self.dtype, copy=False)
            self._cached = whole @ vectors if self.rotated else whole
        else:
            self.basis = basis or self._find_basis()
            self.rotated = False
        self.n_columns = self.basis.vectors.shape[1] if self.rotated else self.code_dim
        step = max(1, _block_rows(self.n_columns) // self.per_image) * self.per_image
        self._starts = list(range(0, self.n_examples, step))
        self._step = step

    def _standardised(self, images: slice | NDArray[np.int64]) -> Floats:
        z = examples_of(self.codes[images], self.way)
        if self.dtype == np.float32:
            z = np.subtract(z, self._mean, dtype=np.float32, casting="same_kind")
            z /= self._scale.astype(np.float32)
            return z
        return (z - self._mean) / self._scale

    def _find_basis(self) -> Basis:
        """Eigenvectors of the correlation matrix, of all examples or of evenly spaced ones."""
        dual = self.n_examples <= min(DUAL_ROWS, self.code_dim - 1) or self.code_dim > PRIMAL_DIM
        most = DUAL_ROWS if dual else PRIMAL_ROWS
        images = np.arange(len(self.codes))
        if self.n_examples > most:
            wanted = max(1, most // self.per_image)
            images = np.linspace(0, len(self.codes) - 1, wanted).astype(np.int64)
        n = len(images) * self.per_image
        if not dual:
            gram = np.zeros((self.code_dim, self.code_dim), self.dtype)
            step = max(1, _block_rows(self.code_dim) // self.per_image)
            for start in range(0, len(images), step):
                z = self._standardised(images[start : start + step])
                gram += z.T @ z
            gram /= n
            values, vectors = np.linalg.eigh(gram)
            return Basis(vectors, np.maximum(values, 0.0).astype(np.float64), 0.0, True)
        z = self._standardised(images)
        # In float64, since the small eigenvalues are where a square loses its digits.
        z = z.astype(np.float64)
        values, left = np.linalg.eigh(z @ z.T / n)
        kept = values > max(values[-1], 1e-300) * 1e-12
        values, left = values[kept], left[:, kept]
        vectors, upper = np.linalg.qr((z.T @ left) / np.sqrt(values * n))
        vectors *= np.sign(np.diag(upper))
        total = float(np.einsum("nd,nd->", z, z)) / n
        rest = max(0.0, total - float(values.sum())) / max(1, self.code_dim - len(values))
        return Basis(vectors, values, rest, n == self.n_examples)

    def to_codes(self, weight: Floats) -> Floats:
        """Weights (R, ...) for the design's columns as weights (D, ...) for standardised codes."""
        if not self.rotated:
            return weight
        flat = self.basis.vectors @ weight.reshape(len(weight), -1)
        return flat.reshape(-1, *weight.shape[1:])

    def from_codes(self, weight: Floats) -> Floats:
        """Undo :meth:`to_codes`; what no example has a part in is left out."""
        if not self.rotated:
            return weight.astype(self.dtype)
        flat = self.basis.vectors.T @ weight.reshape(len(weight), -1)
        return flat.reshape(-1, *weight.shape[1:]).astype(self.dtype)

    def _block(self, start: int) -> Block:
        rows = slice(start, min(start + self._step, self.n_examples))
        if self._cached is not None:
            return Block(self._cached[rows], rows)
        images = slice(start // self.per_image, -(-rows.stop // self.per_image))
        return Block(self._standardised(images), rows)

    def blocks(self) -> Iterator[Block]:
        """All blocks in order."""
        for number, start in enumerate(self._starts):
            yield self._block(start)
            if self._cached is None and number % 64 == 63:
                _release(self.codes)

    def sums(self, work: Callable[[Block, T | None], T]) -> Iterator[T]:
        """Run `work` over all blocks on the threads; give the sum of each chunk of blocks.

        `work` takes a block and what it returned for the block before (None at first), and
        returns the running sum. The chunks do not depend on the number of threads.
        """
        count = min(CHUNKS, len(self._starts))
        cuts = [round(at * len(self._starts) / count) for at in range(count + 1)]

        def chunk(at: int) -> T:
            total: T | None = None
            for start in self._starts[cuts[at] : cuts[at + 1]]:
                total = work(self._block(start), total)
            if self._cached is None:
                _release(self.codes)
            return total  # type: ignore[return-value]

        if self.jobs == 1 or count == 1:
            yield from map(chunk, range(count))
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            yield from pool.map(chunk, range(count))
