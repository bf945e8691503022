"""Softmax regression fitted again after a label has changed: from where it was, in float32.

The objective is scikit-learn's, ``C sum_i loss_i + |w|^2 / 2`` with a free bias, divided by C N.
One evaluation is two products with the codes; a change of a few labels of thousands takes a
handful of them from the solution before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

TOLERANCE = 2e-5  # of the largest entry of the gradient of the mean loss
MAX_ITERATIONS = 200
_BIAS_DECAY = 1e-4  # a class without an example in a fold would drive its bias to minus infinity


@dataclass(frozen=True, eq=False)
class Fitted:
    """A softmax head on standardised codes: weight and bias as one array (K, D + 1)."""

    w: NDArray[np.float64]

    def scores(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (N, K) of standardised codes (N, D)."""
        w = self.w.astype(np.float32)
        found: NDArray[np.float64] = (z @ w[:, :-1].T + w[:, -1]).astype(np.float64)
        return found


def refit(
    z: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    *,
    C: float,
    start: NDArray[np.float64] | None = None,
    tolerance: float = TOLERANCE,
) -> Fitted:
    """Fit softmax regression.

    Parameters
    ----------
    z : float32 (N, D)
        Standardised codes.
    labels : integer (N,)
        0 to K - 1; a class may be without an example.
    n_classes : int
        K.
    C : float
        As in scikit-learn: the smaller, the more the weights are held back.
    start : float64 (K', D + 1), optional
        An earlier solution, of at most K classes, the first of which are the same.
    tolerance : float
        Largest entry of the gradient at the end.

    Returns
    -------
    Fitted
    """
    n, d = z.shape
    w0 = np.zeros((n_classes, d + 1))
    if start is not None:
        w0[: len(start)] = start
        w0[len(start) :, -1] = start[:, -1].min() - 1 if len(start) else 0
    decay = np.full(d + 1, 1.0 / (C * n))
    decay[-1] = _BIAS_DECAY
    rows = np.arange(n)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w64 = flat.reshape(n_classes, d + 1)
        w = w64.astype(np.float32)
        p = z @ w[:, :-1].T  # (N, K)
        p += w[:, -1]
        p -= p.max(axis=1, keepdims=True)
        own = p[rows, labels].sum(dtype=np.float64)
        np.exp(p, out=p)
        total = p.sum(axis=1, keepdims=True)
        value = (float(np.log(total).sum(dtype=np.float64)) - float(own)) / n
        p /= total
        p[rows, labels] -= 1
        p /= n
        gradient = decay * w64
        value += float((gradient * w64).sum()) / 2
        gradient[:, :-1] += p.T @ z
        gradient[:, -1] += p.sum(axis=0, dtype=np.float64)
        return value, gradient.ravel()

    found = minimize(
        loss, w0.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "gtol": tolerance, "ftol": 0.0},
    )  # fmt: skip
    return Fitted(found.x.reshape(n_classes, d + 1))
