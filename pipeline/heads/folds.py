"""Folds of the cross-validation: stratified by class, images of equal bytes kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from ..errors import HeadError

__all__ = ["Fold", "cut_folds"]

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def cut_folds(
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    *,
    folds: int,
    seed: int,
    class_names: Sequence[str],
) -> tuple[list[Fold], list[str]]:
    """Cut the images into folds.

    One image stands for each group (its first), the representatives are cut by scikit-learn's
    StratifiedKFold, and each group follows its own: as StratifiedGroupKFold promises, but in
    linear time, and with folds as even as can be where duplicates are few.

    Parameters
    ----------
    labels, groups : integer (N,)
        Classes and groups of the images.
    folds : int
        How many are wanted, at least 2; fewer are cut where a class has fewer groups.
    seed : int
        Of the shuffle.
    class_names : sequence of str
        For messages.

    Returns
    -------
    folds : list of (int64 (n,), int64 (m,))
        Rows to train on and rows held out; every row is held out once.
    warnings : list of str
        That there are fewer folds than asked for, and why.

    Raises
    ------
    HeadError
        A class has fewer than two groups, so that it cannot be both trained on and held out.
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    stands_for = labels[first]  # (G,) class of each group
    counts = np.bincount(stands_for, minlength=len(class_names))
    rarest = int(counts.argmin())
    least = int(counts[rarest])
    if least < 2:
        raise HeadError(
            f"The class {class_names[rarest]} has {least or 'no'} different image"
            f"{'' if least == 1 else 's'} to train on.",
            expected="at least 2 a class (and better 10), to train on some and try on others",
            todo="add images of it, leave the class out, or give the data a val split",
        )
    warnings = []
    if least < folds:
        warnings.append(
            f"{least} folds instead of {folds}: the class {class_names[rarest]} has {least} "
            "different training images."
        )
    cutter = StratifiedKFold(min(folds, least), shuffle=True, random_state=seed)
    fold_of = np.empty(len(first), dtype=np.int64)
    for number, (_, held) in enumerate(cutter.split(np.zeros(len(first)), stands_for)):
        fold_of[held] = number
    fold_of = fold_of[member]  # (N,)
    numbers = range(fold_of.max() + 1)
    return [(np.flatnonzero(fold_of != n), np.flatnonzero(fold_of == n)) for n in numbers], warnings
