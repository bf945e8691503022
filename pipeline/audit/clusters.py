"""Groups by the codes: images so alike that they show one thing (``GROUP=auto``).

Two images are joined where the cosine of their ``final`` codes, less the mean code, is above a
threshold that the data set itself gives, so that it holds for any network: images of different
classes are strangers, and :data:`STRANGERS` of the pairs of strangers may lie above it. Where
joined images chain up (frames of a film), the threshold rises until no group holds more than
:data:`LARGEST` of the images. Groups are the connected components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..errors import DataError
from ..notation import number
from ..progress import Progress, silent

STRANGERS = 1e-4  # share of the pairs of different classes that may be above the threshold
LARGEST = 0.05  # share of the images that one group may hold
LOWEST = 0.6  # cosine below which nothing is called alike, however far apart strangers are
_SAMPLE = 3000  # images whose pairs tell how alike strangers are
_STEP = 0.02
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Clusters:
    """Images grouped by their codes.

    Attributes
    ----------
    groups : int64 (N,)
        Equal for images of one group; -1 for an image of its own.
    threshold : float
        Cosine above which two images were joined.
    n_groups, n_joined : int
        Groups of two images or more, and the images in them.
    """

    groups: NDArray[np.int64]
    threshold: float
    n_groups: int
    n_joined: int

    @property
    def how(self) -> str:
        """Say where the groups come from."""
        return f"auto: codes with a cosine above {number(self.threshold, 2)}"


def near_groups(
    codes: Codes, labels: NDArray[np.integer], *, seed: int, progress: Progress = silent
) -> Clusters:
    """Group the rows of a file of codes.

    Parameters
    ----------
    codes : Codes
        N rows; several views are averaged.
    labels : integer (N,)
        Classes; images of different ones are strangers.
    seed : int
        Draws the sample of strangers.

    Raises
    ------
    DataError
        One class only: nothing says how alike strangers are.
    """
    unit = _unit(codes)  # (N, D)
    n_images = len(unit)
    threshold = _threshold(unit, labels, seed)
    pairs: list[NDArray[np.int64]] = []
    likeness: list[NDArray[np.float32]] = []
    with progress("groups", n_images, "images") as meter:
        for start in range(0, n_images, _ROWS):
            block = unit[start : start + _ROWS] @ unit[start:].T  # (q, N - start)
            i, j = np.nonzero(block > threshold)
            later = j > i
            pairs.append(np.stack([i[later], j[later]], axis=1) + start)
            likeness.append(block[i[later], j[later]])
            meter.advance(len(block))
    joined, alike = np.concatenate(pairs), np.concatenate(likeness)
    while True:
        groups = _components(n_images, joined[alike > threshold])
        sizes = np.bincount(groups)
        if sizes.max(initial=1) <= max(2, LARGEST * n_images) or threshold > 1:
            break
        threshold += _STEP
    several = sizes[groups] > 1
    return Clusters(
        groups=np.where(several, groups, -1),
        threshold=threshold,
        n_groups=int(np.sum(sizes > 1)),
        n_joined=int(several.sum()),
    )


def _unit(codes: Codes) -> NDArray[np.float32]:
    layer = "final" if "final" in codes.layers else codes.layers[-1]
    block = np.asarray(codes[layer], np.float32)
    block = block.mean(axis=1) if block.ndim == 3 else block
    block = block - block.mean(axis=0)
    length = np.linalg.norm(block, axis=1, keepdims=True)
    unit: NDArray[np.float32] = block / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _threshold(unit: NDArray[np.float32], labels: NDArray[np.integer], seed: int) -> float:
    """Give the cosine that the share `STRANGERS` of the pairs of different classes exceeds."""
    some = np.random.default_rng(seed).permutation(len(unit))[:_SAMPLE]
    strangers = labels[some][:, None] != labels[some][None, :]
    if not strangers.any():
        raise DataError(
            "GROUP=auto needs two classes or more: pairs of different classes say how alike "
            "unrelated images are.",
            expected="several classes",
            todo="GROUP=<a column, or a pattern on the path>",
        )
    cosines = (unit[some] @ unit[some].T)[strangers]
    return max(LOWEST, float(np.quantile(cosines, 1 - STRANGERS)))


def _components(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, found = connected_components(graph, directed=False)
    return np.asarray(found, np.int64)
