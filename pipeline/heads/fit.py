"""From labelled codes to a calibrated head: choose the setting, calibrate, fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import HeadError
from ..progress import Progress, silent
from ..settings import METHODS, HeadSettings
from .choice import Fitting, choose
from .costs import asked_costs
from .decide import parse_rule
from .examples import LEAST_VAL, Examples, check_examples
from .final import Fitted, Standard, fit_final
from .folds import foldable, groups_per_class
from .model import Head
from .output import Output
from .rules import output_of
from .search import Search, quiet_solvers

CHOICELESS = ("centroid", "knn")
FINAL_STEPS = 40  # passes over the codes that the final fit takes, about


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
    and calibrated log-loss (:func:`cnn_codes.heads.trials.pick`) on examples held out: in a
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
        One class only, a class with too few examples, labels that are not classes, codes that
        are not finite or of different lengths.
    """
    names = tuple(class_names) if class_names else tuple(map(str, range(n_classes)))
    _check(method, train, val, n_classes, names)
    started = time.perf_counter()
    costs = asked_costs(settings.cost, names)
    rule = parse_rule(settings.threshold, names, has_costs=costs is not None)
    fitting = Fitting(method, train, settings, names, seed, progress, costs, rule)
    few = _few_in_val(val, n_classes)
    held_out = None if few else val
    if held_out is None and _single(train, n_classes):
        return _without_choice(fitting, started)
    with quiet_solvers():
        found, views, notes = choose(fitting, held_out)
        notes += few
        ruled = output_of(
            found.scores, (held_out or train).labels[found.rows], found.parts, settings,
            rule=rule, costs=costs, balanced=fitting.balanced, optional=method == "softmax",
        )  # fmt: skip
        notes += ruled.notes
        chosen_s = time.perf_counter() - started
        standard = Standard.of(train.codes, views)
        fitted = _fitted(fitting, found, standard)
    total_s = time.perf_counter() - started
    n_folds = int(found.parts.max()) + 1
    chosen_on, scored_on = _places(held_out is not None, n_folds, len(found.rows))
    return _head(
        fitting,
        fitted,
        standard,
        output=ruled.output,
        calibration={
            "method": ruled.method,
            "scale": ruled.calibration.scale,
            "on": scored_on,
            "before": ruled.calibration.before,
            "after": ruled.calibration.after,
        },
        chosen={
            **found.best,
            "train_views": views,
            "by": "least calibrated log-loss within one standard error of the best "
            f"{'expected cost' if settings.cost else settings.metric}",
            "on": chosen_on,
            "folds": 0 if held_out else n_folds,
            "score": found.log_loss,
            "curve": found.curve,
        },
        warnings=(*notes, *found.warnings, *fitted.warnings),
        times_s={"choose": chosen_s, "final": total_s - chosen_s, "fit": total_s},
    )


def _fitted(fitting: Fitting, found: Search, standard: Standard) -> Fitted:
    """Fit the head to all of train, at the setting that was found."""
    with fitting.progress(f"{fitting.method}: fitting", FINAL_STEPS, "steps") as meter:
        return fit_final(
            fitting.method, fitting.train, found.best, standard,
            balanced=fitting.balanced, jobs=fitting.jobs, start=found.start, basis=found.basis,
            tell=lambda: meter.advance(1),
        )  # fmt: skip


def _head(fitting: Fitting, fitted: Fitted, standard: Standard, **more: Any) -> Head:
    """Put a head together; `more` are its fields that say how it came about."""
    return Head(
        method=fitting.method,
        classes=fitting.names,
        mean=standard.mean,
        scale=standard.scale,
        arrays={name: np.ascontiguousarray(array) for name, array in fitted.arrays.items()},
        parameters=fitted.parameters,
        views=standard.way,
        **more,
    )


def _places(on_val: bool, n_folds: int, n_held: int) -> tuple[str, str]:
    """Say what the setting was chosen on, and whose scores the probabilities come from."""
    if on_val:
        return "val", "val"
    if n_folds == 1:  # a large problem
        fold = f"one fold of train ({n_held:,} images held out)"
        return fold, f"scores of {fold}"
    return f"{n_folds}-fold cross-validation on train", f"out-of-fold scores of {n_folds} folds"


def _few_in_val(val: Examples | None, n_classes: int) -> list[str]:
    """Say so where val has too few images to choose anything on; else nothing."""
    least = max(LEAST_VAL, n_classes)
    if val is None or len(np.unique(val.groups)) >= least:
        return []
    return [
        f"val has {val.n_images} images, too few to choose anything on (at least {least}): C and "
        "calibration come from cross-validation on train instead."
    ]


def _single(train: Examples, n_classes: int) -> bool:
    """Whether the images of so many classes are of one group each that no fold can be cut."""
    counts = groups_per_class(train.labels, train.groups, n_classes)
    return bool(counts.min() < 2) and not foldable(counts)


def _without_choice(fitting: Fitting, started: float) -> Head:
    """Fit a head that has nothing to choose: one image of a class, so that none can be held out.

    Raises
    ------
    HeadError
        The method has settings to choose, or THRESHOLD or SET needs held-out images.
    """
    method, train, settings = fitting.method, fitting.train, fitting.settings
    if method not in CHOICELESS:
        counts = np.bincount(train.labels, minlength=fitting.n_classes)
        raise HeadError(
            f"The class {fitting.names[int(counts.argmin())]} has 1 different image to train on, "
            f"and {method} has settings to choose, for which images must be held out.",
            expected="at least 2 different images per class (better 10)",
            todo=f"METHODS={','.join(CHOICELESS)} work with one; or add images, or a val split",
        )
    for name in ("threshold", "set"):
        if getattr(settings, name):
            raise HeadError(
                f"{name.upper()} is set on held-out images, and a class has one image.",
                expected="at least 2 different images per class",
                todo=f"leave out {name.upper()}, or add images",
            )
    standard = Standard.of(train.codes, "all" if settings.train_views == "all" else "mean")
    best: dict[str, Any] = {"k": 1, "metric": "cosine"} if method == "knn" else {}
    fitted = fit_final(method, train, best, standard)
    # Scores of a nearest mean are as large as the codes are long; nothing calibrates them.
    plain = 1.0 if method == "knn" else 1.0 / train.code_dim
    seconds = time.perf_counter() - started
    return _head(
        fitting,
        fitted,
        standard,
        output=Output(plain),
        calibration={"method": "none", "scale": plain, "on": "nothing", "before": {}, "after": {}},
        chosen={
            **best, "train_views": standard.way, "by": "nothing: a class has one image",
            "on": "nothing", "folds": 0, "score": None, "curve": [],
        },
        warnings=(
            "A class has one different image to train on: nothing was chosen, and the "
            "probabilities are not calibrated.",
        ),
        times_s={"choose": 0.0, "final": seconds, "fit": seconds},
    )  # fmt: skip


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
