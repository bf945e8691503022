"""From labelled codes to a calibrated head: choose the setting, calibrate, fit."""

from __future__ import annotations

import time
from collections.abc import Sequence

import joblib
import numpy as np

from ..errors import HeadError
from ..progress import Progress, silent
from ..settings import METHODS, HeadSettings
from .calibrate import calibrate
from .design import moments
from .examples import Examples, check_examples
from .final import fit_final
from .folds import cut_folds
from .grids import around, axes_of
from .linear import class_weights
from .model import Head
from .search import Problem, Search, pick, quiet_solvers, search

__all__ = ["fit_head"]

UNWEIGHTED = ("centroid", "knn")
FINAL_STEPS = 40  # passes over the codes that the final fit takes, about
RBF_MOST_EXAMPLES = 6000  # a kernel of all pairs; beyond, trying all views takes hours


def fit_head(
    method: str,
    train: Examples,
    val: Examples | None,
    settings: HeadSettings,
    *,
    n_classes: int,
    seed: int,
    class_names: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Head:
    """Fit one head, its setting chosen without any look at a test split.

    The setting (C; k and metric; C and gamma; and the use of the views) is chosen by accuracy
    and calibrated log-loss (:func:`cnn_codes.heads.search.pick`) on examples held out: in a
    cross-validation on `train`, or on `val`. The temperature comes from the same held-out
    scores. Then the head is fitted to all of `train`.

    Parameters
    ----------
    method : str
        ``svm``, ``softmax``, ``ridge``, ``centroid``, ``knn`` or ``rbf``.
    train : Examples
        At least one example of each class; without `val`, two different ones.
    val : Examples or None
        What the data set brings to choose on; None: cross-validation.
    settings : HeadSettings
        ``folds``, ``class_weight``, ``train_views`` and ``jobs`` matter here.
    n_classes : int
        K, at least 2.
    seed : int
        Of the folds. Equal seeds give equal heads, whatever ``jobs`` is.
    class_names : sequence of str, optional
        K different names, in the order of the labels; by default the numbers.
    progress : Progress
        Told of each fold.

    Returns
    -------
    Head

    Raises
    ------
    HeadError
        One class only, a class with too few examples, labels that are no classes, codes that
        are not finite or of different lengths.
    """
    names = tuple(class_names) if class_names else tuple(map(str, range(n_classes)))
    _check(method, train, val, n_classes, names)
    started = time.perf_counter()
    jobs = settings.jobs or joblib.cpu_count()
    with quiet_solvers():
        found, views, notes = _choose(method, train, val, settings, names, seed, jobs, progress)
        held_labels = (val or train).labels[found.rows]
        calibration = calibrate(
            found.scores, held_labels, found.parts, optional=method == "softmax"
        )
        chosen_s = time.perf_counter() - started
        mean, scale = moments(train.codes, views)
        with progress(f"{method}: fitting", FINAL_STEPS, "steps") as meter:
            fitted = fit_final(
                method,
                train.codes,
                train.labels,
                found.best,
                way=views,
                mean=mean,
                scale=scale,
                balanced=settings.class_weight == "balanced",
                jobs=jobs,
                start=found.start,
                basis=found.basis,
                tell=lambda: meter.advance(1),
            )
    total_s = time.perf_counter() - started
    n_folds = int(found.parts.max()) + 1
    return Head(
        method=method,
        classes=names,
        mean=mean,
        scale=scale,
        arrays={name: np.ascontiguousarray(array) for name, array in fitted.arrays.items()},
        parameters=fitted.parameters,
        views=views,
        temperature_scale=calibration.scale,
        calibration={
            "method": "temperature",
            "scale": calibration.scale,
            "on": "val" if val else f"out-of-fold scores of {n_folds} folds",
            "before": calibration.before,
            "after": calibration.after,
        },
        chosen={
            **found.best,
            "train_views": views,
            "by": "least calibrated log-loss within one standard error of the best accuracy",
            "on": "val" if val else f"{n_folds}-fold cross-validation on train",
            "folds": 0 if val else n_folds,
            "score": found.log_loss,
            "curve": found.curve,
        },
        warnings=(*notes, *found.warnings, *fitted.warnings),
        times_s={"choose": chosen_s, "final": total_s - chosen_s, "fit": total_s},
    )


def _check(
    method: str, train: Examples, val: Examples | None, n_classes: int, names: tuple[str, ...]
) -> None:
    if method not in METHODS:
        raise HeadError(f"METHOD={method} is not known.", expected=f"one of {', '.join(METHODS)}")
    if n_classes < 2 or len(set(names)) != n_classes:
        raise HeadError(
            f"{n_classes} classes with {len(set(names))} different names.",
            expected="at least 2 classes, each with its own name",
        )
    for examples, what in ((train, "train"), (val, "val")):
        if examples is not None:
            check_examples(
                examples,
                what=what,
                n_classes=n_classes,
                class_names=names,
                code_dim=train.code_dim,
            )
    if val is not None and val.n_views != train.n_views:
        raise HeadError(
            f"The codes of val have {val.n_views} views.", expected=f"{train.n_views}, as in train"
        )
    counts = np.bincount(train.labels, minlength=n_classes)
    if (counts == 0).any():
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        raise HeadError(
            f"train has no image of {', '.join(missing)}.",
            expected=f"images of each of the {n_classes} classes",
            todo="add some, or leave out the class",
        )


def _choose(
    method: str,
    train: Examples,
    val: Examples | None,
    settings: HeadSettings,
    names: tuple[str, ...],
    seed: int,
    jobs: int,
    progress: Progress,
) -> tuple[Search, str, list[str]]:
    """Search the method's grid for each way to use the views: the best, its way, warnings."""
    notes: list[str] = []
    if val is None:
        folds, notes = cut_folds(
            train.labels, train.groups, folds=settings.folds, seed=seed, class_names=names
        )
    else:
        folds = [(np.arange(train.n_images), np.arange(val.n_images))]
    balanced = settings.class_weight == "balanced" and method not in UNWEIGHTED
    if settings.class_weight == "balanced" and not balanced:
        notes.append(f"Class weights have no effect on {method}.")
    ways = _ways(method, train, settings, notes)
    found: list[tuple[Search, str]] = []
    for way in ways:
        problem = Problem(
            method=method,
            codes=train.codes,
            labels=train.labels,
            held_codes=train.codes if val is None else val.codes,
            held_labels=train.labels if val is None else val.labels,
            folds=folds,
            n_classes=len(names),
            balanced=balanced,
            views=way,
        )
        per_image = 1 if way == "mean" else train.n_views
        n_train = max(len(rows) for rows, _ in folds) * per_image
        axes = axes_of(method, n_train=n_train, code_dim=train.code_dim)
        if found:  # 'all' after 'mean': several times the examples, and a best not far off
            axes = around(axes, found[0][0].best)
        found.append((search(problem, axes, jobs=jobs, progress=progress), way))
    searches = [one for one, _ in found]
    held = (val or train).labels[searches[0].rows]
    weights = class_weights(held, len(names)) if balanced else None
    at = pick([one.log_loss for one in searches], [one.hits for one in searches], weights)
    best, way = found[at]  # of equals the first, 'mean'
    best.curve = [point for one, _ in found for point in one.curve]
    best.warnings = [text for one, _ in found for text in one.warnings]
    return best, way, notes


def _ways(method: str, train: Examples, settings: HeadSettings, notes: list[str]) -> list[str]:
    if train.n_views == 1:
        return ["mean"]
    if settings.train_views != "both":
        return [settings.train_views]
    n_examples = train.n_images * train.n_views
    if method == "rbf" and n_examples > RBF_MOST_EXAMPLES:
        notes.append(
            f"rbf was trained on the mean of the views only: {n_examples:,} examples of all views "
            f"are more than the {RBF_MOST_EXAMPLES:,} it tries unless TRAIN_VIEWS=all asks for it."
        )
        return ["mean"]
    return ["mean", "all"]
