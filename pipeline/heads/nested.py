"""Every image judged by heads that never saw its group, the choice of C included.

Nested, repeated, grouped cross-validation: in each outer fold the whole of
:func:`cnn_codes.heads.fit_head` (choice, calibration, fit) sees the other folds only. The figures
of these predictions are estimates for new images of new groups (Varma and Simon 2006), which the
cross-validation that chose C cannot give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress, silent
from ..settings import HeadSettings
from .examples import Examples, take
from .fit import fit_head
from .folds import Fold, cut_folds


@dataclass(frozen=True, eq=False)
class Nested:
    """Out-of-fold predictions of all images.

    Attributes
    ----------
    probabilities : float64 (R, N, K)
        Of R repetitions.
    predicted : int64 (R, N)
        Classes, by the heads' decision rules.
    parts : int64 (R, N)
        The outer fold each image was held out of.
    chosen : list of dict
        What each of the R x folds heads chose.
    warnings : tuple of str
        Each once.
    """

    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    parts: NDArray[np.int64]
    chosen: list[dict[str, object]]
    warnings: tuple[str, ...]


def outer_folds(
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    *,
    folds: int,
    seed: int,
    repeat: int = 0,
    names: Sequence[str],
) -> tuple[list[Fold], list[str]]:
    """Cut the outer folds of a repetition; see :func:`cnn_codes.heads.folds.cut_folds`."""
    return cut_folds(labels, groups, folds=folds, seed=seed + repeat, class_names=names, every=True)


def nested(
    method: str,
    examples: Examples,
    settings: HeadSettings,
    *,
    n_classes: int,
    seed: int,
    folds: int = 5,
    repeats: int = 1,
    class_names: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Nested:
    """Predict every image by a head that was chosen, calibrated and fitted without its fold.

    Parameters
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    examples : Examples
        N images; images of one group stay in one fold, outer and inner.
    settings : HeadSettings
        Of each head; its ``folds`` are the inner ones.
    n_classes : int
        K.
    seed : int
        Repetition r has the folds and heads of seed + r.
    folds, repeats : int
        Outer folds, and repetitions R.
    class_names : sequence of str, optional
        K names.
    progress : Progress
        Told of each outer fold.

    Raises
    ------
    HeadError
        As :func:`cnn_codes.heads.fit_head`; a class needs images in three different groups.
    """
    names = tuple(class_names) if class_names else tuple(map(str, range(n_classes)))
    shape = (repeats, examples.n_images)
    probabilities = np.empty((*shape, n_classes))
    predicted, parts = np.empty(shape, np.int64), np.empty(shape, np.int64)
    chosen: list[dict[str, object]] = []
    warnings: dict[str, None] = {}
    with progress(f"{method}: nested cross-validation", repeats * folds, "folds") as meter:
        for r in range(repeats):
            outer, notes = outer_folds(
                examples.labels, examples.groups, folds=folds, seed=seed, repeat=r, names=names
            )
            warnings.update(dict.fromkeys(notes))
            for number, (rows, held) in enumerate(outer):
                inside = take(examples.codes, rows)
                train = Examples(inside, examples.labels[rows], examples.groups[rows])
                head = fit_head(
                    method, train, None, settings, n_classes=n_classes, seed=seed + r,
                    class_names=names,
                )  # fmt: skip
                probabilities[r, held] = head.predict_proba(take(examples.codes, held))
                predicted[r, held] = head.decide(probabilities[r, held])
                parts[r, held] = number
                chosen.append({"repeat": r, "fold": number, **head.chosen})
                warnings.update(dict.fromkeys(head.warnings))
                meter.advance()
    return Nested(probabilities, predicted, parts, chosen, tuple(warnings))
