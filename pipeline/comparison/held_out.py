"""Linear heads judged on training images alone: each image's call by a head that never saw it.

The same folds for everything that is compared, so differences are paired image by image.
"""

from __future__ import annotations

import time
import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.heads.examples import mean_view
from pipeline.heads.folds import Fold
from pipeline.heads.grids import axes_of
from pipeline.heads.search import Problem, search
from pipeline.progress import Progress, silent

__all__ = ["HeldOut", "held_out", "paired_gain"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How a head did on images held out of its training.

    Attributes
    ----------
    accuracy, log_loss : float
        At the chosen C; calibrated, nats. Chosen on the same images, so both flatter a little.
    hits : bool (N,)
        Which of the images it called rightly.
    C : float
        Chosen.
    seconds : float
        That all fits took.
    """

    accuracy: float
    log_loss: float
    hits: NDArray[np.bool_]
    C: float
    seconds: float


def held_out(
    codes: NDArray[np.float32],
    labels: NDArray[np.int32],
    folds: Sequence[Fold],
    *,
    method: str,
    n_classes: int,
    jobs: int,
    balanced: bool = False,
    progress: Progress = silent,
) -> HeldOut:
    """Choose C by cross-validation and say how good that is.

    Parameters
    ----------
    codes : float32 (N, V, D)
        The mean of the views counts.
    labels : int32 (N,)
    folds : sequence of (rows to train on, rows held out)
        From :func:`pipeline.heads.folds.cut_folds`.
    method : str
        ``svm``, ``softmax`` or ``ridge``.
    n_classes, jobs : int
        K; threads, 0 for one a core.
    balanced : bool
        Train and choose with all classes weighing alike.
    """
    began = time.perf_counter()
    block = mean_view(codes)[:, None]  # (N, 1, D)
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
    axes = axes_of(method, n_train=n_train, code_dim=block.shape[2])
    with threadpool_limits(1, user_api="blas"), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", ConvergenceWarning)
        found = search(problem, axes, jobs=jobs or joblib.cpu_count(), progress=progress)
    hits = np.empty(len(labels), bool)
    hits[found.rows] = found.hits
    return HeldOut(
        accuracy=float(hits.mean()),
        log_loss=found.log_loss,
        hits=hits,
        C=float(found.best["C"]),
        seconds=time.perf_counter() - began,
    )


def paired_gain(one: HeldOut, other: HeldOut) -> tuple[float, tuple[float, float]]:
    """Gain in accuracy of `one` over `other`, and its 95 % interval, image by image."""
    difference = one.hits.astype(np.float64) - other.hits
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference))
    return mean, (mean - 1.96 * error, mean + 1.96 * error)
