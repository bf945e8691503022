"""A learning curve extrapolated: the error as a power law of the number of images, with a band.

The error of a classifier falls with the number n of training images about as ``a + b n^-c``. The
three numbers are poorly determined by a few sizes, so all that fit are weighed by how well they
fit, and the band is of the predictions of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ..errors import ResultError

FEWEST_SIZES = 4
LEVEL = 0.9
EXPONENTS = np.geomspace(0.05, 2.0, 40)
USUAL, SPREAD = 0.5, 0.6  # centre, and standard deviation of the logarithm, of the exponent's prior
N_FLOORS = 40
MISFIT = 0.04  # of the error itself, per measured size: no curve is exactly a power law
DRIFT = 0.08  # of the error itself, per doubling beyond the largest size
GRID = 1001


@dataclass(frozen=True)
class Forecast:
    """Accuracy expected at one size.

    Attributes
    ----------
    size : float
        Images per class.
    mean, low, high : float
        Accuracy: median of the predictions, and the limits of the 90 % band.
    """

    size: float
    mean: float
    low: float
    high: float


def extrapolated(
    sizes: Sequence[float],
    accuracy: NDArray[np.float64],
    covariance: NDArray[np.float64],
    wanted: Sequence[float],
    *,
    one_draw: float = 0.0,
) -> list[Forecast]:
    """Extrapolate a learning curve.

    Parameters
    ----------
    sizes : sequence of float
        Images per class, increasing; S of them, at least 4.
    accuracy : float64 (S,)
        Mean over draws, 0 to 1.
    covariance : float64 (S, S)
        Of these means, over draws and test images.
    wanted : sequence of float
        Sizes to predict at, at least the largest of `sizes`.
    one_draw : float
        Variance of the accuracy of single draws at the largest size: the larger training set will
        be one draw too. It is taken to fall with the error.

    Returns
    -------
    list of Forecast
        One per wanted size. The band is that of the accuracy on the same test images.

    Raises
    ------
    ResultError
        Fewer than 4 sizes, or arrays that do not belong together.

    Notes
    -----
    For each pair of an asymptote a (40 values from 0 to the lowest error) and an exponent c
    (40 values from 0.05 to 2, log-normal prior around 0.5), b is fitted by generalised least
    squares and its own uncertainty is kept. The covariance of the fit is that of the means plus
    (4 % of the error)^2 on the diagonal, for no curve is exactly a power law; a prediction adds
    8 % of its error per doubling beyond the largest size, for the same reason. Pairs are weighted
    by likelihood and prior; the band is from the 5 % to the 95 % quantile of the mixture.

    References
    ----------
    Cortes et al. 1994, *NIPS*, on the form; Hestness et al. 2017, arXiv 1712.00409, on exponents;
    Viering and Loog 2023, *IEEE TPAMI*, on its limits.
    """
    n = np.asarray(sizes, np.float64)
    error = 1 - np.asarray(accuracy, np.float64)  # (S,)
    if len(n) < FEWEST_SIZES or error.shape != n.shape or covariance.shape != (len(n), len(n)):
        raise ResultError(
            f"{len(n)} sizes with {error.shape} accuracies and a covariance {covariance.shape}.",
            expected=f"at least {FEWEST_SIZES} sizes, an accuracy each, and their covariance",
        )
    x = n / n[-1]
    least = max(float(error.max()) / 1000, 1e-6)
    spread = covariance + np.diag((MISFIT * np.maximum(error, least)) ** 2 + 1e-8)
    inverse = np.linalg.inv(spread)
    shape = x[None, :] ** -EXPONENTS[:, None]  # (C, S)
    floors = np.linspace(0, max(float(error.min()), least), N_FLOORS)  # (A,)
    rest = error[None, :] - floors[:, None]  # (A, S)
    weight = np.einsum("cs,st,ct->c", shape, inverse, shape)  # precision of b, (C,)
    slope = np.einsum("cs,st,at->ac", shape, inverse, rest) / weight  # (A, C)
    slope = np.maximum(slope, 0.0)
    residual = rest[:, None, :] - slope[..., None] * shape[None]  # (A, C, S)
    misfit = np.einsum("acs,st,act->ac", residual, inverse, residual)
    prior = np.log(EXPONENTS / USUAL) ** 2 / SPREAD**2
    log_weight = -0.5 * (misfit + prior[None, :] + np.log(weight)[None, :])
    chance = np.exp(log_weight - log_weight.max())
    chance /= chance.sum()
    found = []
    for size in wanted:
        ratio = float(size) / n[-1]
        reach = ratio**-EXPONENTS  # (C,)
        mean = floors[:, None] + slope * reach[None, :]  # (A, C)
        doublings = max(0.0, float(np.log2(ratio)))
        variance = reach[None, :] ** 2 / weight[None, :] + (DRIFT * doublings * mean) ** 2
        variance = variance + one_draw * mean / max(float(error[-1]), least) + 1e-12
        found.append(_quantiles(float(size), mean, np.sqrt(variance), chance))
    return found


def _quantiles(
    size: float,
    mean: NDArray[np.float64],
    error: NDArray[np.float64],
    chance: NDArray[np.float64],
) -> Forecast:
    """Median and band of a mixture of normal distributions of the error, cut to [0, 1]."""
    grid = np.linspace(0, 1, GRID)
    kept = chance > 1e-5
    z = (grid[:, None] - mean[kept][None, :]) / error[kept][None, :]
    below = ndtr(z) @ chance[kept] / chance[kept].sum()
    tail = (1 - LEVEL) / 2
    low, middle, high = np.interp([tail, 0.5, 1 - tail], below, grid)
    return Forecast(size, 1 - float(middle), 1 - float(high), 1 - float(low))
