"""One fold, every setting, of the heads that are not a matrix product: centroid, knn, rbf.

A path is fitted once a fold on standardised codes in float32. What the settings of a path share
is computed once: neighbours, distances. The linear heads have their own (:mod:`.linear`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from .scoring import kernel_weights, libsvm_arrays, nearest, squared_distances, vote_scores

Candidate = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """One fold, ready to fit.

    Attributes
    ----------
    z, held : float32 (n, D), (m, D)
        Standardised codes to train on, and held out.
    labels : int32 (n,)
        Classes of `z`; each of the K occurs.
    weights : float64 (n,) or None
        What each example counts; None: 1.
    n_classes : int
        K.
    """

    z: NDArray[np.float32]
    held: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float64] | None
    n_classes: int


Result = NDArray[np.float64]  # scores (G, m, K)


def centroid_affine(
    z: NDArray[np.floating[Any]], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) of the nearest class mean.

    The squared distance to a mean is, but for a term common to all classes, -2 times
    ``z @ mean - |mean|^2 / 2``.
    """
    # NearestCentroid gives the same means, and a warning for every constant number.
    n_classes = int(labels.max()) + 1
    means = np.stack([z[labels == k].mean(axis=0, dtype=np.float64) for k in range(n_classes)])
    return means, -(means * means).sum(axis=1) / 2


def _centroid(part: Part, grid: Sequence[Candidate]) -> Result:
    weight, bias = centroid_affine(part.z, part.labels)
    return np.stack([part.held @ weight.T + bias] * len(grid))


def _knn(part: Part, grid: Sequence[Candidate]) -> Result:
    held = part.held.astype(np.float64)
    found = {}
    for metric in {candidate["metric"] for candidate in grid}:
        k = max(candidate["k"] for candidate in grid if candidate["metric"] == metric)
        found[metric] = part.labels[nearest(held, part.z, k=min(k, len(part.z)), metric=metric)]
    # A fold may have fewer examples than the whole: there, all of them vote.
    votes = [found[candidate["metric"]][:, : candidate["k"]] for candidate in grid]
    return np.stack([vote_scores(vote, part.n_classes) for vote in votes])


def _rbf(part: Part, grid: Sequence[Candidate]) -> Result:
    z = part.z.astype(np.float64)
    inner = squared_distances(z, z)  # (n, n)
    outer = squared_distances(part.held.astype(np.float64), z)  # (m, n)
    scores: list[NDArray[np.float64]] = [np.empty(0)] * len(grid)
    for gamma in sorted({candidate["gamma"] for candidate in grid}):
        kernel, held_kernel = np.exp(-gamma * inner), np.exp(-gamma * outer)
        for at, candidate in enumerate(grid):
            if candidate["gamma"] != gamma:
                continue
            model = SVC(C=candidate["C"], kernel="precomputed")
            model.fit(kernel, part.labels, sample_weight=part.weights)
            weight, bias = kernel_weights(*libsvm_arrays(model))
            scores[at] = held_kernel[:, model.support_] @ weight + bias
    return np.stack(scores)


PATHS: dict[str, Callable[[Part, Sequence[Candidate]], Result]] = {
    "centroid": _centroid,
    "knn": _knn,
    "rbf": _rbf,
}
