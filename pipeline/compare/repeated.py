"""Two methods over repeated random splits: tests that know that the splits overlap.

Training sets of random splits share most of their images, so the differences are correlated and
an ordinary t-test finds differences that are not there (Dietterich 1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ..errors import ResultError

__all__ = ["Corrected", "Posterior", "corrected_t", "correlated_posterior", "signed_rank"]

SAMPLES = 50_000


@dataclass(frozen=True)
class Corrected:
    """What the corrected resampled t-test found.

    Attributes
    ----------
    mean, error : float
        Mean difference and its corrected standard error.
    t : float
        Their quotient; 0 where all differences are 0, infinite where they are all equal.
    df : int
        Degrees of freedom, splits less one.
    p : float
        Two-sided.
    ci95 : tuple of float
        For the mean difference.
    """

    mean: float
    error: float
    t: float
    df: int
    p: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Posterior:
    """Probabilities that the first is worse, the two are practically equal, the first is better."""

    worse: float
    equal: float
    better: float


def _checked(differences: Sequence[float] | NDArray[np.float64], least: int) -> NDArray[np.float64]:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or len(d) < least or not np.isfinite(d).all():
        raise ResultError(
            f"Differences of shape {d.shape}, or not finite.",
            expected=f"one finite number a split, at least {least}",
        )
    return d


def corrected_t(
    differences: Sequence[float] | NDArray[np.float64], *, n_train: int, n_test: int
) -> Corrected:
    """Corrected resampled t-test on the differences of two methods over random splits.

    Parameters
    ----------
    differences : float (R,)
        One a split, at least 2.
    n_train, n_test : int
        Images a split, at least 1.

    References
    ----------
    Nadeau and Bengio 2003: the variance of the mean is (1/R + n_test/n_train) times that of
    the differences.
    """
    d = _checked(differences, 2)
    mean, df = float(d.mean()), len(d) - 1
    error = math.sqrt((1 / len(d) + n_test / n_train) * float(d.var(ddof=1)))
    if error <= 1e-12 * max(1.0, abs(mean)):  # all equal, but for rounding
        t = 0.0 if abs(mean) < 1e-12 else math.copysign(math.inf, mean)
        return Corrected(mean, 0.0, t, df, 1.0 if t == 0 else 0.0, (mean, mean))
    half = float(stdtrit(df, 0.975)) * error
    t = mean / error
    p = min(1.0, 2 * float(stdtr(df, -abs(t))))
    return Corrected(mean, error, t, df, p, (mean - half, mean + half))


def correlated_posterior(
    differences: Sequence[float] | NDArray[np.float64], *, n_train: int, n_test: int, rope: float
) -> Posterior:
    """Bayesian correlated t-test: how likely each of the three is, given the splits.

    Parameters
    ----------
    differences, n_train, n_test
        As :func:`corrected_t`.
    rope : float
        Differences of at most this size count as none, at least 0.

    References
    ----------
    Corani and Benavoli 2015; Benavoli et al. 2017: the posterior of the mean difference is
    Student's, with the location, scale and degrees of freedom of the corrected t-test.
    """
    found = corrected_t(differences, n_train=n_train, n_test=n_test)
    if found.error == 0:
        worse, better = float(found.mean < -rope), float(found.mean > rope)
    else:
        worse = float(stdtr(found.df, (-rope - found.mean) / found.error))
        better = float(stdtr(found.df, (found.mean - rope) / found.error))
    return Posterior(worse, max(0.0, 1 - worse - better), better)


def signed_rank(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    rope: float,
    prior: float = 0.5,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Posterior:
    """Bayesian signed-rank test with a region of practical equivalence.

    It takes the differences as independent, which those of data sets are and those of splits of
    one set are not: over splits it is too sure, and :func:`correlated_posterior` decides.

    Parameters
    ----------
    differences : float (R,)
        At least 1.
    rope : float
        Differences of at most this size count as none, at least 0.
    prior : float
        Weight of the one observation of no difference that stands for the prior, above 0.
    samples : int
        Draws from the posterior.
    seed : int
        Of the draws.

    Returns
    -------
    Posterior
        Shares of the draws in which each region holds most of the weight.

    References
    ----------
    Benavoli et al. 2014 and 2017: weights of the observations are Dirichlet(prior, 1, ..., 1);
    a region's weight is the sum of w_i w_j over the pairs whose mean lies in it.
    """
    d = _checked(differences, 1)
    z = np.concatenate([[0.0], d])
    mean = (z[:, None] + z[None, :]) / 2  # (R + 1, R + 1)
    # A pair exactly on the border counts half for either side, as Heaviside's function has it.
    right = (mean > rope) + 0.5 * (mean == rope)
    left = (mean < -rope) + 0.5 * (mean == -rope)
    random = np.random.default_rng(seed)
    w = random.dirichlet(np.concatenate([[prior], np.ones(len(d))]), size=samples)  # (S, R + 1)
    weight = np.stack(
        [np.einsum("si,ij,sj->s", w, one, w, optimize=True) for one in (left, right)]
    )  # (2, S)
    regions = np.stack([weight[0], 1 - weight.sum(axis=0), weight[1]])  # (3, S)
    if rope == 0:
        regions[1] = -1.0  # no region to be in
    wins = np.bincount(regions.argmax(axis=0), minlength=3) / samples
    return Posterior(float(wins[0]), float(wins[1]), float(wins[2]))
