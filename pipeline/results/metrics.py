"""How good predictions are: every metric from labels and probabilities alone.

Stands between the heads (or fine-tuning) and the results. Everything here can be recomputed from
``<run>.predictions.csv``.
In numpy, so that results can be recomputed and reported where scikit-learn is not imported, and
so that a class the split does not contain is an ordinary case; the tests hold every figure to
scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ResultError
from .calibration import calibration_error, ratio

CLIP = float(np.finfo(np.float64).eps)
Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def measure(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    costs: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Compute every metric of one split.

    Parameters
    ----------
    labels : integer (N,)
        True classes, 0 to K - 1; N at least 1.
    probabilities : float (N, K)
        One row per image, K at least 2, in [0, 1], rows sum to 1 (to 1e-4). The predicted class
        is the row's largest, the first of equals.
    sample_weight : float (N,), optional
        How much each image counts: not negative, not all zero; by default 1 each.
    predicted : integer (N,), optional
        Predicted classes, where another rule than the largest probability made them.
    costs : float64 (K, K), optional
        Cost of predicting the column's class where the row's is true.

    Returns
    -------
    dict
        Plain numbers and lists, fit for JSON:
        ``n_images``; ``accuracy`` and ``accuracy_ci95`` (Wilson's interval; with weights, for
        the effective number of images, (sum w)^2 / sum w^2); ``balanced_accuracy`` (mean recall
        of the classes that occur); ``macro_f1`` (mean over the classes that occur as label or
        prediction); ``auroc`` (two classes: of the last one; more: mean of one against the
        rest, over the classes that occur; None where no class has both); ``log_loss`` (nats,
        probabilities clipped to [2.2e-16, 1 - 2.2e-16]); ``brier`` (half the squared distance
        of the row to the true class's corner, 0 to 1); ``ece``, ``ece_calibrated``,
        ``ece_band95`` and ``ece_debiased`` (see :func:`.calibration.calibration_error`);
        ``average_precision`` (as ``auroc``); ``absent`` (classes without an image, which no mean
        over classes counts); ``per_class`` (one dict per class: precision, recall and f1, 0 where
        undefined, and support); ``confusion`` (K x K: rows true, columns predicted).

    Raises
    ------
    ResultError
        The arrays are not what is said above.
    """
    y, p, w = _checked(labels, probabilities, sample_weight)
    n_classes = p.shape[1]
    called_as = p.argmax(axis=1) if predicted is None else _checked_classes(predicted, p)
    confusion = confusion_matrix(y, called_as, n_classes, sample_weight=w)  # (K, K)
    hits, support, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    total = float(support.sum())
    precision = ratio(hits, called)
    recall = ratio(hits, support)
    f1 = ratio(2 * hits, support + called)
    accuracy = min(float(hits.sum()) / total, 1.0)
    effective = total**2 / float((w**2).sum())
    integral = sample_weight is None
    return {
        "n_images": len(y),
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson_interval(accuracy * effective, effective)),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[(support > 0) | (called > 0)].mean()),
        "auroc": auroc(y, p, sample_weight=w),
        "average_precision": average_precision(y, p, sample_weight=w),
        **({} if costs is None else {"cost": float((confusion * costs).sum() / total)}),
        "log_loss": log_loss(y, p, sample_weight=w),
        "brier": brier(y, p, sample_weight=w),
        **calibration_error(y, p, sample_weight=w),
        "absent": [k for k in range(n_classes) if support[k] == 0],
        "per_class": [
            {
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": _plain(support[k], integral),
            }
            for k in range(n_classes)
        ],
        "confusion": [[_plain(value, integral) for value in row] for row in confusion],
    }


