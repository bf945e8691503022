"""A fitted head: plain arrays, and predictions from them by numpy alone.

What was standardised, multiplied and scaled stays visible: mean and scale of the standardisation,
the method's own arrays, the temperature. Nothing here knows how a head was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HeadError
from .examples import Codes, mean_view, row_blocks
from .output import Output
from .scoring import neighbour_scores, rbf_scores

AFFINE_METHODS = ("svm", "softmax", "ridge", "centroid")
# What each method stores: array name to its type and shape. D numbers a code, K classes, M stored
# examples, P = K (K - 1) / 2 pairs of classes, J = K - 1.
AFFINE = {"weight": ("float64", "KD"), "bias": ("float64", "K")}
ARRAYS: dict[str, dict[str, tuple[str, str]]] = {
    **dict.fromkeys(AFFINE_METHODS, AFFINE),
    "knn": {"examples": ("float32", "MD"), "example_labels": ("int32", "M")},
    "rbf": {
        "support": ("float32", "MD"),
        "dual": ("float64", "JM"),
        "intercept": ("float64", "P"),
        "n_support": ("int32", "K"),
    },
}


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier on codes.

    Attributes
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    classes : tuple of str
        Class names in the order of the labels and of every column, K of them.
    mean, scale : float64 (D,)
        Standardisation: ``(code - mean) / scale``; scale is positive.
    arrays : mapping of str to array
        The method's parameters for standardised codes; `ARRAYS` lists them.
    parameters : mapping
        Its other parameters: ``k`` and ``metric`` (knn), ``gamma`` (rbf).
    views : str
        ``"mean"``: the views of an image are averaged, then scored; ``"all"``: each is scored,
        then the scores are averaged. For the affine methods that is the same.
    output : Output
        From scores to probabilities, classes and prediction sets.
    calibration, chosen, warnings, times_s
        How the scale was had and what it is worth; how the setting was chosen, with the whole
        curve; what the user should know; seconds.
    """

    method: str
    classes: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    arrays: Mapping[str, NDArray[Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    views: str = "mean"
    output: Output = field(default_factory=Output)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    times_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def temperature_scale(self) -> float:
        """What scores are multiplied by before the softmax."""
        return self.output.temperature_scale

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def code_dim(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def n_parameters(self) -> int:
        """How many numbers the head holds, the standardisation not counted."""
        return sum(array.size for array in self.arrays.values())

    def scores(self, codes: Codes) -> NDArray[np.float64]:
        """Score every class; all views of an image count.

        Parameters
        ----------
        codes : float32 or float16 (N, V, D)
            Codes of N images; any number of views.

        Returns
        -------
        float64 (N, K)
            SVM decision values, log-odds, distances below zero ... as the method has them. With
            two classes and a method that has one value d, the columns are (-d/2, d/2).

        Raises
        ------
        HeadError
            The codes have another shape or are not finite.
        """
        if codes.ndim != 3 or codes.shape[1] == 0 or codes.shape[2] != self.code_dim:
            raise HeadError(
                f"Codes of shape {codes.shape}.",
                expected=f"(images, views, {self.code_dim}), as the head was trained on",
                todo="use the codes of the same network and layers",
            )
        out = np.empty((len(codes), self.n_classes))
        for rows in row_blocks(codes):
            out[rows] = self._block_scores(codes[rows])
        return out

    def _block_scores(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        n_images, n_views, _ = codes.shape
        if not np.isfinite(codes).all():
            raise HeadError("Some codes are not finite.", expected="finite numbers")
        if self.method in AFFINE_METHODS or self.views == "mean" or n_views == 1:
            return self._score(mean_view(codes))
        each = self._score(codes.reshape(n_images * n_views, -1).astype(np.float32))
        averaged: NDArray[np.float64] = each.reshape(n_images, n_views, -1).mean(axis=1)
        return averaged

    def _score(self, codes: NDArray[np.float32]) -> NDArray[np.float64]:
        z = (codes - self.mean) / self.scale  # (N, D) float64
        if self.method in AFFINE_METHODS:
            affine: NDArray[np.float64] = z @ self.arrays["weight"].T + self.arrays["bias"]
            return affine
        # Both were fitted to standardised codes rounded to float32, which is what they store.
        z = z.astype(np.float32).astype(np.float64)
        if self.method == "knn":
            return neighbour_scores(
                z,
                self.arrays["examples"],
                self.arrays["example_labels"],
                n_classes=self.n_classes,
                k=self.parameters["k"],
                metric=self.parameters["metric"],
            )
        return rbf_scores(
            z,
            self.arrays["support"],
            self.arrays["dual"],
            self.arrays["intercept"],
            self.arrays["n_support"],
            gamma=self.parameters["gamma"],
        )

    def predict_proba(self, codes: Codes) -> NDArray[np.float64]:
        """Calibrated probabilities (N, K); rows sum to 1."""
        return self.output.probabilities(self.scores(codes))

    def predict(self, codes: Codes) -> NDArray[np.int64]:
        """Class of each image (N,), by :meth:`decide`."""
        return self.decide(self.predict_proba(codes))

    def decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Class of each row of probabilities (N, K): the most probable, unless offsets are set."""
        return self.output.decide(probabilities)

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D) and bias (K,) for raw codes, the standardisation folded in.

        ``scores = code @ weight.T + bias``, and ``softmax(temperature_scale * scores)`` are the
        head's probabilities: a network's last layer can start from them.

        Raises
        ------
        HeadError
            The method is not linear.
        """
        if self.method not in AFFINE_METHODS:
            raise HeadError(
                f"A head of method {self.method} is not linear.",
                expected=f"one of {', '.join(AFFINE_METHODS)}",
            )
        weight = self.arrays["weight"] / self.scale
        bias: NDArray[np.float64] = self.arrays["bias"] - weight @ self.mean
        shift = self.output.shift
        return weight, bias if shift is None else bias + shift / self.temperature_scale
