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

from ..compare.seeds import rescaled_seeds

FEWEST_DRAWS = 5  # below, the spread of the draws is too poorly known for an interval
LEVEL = 0.95
EQUAL = 1e-12


@dataclass(frozen=True, eq=False)
class Curve:
    """A figure of one method, of R draws at S sizes, on the same test images.

    Attributes
    ----------
    values : float64 (R, S)
        Of all test images.
    samples : float32 (R, S, B)
        Of B resampled sets of the test images, the same for all methods; NaN where undefined.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.float32]

    @classmethod
    def of_hits(cls, hits: NDArray[np.bool_], counts: NDArray[np.int32]) -> Curve:
        """Give the curve of the accuracy.

        Parameters
        ----------
        hits : bool (R, S, N)
            Which test images were classified correctly.
        counts : int32 (B, N)
            From :func:`~cnn_codes.results.resampling.resamples`.
        """
        weights = (counts / counts.sum(axis=1, keepdims=True)).T.astype(np.float32)  # (N, B)
        flat = hits.reshape(-1, hits.shape[2]).astype(np.float32) @ weights
        return cls(hits.mean(axis=2), flat.reshape(*hits.shape[:2], -1))

    @property
    def n_draws(self) -> int:
        """R."""
        return int(self.values.shape[0])


def _means(samples: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Resample the mean over draws of `samples` (R, S, B) at each size, (B, S).

    The deviations of the draws' weights are scaled for few draws (Rao and Wu 1988).
    """
    n_draws, _, n_samples = samples.shape
    weights = rescaled_seeds(n_draws, n_samples, seed=seed)  # (B, R)
    found: NDArray[np.float64] = np.einsum("rsb,br->bs", samples, weights)
    return found[np.isfinite(found).all(axis=1)]


def interval_of_means(curve: Curve, *, seed: int = 0) -> list[list[float]] | None:
    """95 % confidence interval of the mean at each size; None with fewer than 5 draws.

    For other draws and other test images of the same kind.
    """
    if curve.n_draws < FEWEST_DRAWS:
        return None
    found = _means(curve.samples, seed)
    if not len(found):
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


def covariance_of_means(curve: Curve) -> NDArray[np.float64] | None:
    """Covariance (S, S) of the means over the draws, on these test images.

    None with fewer than 5 draws.
    """
    if curve.n_draws < FEWEST_DRAWS:
        return None
    found: NDArray[np.float64] = np.atleast_2d(np.cov(curve.values.T)) / curve.n_draws
    return found


def crossing_of(
    difference: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[float, int] | None:
    """Find where a curve of differences changes its sign for the last time.

    Parameters
    ----------
    difference : float64 (S,)
        How much better the first method is than the second.
    sizes : float64 (S,)
        Images per class, increasing, positive.

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
    sign: int = 1,
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
    sign : int
        -1 for a figure whose lower values are better: differences are then b minus a.
    seed : int
        Of the resampled draws.

    Returns
    -------
    dict
        ``a``, ``b``; ``size`` (images per class, or None), ``direction`` (which of the two is
        ahead from there on, or None), ``ci95`` (of the size, over the resamples that cross in the
        same direction; None without a crossing or with fewer than 5 draws), ``share`` (of the
        resamples that cross in that direction; without a crossing, that cross at all; None with
        fewer than 5 draws), ``clear`` (whether each of the two is significantly better on its
        side), ``differences`` (by size: ``size``, ``mean``, ``range`` over the draws, ``ci95`` of
        the same, simultaneous over all sizes, or None with fewer than 5 draws), ``n_draws``.
    """
    n_draws = min(first.n_draws, second.n_draws)
    x = np.asarray(sizes, np.float64)
    by_draw = sign * (first.values[:n_draws] - second.values[:n_draws])  # (R, S)
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
        both = sign * (first.samples[:n_draws] - second.samples[:n_draws])  # (R, S, B)
        samples = _means(both, seed)  # (B, S)
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
