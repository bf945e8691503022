"""Where one learning curve crosses another, with confidence intervals.

Two things are random: the training images (and seed) of each draw, and the test images. Both are
resampled together, the same for all methods (the pigeonhole bootstrap of Owen 2007, which is
conservative), so that what is hard about a draw or an image cancels in differences. Groups of test
images are resampled as one. Between two sizes a curve is taken as linear in the logarithm of the
size. With fewer than 5 draws there is no interval and no crossing is claimed: the range over the
draws is given instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare.bootstrap import resamples
from ..compare.seeds import rescaled_seeds

__all__ = [
    "FEWEST_DRAWS",
    "Chances",
    "Curve",
    "chances",
    "covariance_of_means",
    "crossing",
    "crossing_of",
    "interval_of_means",
]

FEWEST_DRAWS = 5  # below, the spread of the draws is too poorly known for an interval
LEVEL = 0.95
EQUAL = 1e-12


@dataclass(frozen=True, eq=False)
class Curve:
    """Which test images one method classified correctly.

    Attributes
    ----------
    hits : bool (R, S, N)
        Of R draws at S sizes, on the same N test images.
    """

    hits: NDArray[np.bool_]

    @property
    def n_draws(self) -> int:
        """R."""
        return int(self.hits.shape[0])

    def accuracies(self) -> NDArray[np.float64]:
        """Accuracy of each draw at each size, (R, S)."""
        found: NDArray[np.float64] = self.hits.mean(axis=2)
        return found


@dataclass(frozen=True, eq=False)
class Chances:
    """Resamples: how often each draw, and each test image, is in each of B.

    Attributes
    ----------
    draws : float64 (B, R)
        Weights; rows sum to 1. Their deviations are scaled for few draws (Rao and Wu 1988).
    images : float32 (N, B)
        Columns sum to 1.
    """

    draws: NDArray[np.float64]
    images: NDArray[np.float32]

    def means(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Resample the mean of `values` (R, S, N) at each size, (B, S)."""
        n_draws, n_sizes, n_images = values.shape
        flat = values.reshape(-1, n_images).astype(np.float32) @ self.images  # (R * S, B)
        each = flat.reshape(n_draws, n_sizes, -1)  # (R, S, B)
        found: NDArray[np.float64] = np.einsum("rsb,br->bs", each, self.draws)
        return found


def chances(
    n_draws: int, n_images: int, *, groups: NDArray[np.generic] | None = None, seed: int = 0
) -> Chances:
    """Draw the resamples, the same for every method with so many draws."""
    counts = resamples(n_images, groups=groups, seed=seed).T.astype(np.float32)  # (N, B)
    images = counts / counts.sum(axis=0, keepdims=True)
    return Chances(rescaled_seeds(n_draws, images.shape[1], seed=seed), images)


def interval_of_means(
    curve: Curve, *, groups: NDArray[np.generic] | None = None, seed: int = 0
) -> list[list[float]] | None:
    """95 % confidence interval of the mean accuracy at each size; None with fewer than 5 draws.

    For other draws and other test images of the same kind.
    """
    found = _samples(curve, groups, seed)
    if found is None:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


def covariance_of_means(curve: Curve) -> NDArray[np.float64] | None:
    """Covariance (S, S) of the mean accuracies over the draws, on these test images.

    None with fewer than 5 draws.
    """
    if curve.n_draws < FEWEST_DRAWS:
        return None
    found: NDArray[np.float64] = np.atleast_2d(np.cov(curve.accuracies().T)) / curve.n_draws
    return found


def _samples(
    curve: Curve, groups: NDArray[np.generic] | None, seed: int
) -> NDArray[np.float64] | None:
    if curve.n_draws < FEWEST_DRAWS:
        return None
    n_draws, _, n_images = curve.hits.shape
    return chances(n_draws, n_images, groups=groups, seed=seed).means(curve.hits)  # (B, S)


