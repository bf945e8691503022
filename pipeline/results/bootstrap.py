"""Bootstrap intervals of every figure, over images or over groups of images.

All methods are measured on the same resampled sets of test images, so that what is hard about an
image is hard for all of them and cancels in the differences. Where images belong to groups
(patients, modules), whole groups are resampled: images of one group are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from ..errors import ResultError
from .metrics import wilson_interval

__all__ = [
    "FIGURES",
    "accuracy_interval",
    "figure_intervals",
    "interval",
    "resampled",
    "resamples",
    "simultaneous",
]

FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "average_precision",
    "log_loss",
    "brier",
)
SAMPLES = 2000
FEW_UNITS = 30  # below, resamples alone are not trusted (benchmarks/intervals.md)
_UNBOUNDED = ("log_loss", "brier", "cost")  # every other figure is at most 1
LEAST_SAMPLES = 400
MOST_CELLS = 400_000_000  # samples x images x classes: a few seconds per method
BLOCK_CELLS = 4_000_000
FEW_PER_CLASS = 20  # test images of a class, up to which areas are taken from pairs of images
LEVEL = 0.95
CLIP = float(np.finfo(np.float64).eps)


def resamples(
    n_images: int,
    *,
    groups: NDArray[np.generic] | None = None,
    n_classes: int = 2,
    seed: int = 0,
) -> NDArray[np.int32]:
    """Draw resampled sets of the images: how often each image is in each set.

    Parameters
    ----------
    n_images : int
        N.
    groups : (N,), optional
        The group of each image: G groups are drawn with replacement, each with all its images
        (the cluster bootstrap). By default images are drawn.
    n_classes : int
        Of the predictions that will be measured: many classes mean fewer samples.
    seed : int
        Of the draws.

    Returns
    -------
    int32 (B, n_images)
        Without groups, rows sum to `n_images`. B is 2,000, or fewer (at least 400) where images
        and classes are many.

    References
    ----------
    Efron 1979; Davison and Hinkley 1997, section 3.8, for groups.
    """
    index = np.arange(n_images)
    if groups is not None:
        if groups.shape != (n_images,):
            raise ResultError(
                f"Groups of shape {groups.shape} for {n_images} images.",
                expected="one group per image",
            )
        index = np.unique(groups, return_inverse=True)[1].reshape(-1)
    n_samples = _n_samples(n_images, n_classes)
    counts = np.empty((n_samples, n_images), np.int32)
    for row, drawn in zip(counts, _draws(int(index.max()) + 1, n_samples, seed), strict=True):
        row[:] = drawn[index]
    return counts


def _n_samples(n_images: int, n_classes: int) -> int:
    """Give the number of resamples: fewer where images and classes are many."""
    return min(SAMPLES, max(LEAST_SAMPLES, MOST_CELLS // (n_images * n_classes)))


def _draws(n_units: int, n_samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw `n_units` of so many with replacement: how often each was drawn, (n_units,)."""
    random = np.random.default_rng(seed)
    for _ in range(n_samples):
        yield np.bincount(random.integers(0, n_units, n_units), minlength=n_units)


