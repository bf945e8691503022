"""Two methods trained with several seeds: how much of the difference is images, how much seeds.

One trained network is one draw of its seed. A test on one seed compares two fitted networks; to
compare two methods, the seeds must vary too. Seeds and images (or groups of images) are
resampled together, and the variance of the difference is split between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ..errors import ResultError
from .flips import group_sums, sign_flip


@dataclass(frozen=True)
class Seeded:
    """Difference of two methods over seeds and images.

    Attributes
    ----------
    difference : float
        Mean accuracy of the first less that of the second.
    error : float
        Standard error, over seeds and images.
    df : float
        Degrees of freedom (Satterthwaite 1946).
    p : float
        Two-sided.
    seed_share : float
        Share of the variance that is due to the seeds, 0 to 1.
    bound : float
        Largest difference there can be.
    """

    difference: float
    error: float
    df: float
    p: float
    seed_share: float
    bound: float = 1.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval of the difference, within its bounds."""
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.error
        low, high = self.difference - half, self.difference + half
        return max(-self.bound, low), min(self.bound, high)


@dataclass(frozen=True, eq=False)
class Sampled:
    """A figure of one method.

    Attributes
    ----------
    values : float64 (S,)
        Of each seed.
    samples : float64 (B, S)
        Of each seed on each resampled set of images or groups; NaN where it is undefined.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.float64]


def figure_difference(
    a: Sampled,
    b: Sampled,
    *,
    n_units: int,
    least: float = 0.0,
    bound: float = 1.0,
    seed: int = 0,
) -> Seeded:
    """Compare a figure of two methods by a bootstrap over seeds and images.

    Parameters
    ----------
    a, b : Sampled
        On the same resampled sets. A method whose fit is not random has one seed.
    n_units : int
        Images, or groups, that were resampled.
    least : float
        Lower limit of the images' share of the variance.
    bound : float
        Largest difference there can be.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    Seeded
        p is that of Student's t; 1 where the difference is 0 on every resampled set.

    Notes
    -----
    The variance of the images is that of the resampled differences less that of the seeds, at
    least `least`. The seeds' variance is s_a^2 / S_a + s_b^2 / S_b, with s^2 the sample variance of
    the figure over the seeds.

    References
    ----------
    Owen 2007, *The pigeonhole bootstrap*, on resampling two crossed factors; Bouthillier et al.
    2021 on seeds as a source of variance in benchmarks.
    """
    difference = float(a.values.mean() - b.values.mean())
    sampled, by_seed = np.zeros(len(a.samples)), 0.0
    parts: list[tuple[float, int]] = []  # variance and degrees of freedom of each source
    for sign, one, salt in ((1, a, 0), (-1, b, 1)):
        n_seeds = len(one.values)
        weights = rescaled_seeds(n_seeds, len(one.samples), seed=2 * seed + salt)
        sampled += sign * (one.samples * weights).sum(axis=1)
        if n_seeds > 1:
            own = float(one.values.var(ddof=1)) / n_seeds
            by_seed += own
            parts.append((own, n_seeds - 1))
    known = sampled[np.isfinite(sampled)]
    spread = float(known.var(ddof=1)) if len(known) > 1 else 0.0
    images = max(least, spread - by_seed, 0.0)
    parts.append((images, n_units - 1))
    variance = images + by_seed
    if variance == 0:
        return Seeded(difference, 0.0, max(n_units - 1.0, 1.0), 1.0, 0.0, bound)
    df = variance**2 / sum(part**2 / max(free, 1) for part, free in parts)
    error = math.sqrt(variance)
    p = min(1.0, 2 * float(stdtr(df, -abs(difference) / error)))
    return Seeded(difference, error, df, p, by_seed / variance, bound)


def rescaled_seeds(n_seeds: int, n_samples: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Weights of resampled seeds, (B, S); rows sum to 1.

    With few seeds the plain bootstrap understates their variance by (S - 1) / S; the deviations
    of the weights are scaled up by the square root of its inverse (Rao and Wu 1988). One seed
    always has the weight 1.
    """
    if n_seeds == 1:
        return np.ones((n_samples, 1))
    random = np.random.default_rng(seed)
    drawn = random.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_samples)
    scale = math.sqrt(n_seeds / (n_seeds - 1))
    weights: NDArray[np.float64] = 1 / n_seeds + scale * (drawn / n_seeds - 1 / n_seeds)
    return weights


