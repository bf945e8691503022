"""One fold, every setting: the scores of the held-out examples along a method's whole grid.

A path is fitted once a fold on standardised codes in float32. What the settings of a path share
is computed once: neighbours, distances, one decomposition for all ridge penalties; softmax and
SVM start each C from the solution at the one before. Every path is scikit-learn's estimator,
except the SVM's: LinearSVC has no warm start and took 21 s a fold with ten classes (1,333 x
1,280) where minimising its objective by SciPy's L-BFGS took 0.7 s and came within 1e-4 of the
optimum. Only C is chosen that way; the head itself is fitted by LinearSVC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC

from .scoring import nearest, pair_scores, squared_distances, vote_scores

__all__ = ["PATHS", "Candidate", "Part", "centroid_affine", "margin_targets", "two_columns"]

Candidate = dict[str, Any]
SVM_TOLERANCE = 1e-7
MAX_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Part:
    """One fold, ready to fit.

    Attributes
    ----------
    z, held : float32 (n, D), (m, D)
        Standardised codes to train on, and held out.
    labels : int32 (n,)
        Classes of `z`; each of the K occurs.
    weights : float64 (n,) or None
        What each example counts; None: 1.
    n_classes : int
        K.
    """

    z: NDArray[np.float32]
    held: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float64] | None
    n_classes: int


Result = tuple[NDArray[np.float64], list[str]]


def two_columns(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scores (N, K) of decision values: those of two classes, (N,) or (N, 1), as (-d/2, d/2)."""
    d = values.reshape(len(values), -1).astype(np.float64)
    return np.concatenate([-d / 2, d / 2], axis=1) if d.shape[1] == 1 else d


def margin_targets(labels: NDArray[np.int32], n_classes: int) -> NDArray[np.float64]:
    """One column of +1 and -1 a class against the rest, (N, K); for two classes one, (N, 1)."""
    if n_classes == 2:
        return np.where(labels == 1, 1.0, -1.0)[:, None]
    return np.where(labels[:, None] == np.arange(n_classes), 1.0, -1.0)


