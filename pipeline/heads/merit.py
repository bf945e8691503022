"""How good held-out scores are by the metric that matters, with a paired error.

Every metric becomes a vector of contributions whose mean is the metric: one per image where it is
a mean over images, else jackknife pseudo-values over twenty blocks of images (Tukey 1958). The
difference of two candidates' vectors gives the standard error of the difference, image by image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..results.metrics import auroc, average_precision, confusion_matrix
from .decide import decide

BLOCKS = 20


def _macro_f1(labels: NDArray[np.integer[Any]], p: NDArray[np.float64]) -> float:
    confusion = confusion_matrix(labels, p.argmax(axis=1), p.shape[1])
    hits, total = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def contributions(
    metric: str,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    scale: float,
    losses: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    costs: NDArray[np.float64] | None,
    by_cost: bool,
) -> NDArray[np.float64]:
    """Contributions to a metric, higher is better.

    Parameters
    ----------
    metric : str
        One of ``cnn_codes.settings.METRICS``; with `costs`, these count instead.
    scores : float (H, K)
        Of held-out images.
    labels : integer (H,)
    scale : float
        Temperature that makes them probabilities.
    losses : float64 (H,)
        Log-loss of each image at that temperature.
    weights : float64 (H,) or None
        What each image counts in the accuracy.
    costs : float64 (K, K) or None
    by_cost : bool
        The decisions will be those of least expected cost, not the most probable class.
    """
    if costs is not None:
        p = softmax(scale * scores.astype(np.float64), axis=1)
        called = (p @ costs).argmin(axis=1) if by_cost else decide(p, None)
        gain: NDArray[np.float64] = -costs[labels, called]
        return gain
    shares: Any = 1.0 if weights is None else weights / weights.mean()
    if metric == "log_loss":
        negative: NDArray[np.float64] = -losses * shares
        return negative
    hits = (scores.argmax(axis=1) == labels).astype(np.float64)
    if metric == "accuracy":
        right: NDArray[np.float64] = hits * shares
        return right
    if metric == "balanced_accuracy":
        counts = np.bincount(labels, minlength=scores.shape[1])
        each = len(labels) / (np.sum(counts > 0) * np.maximum(counts, 1))
        balanced: NDArray[np.float64] = hits * each[labels]
        return balanced
    p = softmax(scale * scores.astype(np.float64), axis=1)

    def value(rows: NDArray[np.bool_]) -> float:
        if metric == "macro_f1":
            return _macro_f1(labels[rows], p[rows])
        found = (auroc if metric == "auroc" else average_precision)(labels[rows], p[rows])
        return 0.0 if found is None else found

    # Blocks that have each class as evenly as can be.
    order = np.lexsort((np.random.default_rng(0).random(len(labels)), labels))
    block = np.empty(len(labels), np.int64)
    block[order] = np.arange(len(labels)) % BLOCKS
    count = int(block.max()) + 1
    whole = value(np.ones(len(labels), np.bool_))
    if count < 2:
        return np.array([whole, whole])
    without = np.array([value(block != n) for n in range(count)])
    pseudo: NDArray[np.float64] = count * whole - (count - 1) * without
    centred: NDArray[np.float64] = pseudo - pseudo.mean() + whole
    return centred
