"""Folds of the cross-validation: stratified by class, images of one group kept together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..datasets.phrases import few, plural
from ..errors import HeadError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]

_NEVER = -1  # fold of what is never held out
_FEW_COPIES = 1.25  # images per group: up to here groups are little more than equal bytes
_MANY_GROUPS = 50_000  # scikit-learn's greedy cut takes time in proportion to groups and classes


def groups_per_class(
    labels: NDArray[np.int32], groups: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Count the groups (K,) that hold images of each class; one group may hold several."""
    member = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    pairs = np.unique(member * n_classes + labels)
    return np.bincount(pairs % n_classes, minlength=n_classes).astype(np.int64)


def cut_folds(
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    *,
    folds: int,
    seed: int,
    class_names: Sequence[str],
    every: bool = False,
) -> tuple[list[Fold], list[str]]:
    """Cut the images into folds.

    Where groups are little more than copies, one image stands for each, scikit-learn's
    StratifiedKFold cuts these, and each group follows its own: linear time, and folds as even as
    can be. Groups of several images (patients, modules) differ in size and may hold several
    classes: scikit-learn's StratifiedGroupKFold evens out the images of each class.

    Parameters
    ----------
    labels, groups : integer (N,)
        Classes and groups of the images.
    folds : int
        How many are wanted, at least 2; fewer are cut where a class has fewer groups. Classes of
        a single group don't count here.
    seed : int
        Of the shuffle.
    class_names : sequence of str
        For messages.
    every : bool
        Every row must be held out once: a class of a single group is an error.

    Returns
    -------
    folds : list of (int64 (n,), int64 (m,))
        Rows to train on and rows held out; every row is held out once, but for those of groups
        that are all a class has, which are trained on in every fold.
    warnings : list of str
        That there are fewer folds than asked for, and why; that a class is never held out.

    Raises
    ------
    HeadError
        Half of the classes or more, or all but one, have fewer than two groups, so that they
        cannot be both trained on and held out.
    """
    n_classes = len(class_names)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    n_groups = len(first)
    counts = groups_per_class(labels, groups, n_classes)
    rarest = int(counts.argmin())
    least = int(counts[rarest])
    alone = np.flatnonzero(counts == 1)
    notes = []
    if least == 1 and foldable(counts) and not every:
        notes.append(
            f"{plural(len(alone), 'class has', 'classes have')} 1 {_units(n_groups, labels, 1)} "
            f"to train on: {few([class_names[k] for k in alone.tolist()])}. Nothing was chosen or "
            "calibrated on such a class."
        )
        rarest = int(np.where(counts == 1, counts.max() + 1, counts).argmin())
        least = int(counts[rarest])
    if least < 2:
        raise HeadError(
            f"The class {class_names[rarest]} has {least or 'no'} "
            f"{_units(n_groups, labels, least)} to train on.",
            expected="at least 2 per class (and better 10), to train on some and test on others",
            todo="add images of it, leave the class out, or give the data a val split",
        )
    if least < folds:
        notes.append(
            f"{least} folds instead of {folds}: the class {class_names[rarest]} has {least} "
            f"{_units(n_groups, labels, least)} to train on."
        )
    n_folds = min(folds, least)
    several = len(labels) > _FEW_COPIES * n_groups or int(counts.sum()) > n_groups
    if several and n_groups <= _MANY_GROUPS:
        fold_of = _by_groups(labels, member, n_folds, seed)
    else:
        stands_for = _rarest_class(labels, member, n_groups, counts)
        cutter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        fold_of = np.empty(n_groups, dtype=np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class that stands for one group may be in more
            for number, (_, held) in enumerate(cutter.split(np.zeros(n_groups), stands_for)):
                fold_of[held] = number
    _keep_trainable(fold_of, member, labels, n_folds)
    if len(alone):
        fold_of[np.unique(member[np.isin(labels, alone)])] = _NEVER
    fold_of = fold_of[member]  # (N,)
    numbers = np.unique(fold_of[fold_of != _NEVER]).tolist()
    return [(np.flatnonzero(fold_of != n), np.flatnonzero(fold_of == n)) for n in numbers], notes


def foldable(counts: NDArray[np.int64]) -> bool:
    """Tell whether most classes, and two at least, have the two groups (K,) that a fold needs."""
    n_able, n_alone = int(np.sum(counts > 1)), int(np.sum(counts == 1))
    return n_able > max(1, n_alone) and n_able + n_alone == len(counts)


def _units(n_groups: int, labels: NDArray[np.int32], n: int) -> str:
    what = "group" if len(labels) > _FEW_COPIES * n_groups else "different image"
    return what if n == 1 else f"{what}s"


def _rarest_class(
    labels: NDArray[np.int32], member: NDArray[np.intp], n_groups: int, counts: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Give each group (G,) the rarest of its classes, so that no class is left without one."""
    rarity = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    lowest = np.full(n_groups, len(counts), np.int64)
    np.minimum.at(lowest, member, rarity[labels])
    return np.argsort(counts, kind="stable")[lowest].astype(np.int32)


def _by_groups(
    labels: NDArray[np.int32], member: NDArray[np.intp], n_folds: int, seed: int
) -> NDArray[np.int64]:
    """Give the fold of each group (G,)."""
    cutter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    fold_of = np.empty(int(member.max()) + 1, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of a single group is never held out
        for number, (_, held) in enumerate(cutter.split(np.zeros(len(labels)), labels, member)):
            fold_of[member[held]] = number
    return fold_of


def _keep_trainable(
    fold_of: NDArray[np.int64], member: NDArray[np.intp], labels: NDArray[np.int32], n_folds: int
) -> None:
    """Move a group (in place) wherever all groups of a class are in one fold.

    Training on the other folds would then know no image of the class.
    """
    for k in np.unique(labels).tolist():
        of_class = np.unique(member[labels == k])
        if len(np.unique(fold_of[of_class])) > 1:
            continue
        sizes = np.bincount(member)[of_class]
        moved = of_class[int(sizes.argmin())]
        fold_of[moved] = (fold_of[moved] + 1) % n_folds
