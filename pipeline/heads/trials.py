"""Candidates tried out of fold: what a setting is chosen for, and how good each value of it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from ..notation import scientific
from ..progress import Progress
from .calibrate import fit_scale, log_losses
from .design import examples_of, moments
from .folds import Fold
from .linear import LinearPath, class_weights
from .merit import contributions
from .paths import PATHS, Candidate, Part
from .problem import Problem

WORSE = 1.002  # a log-loss by this factor above the least is plainly worse
EQUAL = 1e-9  # log-losses closer than this are equal: the stronger regularisation is kept


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate that was tried: its point of the curve, its contributions to the metric.

    `losses` (H,) are the log-losses of the held-out rows, `scores` their scores (H, K); None: had
    again from the path.
    """

    candidate: Candidate
    point: dict[str, Any]
    losses: NDArray[np.float64]
    merit: NDArray[np.float64]
    scores: NDArray[np.floating[Any]] | None


def _fold_scores(problem: Problem, fold: Fold, grid: Sequence[Candidate]) -> NDArray[np.float64]:
    """Fit the path on one fold: scores (G, m, K) of its held-out images, averaged over views."""
    rows, held_rows = fold
    z = examples_of(problem.codes[rows], problem.views).copy()
    held = examples_of(problem.held_codes[held_rows], problem.views).copy()
    labels = np.repeat(problem.labels[rows], len(z) // len(rows))
    mean, scale = moments(z[:, None])
    for array in (z, held):
        array -= mean.astype(np.float32)
        array /= scale.astype(np.float32)
    weights = class_weights(labels, problem.n_classes) if problem.balanced else None
    part = Part(z, held, labels, weights, problem.n_classes)
    scores = PATHS[problem.method](part, grid)  # (G, m * W, K)
    views = len(held) // len(held_rows)
    found: NDArray[np.float64] = scores.reshape(len(grid), len(held_rows), views, -1).mean(axis=2)
    return found


class Trials:
    """Candidates tried so far."""

    def __init__(self, problem: Problem, jobs: int, progress: Progress) -> None:
        self.problem, self.jobs, self.progress = problem, jobs, progress
        folds = problem.folds
        self.rows = np.concatenate([held for _, held in folds])
        self.parts = np.repeat(np.arange(len(folds)), [len(held) for _, held in folds])
        self.labels = problem.held_labels[self.rows]
        balanced = problem.balanced
        self.weights = class_weights(self.labels, problem.n_classes) if balanced else None
        self.known: dict[tuple[Any, ...], Trial] = {}
        self.unsolved: set[str] = set()
        self.path: LinearPath | None = None

    def try_all(self, grid: Sequence[Candidate]) -> None:
        """Try candidates, all of them."""
        folds = self.problem.folds
        # One fold gives one core something to do: its settings are shared out instead, where
        # they have little work in common.
        alone = len(folds) == 1 and self.problem.method == "rbf"
        parts = [[one] for one in grid] if alone else [grid]
        tasks = [(fold, part) for fold in folds for part in parts]
        found = []
        unit = "settings" if alone else "folds"
        with self.progress(f"{self.problem.method}: choosing", len(tasks), unit) as meter:
            for result in Parallel(self.jobs, prefer="threads", return_as="generator")(
                delayed(_fold_scores)(self.problem, *task) for task in tasks
            ):
                found.append(result)
                meter.advance()
        for at, one in enumerate(grid):
            scores = found[at][0] if alone else np.concatenate([fold[at] for fold in found])
            self._keep(one, scores, scores)  # (H, K)

    def try_path(self, grid: Sequence[Candidate]) -> None:
        """Try values of C outward from those known, until two in turn are plainly worse."""
        if not grid:
            return
        with _Steps(self.progress, f"{self.problem.method}: choosing C", len(grid)) as steps:
            if self.path is None:
                self.path = LinearPath(self.problem, jobs=self.jobs)
            self.path.tell = steps.step
            worse = 0
            for one in grid:
                if not self.path.solve(one["C"]):
                    self.unsolved.add(f"C={scientific(one['C'])}")
                before = list(self.known.values())
                trial = self._keep(one, self.path.scores(one["C"]))
                steps.next()
                worse = worse + 1 if before and _plainly_worse(trial, before) else 0
                if worse == 2:
                    return

    def _keep(
        self,
        one: Candidate,
        scores: NDArray[np.floating[Any]],
        kept: NDArray[np.floating[Any]] | None = None,
    ) -> Trial:
        problem = self.problem
        scale = fit_scale(scores, self.labels)
        losses = log_losses(scores, self.labels, scale=scale)
        point = self._point(one, scores, losses)
        merit = contributions(
            problem.metric,
            scores,
            self.labels,
            scale=scale,
            losses=losses,
            weights=self.weights,
            costs=problem.costs,
            by_cost=problem.by_cost,
        )
        if problem.costs is not None or problem.metric != "accuracy":
            point["merit"] = float(merit.mean())
        trial = Trial(one, point, losses, merit, kept)
        self.known[tuple(one.values())] = trial
        return trial

    def _point(
        self, one: Candidate, scores: NDArray[np.floating[Any]], losses: NDArray[np.float64]
    ) -> dict[str, Any]:
        """One point of the curve: how good a candidate's held-out scores (H, K) are."""
        hits = scores.argmax(axis=1) == self.labels
        folds = [self.parts == n for n in range(len(self.problem.folds))]
        return {
            **one,
            "views": self.problem.views,
            "score": float(np.average(losses, weights=self.weights)),
            "per_fold": [float(losses[fold].mean()) for fold in folds],
            "accuracy": float(hits.mean()),
            "accuracy_per_fold": [float(hits[fold].mean()) for fold in folds],
        }

    def scores(self, trial: Trial) -> NDArray[np.float64]:
        """Scores (H, K) of a candidate that was tried."""
        if trial.scores is not None:
            return trial.scores.astype(np.float64, copy=False)
        assert self.path is not None
        return self.path.scores(trial.candidate["C"]).astype(np.float64)

    def apart(self, grid: Sequence[Trial]) -> NDArray[np.float64]:
        """Scores (H, K) of each fold by the candidate of `grid` that the other folds choose."""
        out = np.empty((len(self.labels), self.problem.n_classes))
        chosen = []
        for part in range(len(self.problem.folds)):
            others = self.parts != part
            weights = None if self.weights is None else self.weights[others]
            losses = [float(np.average(one.losses[others], weights=weights)) for one in grid]
            chosen.append(pick(losses, [one.merit[others] for one in grid]))
        for at in sorted(set(chosen)):
            inside = np.isin(self.parts, np.flatnonzero(np.array(chosen) == at))
            out[inside] = self.scores(grid[at])[inside]
        return out


def _plainly_worse(trial: Trial, others: Sequence[Trial]) -> bool:
    """No better by the metric than the best of others, and of a higher log-loss than the least."""
    least = min(one.point["score"] for one in others)
    best = max(one.merit.mean() for one in others)
    return bool(trial.point["score"] > WORSE * least and trial.merit.mean() <= best)


class _Steps:
    """A meter for values of C that are had in an unknown number of passes."""

    EACH = 12

    def __init__(self, progress: Progress, label: str, count: int) -> None:
        self._meter = progress(label, count * self.EACH, "steps")
        self._done, self._left = 0, count

    def step(self) -> None:
        """One pass more; the last step of a value is told when it is done."""
        more = self._done < self.EACH - 1
        self._done += more
        self._meter.advance(int(more))

    def next(self) -> None:
        """One value is done."""
        self._meter.advance(self.EACH - self._done)
        self._done, self._left = 0, self._left - 1

    def __enter__(self) -> _Steps:
        self._meter.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self._meter.advance(self._left * self.EACH)
        self._meter.__exit__(*exc)


def pick(losses: Sequence[float], merits: Sequence[NDArray[Any]]) -> int:
    """Choose among candidates that stand in the order from strong to weak regularisation.

    Parameters
    ----------
    losses : sequence of float
        Log-loss of each candidate.
    merits : sequence of float (H,)
        Contributions of the same held-out images to each candidate's metric: for accuracy 1
        where it is right.

    Returns
    -------
    int
        Index of the first candidate of the least log-loss, among those not clearly worse by the
        metric than the best one.
    """
    values = np.stack(merits).astype(np.float64)  # (G, H)
    behind = values[values.mean(axis=1).argmax()] - values
    error = behind.std(axis=1, ddof=1) / np.sqrt(behind.shape[1])
    able = behind.mean(axis=1) <= error + EQUAL  # one image behind is exactly one error behind
    least = min(loss for loss, one in zip(losses, able, strict=True) if one)
    return next(
        n
        for n, (loss, one) in enumerate(zip(losses, able, strict=True))
        if one and loss <= least + EQUAL
    )
