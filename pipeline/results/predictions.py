"""Predictions: what a run said of each image of one split, as a table anybody can recompute from.

Made by heads and fine-tuning, written next to the record of a run; every metric of the record
follows from this file alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cells import csv_bytes, csv_rows
from ..errors import ResultError
from ..files import write_atomic

PREDICTED = ("predicted", "decided")  # the column's name: most probable, or by a threshold


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run said of each image of one split.

    Attributes
    ----------
    paths : tuple of str
        One a row, relative to the data's root.
    labels : integer (N,)
        True classes, indices into `class_names`.
    probabilities : float64 (N, K)
        Rows sum to 1.
    class_names : tuple of str
        K names.
    decided : integer (N,), optional
        Predicted classes, where a threshold made them; by default the most probable ones, the
        first of equals.
    groups : integer (N,), optional
        Equal for images that are not independent, where the data set has groups. Not in the
        table: the record has them, as ``test_groups``.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]
    decided: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shape = (len(self.paths), len(self.class_names))
        if self.probabilities.shape != shape or self.labels.shape != shape[:1]:
            raise ResultError(
                f"{len(self.paths)} paths, labels {self.labels.shape}, probabilities "
                f"{self.probabilities.shape}, {len(self.class_names)} classes.",
                expected="one label and one row per image, one column per class",
            )
        if len(self.labels) and not (0 <= self.labels.min() <= self.labels.max() < shape[1]):
            raise ResultError("A label is not one of the classes.", expected=f"0 to {shape[1] - 1}")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the predicted class of each row, (N,)."""
        if self.decided is not None:
            return self.decided
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return best

    def most_confident_errors(self) -> list[int]:
        """Rows of wrongly predicted images, the most confident first, of equals by path."""
        confidence = self.probabilities.max(axis=1)
        wrong = np.flatnonzero(self.predicted != self.labels)
        paths = np.array(self.paths)[wrong]
        order: list[int] = wrong[np.lexsort((paths, -confidence[wrong]))].tolist()
        return order


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``path,label,predicted,<one probability column per class>`` as CSV (RFC 4180, UTF-8).

    Where a threshold made the predicted classes, their column is called ``decided``.

    Labels are class names; a probability has as many digits as bring back the very same number,
    so that every metric recomputed from the file equals the stored one. File names that are not
    UTF-8 keep their bytes; names that a spreadsheet would take for formulas are marked, as
    :mod:`..cells` has it.
    """
    names = predictions.class_names
    table = [["path", "label", PREDICTED[predictions.decided is not None], *names]]
    rows = predictions.probabilities.astype(np.float64).tolist()
    called = predictions.predicted.tolist()
    for name, label, guess, row in zip(
        predictions.paths, predictions.labels.tolist(), called, rows, strict=True
    ):
        table.append([name, names[label], names[guess], *map(repr, row)])
    write_atomic(path, csv_bytes(table, paths=(0,)))


def read_predictions(path: Path) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises
    ------
    ResultError
        The file is missing or is no such table, or a ``predicted`` class is not that of its row's
        largest probability.
    """
    try:
        header, *rows = csv_rows(path.read_bytes(), paths=(0,))
        names = tuple(header[3:])
        index = {name: k for k, name in enumerate(names)}
        if (
            header[:2] != ["path", "label"]
            or header[2] not in PREDICTED
            or not 2 <= len(index) == len(names)
        ):
            raise ValueError("the header is another")
        found = Predictions(
            tuple(row[0] for row in rows),
            np.array([index[row[1]] for row in rows], dtype=np.int32),
            np.array([[float(cell) for cell in row[3:]] for row in rows]).reshape(-1, len(names)),
            names,
        )
        decided = np.array([index[row[2]] for row in rows], dtype=np.int64)
        if header[2] == PREDICTED[True]:
            found = replace(found, decided=decided)
        elif not np.array_equal(decided, found.predicted):
            raise ValueError("a predicted class is not the most probable one")
    except (OSError, ValueError, KeyError, IndexError, ResultError) as error:
        raise ResultError(
            f"{path} holds no predictions ({error}).",
            expected="a CSV: path,label,predicted,<one probability column per class>",
            todo="run the method again",
        ) from error
    return found
