"""Linear heads along their path of C: all folds together, and then all examples.

The path and the final fit minimise the same objective (:mod:`cnn_codes.heads.losses`) by the same
solver; the path stops earlier and works in float32. Each C starts from the solution of the
nearest one that is known, the final fit from the mean of the folds' solutions.

Up to 512 examples each fold is standardised, and decorrelated, by itself. Beyond, all folds share
the mean, scale and basis of all training images, which sees no label; the scales of folds then
differ by some 1 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .design import Basis, Block, Design, Floats, moments
from .examples import part_of
from .folds import Fold
from .losses import n_outputs
from .problem import Problem
from .solver import Linear, Solution

LINEAR = ("svm", "softmax", "ridge")
PATH_TOLERANCE = 5e-5  # of the objective, as estimated; seen: up to ten times as far off
LARGE_PATH_TOLERANCE = 3e-4  # where a pass takes its time
FINAL_TOLERANCE = 1e-13  # scores to six digits
LARGE_TOLERANCE = 1e-6  # in float32, where a pass takes its time: scores to two digits
LARGE = 2e9  # examples x code_dim x outputs: beyond, that tolerance, and C from one fold
MAX_PASSES = 1000
APART = 512  # examples up to which each fold is standardised by itself


def is_large(n_examples: int, code_dim: int, n_classes: int) -> bool:
    """Tell whether a pass over the codes costs so much that passes are saved."""
    return n_examples * code_dim * n_outputs(n_classes) > LARGE


def searched_folds(
    folds: Sequence[Fold], *, n_examples: int, code_dim: int, n_classes: int
) -> list[Fold]:
    """Choose the folds that C is chosen on: all, or the first of a large problem.

    A path of C takes some 200 passes over the codes, and a pass costs the product of examples,
    their length, outputs and folds. Where that is large, one fold holds out hundreds of images,
    which is enough to choose C and a temperature.
    """
    return list(folds[:1] if is_large(n_examples, code_dim, n_classes) else folds)


def two_columns(values: Floats) -> Floats:
    """Scores (N, K) of decision values: those of two classes, (N,) or (N, 1), as (-d/2, d/2)."""
    d = values.reshape(len(values), -1)
    return np.concatenate([-d / 2, d / 2], axis=1) if d.shape[1] == 1 else d


def class_weights(labels: NDArray[np.int32], n_classes: int) -> NDArray[np.float64]:
    """Weight of each example by which all classes count alike, (N,): scikit-learn's 'balanced'."""
    counts = np.bincount(labels, minlength=n_classes)
    weights: NDArray[np.float64] = (len(labels) / (n_classes * np.maximum(counts, 1)))[labels]
    return weights


class LinearPath:
    """Held-out scores of a linear method at any C.

    Parameters
    ----------
    problem : Problem
        Its method is one of `LINEAR`. With several folds each row of `codes` is trained on or
        held out.
    jobs : int
        Threads.

    Attributes
    ----------
    tell : callable
        Called after each pass over the codes.
    """

    def __init__(self, problem: Problem, *, jobs: int) -> None:
        codes, held_codes, folds = problem.codes, problem.held_codes, problem.folds
        self.tell: Callable[[], None] = lambda: None
        self._jobs = jobs
        self._rows = np.concatenate([held for _, held in folds])
        self._n_held = len(held_codes)
        n_examples = len(codes) * (1 if problem.views == "mean" else codes.shape[1])
        few = n_examples <= APART
        # One fold of several: what it holds out would only take time.
        single = len(folds) == 1 and len(folds[0][0]) < len(codes)
        self._apart = single or (few and len(folds) > 1)
        self.parts: list[_Part] = []
        for fold in folds if self._apart else [None]:
            if fold is None:
                one, held = problem, np.arange(len(held_codes))
            else:  # a fold by itself sees nothing of the others
                rows, held = fold
                one = replace(
                    problem,
                    codes=part_of(codes, rows),
                    labels=problem.labels[rows],
                    held_codes=part_of(held_codes, held),
                    folds=[(np.arange(len(rows)), np.arange(len(held)))],
                )
            self.parts.append(_Part(one, held, jobs=1 if few else jobs))

    @property
    def design(self) -> Design:
        """The examples of all folds, or of the first where each stands by itself."""
        return self.parts[0].design

    @property
    def basis(self) -> Basis | None:
        """What all examples were decorrelated by; None where each fold stands by itself."""
        return None if self._apart else self.parts[0].design.basis

    def solve(self, C: float) -> bool:
        """Fit all folds at `C`, from the nearest C that is solved; whether that converged."""
        if len(self.parts) == 1:
            return self.parts[0].solve(C, self.tell)
        with ThreadPoolExecutor(self._jobs) as pool:
            done = list(pool.map(lambda part: part.solve(C, lambda: None), self.parts))
        self.tell()
        return all(done)

    def scores(self, C: float) -> NDArray[np.float32]:
        """Scores (H, K) of the held-out images at a solved `C`, in the order of the folds."""
        out = np.empty((self._n_held, self.parts[0].problem.n_out), dtype=np.float32)
        for part in self.parts:
            out[part.held_rows] = part.scores(C)
        found: NDArray[np.float32] = two_columns(out[self._rows])
        return found

    def mean_solution(self, C: float) -> tuple[Floats, Floats]:
        """Weights (D, J) for standardised codes and biases (J,) at a solved `C`, over the folds."""
        solutions = [(part.design, part.solved[C]) for part in self.parts]
        weights = [design.to_codes(one.weight.mean(axis=1)) for design, one in solutions]
        return np.mean(weights, axis=0), np.mean([one.bias.mean(axis=0) for _, one in solutions], 0)


