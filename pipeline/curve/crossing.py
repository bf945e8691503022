"""Where one learning curve overtakes another, and how sure that is.

Two things are drawn by chance: the training images of each draw, and the test images. Both are
resampled together and for all methods alike (the 'pigeonhole' bootstrap of Owen 2007, which errs
on the careful side), so that what is hard about a draw or an image cancels in differences. Between
two sizes a curve is taken as straight in the logarithm of the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chances", "Curve", "chances", "crossing", "crossing_of", "interval_of_means"]

SAMPLES = 2000
LEVEL = 0.95
EQUAL = 1e-12


@dataclass(frozen=True, eq=False)
class Curve:
    """What one method called rightly.

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
        Rows sum to 1.
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


def chances(n_draws: int, n_images: int, *, seed: int = 0) -> Chances:
    """Draw the resamples, the same for every method with so many draws."""
    random = np.random.default_rng(seed)
    images = np.empty((n_images, SAMPLES), np.float32)
    for b in range(SAMPLES):
        taken = random.integers(0, n_images, n_images)
        images[:, b] = np.bincount(taken, minlength=n_images) / n_images
    draws = random.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=SAMPLES) / n_draws
    return Chances(draws, images)


def interval_of_means(curve: Curve, *, seed: int = 0) -> list[list[float]] | None:
    """95 % interval of the mean accuracy at each size; None with one draw.

    For other draws and other test images of the same kind.
    """
    if curve.n_draws < 2:
        return None
    n_draws, _, n_images = curve.hits.shape
    found = chances(n_draws, n_images, seed=seed).means(curve.hits)  # (B, S)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


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
    first: Curve, second: Curve, sizes: Sequence[int], *, names: tuple[str, str], seed: int = 0
) -> dict[str, Any]:
    """Compare two curves: differences by size, and where the one overtakes the other.

    Parameters
    ----------
    first, second : Curve
        Draw r of both is of the same images; surplus draws of one are not used.
    sizes : sequence of int
        Images a class.
    names : tuple of str
        Of the two methods.

    Returns
    -------
    dict
        ``a``, ``b``; ``size`` (images a class, or None), ``direction`` (which of the two is ahead
        from there on, or None), ``ci95`` (of the size, over the resamples that cross the same
        way; None without a crossing or with fewer than 2 draws), ``share`` (of the resamples that
        cross that way; without a crossing, that cross at all), ``clear`` (whether each of the
        two is surely ahead on its side), ``differences`` (a size: ``size``, ``mean``, ``ci95`` of
        a less b, simultaneous over all sizes), ``n_draws``.
    """
    n_draws = min(first.n_draws, second.n_draws)
    both = first.hits[:n_draws].astype(np.int8) - second.hits[:n_draws]  # (R, S, N)
    x = np.asarray(sizes, np.float64)
    difference = both.mean(axis=(0, 2))  # (S,)
    samples = chances(n_draws, both.shape[2], seed=seed).means(both)  # (B, S)
    half = _simultaneous(samples, difference)
    found = crossing_of(difference, x)
    each = [crossing_of(sample, x) for sample in samples]
    alike = [one for one in each if one and (found is None or one[1] == found[1])]
    low, high = difference - half, difference + half
    clear = False
    ends: list[float] | None = None
    if found is not None:
        size, direction = found
        before, after = x < size, x > size
        surely = np.where(low > 0, 1, np.where(high < 0, -1, 0))
        clear = bool((surely[before] == -direction).any() and (surely[after] == direction).any())
        if n_draws > 1 and alike:
            at = [one[0] for one in alike]
            ends = [float(q) for q in np.quantile(at, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
    return {
        "a": names[0],
        "b": names[1],
        "size": found[0] if found else None,
        "direction": (names[0] if found[1] > 0 else names[1]) if found else None,
        "ci95": ends,
        "share": len(alike) / len(samples),
        "clear": clear,
        "differences": [
            {"size": int(s), "mean": float(d), "ci95": [float(a), float(b)]}
            for s, d, a, b in zip(sizes, difference, low, high, strict=True)
        ],
        "n_draws": n_draws,
    }


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