def resampled(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    counts: NDArray[np.int32],
    *,
    predicted: NDArray[np.integer] | None = None,
    costs: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Measure predictions on each resampled set.

    Parameters
    ----------
    labels : integer (N,)
        True classes, 0 to K - 1.
    probabilities : float64 (N, K)
        Rows sum to 1.
    counts : int32 (B, N)
        From :func:`resamples`; no row all 0.
    predicted : integer (N,), optional
        Decided classes; by default the most probable ones.
    costs : float64 (K, K), optional
        Cost of deciding on the column's class where the row's is true.

    Returns
    -------
    dict of str to float64 (B,)
        The figures of :data:`FIGURES`, and ``cost`` with `costs`, as
        :func:`~cnn_codes.results.metrics.measure` has them (average precision as scikit-learn:
        of the last of two classes, the mean over the classes that occur of several); NaN where
        one is undefined.
    """
    n_samples, n_images = counts.shape
    y, p = labels.astype(np.int64), probabilities
    k = p.shape[1]
    true_of = y[:, None] == np.arange(k)  # (N, K)
    decided = p.argmax(axis=1) if predicted is None else predicted
    called_as = decided[:, None] == np.arange(k)
    own = np.clip(p[np.arange(n_images), y], CLIP, 1 - CLIP)
    losses = np.stack([-np.log(own), ((p - true_of) ** 2).sum(axis=1) / 2], axis=1)  # (N, 2)
    out = {name: np.empty(n_samples) for name in FIGURES}
    if costs is not None:
        out["cost"] = (counts @ costs[y, decided]) / counts.sum(axis=1)
    columns = (1,) if k == 2 else tuple(range(k))
    few = k > 2 and n_images <= FEW_PER_CLASS * k
    orders = {} if few else {c: np.argsort(p[:, c], kind="stable") for c in columns}
    step = max(1, BLOCK_CELLS // n_images)
    for start in range(0, n_samples, step):
        rows = slice(start, start + step)
        w = counts[rows].astype(np.float64)  # (b, N)
        total = w.sum(axis=1)
        hits = w @ (true_of & called_as).astype(np.float64)  # (b, K)
        support = w @ true_of.astype(np.float64)
        called = w @ called_as.astype(np.float64)
        out["accuracy"][rows] = hits.sum(axis=1) / total
        recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
        out["balanced_accuracy"][rows] = recall.sum(axis=1) / (support > 0).sum(axis=1)
        size = support + called
        f1 = np.divide(2 * hits, size, out=np.zeros_like(hits), where=size > 0)
        out["macro_f1"][rows] = f1.sum(axis=1) / (size > 0).sum(axis=1)
        out["log_loss"][rows], out["brier"][rows] = (w @ losses).T / total
        if few:
            areas, precisions = _areas_of_few(w, y, p)  # (J, b)
        else:
            each = [_areas(w[:, at], true_of[at, c], p[at, c]) for c, at in orders.items()]
            areas, precisions = np.array(each).swapaxes(0, 1)
        out["auroc"][rows] = _known_mean(areas)
        out["average_precision"][rows] = _known_mean(precisions)
    return out


def _known_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    known = np.isfinite(values)
    n_known = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.where(n_known > 0, total / np.maximum(n_known, 1), math.nan)
    return mean


def _areas(
    w: NDArray[np.float64], positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and average precision for each row of weights (b, N) of images by rising score."""
    starts = np.flatnonzero(np.diff(score, prepend=-np.inf) > 0)  # of runs of equal scores
    up = np.add.reduceat(w * positive, starts, axis=1)  # (b, G)
    down = np.add.reduceat(w * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    n_up, n_down = up.sum(axis=1), down.sum(axis=1)
    wins = (up * (below + down / 2)).sum(axis=1)
    areas = _over(wins, n_up * n_down)
    found = np.cumsum(up[:, ::-1], axis=1)  # positives at or above each score
    called = found + np.cumsum(down[:, ::-1], axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return areas, _over((up[:, ::-1] * precision).sum(axis=1), n_up)


def _areas_of_few(
    w: NDArray[np.float64], y: NDArray[np.int64], p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As :func:`_areas`, for all classes (K, b), from weights (b, N), labels and scores (N, K).

    Every image is a positive of one class. So the sums that both figures need are those below and
    above each image's score for its own class: N^2 comparisons and three matrix products, where
    :func:`_areas` goes through all images for each class. The weights are counts, so the sums are
    exact, and the figures the same.
    """
    (n_samples, n), k = w.shape, p.shape[1]
    wins, precise = np.zeros((2, n_samples, k))
    step = max(1, BLOCK_CELLS // n)
    for start in range(0, n, step):
        own = np.arange(start, min(n, start + step))
        scores = p[:, y[own]]  # (N, m)
        mine = scores[own, np.arange(len(own))]  # (m,)
        same, above = y[:, None] == y[own], scores >= mine
        lower = np.where(same, 0.0, (scores < mine) + (scores == mine) / 2)
        called, found = w @ above.astype(float), w @ (above & same).astype(float)
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        of = (y[own][:, None] == np.arange(k)).astype(float)  # (m, K)
        wins += (w[:, own] * (w @ lower)) @ of
        precise += (w[:, own] * precision) @ of
    up = w @ (y[:, None] == np.arange(k)).astype(float)  # (b, K)
    down = w.sum(axis=1, keepdims=True) - up
    areas = np.divide(wins, up * down, out=np.full_like(wins, math.nan), where=up * down > 0)
    means = np.divide(precise, up, out=np.full_like(wins, math.nan), where=up > 0)
    return areas.T, means.T


def _over(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where the divisor is 0."""
    out: NDArray[np.float64] = np.divide(a, b, out=np.full(len(a), math.nan), where=b > 0)
    return out


def interval(
    name: str, values: NDArray[np.float64], *, n_units: int, level: float = LEVEL
) -> tuple[float, float] | None:
    """Percentile interval of the resampled values of a figure that are finite.

    With fewer than 30 units it is no shorter than Student's interval of the resamples' standard
    deviation: of two to six groups resamples differ too little, and never leave their range.

    Parameters
    ----------
    name : str
        One of :data:`FIGURES`, or ``cost``.
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
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Confidence interval of every figure, over images or over groups.

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
    level : float
        Coverage, in (0, 1).
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to (float, float) or None
        By the names of :data:`FIGURES`, and ``cost`` with `costs`. That of the accuracy is never
        shorter than Wilson's for independent images. None where all resamples give the same
        value, as at an AUROC of exactly 1: they say nothing then.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, np.float64)
    counts = resamples(len(y), groups=groups, n_classes=p.shape[1], seed=seed)
    n_units = len(y) if groups is None else len(np.unique(groups))
    out: dict[str, tuple[float, float] | None] = {}
    decided = p.argmax(axis=1) if predicted is None else predicted
    for name, values in resampled(y, p, counts, predicted=decided, costs=costs).items():
        ends = interval(name, values, level=level, n_units=n_units)
        out[name] = ends if ends and ends[0] < ends[1] else None
    out["accuracy"] = accuracy_interval(
        decided == y, groups=groups, n_classes=p.shape[1], level=level, seed=seed
    )
    return out


def accuracy_interval(
    hits: NDArray[np.bool_],
    *,
    groups: NDArray[np.generic] | None = None,
    n_classes: int = 2,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of an accuracy: Wilson's; with groups, no shorter than that over them.

    Parameters
    ----------
    hits : bool (N,)
        Which images were classified correctly.
    groups, n_classes, seed
        As :func:`resamples`. Without groups, images are independent.
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    tuple of float
        Limits in [0, 1]; 0 and 1 of one group, which says nothing of others. Where all images or
        none were classified correctly, groups do not differ: each then counts as one image.

    References
    ----------
    Wilson 1927; Efron 1979.
    """
    n, z = len(hits), -float(ndtri((1 - level) / 2))
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
    draws = _draws(n_groups, _n_samples(n, n_classes), seed)
    values = np.array([(drawn @ right) / (drawn @ sizes) for drawn in draws])
    found = interval("accuracy", values, level=level, n_units=n_groups)
    return (min(ends[0], found[0]), max(ends[1], found[1])) if found else ends


def simultaneous(
    differences: Mapping[str, float],
    samples: Mapping[str, NDArray[np.float64]],
    *,
    n_units: int,
    level: float = LEVEL,
) -> dict[str, tuple[float, float] | None]:
    """Intervals of several differences that hold together: the single-step max-t bootstrap.

    Parameters
    ----------
    differences : mapping of str to float
        As measured; each key is one figure of one pair of methods.
    samples : mapping of str to float64 (B,)
        The same on each resampled set; NaN where undefined.
    n_units : int
        Images or groups that were resampled.
    level : float
        Probability that all intervals hold, in (0, 1).

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
    tail = (1 - level) / 2
    factor = math.sqrt(n_units / (n_units - 1)) * float(stdtrit(n_units - 1, tail) / ndtri(tail))
    reach = factor * max(float(np.quantile(largest, level)), -float(ndtri(tail)))
    for name, error in able.items():
        out[name] = differences[name] - reach * error, differences[name] + reach * error
    return out