class _Part:
    """Folds that share a design: all of them, or one."""

    def __init__(self, problem: Problem, held_rows: NDArray[np.int64], *, jobs: int) -> None:
        self.held_rows = held_rows
        codes, way, folds = problem.codes, problem.views, problem.folds
        mean, scale = moments(codes, way)
        self.design = Design(codes, way, mean, scale, jobs=jobs)
        self.held = self.design
        if problem.held_codes is not codes:
            self.held = Design(
                problem.held_codes, way, mean, scale, jobs=jobs, basis=self.design.basis
            )
        per_image = self.design.per_image
        weights = np.zeros((self.design.n_examples, len(folds)))
        self._fold_of = np.zeros(self.held.n_examples, dtype=np.int64)
        each = np.arange(per_image)
        for fold, (rows, held) in enumerate(folds):
            trained = (rows[:, None] * per_image + each).ravel()
            own = np.repeat(problem.labels[rows], per_image)
            balanced = problem.balanced
            weights[trained, fold] = class_weights(own, problem.n_classes) if balanced else 1.0
            self._fold_of[(held[:, None] * per_image + each).ravel()] = fold
        labels = np.repeat(problem.labels, per_image)
        self._n_classes = problem.n_classes
        self.problem = Linear(self.design, problem.method, labels, weights, problem.n_classes)
        self.solved: dict[float, Solution] = {}

    def solve(self, C: float, tell: Callable[[], None]) -> bool:
        start = self.problem.start
        if self.solved:
            start = self.solved[min(self.solved, key=lambda one: abs(np.log(one / C)))]
        large = is_large(self.design.n_examples, self.design.code_dim, self._n_classes)
        tolerance = LARGE_PATH_TOLERANCE if large else PATH_TOLERANCE
        self.solved[C] = self.problem.minimise(
            C, start, tolerance=tolerance, most_passes=MAX_PASSES, tell=tell
        )
        return self.solved[C].converged

    def scores(self, C: float) -> NDArray[np.float32]:
        """Scores (n, J) of the held-out images of its folds."""
        solution, n_out = self.solved[C], self.problem.n_out
        out = np.empty((self.held.n_examples, n_out), dtype=np.float32)

        def work(block: Block, _: None) -> None:
            fold_of = self._fold_of[block.rows]
            values = out[block.rows]
            for fold in np.unique(fold_of):
                mine = fold_of == fold
                values[mine] = block.z[mine] @ solution.weight[:, fold] + solution.bias[fold]

        for _ in self.held.sums(work):
            pass
        found: NDArray[np.float32] = out.reshape(-1, self.held.per_image, n_out).mean(axis=1)
        return found


def fit_linear(
    method: str,
    design: Design,
    labels: NDArray[np.int32],
    weights: NDArray[np.float64] | None,
    C: float,
    *,
    n_classes: int,
    start: tuple[Floats, Floats] | None = None,
    tell: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Fit a linear method to all examples of a design.

    Parameters
    ----------
    method : str
        One of `LINEAR`.
    design : Design
        In float64; in float32 where :func:`is_large`.
    labels : int32 (N,)
        Of the design's examples.
    weights : float64 (N,) or None
    C : float
    n_classes : int
        K.
    start : (D, J) and (J,), optional
        Weights for standardised codes and biases to begin from.

    Returns
    -------
    weight, bias : float64 (K, D), (K,)
        For standardised codes; two classes get (-w/2, w/2).
    converged : bool
    """
    each = np.ones(design.n_examples) if weights is None else weights
    problem = Linear(design, method, labels, each[:, None], n_classes)
    begin = problem.start
    if start is not None:
        begin.weight = design.from_codes(start[0])[:, None]
        begin.bias = start[1][None].astype(design.dtype)
    large = is_large(design.n_examples, design.code_dim, n_classes)
    tolerance = LARGE_TOLERANCE if large else FINAL_TOLERANCE
    found = problem.minimise(C, begin, tolerance=tolerance, most_passes=MAX_PASSES, tell=tell)
    weight = design.to_codes(found.weight[:, 0]).T.astype(np.float64)  # (J, D)
    bias = found.bias[0].astype(np.float64)
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return np.ascontiguousarray(weight), bias, found.converged
