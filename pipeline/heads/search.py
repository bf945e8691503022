"""Choosing a setting: every candidate scored out of fold, the grid widened where its end wins.

Of the candidates whose held-out accuracy is not below the best one's by more than one standard
error of the difference (paired, image by image), the one of the least log-loss after calibration
is chosen; of equals, the more strongly regularised. Accuracy alone is a staircase with many equal
steps on a few hundred images, and log-loss alone prefers a calibrated loser where classes are
rare. On draws of real codes this chose better than either, and than the one-standard-error rule,
which underfits (``benchmarks/choose_c.md``).
"""

from __future__ import annotations

import contextlib
import warnings as python_warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..progress import Progress
from .calibrate import fit_scale, log_losses
from .examples import Codes
from .folds import Fold
from .grids import Axis, candidates, widened
from .paths import PATHS, Candidate, Part

__all__ = [
    "Problem",
    "Search",
    "class_weights",
    "pick",
    "quiet_solvers",
    "search",
    "standardisation",
]

ROUNDS = 8
EQUAL = 1e-9  # log-losses closer than this are equal: the stronger regularisation is kept


@dataclass(frozen=True, eq=False)
class Problem:
    """What to choose a setting for.

    Attributes
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    codes : float32 or float16 (N, W, D)
        W examples an image: 1, or all its views.
    labels : int32 (N,)
    held_codes, held_labels : (M, W, D), (M,)
        Where held-out rows come from: the same arrays for a cross-validation.
    folds : list of (rows of codes, rows of held_codes)
    n_classes : int
    balanced : bool
        Weigh each example by N / (K * images of its class).
    views : str
        Name of the way W came about, for the curve.
    """

    method: str
    codes: Codes
    labels: NDArray[np.int32]
    held_codes: Codes
    held_labels: NDArray[np.int32]
    folds: list[Fold]
    n_classes: int
    balanced: bool
    views: str


@dataclass(eq=False)
class Search:
    """What a search found.

    Attributes
    ----------
    best : dict
        The chosen candidate.
    log_loss : float
        Its calibrated out-of-fold log-loss.
    hits : bool (H,)
        Which held-out images it called rightly.
    scores : float64 (H, K)
        Its scores of all held-out rows, in the order of `rows`.
    rows, parts : int64 (H,)
        Row of the held-out examples, and the fold it was held out of.
    curve : list of dict
        Every candidate tried: its setting, ``views``, ``score`` (log-loss), ``per_fold``,
        ``accuracy``, ``accuracy_per_fold``.
    warnings : list of str
    """

    best: Candidate
    log_loss: float
    hits: NDArray[np.bool_]
    scores: NDArray[np.float64]
    rows: NDArray[np.int64]
    parts: NDArray[np.int64]
    curve: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Fit with one BLAS thread, and leave it to the results to say what did not converge.

    Jobs share the cores, and the numbers are the same to the bit at any number of them.
    """
    with threadpool_limits(1, user_api="blas"), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def class_weights(labels: NDArray[np.int32], n_classes: int) -> NDArray[np.float64]:
    """Weight of each example by which all classes count alike, (N,): scikit-learn's 'balanced'."""
    counts = np.bincount(labels, minlength=n_classes)
    weights: NDArray[np.float64] = (len(labels) / (n_classes * counts))[labels]
    return weights


