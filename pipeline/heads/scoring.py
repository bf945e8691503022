"""Scores of the two heads that are not a matrix product: nearest neighbours and the RBF SVM.

From the arrays stored with them, by numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_CELLS = 2**22


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, BLOCK_CELLS // max(1, width))
    for start in range(0, n, step):
        yield slice(start, start + step)


def squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances of the rows of `a` (N, D) and `b` (M, D), at least 0, (N, M)."""
    out = a @ (-2.0 * b.T)
    out += (a * a).sum(axis=1)[:, None]
    out += (b * b).sum(axis=1)
    return np.maximum(out, 0.0, out=out)


def _directions(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(length > 0, length, 1.0)


def nearest(
    z: NDArray[np.float64], examples: NDArray[np.floating[Any]], *, k: int, metric: str
) -> NDArray[np.int64]:
    """Find the `k` nearest examples of each row, nearest first: indices (N, k).

    `metric` is ``"euclidean"`` or ``"cosine"``. Of equally near ones, the first comes first.
    """
    found = np.empty((len(z), k), dtype=np.int64)
    stored = examples.astype(np.float64)
    if metric == "cosine":
        z, stored = _directions(z), _directions(stored)
    for rows in _blocks(len(z), len(stored)):
        distance = squared_distances(z[rows], stored)  # (n, M)
        reach = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
        # Everything within reach, then a stable order: ties must not depend on the partition.
        for row, (line, limit) in enumerate(zip(distance, reach, strict=True)):
            inside = np.flatnonzero(line <= limit)
            order = np.argsort(line[inside], kind="stable")[:k]
            found[rows.start + row] = inside[order]
    return found


def vote_scores(votes: NDArray[np.integer[Any]], n_classes: int) -> NDArray[np.float64]:
    """Log of the smoothed share of each class among the votes: (N, k) classes to (N, K).

    One vote is added, spread over the classes (Laplace), so that a class without a vote does
    not get minus infinity.
    """
    n, k = votes.shape
    cells = np.arange(n)[:, None] * n_classes + votes
    counts = np.bincount(cells.ravel(), minlength=n * n_classes).reshape(n, n_classes)
    scores: NDArray[np.float64] = np.log((counts + 1.0 / n_classes) / (k + 1.0))
    return scores


def neighbour_scores(
    z: NDArray[np.float64],
    examples: NDArray[np.float32],
    labels: NDArray[np.int32],
    *,
    n_classes: int,
    k: int,
    metric: str,
) -> NDArray[np.float64]:
    """Scores (N, K) of standardised codes `z` (N, D) by the vote of the k nearest examples."""
    return vote_scores(labels[nearest(z, examples, k=k, metric=metric)], n_classes)


def rbf_scores(
    z: NDArray[np.float64],
    support: NDArray[np.float32],
    dual: NDArray[np.float64],
    intercept: NDArray[np.float64],
    n_support: NDArray[np.int32],
    *,
    gamma: float,
) -> NDArray[np.float64]:
    """Scores (N, K) of standardised codes `z` (N, D) by an SVM with the kernel exp(-gamma d^2).

    Parameters
    ----------
    support, dual, intercept, n_support
        As libsvm keeps them: support vectors (M, D) ordered by class, their coefficients
        (K - 1, M), intercepts of the pairs (P,), support vectors a class (K,); a pair's value
        is positive for its first class.
    """
    stored, (weight, bias) = support.astype(np.float64), kernel_weights(dual, intercept, n_support)
    scores = np.empty((len(z), len(n_support)))
    for rows in _blocks(len(z), len(stored)):
        kernel = np.exp(-gamma * squared_distances(z[rows], stored))  # (n, M)
        scores[rows] = kernel @ weight + bias
    return scores


def kernel_weights(
    dual: NDArray[np.float64], intercept: NDArray[np.float64], n_support: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (M, K) and biases (K,) that give each class's score from kernel values (N, M).

    A class's score is the mean decision value over its pairs. If the value of a pair (i, j) is, up
    to a common factor, the log-odds of i against j, then these are the log-probabilities that fit
    all pairs best by least squares, up to a constant (Bradley and Terry 1952, as coupled by Hastie
    and Tibshirani 1998): unlike votes, they vary smoothly with the codes, and a temperature makes
    probabilities of them. The mean is linear in the kernel, so the K (K - 1) / 2 values of the
    pairs are never laid out.

    Parameters
    ----------
    dual, intercept, n_support
        As in :func:`rbf_scores`.
    """
    k = len(n_support)
    ends = np.concatenate([[0], np.cumsum(n_support)])
    weight, bias = np.zeros((dual.shape[1], k)), np.zeros(k)
    for own in range(k):
        part = slice(ends[own], ends[own + 1])
        # libsvm keeps the coefficients against class j in row j - 1 for j > own, else in row j. A
        # pair's value is for the class of lower number.
        sign = np.where(np.arange(k - 1) >= own, 1.0, -1.0)
        against = dual[:, part].T * sign  # (m, K - 1)
        weight[part] = np.insert(-against, own, against.sum(axis=1), axis=1)
    first, second = np.triu_indices(k, 1)
    np.add.at(bias, first, intercept)
    np.subtract.at(bias, second, intercept)
    return weight / k, bias / k


def libsvm_arrays(
    model: Any,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Give `dual`, `intercept` and `n_support` of a fitted ``SVC``, with libsvm's signs."""
    sign = -1.0 if len(model.classes_) == 2 else 1.0  # scikit-learn negates both for two classes
    return sign * model.dual_coef_, sign * model.intercept_, model.n_support_.astype(np.int32)
