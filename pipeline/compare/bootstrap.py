"""Intervals for the difference of two figures that have no closed form: AUROC and macro-F1.

All methods are measured on the same resampled sets of test images, so that what is hard about an
image is hard for all of them and cancels in the differences.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..results.predictions import Predictions

__all__ = ["FIGURES", "interval", "resampled", "resamples"]

FIGURES = ("accuracy", "macro_f1", "auroc")
SAMPLES = 2000
LEAST_SAMPLES = 400
MOST_CELLS = 400_000_000  # samples x images x classes: a few seconds a method
BLOCK_CELLS = 4_000_000


def resamples(n_images: int, *, n_classes: int = 2, seed: int = 0) -> NDArray[np.int32]:
    """Draw resampled sets of the images: how often each image is in each set.

    Returns
    -------
    int32 (B, n_images)
        Rows sum to `n_images`. B is 2,000, or fewer (at least 400) where images and classes are
        many.
    """
    n_samples = min(SAMPLES, max(LEAST_SAMPLES, MOST_CELLS // (n_images * n_classes)))
    random = np.random.default_rng(seed)
    counts = np.empty((n_samples, n_images), np.int32)
    for row in counts:
        row[:] = np.bincount(random.integers(0, n_images, n_images), minlength=n_images)
    return counts


def resampled(found: Predictions, counts: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
    """Measure the predictions on each resampled set.

    Parameters
    ----------
    found : Predictions
        Of N images, K classes.
    counts : int32 (B, N)
        From :func:`resamples`.

    Returns
    -------
    dict of str to float64 (B,)
        ``accuracy``, ``macro_f1``, ``auroc`` as
        :func:`~cnn_codes.results.metrics.measure` has them; NaN for
        the AUROC of a set in which it is undefined.
    """
    n_samples, n_images = counts.shape
    labels, p = found.labels.astype(np.int64), found.probabilities
    k = p.shape[1]
    predicted = found.predicted
    true_of = labels[:, None] == np.arange(k)  # (N, K)
    called_as = predicted[:, None] == np.arange(k)
    out = {name: np.empty(n_samples) for name in FIGURES}
    columns = (1,) if k == 2 else tuple(range(k))
    orders = [np.argsort(p[:, c], kind="stable") for c in columns]
    step = max(1, BLOCK_CELLS // n_images)
    for start in range(0, n_samples, step):
        rows = slice(start, start + step)
        w = counts[rows].astype(np.float64)  # (b, N)
        hits = w @ (true_of & called_as).astype(np.float64)  # (b, K)
        support = w @ true_of.astype(np.float64)
        called = w @ called_as.astype(np.float64)
        out["accuracy"][rows] = hits.sum(axis=1) / n_images
        size = support + called
        f1 = np.divide(2 * hits, size, out=np.zeros_like(hits), where=size > 0)
        out["macro_f1"][rows] = f1.sum(axis=1) / (size > 0).sum(axis=1)
        areas = np.stack(
            [
                _areas(w[:, order], true_of[order, c], p[order, c])
                for c, order in zip(columns, orders, strict=True)
            ]
        )  # (J, b)
        known = np.isfinite(areas)
        total = np.where(known, areas, 0.0).sum(axis=0)
        n_known = known.sum(axis=0)
        out["auroc"][rows] = np.where(n_known > 0, total / np.maximum(n_known, 1), math.nan)
    return out


def _areas(
    w: NDArray[np.float64], positive: NDArray[np.bool_], score: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under the operating curve for each row of weights (b, N) of images by rising score."""
    starts = np.flatnonzero(np.diff(score, prepend=-np.inf) > 0)  # of runs of equal scores
    up = np.add.reduceat(w * positive, starts, axis=1)  # (b, G)
    down = np.add.reduceat(w * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    wins = (up * (below + down / 2)).sum(axis=1)
    areas: NDArray[np.float64] = np.divide(
        wins, pairs, out=np.full(len(w), math.nan), where=pairs > 0
    )
    return areas


def interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float] | None:
    """Give the percentile interval of the values that are finite; None where none is."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