def fit_squared_hinge(
    z: NDArray[np.float32],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    C: float,
    start: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Minimise LinearSVC's objective for all classes at once.

    ``|w|^2 / 2 + C sum_i weight_i max(0, 1 - y_i (w z_i + b))^2`` with the bias counted in
    ``|w|^2``, as liblinear has it, divided by C N.

    Parameters
    ----------
    z : float32 (N, D)
    targets : float64 (N, J)
        +1 or -1.
    weights : float64 (N,) or None
    C : float
    start : float64 (J, D + 1)
        Where to begin; the bias is the last column.

    Returns
    -------
    solution : float64 (J, D + 1)
    converged : bool
    """
    n, n_targets = targets.shape
    decay = 1.0 / (C * n)
    share = np.full((n, 1), 1.0 / n) if weights is None else weights[:, None] / n

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(n_targets, -1)  # (J, D + 1)
        decision = z @ w[:, :-1].T.astype(np.float32) + w[:, -1]  # (N, J)
        slack = np.maximum(0.0, 1.0 - targets * decision)
        pull = -2.0 * share * targets * slack
        gradient = decay * w
        gradient[:, :-1] += pull.T.astype(np.float32) @ z
        gradient[:, -1] += pull.sum(axis=0)
        value = (share * slack * slack).sum() + decay / 2 * (w * w).sum()
        return float(value), gradient.ravel()

    # The tolerance is relative to the objective where we start, which is above the optimum.
    first = min(1.0, loss(start.ravel())[0])
    found = minimize(
        loss,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "gtol": 0.0, "ftol": SVM_TOLERANCE * first},
    )
    return found.x.reshape(n_targets, -1), found.nit < MAX_ITERATIONS


def _svm(part: Part, grid: Sequence[Candidate]) -> Result:
    targets = margin_targets(part.labels, part.n_classes)
    w = np.zeros((targets.shape[1], part.z.shape[1] + 1))
    scores, unsolved = [], []
    for candidate in grid:
        w, converged = fit_squared_hinge(part.z, targets, part.weights, candidate["C"], w)
        scores.append(two_columns(part.held @ w[:, :-1].T.astype(np.float32) + w[:, -1]))
        if not converged:
            unsolved.append(f"C={candidate['C']:.1e}")
    return np.stack(scores), unsolved


def _softmax(part: Part, grid: Sequence[Candidate]) -> Result:
    model = LogisticRegression(warm_start=True, tol=1e-5, max_iter=MAX_ITERATIONS)
    scores, unsolved = [], []
    # float64: in float32 L-BFGS sees no progress at a small C and stops far from the optimum.
    z, held = part.z.astype(np.float64), part.held.astype(np.float64)
    for candidate in grid:
        model.set_params(C=candidate["C"]).fit(z, part.labels, sample_weight=part.weights)
        scores.append(two_columns(model.decision_function(held)))
        if model.n_iter_.max() >= MAX_ITERATIONS:
            unsolved.append(f"C={candidate['C']:.1e}")
    return np.stack(scores), unsolved


def _ridge(part: Part, grid: Sequence[Candidate]) -> Result:
    targets = margin_targets(part.labels, part.n_classes)
    n_targets = targets.shape[1]
    # A penalty a target, and each target once for each penalty: one decomposition for them all.
    alphas = np.repeat([1 / (2 * candidate["C"]) for candidate in grid], n_targets)
    few = len(alphas) <= 40 or len(part.z) > 4 * part.z.shape[1]
    model = Ridge(alpha=alphas, solver="cholesky" if few else "svd")
    model.fit(part.z.astype(np.float64), np.tile(targets, len(grid)), sample_weight=part.weights)
    values = model.predict(part.held).reshape(len(part.held), len(grid), n_targets)
    return np.stack([two_columns(values[:, g]) for g in range(len(grid))]), []


def centroid_affine(
    z: NDArray[np.floating[Any]], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) of the nearest class mean.

    The squared distance to a mean is, but for a term common to all classes, -2 times
    ``z @ mean - |mean|^2 / 2``.
    """
    # NearestCentroid gives the same means, and a warning for every constant number.
    n_classes = int(labels.max()) + 1
    means = np.stack([z[labels == k].mean(axis=0, dtype=np.float64) for k in range(n_classes)])
    return means, -(means * means).sum(axis=1) / 2


def _centroid(part: Part, grid: Sequence[Candidate]) -> Result:
    weight, bias = centroid_affine(part.z, part.labels)
    return np.stack([part.held @ weight.T + bias] * len(grid)), []


def _knn(part: Part, grid: Sequence[Candidate]) -> Result:
    held = part.held.astype(np.float64)
    found = {}
    for metric in {candidate["metric"] for candidate in grid}:
        k = max(candidate["k"] for candidate in grid if candidate["metric"] == metric)
        found[metric] = part.labels[nearest(held, part.z, k=min(k, len(part.z)), metric=metric)]
    # A fold may have fewer examples than the whole: there, all of them vote.
    votes = [found[candidate["metric"]][:, : candidate["k"]] for candidate in grid]
    return np.stack([vote_scores(vote, part.n_classes) for vote in votes]), []


def _rbf(part: Part, grid: Sequence[Candidate]) -> Result:
    z = part.z.astype(np.float64)
    inner = squared_distances(z, z)  # (n, n)
    outer = squared_distances(part.held.astype(np.float64), z)  # (m, n)
    scores: list[NDArray[np.float64]] = [np.empty(0)] * len(grid)
    for gamma in sorted({candidate["gamma"] for candidate in grid}):
        kernel, held_kernel = np.exp(-gamma * inner), np.exp(-gamma * outer)
        for at, candidate in enumerate(grid):
            if candidate["gamma"] != gamma:
                continue
            model = SVC(C=candidate["C"], kernel="precomputed", decision_function_shape="ovo")
            model.fit(kernel, part.labels, sample_weight=part.weights)
            values = model.decision_function(held_kernel)
            several = part.n_classes > 2
            scores[at] = pair_scores(values, part.n_classes) if several else two_columns(values)
    return np.stack(scores), []


PATHS: dict[str, Callable[[Part, Sequence[Candidate]], Result]] = {
    "svm": _svm,
    "softmax": _softmax,
    "ridge": _ridge,
    "centroid": _centroid,
    "knn": _knn,
    "rbf": _rbf,
}
