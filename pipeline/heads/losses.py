"""The losses of the linear heads on a block of scores: value, derivative, curvature.

Every head minimises ``|W|^2 / 2 + C * sum_i weight_i * loss(scores_i, label_i)`` with ``scores =
z @ W + b`` and b unpenalised: in the path and in the final fit.

``softmax``
    Cross-entropy; with two classes the logistic loss of one decision value.
``svm``
    Squared hinge of each class against the rest: ``max(0, 1 - y * score)^2``, y = +1 or -1; with
    two classes one decision value.
``ridge``
    Squared distance to +1 (the class) or -1 (the rest); with two classes one value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Loss:
    """A loss of scores.

    Attributes
    ----------
    block : callable
        ``block(scores, labels, weights, curvature)`` overwrites `scores` (n, F, J) with their
        derivatives and returns the values (F, J), summed over the block (all in column 0 where
        the classes are coupled), and the summed second derivatives (F, J), or None where not
        asked for. `weights` is (n, F): 0 where an example is held out of a fold.
    coupled : bool
        The columns of one fold are one problem; else each column is a problem of its own.
    """

    block: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64] | None]]
    coupled: bool


def n_outputs(n_classes: int) -> int:
    """J, columns of scores: one for two classes, else one per class."""
    return 1 if n_classes == 2 else n_classes


def _total(values: Floats) -> NDArray[np.float64]:
    total: NDArray[np.float64] = values.sum(axis=0, dtype=np.float64)
    return total


def _softmax(
    scores: Floats, labels: NDArray[np.int32], weights: Floats, curvature: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    if scores.shape[2] == 1:
        return _logistic(scores, labels, weights, curvature)
    n, n_folds, _ = scores.shape
    at = np.arange(n)
    scores -= scores.max(axis=2, keepdims=True)
    true = scores[at, :, labels]  # (n, F)
    np.exp(scores, out=scores)
    mass = scores.sum(axis=2)  # (n, F)
    value = np.zeros((n_folds, scores.shape[2]))
    value[:, 0] = _total(weights * (np.log(mass) - true))
    scores *= (weights / mass)[:, :, None]  # weight * probability
    second = None
    if curvature:  # sum of weight * p * (1 - p)
        inverse = np.divide(1, weights, out=np.zeros_like(weights), where=weights > 0)
        second = _total(scores) - np.einsum(
            "nfk,nfk,nf->fk", scores, scores, inverse, dtype=np.float64
        )
    scores[at, :, labels] -= weights
    return value, second


def _logistic(
    scores: Floats, labels: NDArray[np.int32], weights: Floats, curvature: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    sign = np.where(labels == 1, 1, -1).astype(scores.dtype)[:, None]  # (n, 1)
    margin = scores[:, :, 0] * sign  # (n, F)
    low = np.exp(-np.abs(margin))
    loss = np.log1p(low) + np.maximum(-margin, 0)
    miss = np.where(margin >= 0, low, 1) / (1 + low)  # 1 - p(true class)
    value = _total(weights * loss)[:, None]
    second = _total(weights * miss * (1 - miss))[:, None] if curvature else None
    scores[:, :, 0] = -weights * sign * miss
    return value, second


def _squared_hinge(
    scores: Floats, labels: NDArray[np.int32], weights: Floats, curvature: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    # In place: scores become y * slack, for y = -1 first, then where y = +1 put right.
    at = np.arange(len(scores))
    if scores.shape[2] == 1:
        sign = np.where(labels == 1, 1, -1).astype(scores.dtype)[:, None, None]
        scores *= -sign
        scores += 1
        np.maximum(scores, 0, out=scores)
    else:
        true = scores[at, :, labels]  # (n, F)
        scores += 1
        np.maximum(scores, 0, out=scores)
        scores[at, :, labels] = np.maximum(1 - true, 0)
    second = None
    if curvature:
        second = 2 * np.einsum("nfk,nf->fk", scores > 0, weights, dtype=np.float64)
    value = np.einsum("nfk,nfk,nf->fk", scores, scores, weights, dtype=np.float64)
    scores *= 2 * weights[:, :, None]
    if scores.shape[2] == 1:
        scores *= -sign
    else:
        scores[at, :, labels] *= -1
    return value, second


def _squares(
    scores: Floats, labels: NDArray[np.int32], weights: Floats, curvature: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    if scores.shape[2] == 1:
        scores -= np.where(labels == 1, 1, -1).astype(scores.dtype)[:, None, None]
    else:
        scores += 1
        scores[np.arange(len(scores)), :, labels] -= 2
    value = np.einsum("nfk,nfk,nf->fk", scores, scores, weights, dtype=np.float64)
    scores *= 2 * weights[:, :, None]
    second = np.repeat(2 * _total(weights)[:, None], scores.shape[2], axis=1)
    return value, second if curvature else None


LOSSES = {
    "softmax": Loss(_softmax, True),
    "svm": Loss(_squared_hinge, False),
    "ridge": Loss(_squares, False),
}
