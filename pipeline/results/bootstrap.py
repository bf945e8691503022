"""Confidence intervals of every figure, over images or over groups of images, by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from .metrics import wilson_interval
from .resampling import draws, n_resamples, resampled, resamples

FEW_UNITS = 30  # below, resamples alone are not trusted (benchmarks/intervals.md)
_UNBOUNDED = ("log_loss", "brier", "cost")  # every other figure is at most 1
LEVEL = 0.95


def interval(
    name: str, values: NDArray[np.float64], *, n_units: int, level: float = LEVEL
) -> tuple[float, float] | None:
    """Percentile interval of the resampled values of a figure that are finite.

    With fewer than 30 units it is no shorter than Student's interval of the resamples' standard
    deviation: of two to six groups resamples differ too little, and never leave their range.

    Parameters
    ----------
    name : str
        One of :data:`.resampling.FIGURES`, or ``cost``.
    values : float64 (B,)
        From :func:`resampled`.
    n_units : int
        How many images, or groups, were resampled: with few of them the plain percentile
        interval is too short, and its quantiles are moved outwards by the factor between the
        normal and Student's distribution, sqrt(n / (n - 1)) t / z (Hesterberg 2015).
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    tuple of float or None
        None where nothing is finite or there is one unit only.
    """
    known = values[np.isfinite(values)]
    if not len(known) or n_units == 1:
        return None
    wide = math.sqrt(n_units / (n_units - 1)) * float(stdtrit(n_units - 1, (1 + level) / 2))
    low, high = map(float, np.quantile(known, [ndtr(-wide), ndtr(wide)]))
    if n_units < FEW_UNITS:
        middle, half = float(known.mean()), wide * float(known.std())
        low, high = min(low, max(0.0, middle - half)), max(high, middle + half)
    return low, high if name in _UNBOUNDED else min(1.0, high)


def figure_intervals(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    predicted: NDArray[np.integer] | None = None,
    costs: NDArray[np.float64] | None = None,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """95 % confidence interval of every figure, over images or over groups.

    Parameters
    ----------
    labels : integer (N,)
        True classes, 0 to K - 1.
    probabilities : float (N, K)
        Rows sum to 1.
    predicted, costs
        As :func:`resampled`.
    groups : (N,), optional
        The group of each image; then groups are the units.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to (float, float) or None
        By the names of :data:`.resampling.FIGURES`, and ``cost`` with `costs`. That of the
        accuracy is never shorter than Wilson's for independent images. None where all resamples
        give the same value, as at an AUROC of exactly 1: they say nothing then.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, np.float64)
    counts = resamples(len(y), groups=groups, n_classes=p.shape[1], seed=seed)
    n_units = len(y) if groups is None else len(np.unique(groups))
    out: dict[str, tuple[float, float] | None] = {}
    decided = p.argmax(axis=1) if predicted is None else predicted
    for name, values in resampled(y, p, counts, predicted=decided, costs=costs).items():
        ends = interval(name, values, n_units=n_units)
        out[name] = ends if ends and ends[0] < ends[1] else None
    out["accuracy"] = accuracy_interval(
        decided == y, groups=groups, n_classes=p.shape[1], seed=seed
    )
    return out


def accuracy_interval(
    hits: NDArray[np.bool_],
    *,
    groups: NDArray[np.generic] | None = None,
    n_classes: int = 2,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson's; with groups, no shorter than that over them.

    Parameters
    ----------
    hits : bool (N,)
        Which images were classified correctly.
    groups, n_classes, seed
        As :func:`.resampling.resamples`. Without groups, images are independent.

    Returns
    -------
    tuple of float
        Limits in [0, 1]; 0 and 1 of one group, which says nothing of others. Where all images or
        none were classified correctly, groups do not differ: each then counts as one image.

    References
    ----------
    Wilson 1927; Efron 1979.
    """
    n, z = len(hits), -float(ndtri((1 - LEVEL) / 2))
    ends = wilson_interval(int(hits.sum()), n, z=z)
    if groups is None:
        return ends
    index = np.unique(groups, return_inverse=True)[1].reshape(-1)
    sizes, right = np.bincount(index), np.bincount(index, weights=hits)
    n_groups = len(sizes)
    if n_groups == 1:
        return 0.0, 1.0
    accuracy = float(right.sum() / n)
    if accuracy in (0.0, 1.0):
        return wilson_interval(accuracy * n_groups, n_groups, z=z)
    drawn = draws(n_groups, n_resamples(n, n_classes), seed)
    values = np.array([(one @ right) / (one @ sizes) for one in drawn])
    found = interval("accuracy", values, n_units=n_groups)
    return (min(ends[0], found[0]), max(ends[1], found[1])) if found else ends


def simultaneous(
    differences: Mapping[str, float],
    samples: Mapping[str, NDArray[np.float64]],
    *,
    n_units: int,
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of several differences that hold together: the single-step max-t bootstrap.

    Parameters
    ----------
    differences : mapping of str to float
        As measured; each key is one figure of one pair of methods.
    samples : mapping of str to float64 (B,)
        The same on each resampled set; NaN where undefined.
    n_units : int
        Images or groups that were resampled.

    Returns
    -------
    dict of str to (float, float) or None
        None where a difference is undefined or does not vary.

    References
    ----------
    Westfall and Young 1993; Romano and Wolf 2005.
    """
    able = {
        name: float(np.nanstd(found, ddof=1))
        for name, found in samples.items()
        if np.isfinite(found).sum() > 1 and math.isfinite(differences[name])
    }
    able = {name: error for name, error in able.items() if error > 0}
    out: dict[str, tuple[float, float] | None] = dict.fromkeys(samples)
    if not able or n_units < 2:
        return out
    deviations = [np.abs(samples[name] - differences[name]) / able[name] for name in able]
    largest = np.nanmax(np.nan_to_num(np.stack(deviations), nan=0.0), axis=0)  # (B,)
    tail = (1 - LEVEL) / 2
    factor = math.sqrt(n_units / (n_units - 1)) * float(stdtrit(n_units - 1, tail) / ndtri(tail))
    reach = factor * max(float(np.quantile(largest, LEVEL)), -float(ndtri(tail)))
    for name, error in able.items():
        out[name] = differences[name] - reach * error, differences[name] + reach * error
    return out
