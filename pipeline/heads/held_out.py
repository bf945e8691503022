"""Every image judged by a head that never saw it, nor was its C chosen on it.

What evidence about labels, layers and networks rests on. The folds are given, so that whatever is
compared has the same ones and differences are paired image by image. C is chosen for each fold on
the held-out images of the other folds, so that the choice does not flatter the figures; the heads
are those of one cross-validation (Tibshirani and Tibshirani 2009, *Annals of Applied Statistics* 3,
on the bias that this avoids).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..progress import Progress, silent
from ..results.metrics import clustered_error
from .calibrate import calibrate, fit_scale, log_losses
from .folds import Fold
from .grids import axes_of
from .linear import class_weights
from .search import Problem, quiet_solvers, search

__all__ = ["HeldOut", "held_out", "paired_gain"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How a head did on images held out of its training.

    Attributes
    ----------
    scores : float64 (N, K)
        Of each image, by the head that was fitted without its fold, at the C that the other
        folds' images choose.
    labels : int32 (N,)
    parts : int64 (N,)
        Which fold each image was held out of.
    log_loss : float
        Of these scores, calibrated by one temperature; nats.
    C : float
        Chosen on all images.
    optional : bool
        The scores are log-probabilities already: calibrated only if that helps.
    warnings : tuple of str
        Fits that did not converge.
    seconds : float
        That all fits took.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int32]
    parts: NDArray[np.int64]
    log_loss: float
    C: float
    optional: bool
    warnings: tuple[str, ...]
    seconds: float

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Which of the images it classified correctly, (N,)."""
        found: NDArray[np.bool_] = self.scores.argmax(axis=1) == self.labels
        return found

    @property
    def accuracy(self) -> float:
        """Share of the images that it classified correctly."""
        return float(self.hits.mean())

    @property
    def sd(self) -> float:
        """Standard deviation of the accuracy over the folds."""
        folds = range(int(self.parts.max()) + 1)
        return float(np.std([self.hits[self.parts == n].mean() for n in folds], ddof=1))

    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities of all images (N, K), calibrated by one temperature."""
        scale = calibrate(self.scores, self.labels, self.parts, optional=self.optional).scale
        found: NDArray[np.float64] = softmax(scale * self.scores, axis=1)
        return found


def held_out(
    codes: NDArray[np.floating[Any]],
    labels: NDArray[np.int32],
    folds: Sequence[Fold],
    *,
    method: str,
    n_classes: int,
    jobs: int = 0,
    balanced: bool = False,
    progress: Progress = silent,
) -> HeldOut:
    """Choose C by cross-validation and keep what that says of each image.

    Parameters
    ----------
    codes : float32 or float16 (N, V, D)
        The mean of the views counts.
    labels : int32 (N,)
        Classes, 0 to K - 1.
    folds : sequence of (rows to train on, rows held out)
        From :func:`cnn_codes.heads.folds.cut_folds`; each image is held out once.
    method : str
        ``svm``, ``softmax`` or ``ridge``.
    n_classes, jobs : int
        K; threads, 0 for one per core. Any number gives the same figures.
    balanced : bool
        Train and choose with all classes weighing alike.
    """
    began = time.perf_counter()
    block: Any = codes
    problem = Problem(
        method=method,
        codes=block,
        labels=labels,
        held_codes=block,
        held_labels=labels,
        folds=list(folds),
        n_classes=n_classes,
        balanced=balanced,
        views="mean",
    )
    n_train = max(len(rows) for rows, _ in folds)
    axes = axes_of(method, n_train=n_train, code_dim=codes.shape[2])
    with quiet_solvers():
        found = search(
            problem, axes, jobs=jobs or joblib.cpu_count(), progress=progress, apart=True
        )
    assert found.apart is not None
    order = np.argsort(found.rows)
    scores = found.apart[order]
    losses = log_losses(scores, labels, scale=fit_scale(scores, labels))
    weights = class_weights(labels, n_classes) if balanced else None
    return HeldOut(
        scores=scores,
        labels=labels,
        parts=found.parts[order],
        log_loss=float(np.average(losses, weights=weights)),
        C=float(found.best["C"]),
        optional=method == "softmax",
        warnings=tuple(found.warnings),
        seconds=time.perf_counter() - began,
    )


def paired_gain(
    one: HeldOut, other: HeldOut, groups: NDArray[np.int64]
) -> tuple[float, tuple[float, float]]:
    """Gain in accuracy of `one` over `other` and its 95 % interval, errors clustered by group."""
    difference = one.hits.astype(np.float64) - other.hits
    mean, error = float(difference.mean()), clustered_error(difference, groups)
    return mean, (mean - 1.96 * error, mean + 1.96 * error)
