"""The head itself, at the chosen setting: plain arrays.

The linear heads come from the project's own solver, as their path does; the RBF SVM is
scikit-learn's, taken apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from .design import Basis, Design, Floats, examples_of, moments
from .examples import Codes, Examples
from .linear import LINEAR, class_weights, fit_linear, is_large
from .paths import Candidate, centroid_affine
from .scoring import libsvm_arrays


@dataclass(frozen=True, eq=False)
class Fitted:
    """Arrays and parameters of a fitted method (see ``cnn_codes.heads.model.ARRAYS``)."""

    arrays: dict[str, NDArray[Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Standard:
    """How the examples of a head are made of codes.

    Attributes
    ----------
    way : str
        ``"mean"``: one example per image, the mean of its views; ``"all"``: one per view.
    mean, scale : float64 (D,)
        Standardisation.
    """

    way: str
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, codes: Codes, way: str) -> Standard:
        """Take the moments of the examples that the codes (N, V, D) give."""
        return cls(way, *moments(codes, way))


def fit_final(
    method: str,
    train: Examples,
    candidate: Candidate,
    standard: Standard,
    *,
    balanced: bool = False,
    jobs: int = 1,
    start: tuple[Floats, Floats] | None = None,
    basis: Basis | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit a method at one setting.

    Parameters
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    train : Examples
        Each class, 0 to K - 1, occurs.
    candidate : dict
        The setting.
    standard : Standard
        Views and standardisation.
    balanced : bool
        All classes weigh alike.
    jobs : int
        Threads.
    start : (D, J) and (J,), optional
        For linear methods: weights and biases to begin from.
    basis : Basis, optional
        For linear methods: of the same examples.
    tell : callable
        Called after each pass over the codes.
    """
    codes, labels, way = train.codes, train.labels, standard.way
    n_classes = int(labels.max()) + 1
    each = np.repeat(labels, 1 if way == "mean" else codes.shape[1]).astype(np.int32)
    if method in LINEAR:
        large = is_large(len(each), codes.shape[2], n_classes)
        dtype = np.float32 if large else np.float64
        design = Design(
            codes, way, standard.mean, standard.scale, dtype=dtype, jobs=jobs, basis=basis
        )
        weights = class_weights(each, n_classes) if balanced else None
        weight, bias, converged = fit_linear(
            method, design, each, weights, candidate["C"], n_classes=n_classes, start=start,
            tell=tell,
        )  # fmt: skip
        warnings = [] if converged else [
            f"{method} did not converge at the chosen setting; its figures may be below what it "
            "can reach."
        ]  # fmt: skip
        return Fitted({"weight": weight, "bias": bias}, {}, warnings)
    z = (examples_of(codes[:], way) - standard.mean) / standard.scale  # (N, D) float64
    if method == "centroid":
        means, bias = centroid_affine(z, each)
        return Fitted({"weight": means, "bias": bias})
    if method == "knn":
        arrays = {"examples": z.astype(np.float32), "example_labels": each}
        return Fitted(arrays, {"k": min(candidate["k"], len(z)), "metric": candidate["metric"]})
    return _rbf(z, each, candidate, balanced)


def _rbf(
    z: NDArray[np.float64], labels: NDArray[np.int32], one: Candidate, balanced: bool
) -> Fitted:
    # Rounded to what is stored, so that the stored support vectors are the ones fitted.
    rounded = z.astype(np.float32)
    weight = "balanced" if balanced else None
    model = SVC(C=one["C"], gamma=one["gamma"], class_weight=weight, cache_size=1000)
    model.fit(rounded.astype(np.float64), labels)
    dual, intercept, n_support = libsvm_arrays(model)
    arrays = {
        "support": rounded[model.support_],
        "dual": dual,
        "intercept": intercept,
        "n_support": n_support,
    }
    return Fitted(arrays, {"gamma": float(one["gamma"])})
