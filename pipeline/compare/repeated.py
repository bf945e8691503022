"""Two methods over repeated random splits: tests corrected for the overlap of the splits.

Training sets of random splits share most of their images, so the differences are correlated and
an ordinary t-test rejects too often (Dietterich 1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ..errors import ResultError
from .paired import Discordance, split_variance

FEWEST_SPLITS = 3  # two differences leave one degree of freedom to estimate their variance with
SAMPLES = 50_000


@dataclass(frozen=True)
class Corrected:
    """Result of the corrected resampled t-test.

    Attributes
    ----------
    mean, error : float
        Mean difference and its corrected standard error.
    t : float
        Their quotient.
    df : int
        Degrees of freedom, splits less one.
    p : float
        Two-sided.
    ci95 : tuple of float
        Confidence interval of the mean difference.
    floored : bool
        Whether the binomial variance of a split was larger than that of the differences, and was
        used.
    """

    mean: float
    error: float
    t: float
    df: int
    p: float
    ci95: tuple[float, float]
    floored: bool

    def limit(self, level: float) -> float:
        """One-sided upper confidence limit of the mean difference."""
        return self.mean + float(stdtrit(self.df, level)) * self.error


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
            expected=f"one finite number per split, at least {least}",
        )
    return d


def corrected_t(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    n_train: int,
    n_test: int,
    least_variance: float | None = None,
) -> Corrected:
    """Corrected resampled t-test on the differences of two methods over random splits.

    Parameters
    ----------
    differences : float (R,)
        Of the accuracies, one per split, at least 3.
    n_train, n_test : int
        Images of a split, at least 1.
    least_variance : float, optional
        The variance of the differences is not taken to be below this: a few equal differences
        would otherwise have none, and the test an infinite t. The mean over the splits of
        :func:`~cnn_codes.compare.paired.split_variance`; by default its least value for these
        differences.

    Raises
    ------
    ResultError
        Fewer than 3 differences, or not finite.

    References
    ----------
    Nadeau and Bengio 2003: the variance of the mean is (1/R + n_test/n_train) times that of
    the differences.
    """
    d = _checked(differences, FEWEST_SPLITS)
    mean, df = float(d.mean()), len(d) - 1
    floor = _least_variance(d, n_test) if least_variance is None else least_variance
    spread = float(d.var(ddof=1))
    error = math.sqrt((1 / len(d) + n_test / n_train) * max(spread, floor))
    half = float(stdtrit(df, 0.975)) * error
    t = mean / error
    p = min(1.0, 2 * float(stdtr(df, -abs(t))))
    return Corrected(mean, error, t, df, p, (mean - half, mean + half), spread < floor)


def _least_variance(d: NDArray[np.float64], n_test: int) -> float:
    """Binomial variance of a split if the methods disagree on no more images than they must."""
    images = np.rint(np.abs(d) * n_test).astype(int).tolist()
    return float(np.mean([split_variance(Discordance(m, 0, n_test)) for m in images]))


def correlated_posterior(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    n_train: int,
    n_test: int,
    rope: float,
    least_variance: float | None = None,
) -> Posterior:
    """Bayesian correlated t-test: posterior probabilities of the three regions.

    Parameters
    ----------
    differences, n_train, n_test, least_variance
        As :func:`corrected_t`.
    rope : float
        Differences of at most this size count as none, at least 0.

    References
    ----------
    Corani and Benavoli 2015; Benavoli et al. 2017: the posterior of the mean difference is
    Student's, with the location, scale and degrees of freedom of the corrected t-test.
    """
    found = corrected_t(differences, n_train=n_train, n_test=n_test, least_variance=least_variance)
    worse = float(stdtr(found.df, (-rope - found.mean) / found.error))
    better = float(stdtr(found.df, (found.mean - rope) / found.error))
    return Posterior(worse, max(0.0, 1 - worse - better), better)


def signed_rank(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    rope: float,
    prior: float = 0.5,
) -> Posterior:
    """Bayesian signed-rank test with a region of practical equivalence.

    It assumes independent differences. Those of different data sets are, those of splits of one
    set are not: over splits it is overconfident, and :func:`correlated_posterior` decides.

    Parameters
    ----------
    differences : float (R,)
        At least 1.
    rope : float
        Differences of at most this size count as none, at least 0.
    prior : float
        Weight of the one observation of no difference that stands for the prior, above 0.

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
    random = np.random.default_rng(0)
    w = random.dirichlet(np.concatenate([[prior], np.ones(len(d))]), size=SAMPLES)  # (S, R + 1)
    weight = np.stack(
        [np.einsum("si,ij,sj->s", w, one, w, optimize=True) for one in (left, right)]
    )  # (2, S)
    regions = np.stack([weight[0], 1 - weight.sum(axis=0), weight[1]])  # (3, S)
    if rope == 0:
        regions[1] = -1.0  # no region to be in
    wins = np.bincount(regions.argmax(axis=0), minlength=3) / SAMPLES
    return Posterior(float(wins[0]), float(wins[1]), float(wins[2]))