def log_loss(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    """Mean negative log-likelihood (nats), probabilities clipped to [2.2e-16, 1 - 2.2e-16]."""
    true = np.clip(probabilities[np.arange(len(labels)), labels], CLIP, 1 - CLIP)
    return float(np.average(-np.log(true), weights=sample_weight))


def brier(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    """Half the mean squared distance of a row to its true class's corner, 0 to 1."""
    true = probabilities[np.arange(len(labels)), labels]
    squares = np.einsum("nk,nk->n", probabilities, probabilities)
    return float(np.average((squares - 2 * true + 1) / 2, weights=sample_weight))


def confusion_matrix(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    n_classes: int,
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Count (or weigh) the images of each true class (row) called each class (column), (K, K)."""
    cells = labels.astype(np.int64) * n_classes + predicted
    counts = np.bincount(cells, weights=sample_weight, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.float64)


def wilson_interval(hits: float, n: float, *, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion.

    Parameters
    ----------
    hits, n : float
        Successes and trials, 0 <= hits <= n, n > 0; need not be whole numbers.
    z : float
        Normal quantile; the default gives 95 %.

    Returns
    -------
    tuple of float
        Lower and upper limit, in [0, 1].

    References
    ----------
    Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for samples of any size.
    """
    if not 0 <= hits <= n or n <= 0:
        raise ResultError(f"{hits} hits of {n}.", expected="0 <= hits <= n and n > 0")
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At 0 or n hits one limit is exactly 0 or 1; rounding must not put it beside that.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return low, high


def auroc(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float | None:
    """Area under the ROC curve, ties counted half.

    Two classes: of the last one. More: the mean of one against the rest over the classes that
    occur among `labels`. None where no class has examples both in and out of it.
    """
    return _mean_area(_area, labels, probabilities, sample_weight)


def average_precision(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float | None:
    """Area under the precision-recall curve, as the mean precision over the gains in recall.

    Two classes: of the last one. More: the mean of one against the rest over the classes that
    occur. None where no class has examples both in and out of it. The definition is
    scikit-learn's: no interpolation between thresholds.
    """
    return _mean_area(_precision_area, labels, probabilities, sample_weight)


def _mean_area(
    area: Callable[..., float | None],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None,
) -> float | None:
    """Area of the last of two classes; of more, the mean over those that have one."""
    w = np.ones(len(labels)) if sample_weight is None else sample_weight
    k = probabilities.shape[1]
    areas = [area(labels == c, probabilities[:, c], w) for c in (range(k) if k != 2 else (1,))]
    known = [one for one in areas if one is not None]
    return float(np.mean(known)) if known else None


def _precision_area(
    positive: NDArray[np.bool_], score: NDArray[np.float64], w: NDArray[np.float64]
) -> float | None:
    up, down = np.where(positive, w, 0.0), np.where(positive, 0.0, w)
    if up.sum() == 0 or down.sum() == 0:
        return None
    _, level = np.unique(-score, return_inverse=True)  # the highest score first
    up_at, down_at = np.bincount(level, weights=up), np.bincount(level, weights=down)
    hits = np.cumsum(up_at)
    called = hits + np.cumsum(down_at)
    return float((up_at * ratio(hits, called)).sum() / up.sum())


def _area(
    positive: NDArray[np.bool_], score: NDArray[np.float64], w: NDArray[np.float64]
) -> float | None:
    """Probability that a positive example scores above a negative one (Mann and Whitney)."""
    up, down = np.where(positive, w, 0.0), np.where(positive, 0.0, w)
    if up.sum() == 0 or down.sum() == 0:
        return None
    _, level = np.unique(score, return_inverse=True)
    up_at, down_at = np.bincount(level, weights=up), np.bincount(level, weights=down)
    below = np.cumsum(down_at) - down_at
    return float((up_at * (below + down_at / 2)).sum() / (up.sum() * down.sum()))


def clustered_error(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Give the standard error of the mean of values (n,) that are independent by group (n,).

    The cluster-robust estimate (Liang and Zeger 1986) with the correction G / (G - 1).
    """
    _, at = np.unique(groups, return_inverse=True)
    sums = np.bincount(at, weights=values - values.mean())  # (G,)
    n_groups = len(sums)
    if n_groups < 2:
        return math.inf
    return float(np.sqrt(n_groups / (n_groups - 1) * np.sum(sums**2)) / len(values))


def _checked_classes(predicted: ArrayLike, p: NDArray[np.float64]) -> NDArray[np.int64]:
    found = np.asarray(predicted)
    if found.shape != p.shape[:1] or found.dtype.kind not in "iu":
        raise ResultError(
            f"Predicted classes of shape {found.shape}, type {found.dtype}.",
            expected="one integer per image",
        )
    if found.min() < 0 or found.max() >= p.shape[1]:
        raise ResultError("A predicted class does not exist.", expected=f"0 to {p.shape[1] - 1}")
    return found.astype(np.int64)


def _plain(value: float, integral: bool) -> float | int:
    return round(value) if integral else float(value)


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or y.shape != p.shape[:1] or len(y) == 0:
        raise ResultError(
            f"Labels of shape {y.shape} with probabilities of shape {p.shape}.",
            expected="(N,) and (N, K), at least one image and two classes",
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise ResultError(
            "A label is not one of the classes.", expected=f"integers 0 to {p.shape[1] - 1}"
        )
    if not (p >= 0).all() or not (p <= 1).all() or np.abs(p.sum(axis=1) - 1).max() > 1e-4:
        raise ResultError(
            "A row of probabilities is not one.", expected="values in [0, 1] that sum to 1"
        )
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if w.shape != y.shape or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ResultError(
            f"Weights of shape {w.shape} that are no weights.",
            expected="one finite weight an image, none negative, not all zero",
        )
    return y.astype(np.int64), p, w
