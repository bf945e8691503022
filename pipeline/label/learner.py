"""What is known of the labels becomes a head, and the head's opinion of every image.

Each image outside of test is judged by a head that was fitted without its fold, so that a wrong
label does not teach the head to agree with it. Test images, and images without a label, are
judged by the head fitted to everything else that is labelled.

C is chosen nested: the head without fold k takes the C that was best for fold k + 1 when neither
of the two was trained on, so no image has a say in the C of the head that judges it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from sklearn.preprocessing import StandardScaler

from .refit import Fitted, refit

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of N images at one moment.

    Attributes
    ----------
    labels : int32 (N,)
        Class; -1 where there is none, or the image is excluded.
    test : bool (N,)
        Images that nothing is fitted to.
    n_classes : int
        K.
    """

    labels: NDArray[np.int32]
    test: NDArray[np.bool_]
    n_classes: int


@dataclass(frozen=True, eq=False)
class Opinion:
    """What heads say of N images that they were not fitted to.

    Attributes
    ----------
    probabilities : float64 (N, K)
        Rows sum to 1.
    C : tuple of float
        Of the head of each fold, and of the head for test and unlabelled images.
    seconds : float
        That the fits took.
    """

    probabilities: NDArray[np.float64]
    C: tuple[float, ...]
    seconds: float


def assign_folds(groups: NDArray[np.integer], seed: int) -> NDArray[np.int8]:
    """Give the fold (N,) of each image: whole groups, folds of about equal size."""
    _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    sizes = np.zeros(FOLDS, dtype=np.int64)
    fold_of = np.empty(len(counts), dtype=np.int8)
    for group in order.tolist():
        fold = int(sizes.argmin())
        fold_of[group] = fold
        sizes[fold] += counts[group]
    return fold_of[numbers]


@dataclass(eq=False)
class Learner:
    """Heads that follow the labels.

    Parameters
    ----------
    codes : float32 (N, D)
        Of all images; kept standardised, as ``z``.
    folds : int8 (N,)
        From :func:`assign_folds`.
    jobs : int
        Threads.
    """

    codes: InitVar[NDArray[np.float32]]
    folds: NDArray[np.int8]
    jobs: int = 1
    z: NDArray[np.float32] = field(init=False)
    _mean: NDArray[np.float64] = field(init=False)
    _scale: NDArray[np.float64] = field(init=False)
    _C: list[float] = field(init=False, default_factory=list)
    _heads: list[Fitted | None] = field(init=False)

    def __post_init__(self, codes: NDArray[np.float32]) -> None:
        """Standardise the codes, once: labels do not change them."""
        scaler = StandardScaler().fit(codes)
        self._mean, self._scale = scaler.mean_, scaler.scale_
        self.z = self._standardised(codes)
        self._heads = [None] * (FOLDS + 1)

    def extend(self, codes: NDArray[np.float32], folds: NDArray[np.int8]) -> None:
        """Take further images; the standardisation stays."""
        self.z = np.concatenate([self.z, self._standardised(codes)])
        self.folds = np.concatenate([self.folds, folds])

    def _standardised(self, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((codes - self._mean.astype(np.float32)) / self._scale.astype(np.float32)).astype(
            np.float32
        )

    def choose(self, known: Known) -> None:
        """Choose C for each head: the best for the next fold, fitted without either."""
        trained = (known.labels >= 0) & ~known.test

        def best(fold: int) -> tuple[float, NDArray[np.float64] | None]:
            other = (fold + 1) % FOLDS
            rows = np.flatnonzero(trained & (self.folds != fold) & (self.folds != other))
            held = np.flatnonzero(trained & (self.folds == other))
            if not len(rows) or not len(held):
                return 1e-2, None
            w: NDArray[np.float64] | None = None
            losses, solutions = [], []
            for C in GRID:
                head = refit(self.z[rows], known.labels[rows], known.n_classes, C=C, start=w)
                w = head.w
                scores = head.scores(self.z[held])
                own = scores[np.arange(len(held)), known.labels[held]]
                losses.append(float((logsumexp(scores, axis=1) - own).mean()))
                solutions.append(w)
                if losses[-1] > 2 * min(losses):  # far past the best
                    break
            at = int(np.argmin(losses))
            return GRID[at], solutions[at]

        with ThreadPoolExecutor(self.jobs) as pool:
            found = list(pool.map(best, range(FOLDS)))
        self._C = [C for C, _ in found]
        self._C.append(float(np.exp(np.mean(np.log(self._C)))))
        self._heads = [None if w is None else Fitted(w) for _, w in found] + [None]

    def judge(self, known: Known, *, stop: Callable[[], bool] = lambda: False) -> Opinion | None:
        """Fit the heads again, each from where it was, and give their opinion.

        Parameters
        ----------
        known : Known
            At least two classes with an image outside of test.
        stop : callable
            Asked between fits; True ends it, and None is returned.
        """
        began = time.perf_counter()
        if not self._C:
            self.choose(known)
        trained = (known.labels >= 0) & ~known.test

        def fit(at: int) -> Fitted | None:
            if stop():
                return None
            rows = np.flatnonzero(trained if at == FOLDS else trained & (self.folds != at))
            if not len(rows):
                return None
            before = self._heads[at] or self._heads[0]
            return refit(
                self.z[rows], known.labels[rows], known.n_classes,
                C=self._C[at], start=None if before is None else before.w,
            )  # fmt: skip

        with ThreadPoolExecutor(self.jobs) as pool:
            heads = list(pool.map(fit, range(FOLDS + 1)))
        if stop():
            return None
        self._heads = list(heads)
        p = np.full((len(known.labels), known.n_classes), 1.0 / known.n_classes)
        for at, head in enumerate(heads):
            rows = np.flatnonzero(~trained if at == FOLDS else trained & (self.folds == at))
            if head is not None and len(rows):
                p[rows] = softmax(head.scores(self.z[rows]), axis=1)
        return Opinion(p, tuple(self._C), time.perf_counter() - began)
