"""Paired differences over groups: the sign-flip test and its interval.

Images of one thing (a patient, a module) are not independent, so the unit of the test is the
group: the sum of the differences over its images. If two methods are equally good, each group's
difference is as likely as its negative. Groups of one image each give the exact McNemar test.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from ..errors import ResultError
from .paired import Discordance, difference_interval, discordance, mcnemar

FLIPS = 19_999
FEWEST_GROUPS = 6  # with fewer, no outcome has a two-sided p of 5 % or less
ENUMERATED = 14  # groups of real-valued differences, up to which all sign patterns are tried
MOST_CELLS = 500_000_000  # operations of the exact distribution: about a second
BLOCK_CELLS = 4_000_000


def group_sums(
    values: NDArray[np.generic], groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Sum a value of each image (N,) within its group.

    Returns
    -------
    sums : (G,)
        Of the type of `values`; booleans are counted.
    sizes : int64 (G,)
        Images in each group. Without `groups` each image is a group of its own.

    Raises
    ------
    ResultError
        Not one group per image.
    """
    if groups is None:
        return values, np.ones(len(values), np.int64)
    if groups.shape != values.shape:
        raise ResultError(
            f"Groups of shape {groups.shape} for values of shape {values.shape}.",
            expected="one group per image",
        )
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    total = np.zeros(len(sizes), np.float64 if values.dtype.kind == "f" else np.int64)
    np.add.at(total, index.reshape(-1), values)
    return total, sizes.astype(np.int64)


def sign_flip(differences: NDArray[np.generic], *, seed: int = 0) -> float:
    """Two-sided sign-flip (permutation) test that differences are symmetric about 0.

    Parameters
    ----------
    differences : integer or float (G,)
        One per group, independent of each other. Integers (numbers of images) have an exact
        p-value, whatever G is. Real numbers have one up to 14 groups that differ; beyond, it is
        estimated from 19,999 random sign patterns, the observed one counted (Phipson and Smyth
        2010).
    seed : int
        Of the random sign patterns.

    Returns
    -------
    float
        p in (0, 1]: the share of sign patterns whose sum is at least as far from 0.

    References
    ----------
    Fisher 1935; Good 2005, *Permutation, Parametric and Bootstrap Tests of Hypotheses*. With
    differences of -1, 0 and 1 it is the exact McNemar test.
    """
    d = np.asarray(differences)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ResultError(
            f"Differences of shape {d.shape}, or not finite.", expected="one number per group"
        )
    sizes, observed = np.abs(d[d != 0]), abs(float(d.sum()))
    if not len(sizes):
        return 1.0
    if sizes.dtype.kind in "iu":
        if (sizes == sizes[0]).all():
            n, fewer = len(sizes), round((len(sizes) - observed / float(sizes[0])) / 2)
            return min(1.0, 2.0 * float(bdtr(fewer, n, 0.5)))
        if len(sizes) * int(sizes.sum()) <= MOST_CELLS:
            return _exact(sizes.astype(np.int64), round(observed))
    values = sizes.astype(np.float64)
    least = observed - 1e-9 * values.sum()  # rounding must not make the observed pattern rarer
    if len(values) <= ENUMERATED:
        patterns = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float(np.mean(np.abs((2.0 * patterns - 1) @ values) >= least))
    hits = sum(
        int(np.sum(np.abs((2.0 * block - 1) @ values) >= least))
        for block in _subsets(len(values), seed)
    )
    return (1 + hits) / (1 + FLIPS)


def _exact(sizes: NDArray[np.int64], observed: int) -> float:
    """Probability that a sum of randomly signed sizes (G,) is at least as far from 0."""
    total = int(sizes.sum())
    mass = np.zeros(total + 1)  # of the sum of the positive ones
    mass[0] = 1.0
    for size in sizes.tolist():
        mass[size:] = 0.5 * (mass[size:] + mass[:-size])
        mass[:size] *= 0.5
    return min(1.0, 2.0 * float(mass[: (total - observed) // 2 + 1].sum()))


def _subsets(n: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Random subsets of n groups, FLIPS of them in blocks of rows: 1 where a group is in it."""
    random = np.random.default_rng(seed)
    step = max(1, BLOCK_CELLS // n)
    for start in range(0, FLIPS, step):
        rows = min(step, FLIPS - start)
        yield random.integers(0, 2, (rows, n)).astype(np.float64)


def flip_interval(
    differences: NDArray[np.generic],
    sizes: NDArray[np.int64],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of a mean difference per image: the sign-flip test inverted.

    Parameters
    ----------
    differences : (G,)
        Sums over the images of each group, in [-size, size].
    sizes : int64 (G,)
        Images in each group.
    level : float
        Coverage, in (0, 1).
    seed : int
        Of the random subsets.

    Returns
    -------
    tuple of float
        Limits in [-1, 1]; these themselves where so few groups exclude nothing.

    References
    ----------
    Hartigan 1969: if the differences are symmetric about the true mean, it lies below the k-th
    smallest mean of B random subsets with probability k / (B + 1).
    """
    n_groups = len(sizes)
    share = (1 - level) / 2
    if 0.5**n_groups > share:
        return -1.0, 1.0
    d, n = differences.astype(np.float64), sizes.astype(np.float64)
    found: list[NDArray[np.float64]] = []
    for block in _subsets(n_groups, seed):
        weight = block @ n
        some = weight > 0
        found.append((block @ d)[some] / weight[some])
    means = np.sort(np.concatenate(found))
    k = max(0, int(share * (len(means) + 1)) - 1)
    return float(means[k]), float(means[len(means) - 1 - k])


def grouped_interval(
    found: Discordance,
    sums: NDArray[np.generic],
    sizes: NDArray[np.int64],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a difference of accuracies over groups; never shorter than over images.

    Parameters
    ----------
    found : Discordance
        Of the images.
    sums, sizes, level, seed
        As :func:`flip_interval`.
    """
    low, high = flip_interval(sums, sizes, level=level, seed=seed)
    plain = difference_interval(found, level=level)
    return min(low, plain[0]), max(high, plain[1])


def accuracy_difference(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    groups: NDArray[np.generic] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Test the difference of two accuracies on the same images, and give its interval.

    Parameters
    ----------
    a, b : bool (N,)
        Which images each classified correctly.
    groups : (N,), optional
        Equal for images that are not independent. None: the exact McNemar test and the interval of
        Bonett and Price; else the sign-flip test over groups and :func:`grouped_interval`.
    level : float
        Coverage of the interval, in (0, 1).
    seed : int
        Of the random subsets of groups.

    Returns
    -------
    p : float
        Two-sided.
    interval : tuple of float
        Limits of accuracy(a) - accuracy(b), in [-1, 1].
    """
    found = discordance(a, b)
    if groups is None:
        return mcnemar(found.only_a, found.only_b), difference_interval(found, level=level)
    sums, sizes = group_sums(a.astype(np.int64) - b, groups)
    return sign_flip(sums, seed=seed), grouped_interval(found, sums, sizes, level=level, seed=seed)