def standardisation(
    codes: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of each number of `codes` (N, D); the scale of a constant one is 1."""
    scaler = StandardScaler().fit(codes)
    return scaler.mean_.astype(np.float64), scaler.scale_.astype(np.float64)


def _rows_of(codes: Codes, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """All examples of the images `rows`, float32 (len(rows) * W, D)."""
    taken = codes[rows]
    return taken.reshape(-1, taken.shape[2]).astype(np.float32, copy=False)


def _fold_scores(
    problem: Problem, fold: Fold, grid: Sequence[Candidate]
) -> tuple[NDArray[np.float64], list[str]]:
    """Fit the path on one fold: scores (G, m, K) of its held-out images, averaged over views."""
    rows, held_rows = fold
    per_image = problem.codes.shape[1]
    z, held = _rows_of(problem.codes, rows), _rows_of(problem.held_codes, held_rows)
    labels = np.repeat(problem.labels[rows], per_image)
    mean, scale = standardisation(z)
    for array in (z, held):  # both are copies of our own
        array -= mean.astype(np.float32)
        array /= scale.astype(np.float32)
    weights = class_weights(labels, problem.n_classes) if problem.balanced else None
    part = Part(z, held, labels, weights, problem.n_classes)
    scores, unsolved = PATHS[problem.method](part, grid)  # (G, m * W, K)
    views = problem.held_codes.shape[1]
    return scores.reshape(len(grid), len(held_rows), views, -1).mean(axis=2), unsolved


def search(problem: Problem, axes: Sequence[Axis], *, jobs: int, progress: Progress) -> Search:
    """Try every candidate of the grid on every fold, widen it where an end wins, and choose.

    The folds run in threads: scikit-learn's solvers and BLAS release the interpreter, and threads
    share the codes, so that no worker holds a copy of them.
    """
    rows = np.concatenate([held for _, held in problem.folds])
    parts = np.repeat(np.arange(len(problem.folds)), [len(held) for _, held in problem.folds])
    labels = problem.held_labels[rows]
    weights = class_weights(labels, problem.n_classes) if problem.balanced else None
    tried: dict[tuple[Any, ...], tuple[NDArray[np.float64], dict[str, Any]]] = {}
    unsolved: set[str] = set()
    best: Candidate = {}
    grid: list[Candidate] = []
    for _ in range(ROUNDS):
        grid = candidates(axes)
        new = [one for one in grid if tuple(one.values()) not in tried]
        if not new:
            break
        tasks = (delayed(_fold_scores)(problem, fold, new) for fold in problem.folds)
        found = []
        with progress(f"{problem.method}: choosing", len(problem.folds), "folds") as meter:
            for result in Parallel(jobs, prefer="threads", return_as="generator")(tasks):
                found.append(result)
                meter.advance()
        for at, one in enumerate(new):
            scores = np.concatenate([fold_scores[at] for fold_scores, _ in found])  # (H, K)
            point = _point(one, scores, labels, parts, weights, problem.views)
            tried[tuple(one.values())] = (scores, point)
        unsolved.update(text for _, texts in found for text in texts)
        known = [tried[tuple(one.values())] for one in grid]
        at = pick(
            [point["score"] for _, point in known],
            [scores.argmax(axis=1) == labels for scores, _ in known],
            weights,
        )
        best = grid[at]
        axes = widened(axes, best)
    scores, point = tried[tuple(best.values())]
    warnings = []
    if unsolved:
        warnings.append(
            f"{problem.method} did not converge within the iterations allowed at "
            f"{', '.join(sorted(unsolved, key=lambda text: float(text.partition('=')[2])))} "
            "while its setting was chosen."
        )
    curve = [tried[tuple(one.values())][1] for one in grid]
    hits = scores.argmax(axis=1) == labels
    return Search(best, point["score"], hits, scores, rows, parts, curve, warnings)


def pick(
    losses: Sequence[float],
    hits: Sequence[NDArray[np.bool_]],
    weights: NDArray[np.float64] | None = None,
) -> int:
    """Choose among candidates that stand in the order from strong to weak regularisation.

    Parameters
    ----------
    losses : sequence of float
        Log-loss of each candidate.
    hits : sequence of bool (H,)
        Which of the same held-out images each called rightly.
    weights : float64 (H,), optional
        What each image counts in the accuracy.

    Returns
    -------
    int
        Index of the first candidate of the least log-loss, among those not clearly less accurate
        than the most accurate one.
    """
    w = np.ones(len(hits[0])) if weights is None else weights
    right = np.stack(hits) * (w / w.mean())  # (G, H)
    behind = right[right.mean(axis=1).argmax()] - right
    error = behind.std(axis=1, ddof=1) / np.sqrt(behind.shape[1])
    able = behind.mean(axis=1) <= error + EQUAL  # one image behind is exactly one error behind
    least = min(loss for loss, one in zip(losses, able, strict=True) if one)
    return next(
        n
        for n, (loss, one) in enumerate(zip(losses, able, strict=True))
        if one and loss <= least + EQUAL
    )


def _point(
    candidate: Candidate,
    scores: NDArray[np.float64],
    labels: NDArray[np.int32],
    parts: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    views: str,
) -> dict[str, Any]:
    """One point of the curve: how good a candidate's held-out scores (H, K) are."""
    losses = log_losses(fit_scale(scores, labels) * scores, labels)
    hits = scores.argmax(axis=1) == labels
    folds = range(int(parts.max()) + 1)
    return {
        **candidate,
        "views": views,
        "score": float(np.average(losses, weights=weights)),
        "per_fold": [float(losses[parts == n].mean()) for n in folds],
        "accuracy": float(hits.mean()),
        "accuracy_per_fold": [float(hits[parts == n].mean()) for n in folds],
    }
