"""Two methods on the same test images: is the difference significant, and what would show it.

Every function takes counts, hits or probabilities of the same images in the same order. Only
images on which exactly one of two methods is correct (discordant images) bear on the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, ndtri

from ..errors import ResultError
from ..results.measures import ALPHA

POWER = 0.8
MOST_IMAGES = 100_000_000
REACH = 8.0  # standard deviations of the number of discordant images that power sums over
EXACT_BELOW = 20_000  # discordant images; beyond, the normal approximation is as good


@dataclass(frozen=True)
class Discordance:
    """On how many of `n` images exactly one of two methods is correct.

    Attributes
    ----------
    only_a, only_b : int
        Images that only the first, and only the second, classified correctly.
    n : int
        All test images.
    """

    only_a: int
    only_b: int
    n: int

    @property
    def rate(self) -> float:
        """Share of discordant images, 0 to 1."""
        return (self.only_a + self.only_b) / self.n

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second, -1 to 1."""
        return (self.only_a - self.only_b) / self.n


def discordance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Discordance:
    """Count the images (N,) that exactly one of two methods classified correctly."""
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ResultError(
            f"Hits of shapes {a.shape} and {b.shape}.", expected="one flag per image, for both"
        )
    return Discordance(int(np.sum(a & ~b)), int(np.sum(b & ~a)), len(a))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test of equal accuracy.

    Parameters
    ----------
    only_a, only_b : int
        Images that only one method classified correctly; at least 0.

    Returns
    -------
    float
        p in (0, 1]; 1 where the methods never differ.

    References
    ----------
    McNemar 1947; the exact form is the sign test on the discordant images.
    """
    if min(only_a, only_b) < 0:
        raise ResultError(f"{only_a} and {only_b} images.", expected="counts of at least 0")
    total = only_a + only_b
    if total == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), total, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests by Holm's procedure (1979).

    Returns
    -------
    list of float
        In the order given. Rejecting those of at most alpha errs at all with probability at most
        alpha.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, at in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = running
    return adjusted


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Give the level that each test was held to by Holm's procedure.

    Returns
    -------
    list of float
        In the order given: .05 / (m - rank) for a test that rejects, and for all others the
        level of the step at which the procedure stopped.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    levels = [ALPHA] * len(p_values)
    stopped: float | None = None
    for rank, at in enumerate(order):
        level = ALPHA / (len(p_values) - rank)
        if stopped is None and p_values[at] > level:
            stopped = level
        levels[at] = level if stopped is None else stopped
    return levels


def rate_limit(found: Discordance) -> float:
    """One-sided upper 95 % confidence limit of the rate of discordant images, in (0, 1].

    References
    ----------
    Clopper and Pearson 1934.
    """
    count = found.only_a + found.only_b
    if count >= found.n:
        return 1.0
    return float(betaincinv(count + 1, found.n - count, 0.95))


def split_variance(found: Discordance) -> float:
    """Variance of the difference of two accuracies on the same images, above 0.

    One image is added to each discordant cell, as in :func:`difference_interval`, so that it is
    not 0 where the methods agree on every image.
    """
    a, b, n = found.only_a + 1, found.only_b + 1, found.n + 2
    return max((a + b) / n - ((a - b) / n) ** 2, 1 / n) / n


def difference_interval(found: Discordance, *, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the difference of two accuracies on the same images.

    Parameters
    ----------
    found : Discordance
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    tuple of float
        Limits of accuracy(a) - accuracy(b), in [-1, 1].

    References
    ----------
    Bonett and Price 2012: Wald's interval after one image is added to each discordant cell. Its
    coverage is close to nominal in small samples too.
    """
    z = float(ndtri((1 + level) / 2))
    a, b, n = found.only_a + 1, found.only_b + 1, found.n + 2
    centre = (a - b) / n
    half = z * math.sqrt(max(0.0, (a + b) / n - centre**2) / n)
    return max(-1.0, centre - half), min(1.0, centre + half)


def power(
    n_images: int, discordant_rate: float, difference: float, *, alpha: float = ALPHA
) -> float:
    """Power of the exact McNemar test.

    Parameters
    ----------
    n_images : int
        Test images.
    discordant_rate : float
        Share of discordant images, in (0, 1].
    difference : float
        True difference of the accuracies, in (0, `discordant_rate`].
    alpha : float
        Level of the two-sided test.

    Returns
    -------
    float
        Summed over the number of discordant images and its binomial distribution.
    """
    mean = n_images * discordant_rate
    sd = math.sqrt(mean * (1 - discordant_rate))
    low, high = max(0, math.floor(mean - REACH * sd)), min(n_images, math.ceil(mean + REACH * sd))
    m = np.arange(low, high + 1)
    below = bdtr(m, n_images, discordant_rate)
    weight = np.diff(below, prepend=float(bdtr(low - 1, n_images, discordant_rate)) if low else 0.0)
    critical = _critical(m, alpha)  # reject at this count or fewer; -1: never
    share = (discordant_rate + difference) / (2 * discordant_rate)
    safe = np.maximum(critical, 0)
    rejected = bdtr(safe, m, 1 - share) + bdtr(safe, m, share)
    return float((weight * np.where(critical >= 0, rejected, 0.0)).sum())


def _critical(m: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """Largest count k with 2 P(Binomial(m, 1/2) <= k) <= alpha, -1 where there is none."""
    z = float(ndtri(alpha / 2))
    k = np.floor(m / 2 + z * np.sqrt(m) / 2 - 0.5).astype(np.int64) + 2  # at or above it
    k = np.clip(k, -1, m // 2)
    for _ in range(8):
        too_large = (k >= 0) & (2 * bdtr(np.maximum(k, 0), m, 0.5) > alpha)
        if not too_large.any():
            break
        k = np.where(too_large, k - 1, k)
    return k


def required_images(
    discordant_rate: float, difference: float = 0.01, *, alpha: float = ALPHA
) -> int:
    """Give the number of test images that the exact McNemar test needs for a power of 80 %.

    Parameters
    ----------
    discordant_rate : float
        Share of discordant images. It cannot be below `difference`, which replaces a lower one.
    difference : float
        True difference of the accuracies, in (0, 1].
    alpha : float
        Level of the two-sided test.

    Returns
    -------
    int
        Rounded up to two significant digits: the rate is known no better.

    References
    ----------
    Connor 1987 gives the normal approximation. The exact search starts from it, and with more than
    20,000 discordant images it is the result.
    """
    if not 0 < difference <= 1 or not 0 <= discordant_rate <= 1:
        raise ResultError(
            f"A difference of {difference:g} with {discordant_rate:g} discordant.",
            expected="a difference in (0, 1] and a rate in [0, 1]",
        )
    rate = max(discordant_rate, difference)
    z_alpha, z_power = -float(ndtri(alpha / 2)), float(ndtri(POWER))
    root = z_alpha * math.sqrt(rate) + z_power * math.sqrt(max(0.0, rate - difference**2))
    start = max(1.0, root**2 / difference**2)
    if start * rate > EXACT_BELOW:
        return _rounded_up(min(start, MOST_IMAGES))
    low, high = 1, math.ceil(start)
    while power(high, rate, difference, alpha=alpha) < POWER:
        low, high = high, 2 * high
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        enough = power(middle, rate, difference, alpha=alpha) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return _rounded_up(high)


def _rounded_up(value: float) -> int:
    step: int = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
