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
from dataclasses import dataclass, replace
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
from .grids import Axis, axes_of
from .linear import class_weights, searched_folds
from .problem import Problem
from .search import quiet_solvers, search


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How a head did on images held out of its training.

    Attributes
    ----------
    rows : int64 (H,)
        The images that were held out, sorted: all but those of a class with a single group.
    scores : float64 (H, K)
        Of each image, by the head that was fitted without its fold, at the C that the other
        folds' images choose; of a large problem at the C that one fold chooses.
    labels : int32 (H,)
    parts : int64 (H,)
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

    rows: NDArray[np.int64]
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
        """Which of the images it classified correctly, (H,)."""
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
        """Probabilities of the images (H, K), calibrated by one temperature."""
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
        From :func:`cnn_codes.heads.folds.cut_folds`; an image is held out once at most.
    method : str
        ``svm``, ``softmax`` or ``ridge``.
    n_classes, jobs : int
        K; threads, 0 for one per core. Any number gives the same figures.
    balanced : bool
        Train and choose with all classes weighing alike.
    """
    began = time.perf_counter()
    block: Any = codes
    n_images, _, code_dim = codes.shape
    searched = searched_folds(folds, n_examples=n_images, code_dim=code_dim, n_classes=n_classes)
    problem = Problem(
        method=method,
        codes=block,
        labels=labels,
        held_codes=block,
        held_labels=labels,
        folds=searched,
        n_classes=n_classes,
        balanced=balanced,
        views="mean",
    )
    n_train = max(len(rows) for rows, _ in folds)
    axes = axes_of(method, n_train=n_train, code_dim=codes.shape[2])
    with quiet_solvers():
        several = len(searched) == len(folds)
        shared: dict[str, Any] = {"jobs": jobs or joblib.cpu_count(), "progress": progress}
        found = search(problem, axes, apart=several, **shared)
        if not several:  # a large problem: the C of one fold, on all of them
            only = (Axis("C", (found.best["C"],)),)
            found = search(replace(problem, folds=list(folds)), only, apart=True, **shared)
    assert found.apart is not None
    order = np.argsort(found.rows)
    rows, scores = found.rows[order], found.apart[order]
    held = labels[rows]
    losses = log_losses(scores, held, scale=fit_scale(scores, held))
    weights = class_weights(held, n_classes) if balanced else None
    return HeldOut(
        rows=rows,
        scores=scores,
        labels=held,
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
    """Gain in accuracy of `one` over `other` and its 95 % interval, errors clustered by group.

    `groups` (N,) are those of all images, held out or not.
    """
    difference = one.hits.astype(np.float64) - other.hits
    mean, error = float(difference.mean()), clustered_error(difference, groups[one.rows])
    return mean, (mean - 1.96 * error, mean + 1.96 * error)