def seeded_difference(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    counts: NDArray[np.int32],
    *,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> Seeded:
    """Compare two methods by a bootstrap over seeds and images.

    Parameters
    ----------
    a, b : bool (S_a, N), (S_b, N)
        Which images each seed of each method classified correctly. A method whose fit is not
        random has one row.
    counts : int32 (B, N)
        Resampled images or groups, from :func:`~cnn_codes.results.resampling.resamples`.
    groups : (N,), optional
        The group of each image, as it was resampled.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    Seeded
        The p-value is the larger of that of Student's t over both and that of the exact sign-flip
        test of the images, seeds averaged: few discordant images are not normal.

    Raises
    ------
    ResultError
        Shapes that do not agree.

    Notes
    -----
    As :func:`figure_difference`; the images' variance is at least the binomial one.
    """
    if a.ndim != 2 or b.ndim != 2 or not a.shape[1] == b.shape[1] == counts.shape[1]:
        raise ResultError(
            f"Hits of shapes {a.shape} and {b.shape}, resamples {counts.shape}.",
            expected="(seeds, images) twice and (resamples, images), of the same images",
        )
    total = counts.sum(axis=1).astype(np.float64)
    first, second = (
        Sampled(hits.mean(axis=1), (counts @ hits.T.astype(np.float64)) / total[:, None])
        for hits in (a, b)
    )
    n_units = a.shape[1] if groups is None else len(np.unique(groups))
    found = figure_difference(first, second, n_units=n_units, least=_binomial(a, b), seed=seed)
    # In units of 1 / (S_a S_b) image, so that the sign-flip test is exact.
    scaled = a.sum(axis=0, dtype=np.int64) * len(b) - b.sum(axis=0, dtype=np.int64) * len(a)
    sums, _ = group_sums(scaled, groups)
    return replace(found, p=max(found.p, sign_flip(sums, seed=seed)))


def seeded_accuracy(
    hits: NDArray[np.bool_],
    counts: NDArray[np.int32],
    *,
    groups: NDArray[np.generic] | None = None,
) -> tuple[float, float]:
    """95 % confidence interval of the mean accuracy over seeds, for other seeds and other images.

    Parameters
    ----------
    hits : bool (S, N)
        Which images each of at least 2 seeds classified correctly.
    counts : int32 (B, N)
        Resampled images or groups.
    groups : (N,), optional
        The group of each image, as it was resampled.

    Returns
    -------
    tuple of float
        Limits in [0, 1]: Student's t with the variances of images and seeds, as in
        :func:`seeded_difference`; 0 and 1 of one image or group, which says nothing of others.
    """
    mean = float(hits.mean())
    n_units = hits.shape[1] if groups is None else len(np.unique(groups))
    if n_units == 1:
        return 0.0, 1.0
    sampled = (counts @ hits.mean(axis=0)) / counts.sum(axis=1)
    n = hits.shape[1] if 0 < mean < 1 else n_units  # else groups do not differ: each counts as one
    rate = (mean * n + 2) / (n + 4)  # Agresti and Coull 1998: above 0 at an accuracy of 1
    images = float(sampled.var(ddof=1)) * n_units / (n_units - 1)
    images = max(images, rate * (1 - rate) / (n + 4))
    by_seed = float(hits.mean(axis=1).var(ddof=1)) / len(hits)
    variance = images + by_seed
    free = (max(n_units - 1, 1), len(hits) - 1)
    df = variance**2 / (images**2 / free[0] + by_seed**2 / free[1])
    half = float(stdtrit(df, 0.975)) * math.sqrt(variance)
    return max(0.0, mean - half), min(1.0, mean + half)


def _binomial(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Variance of the seeds' mean difference if images were independent, above 0."""
    d = a.mean(axis=0) - b.mean(axis=0)  # (N,)
    n = len(d) + 2
    # As in paired.split_variance: one more image on which each alone is correct.
    mean = float(d.sum()) / n
    return max((float((d**2).sum()) + 2) / n - mean**2, 1 / n) / n
