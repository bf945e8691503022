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
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..progress import Progress
from .design import Basis, Floats
from .grids import Axis, candidates, tested, widened
from .linear import LINEAR
from .paths import Candidate
from .problem import Problem
from .trials import Trial, Trials, pick

ROUNDS = 8


@dataclass(eq=False)
class Search:
    """What a search found.

    Attributes
    ----------
    best : dict
        The chosen candidate.
    log_loss : float
        Its calibrated out-of-fold log-loss.
    merit : float64 (H,) or (B,)
        Its contributions to the metric (:func:`cnn_codes.heads.merit.contributions`).
    scores : float64 (H, K)
        Its scores of all held-out rows, in the order of `rows`.
    rows, parts : int64 (H,)
        Row of the held-out examples, and the fold it was held out of.
    curve : list of dict
        Every candidate tried: its setting, ``views``, ``score`` (log-loss), ``per_fold``,
        ``accuracy``, ``accuracy_per_fold``.
    warnings : list of str
    start : (D, J) and (J,), optional
        Of a linear method: mean over the folds of the weights for standardised codes, and of the
        biases, at the best C.
    basis : Basis, optional
        Of a linear method: what its examples were decorrelated by.
    apart : float64 (H, K), optional
        As `scores`, but of the candidate that the *other* folds' held-out rows choose for each
        fold: what the choice gains by having seen the row is not in it.
    """

    best: Candidate
    log_loss: float
    merit: NDArray[np.float64]
    scores: NDArray[np.float64]
    rows: NDArray[np.int64]
    parts: NDArray[np.int64]
    curve: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)
    start: tuple[Floats, Floats] | None = None
    basis: Basis | None = None
    apart: NDArray[np.float64] | None = None


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Fit with one BLAS thread, and leave it to the results to say what did not converge.

    Jobs share the cores, and the numbers are the same to the bit at any number of them.
    """
    with threadpool_limits(1, user_api="blas"), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def search(
    problem: Problem,
    axes: Sequence[Axis],
    *,
    jobs: int,
    progress: Progress,
    apart: bool = False,
) -> Search:
    """Try the candidates of the grid on every fold, widen it where an end wins, and choose.

    Linear heads go up their path of C and leave it where two values in turn are plainly worse
    than the best so far. The others try the whole grid; their folds run in threads, which share
    the codes, so that no worker holds a copy of them. With `apart`, each fold's scores by the
    choice of the others too (where the metric is the accuracy).
    """
    trials = Trials(problem, jobs, progress)
    linear = problem.method in LINEAR
    best: Trial | None = None
    grid: list[Candidate] = []
    for _ in range(ROUNDS):
        grid = candidates(axes)
        new = [one for one in grid if tuple(one.values()) not in trials.known]
        if not new:
            break
        if linear:
            # From a strong regularisation to a weak one; what lies below the best, downwards.
            below = [one for one in new if best and one["C"] < best.candidate["C"]]
            trials.try_path(below[::-1])
            trials.try_path(new[len(below) :])
            axes = [tested(axes[0], {trial.candidate["C"] for trial in trials.known.values()})]
            grid = candidates(axes)
        else:
            trials.try_all(new)
        known = [trials.known[tuple(one.values())] for one in grid]
        at = pick(
            [trial.point["score"] for trial in known],
            [trial.merit for trial in known],
        )
        best = known[at]
        axes = widened(axes, best.candidate)
    assert best is not None
    warnings = []
    if trials.unsolved:
        warnings.append(
            f"{problem.method} did not converge within the passes allowed at "
            f"{', '.join(sorted(trials.unsolved, key=lambda text: float(text.partition('=')[2])))} "
            "while its setting was chosen."
        )
    return Search(
        best=best.candidate,
        log_loss=best.point["score"],
        merit=best.merit,
        scores=trials.scores(best),
        rows=trials.rows,
        parts=trials.parts,
        curve=[trials.known[tuple(one.values())].point for one in grid],
        warnings=warnings,
        start=trials.path.mean_solution(best.candidate["C"]) if trials.path else None,
        basis=trials.path.basis if trials.path else None,
        apart=trials.apart([trials.known[tuple(one.values())] for one in grid]) if apart else None,
    )
