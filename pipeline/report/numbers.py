"""Numbers of a report that no record holds, from predictions alone, and how numbers are written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..results.predictions import Predictions

__all__ = [
    "average_precision",
    "duration",
    "mistakes",
    "p_value",
    "percent",
    "points",
    "precision_recall",
    "roc",
    "signed",
    "top_confusions",
]

_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def roc(
    positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trace the receiver's operating curve.

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


def mistakes(found: Predictions) -> NDArray[np.intp]:
    """Rows of wrongly predicted images, the most confident first, of equals by path."""
    confidence = found.probabilities.max(axis=1)
    wrong = np.flatnonzero(found.predicted != found.labels)
    paths = np.array(found.paths)[wrong]
    order: NDArray[np.intp] = wrong[np.lexsort((paths, -confidence[wrong]))]
    return order


def top_confusions(found: Predictions, most: int) -> list[tuple[int, int, int]]:
    """Give the most frequent mistakes: true class, predicted class, images."""
    k = len(found.class_names)
    wrong = found.predicted != found.labels
    cells = np.bincount(found.labels[wrong] * np.int64(k) + found.predicted[wrong], minlength=k * k)
    order = np.argsort(-cells, kind="stable")[:most].tolist()
    return [(at // k, at % k, int(cells[at])) for at in order if cells[at]]


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage without the sign."""
    return _DASH if value is None else f"{100 * value:.{digits}f}"


def points(low: float, high: float) -> str:
    """Write an interval of shares in percent or points."""
    return f"{signed(100 * low, plus=False)} to {signed(100 * high, plus=False)}"


def signed(value: float, *, plus: bool = True) -> str:
    """Write a number to one digit with a true minus sign, and a plus where wanted."""
    text = f"{abs(value):.1f}"
    if float(text) == 0:
        return text
    return (_MINUS if value < 0 else "+" if plus else "") + text


def p_value(value: float) -> str:
    """Write p: three digits, or a bound that is still true."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """Write seconds as one would say them."""
    if seconds is None:
        return _DASH
    if seconds == 0:
        return "0 s"
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
