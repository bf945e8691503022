"""In which order images are shown: each a list of rows, the one worth looking at first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..evidence.confident import (
    class_thresholds,
    confident_classes,
    label_margin,
    other_class,
)
from ..next.order import choose_next

_FIRST = 200  # unlabelled images that are put in order with care; the others follow by margin


@dataclass(frozen=True, eq=False)
class Board:
    """All N images at one moment.

    Attributes
    ----------
    labels : int32 (N,)
        -1: none, or excluded.
    open : bool (N,)
        Neither checked nor excluded.
    shown : bool (N,)
        Whose split may be listed by the model.
    probabilities : float64 (N, K)
    copies : int64 (N,)
        Equal for equal bytes.
    """

    labels: NDArray[np.int32]
    open: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    probabilities: NDArray[np.float64]
    copies: NDArray[np.int64]

    @cached_property
    def suggested(self) -> NDArray[np.int64]:
        """Class (N,) that each image looks like: where labelled, the other one that speaks most.

        As in :mod:`cnn_codes.evidence.labels`.
        """
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        rows = np.flatnonzero(self.labels >= 0)
        if len(rows) and self.probabilities.shape[1] > 1:
            p, labels = self.probabilities[rows], self.labels[rows]
            confident = confident_classes(p, class_thresholds(p, labels))
            other = other_class(p, labels)
            found[rows] = np.where((confident >= 0) & (confident != labels), confident, other)
        return found

    @cached_property
    def suspects(self) -> NDArray[np.bool_]:
        """Whether each image's label is contradicted with confidence, (N,)."""
        found = np.zeros(len(self.labels), dtype=bool)
        rows = np.flatnonzero(self.labels >= 0)
        if len(rows) and self.probabilities.shape[1] > 1:
            p, labels = self.probabilities[rows], self.labels[rows]
            confident = confident_classes(p, class_thresholds(p, labels))
            found[rows] = (confident >= 0) & (confident != labels)
        return found

    def contradicted(self) -> NDArray[np.bool_]:
        """Whether each image has a copy under another label, (N,)."""
        rows = np.flatnonzero(self.labels >= 0)
        found = np.zeros(len(self.labels), dtype=bool)
        if len(rows):
            n = int(self.copies.max()) + 1
            lowest, highest = np.full(n, np.iinfo(np.int32).max), np.full(n, -1)
            np.minimum.at(lowest, self.copies[rows], self.labels[rows])
            np.maximum.at(highest, self.copies[rows], self.labels[rows])
            found[rows] = (lowest < highest)[self.copies[rows]]
        return found


def doubtful(board: Board) -> NDArray[np.int64]:
    """Order the labels that are open by doubt: contradicting copies first, then by margin."""
    rows = np.flatnonzero((board.labels >= 0) & board.open & board.shown)
    if not len(rows) or board.probabilities.shape[1] < 2:
        return rows
    score = label_margin(board.probabilities[rows], board.labels[rows])
    order: NDArray[np.int64] = rows[np.lexsort((score, ~board.contradicted()[rows]))]
    return order


def mistakes(board: Board) -> NDArray[np.int64]:
    """Order the open images that the heads call otherwise than their label, surest first."""
    called = board.probabilities.argmax(axis=1)
    wrong = (board.labels >= 0) & board.open & board.shown & (called != board.labels)
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-board.probabilities[rows].max(axis=1), kind="stable")]


def to_label(
    board: Board, unlabelled: NDArray[np.bool_], z: NDArray[np.float32], seed: int
) -> NDArray[np.int64]:
    """Order the unlabelled images by how much they are worth labelling."""
    rows = np.flatnonzero(unlabelled & board.open)
    known = np.flatnonzero(board.labels >= 0)
    if not len(rows):
        return rows
    k = board.probabilities.shape[1]
    counts = np.bincount(board.labels[known], minlength=k)
    p = board.probabilities[rows]
    first, _ = choose_next(z[rows], z[known], counts, p if k > 1 else None, _FIRST, seed=seed)
    rest = np.setdiff1d(np.arange(len(rows)), first)
    if k > 1:
        top = np.sort(p[rest], axis=1)[:, -2:]
        rest = rest[np.argsort(top[:, 1] - top[:, 0], kind="stable")]
    order: NDArray[np.int64] = rows[np.concatenate([first, rest])]
    return order


def shuffled(board: Board, seed: int) -> NDArray[np.int64]:
    """Order the open labelled images at random: a check that no model has a say in."""
    rows = np.flatnonzero((board.labels >= 0) & board.open)
    return rows[np.random.default_rng(seed).permutation(len(rows))]
