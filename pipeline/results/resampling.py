"""Figures on resampled sets of test images, or of groups of them.

All methods are measured on the same resampled sets of test images, so that what is hard about an
image is hard for all of them and cancels in the differences. Where images belong to groups
(patients, modules), whole groups are resampled: images of one group are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import ResultError
from .metrics import CLIP

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
LEAST_SAMPLES = 400
MOST_CELLS = 400_000_000  # samples x images x classes: a few seconds per method
BLOCK_CELLS = 4_000_000
FEW_PER_CLASS = 20  # test images of a class, up to which areas are taken from pairs of images


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
    n_samples = n_resamples(n_images, n_classes)
    counts = np.empty((n_samples, n_images), np.int32)
    for row, drawn in zip(counts, draws(int(index.max()) + 1, n_samples, seed), strict=True):
        row[:] = drawn[index]
    return counts


def n_resamples(n_images: int, n_classes: int) -> int:
    """Give the number of resamples: fewer where images and classes are many."""
    return min(SAMPLES, max(LEAST_SAMPLES, MOST_CELLS // (n_images * n_classes)))


def draws(n_units: int, n_samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
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
