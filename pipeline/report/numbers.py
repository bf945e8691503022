"""Numbers of a report that no record holds, from predictions alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..results.predictions import Predictions


def roc(
    positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trace the ROC curve.

    Parameters
    ----------
    positive : bool (N,)
        At least one of either kind.
    score : float64 (N,)
        Higher: sooner called positive.

    Returns
    -------
    false positive rate, true positive rate : float64 (M,)
        From (0, 0) to (1, 1), by falling threshold; points on a straight line are left out.
    """
    hits, misses, _ = _counts(positive, score)
    x = np.concatenate([[0.0], misses / misses[-1]])
    y = np.concatenate([[0.0], hits / hits[-1]])
    bends = np.ones(len(x), dtype=bool)
    turn = np.diff(x)[:-1] * np.diff(y)[1:] - np.diff(x)[1:] * np.diff(y)[:-1]
    bends[1:-1] = np.abs(turn) > 1e-15
    return x[bends], y[bends]


def precision_recall(
    positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trace precision against recall, by falling threshold; (recall, precision), each (M,).

    Starts at recall 0 with the precision of the first threshold.
    """
    hits, misses, _ = _counts(positive, score)
    precision = hits / (hits + misses)
    return np.concatenate([[0.0], hits / hits[-1]]), np.concatenate([precision[:1], precision])


def average_precision(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Sum of precision times the gain in recall over the thresholds: 0 to 1, no interpolation."""
    hits, misses, _ = _counts(positive, score)
    gains = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gains * hits / (hits + misses)).sum())


def _counts(
    positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Positives and negatives at or above each distinct score, and the scores, falling."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # of runs of equal scores
    hits = np.cumsum(positive)[last].astype(np.float64)
    return hits, (last + 1) - hits, score[last]


def top_confusions(found: Predictions, most: int) -> list[tuple[int, int, int]]:
    """Give the most frequent mistakes: true class, predicted class, images."""
    k = len(found.class_names)
    wrong = found.predicted != found.labels
    cells = np.bincount(found.labels[wrong] * np.int64(k) + found.predicted[wrong], minlength=k * k)
    order = np.argsort(-cells, kind="stable")[:most].tolist()
    return [(at // k, at % k, int(cells[at])) for at in order if cells[at]]
