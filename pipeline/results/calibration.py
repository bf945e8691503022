"""How far confidence is from accuracy: bins of equal mass, and the calibration error over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 15
ECE_DRAWS = 200


def calibration_bins(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Confidence against accuracy in bins of equal mass.

    Images are ordered by the probability of their predicted class and cut into 15 bins of
    equal total weight. Images of exactly equal confidence each count with their group's mean
    accuracy, so the order of the rows is immaterial.

    Returns
    -------
    float64 (B, 3)
        Mean confidence, accuracy and share of the weight of each bin that is not empty, by
        rising confidence.
    """
    w = np.ones(len(labels)) if sample_weight is None else sample_weight
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    _, group = np.unique(confidence, return_inverse=True)
    mass = np.bincount(group, weights=w)
    correct = ratio(np.bincount(group, weights=w * correct), mass)[group]
    order = np.argsort(confidence, kind="stable")
    w, confidence, correct = w[order], confidence[order], correct[order]
    middle = (np.cumsum(w) - w / 2) / w.sum()  # in (0, 1)
    which = np.minimum((middle * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    share = np.bincount(which, weights=w, minlength=ECE_BINS)
    sums = [np.bincount(which, weights=w * a, minlength=ECE_BINS) for a in (confidence, correct)]
    full = share > 0
    return np.stack(
        [sums[0][full] / share[full], sums[1][full] / share[full], share[full] / share.sum()], 1
    )


def expected_calibration_error(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    """Mean distance of confidence and accuracy over bins of equal mass (top class, 15 bins).

    The sum over :func:`calibration_bins` of share * |confidence - accuracy|: 0 to 1. Equal mass
    rather than equal width, for a good network puts most images into the last of 15 equal
    widths (Nixon et al. 2019, arXiv 1904.01685).
    """
    table = calibration_bins(labels, probabilities, sample_weight=sample_weight)
    return float((table[:, 2] * np.abs(table[:, 0] - table[:, 1])).sum())


def calibration_error(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Calibration error, and what a perfectly calibrated classifier would show.

    The calibration error of a finite sample is above 0 even where the probabilities are exact.
    How far follows from the probabilities alone: each prediction is right with the probability
    that it was given. 200 such samples are drawn with a fixed seed.

    Returns
    -------
    dict
        ``ece`` (:func:`expected_calibration_error`); ``ece_calibrated`` and ``ece_band95`` (mean,
        and 2.5 % and 97.5 % quantiles, over the drawn samples); ``ece_debiased`` (``ece`` less
        that mean, at least 0; Ferro and Fricker 2012 and Roelofs et al. 2022, arXiv 2012.08668,
        discuss the bias).
    """
    w = np.ones(len(labels)) if sample_weight is None else sample_weight
    confidence = probabilities.max(axis=1)
    order = np.argsort(confidence, kind="stable")
    confidence, w = confidence[order], w[order]
    middle = (np.cumsum(w) - w / 2) / w.sum()
    which = np.minimum((middle * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    starts = np.flatnonzero(np.diff(which, prepend=-1))
    rng = np.random.default_rng(0)
    drawn = np.empty(ECE_DRAWS)
    for draw in range(ECE_DRAWS):
        right = rng.random(len(confidence)) < confidence
        drawn[draw] = np.abs(np.add.reduceat(w * (confidence - right), starts)).sum() / w.sum()
    ece = expected_calibration_error(labels, probabilities, sample_weight=sample_weight)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "ece": ece,
        "ece_calibrated": float(drawn.mean()),
        "ece_band95": [float(low), float(high)],
        "ece_debiased": max(0.0, ece - float(drawn.mean())),
    }


def ratio(over: NDArray[Any], under: NDArray[Any]) -> NDArray[np.float64]:
    """Quotient, 0 where the divisor is 0."""
    out: NDArray[np.float64] = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return out
