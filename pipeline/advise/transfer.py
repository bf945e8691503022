"""Scores that say, without any training, how well codes will serve a labelled data set.

Each takes the codes of the training images and their labels, or what the network's own last
layer makes of them. The higher, the better the codes are expected to transfer; two scores
are comparable on one data set only. ``benchmarks/advise.md`` says how well each foretold what was
measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

LOG_RANGE = 30.0  # of alpha / beta, around the largest squared singular value
GRID = 61
SMALLEST = 1e-12


def log_me(codes: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Logarithm of the maximum evidence of a Bayesian linear model on the codes.

    For each class, one column of 0 and 1 is modelled as codes times normal weights (precision
    alpha) plus normal noise (precision beta); both precisions are set where the evidence is
    largest. Over-fitting is priced in, so networks of different code lengths can be compared.

    Parameters
    ----------
    codes : float (N, D)
        N at least 3; not standardised. An intercept is integrated out: the evidence is that of
        what is orthogonal to a constant, N - 1 numbers (else codes longer than N would reach
        every centred target exactly, at infinite evidence).
    labels : integer (N,)
        Classes, 0 to K - 1.

    Returns
    -------
    float
        Nats an image and class, averaged; for labels of 0 and 1 mostly between -1 and 1.

    References
    ----------
    You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning"
    (arXiv 2102.11005). It iterates to a fixed point in alpha and beta; the same maximum is found
    here by a search in one number, which cannot diverge.
    """
    f = codes.astype(np.float64) - codes.mean(axis=0, dtype=np.float64)
    n = len(f)
    u, s, _ = np.linalg.svd(f, full_matrices=False)  # (N, r), (r,)
    squares = s**2
    scores = []
    for k in np.unique(labels):
        y = np.where(labels == k, 1.0, 0.0)
        y -= y.mean()
        scores.append(_evidence(squares, (u.T @ y) ** 2, float(y @ y), n - 1) / n)
    return float(np.mean(scores))


def _evidence(
    squares: NDArray[np.float64], projected: NDArray[np.float64], total: float, n: int
) -> float:
    """Largest log evidence of one target of n numbers.

    `squares` (r,) are the squared singular values, `projected` (r,) the squared parts of the
    target along the left singular vectors, `total` the target's squared length. Given the ratio
    alpha / beta, the best beta is known in closed form, so one number is left to search.
    """
    outside = max(0.0, total - float(projected.sum()))  # what no weights can reach
    top = max(float(squares.max(initial=0.0)), SMALLEST)
    floor = max(total, SMALLEST) * SMALLEST  # a target that is reached exactly

    def minus(log_ratio: float) -> float:
        ratio = top * np.exp(log_ratio)
        left = outside + float((projected * (ratio / (squares + ratio))).sum())
        beta = n / max(left, floor)
        log_det = float(np.log1p(squares / ratio).sum())
        return float(log_det - n * np.log(beta / (2 * np.pi)) + n) / 2

    grid = np.linspace(-LOG_RANGE, LOG_RANGE, GRID)
    at = int(np.argmin([minus(one) for one in grid]))
    ends = grid[max(0, at - 1)], grid[min(GRID - 1, at + 1)]
    return -float(minimize_scalar(minus, bounds=ends, options={"xatol": 1e-6}).fun)