def crossing_of(
    difference: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[float, int] | None:
    """Find where a curve of differences changes its sign for the last time.

    Parameters
    ----------
    difference : float64 (S,)
        First method's accuracy less the second's.
    sizes : float64 (S,)
        Images a class, increasing, positive.

    Returns
    -------
    tuple or None
        The size, interpolated on the logarithm; and 1 where the first method is ahead from there
        on, -1 where the second is. None: the sign never changes.
    """
    signed = np.flatnonzero(np.abs(difference) > EQUAL)
    for a, b in zip(signed[-2::-1].tolist(), signed[:0:-1].tolist(), strict=True):
        if difference[a] * difference[b] < 0:
            share = difference[a] / (difference[a] - difference[b])
            x = np.log(sizes)
            return float(np.exp(x[a] + share * (x[b] - x[a]))), int(np.sign(difference[b]))
    return None


def crossing(
    first: Curve,
    second: Curve,
    sizes: Sequence[int],
    *,
    names: tuple[str, str],
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two curves: differences by size, and where one crosses the other.

    Parameters
    ----------
    first, second : Curve
        Draw r of both has the same images; surplus draws of one are not used.
    sizes : sequence of int
        Images per class.
    names : tuple of str
        Of the two methods.
    groups : (N,), optional
        The group of each test image.
    seed : int
        Of the resamples.

    Returns
    -------
    dict
        ``a``, ``b``; ``size`` (images per class, or None), ``direction`` (which of the two is
        ahead from there on, or None), ``ci95`` (of the size, over the resamples that cross in the
        same direction; None without a crossing or with fewer than 5 draws), ``share`` (of the
        resamples that cross in that direction; without a crossing, that cross at all; None with
        fewer than 5 draws), ``clear`` (whether each of the two is significantly better on its
        side), ``differences`` (by size: ``size``, ``mean``, ``range`` over the draws, ``ci95`` of
        a minus b, simultaneous over all sizes, or None with fewer than 5 draws), ``n_draws``.
    """
    n_draws = min(first.n_draws, second.n_draws)
    both = first.hits[:n_draws].astype(np.int8) - second.hits[:n_draws]  # (R, S, N)
    x = np.asarray(sizes, np.float64)
    by_draw = both.mean(axis=2)  # (R, S)
    difference = by_draw.mean(axis=0)  # (S,)
    found = crossing_of(difference, x)
    out: dict[str, Any] = {
        "a": names[0],
        "b": names[1],
        "size": found[0] if found else None,
        "direction": (names[0] if found[1] > 0 else names[1]) if found else None,
        "ci95": None,
        "share": None,
        "clear": False,
        "n_draws": n_draws,
    }
    limits: list[list[float] | None] = [None] * len(x)
    if n_draws >= FEWEST_DRAWS:
        samples = chances(n_draws, both.shape[2], groups=groups, seed=seed).means(both)  # (B, S)
        half = _simultaneous(samples, difference)
        low, high = difference - half, difference + half
        limits = [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
        out |= _crossed(found, samples, x, low, high)
    out["differences"] = [
        {"size": int(s), "mean": float(d), "range": [float(min(one)), float(max(one))], "ci95": ci}
        for s, d, one, ci in zip(sizes, difference, by_draw.T, limits, strict=True)
    ]
    return out


def _crossed(
    found: tuple[float, int] | None,
    samples: NDArray[np.float64],
    x: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> dict[str, Any]:
    """Interval of a crossing, share of resamples that cross so, and whether it is significant."""
    each = [crossing_of(sample, x) for sample in samples]
    alike = [one for one in each if one and (found is None or one[1] == found[1])]
    out: dict[str, Any] = {"share": len(alike) / len(samples)}
    if found is None or not alike:
        return out
    size, direction = found
    ahead = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    out["clear"] = bool(
        (ahead[x < size] == -direction).any() and (ahead[x > size] == direction).any()
    )
    at = [one[0] for one in alike]
    out["ci95"] = [float(q) for q in np.quantile(at, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
    return out


def _simultaneous(
    samples: NDArray[np.float64], difference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Half widths (S,) of intervals that hold at all sizes together with 95 %.

    The largest of the studentised deviations over the sizes sets one factor for all.
    """
    error = samples.std(axis=0, ddof=1)  # (S,)
    able = error > EQUAL
    if not able.any():
        return np.zeros(len(error))
    largest = np.abs((samples - difference)[:, able] / error[able]).max(axis=1)  # (B,)
    half: NDArray[np.float64] = float(np.quantile(largest, LEVEL)) * error
    return half
