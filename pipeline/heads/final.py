"""The head itself: scikit-learn's estimator at the chosen setting, taken apart into arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import SVC, LinearSVC

from .paths import Candidate, centroid_affine

__all__ = ["Fitted", "fit_final"]

MAX_ITERATIONS = 10_000


@dataclass(frozen=True, eq=False)
class Fitted:
    """Arrays and parameters of a fitted method (see ``cnn_codes.heads.model.ARRAYS``)."""

    arrays: dict[str, NDArray[Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def fit_final(
    method: str,
    z: NDArray[np.float64],
    labels: NDArray[np.int32],
    candidate: Candidate,
    *,
    class_weight: str | None,
    seed: int,
) -> Fitted:
    """Fit a method at one setting.

    Parameters
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    z : float64 (N, D)
        Standardised codes.
    labels : int32 (N,)
        Classes 0 to K - 1, each occurring.
    candidate : dict
        The setting.
    class_weight : str or None
        ``"balanced"`` or None.
    seed : int
        Of LinearSVC's coordinate descent.
    """
    return _FITS[method](z, labels, candidate, class_weight, seed)


def _affine(model: Any) -> dict[str, NDArray[Any]]:
    """Weight (K, D) and bias (K,); the one row of two classes becomes (-w/2, w/2)."""
    weight = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    bias = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return {"weight": weight, "bias": bias}


def _unfinished(name: str, iterations: Any) -> list[str]:
    if np.max(iterations) < MAX_ITERATIONS:
        return []
    return [
        f"{name} did not converge within {MAX_ITERATIONS:,} iterations at the chosen setting; "
        "its figures may be below what it can reach."
    ]


def _svm(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    # 'auto' takes the primal solver as soon as N >= D: 4 times slower here, and not to the end.
    model = LinearSVC(
        C=one["C"], dual=True, class_weight=weight, max_iter=MAX_ITERATIONS, random_state=seed
    ).fit(z, labels)
    return Fitted(_affine(model), {}, _unfinished("LinearSVC", model.n_iter_))


def _softmax(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    model = LogisticRegression(
        C=one["C"], class_weight=weight, tol=1e-6, max_iter=MAX_ITERATIONS
    ).fit(z, labels)
    return Fitted(_affine(model), {}, _unfinished("LogisticRegression", model.n_iter_))


def _ridge(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    model = RidgeClassifier(alpha=1 / (2 * one["C"]), class_weight=weight).fit(z, labels)
    return Fitted(_affine(model))


def _centroid(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    means, bias = centroid_affine(z, labels)
    return Fitted({"weight": means, "bias": bias})


def _knn(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    arrays = {"examples": z.astype(np.float32), "example_labels": labels.astype(np.int32)}
    return Fitted(arrays, {"k": min(one["k"], len(z)), "metric": one["metric"]})


def _rbf(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, weight: str | None, seed: int
) -> Fitted:
    # Rounded to what is stored, so that the stored support vectors are the ones fitted.
    rounded = z.astype(np.float32)
    model = SVC(C=one["C"], gamma=one["gamma"], class_weight=weight, cache_size=1000)
    model.fit(rounded.astype(np.float64), labels)
    # scikit-learn negates both for two classes; the arrays keep libsvm's sign (see scoring.py).
    sign = -1.0 if len(model.classes_) == 2 else 1.0
    arrays = {
        "support": rounded[model.support_],
        "dual": sign * model.dual_coef_,
        "intercept": sign * model.intercept_,
        "n_support": model.n_support_.astype(np.int32),
    }
    return Fitted(arrays, {"gamma": float(one["gamma"])})


_FITS: dict[str, Callable[..., Fitted]] = {
    "svm": _svm,
    "softmax": _softmax,
    "ridge": _ridge,
    "centroid": _centroid,
    "knn": _knn,
    "rbf": _rbf,
}
