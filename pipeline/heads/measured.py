"""One head fitted and measured: on the split's own test images, or by nested cross-validation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..datasets.remaining import check_test
from ..results.figures import figures_of
from ..results.predictions import Predictions
from ..settings import HeadSettings
from .costs import asked_costs
from .examples import Codes as Array
from .examples import take
from .rows import TEST, TRAIN, VAL, Rows

if TYPE_CHECKING:
    from .model import Head


@dataclass(frozen=True, eq=False)
class Task:
    """One fit: the method, the rows with their splits, the seed, and what its name adds."""

    method: str
    rows: Rows
    seed: int
    tag: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """A head, and what it was measured on.

    Attributes
    ----------
    used : dict of str to bool (N,)
        Rows of each split.
    fit_s, predict_s : float
        Seconds of the fit, and of the predictions of test.
    """

    head: Head
    used: dict[str, NDArray[np.bool_]]
    metrics: dict[str, Any]
    predictions: Predictions
    fit_s: float
    predict_s: float
    warnings: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def measured(context: Context, matrix: Array, settings: HeadSettings, task: Task) -> Measured:
    """Fit a head, and measure it as TEST says."""
    return (_by_folds if settings.outer[0] else _on_split)(context, matrix, settings, task)


def _on_split(context: Context, matrix: Array, settings: HeadSettings, task: Task) -> Measured:
    """Fit a head on train, and measure it on the other images."""
    from . import Examples, fit_head  # and with it scikit-learn

    began = time.perf_counter()
    manifest, rows = context.manifest, task.rows
    given_val = manifest.val_from == "data" and bool(np.any(rows.split == VAL))
    used = {
        "train": rows.split == TRAIN if given_val else (rows.split == TRAIN) | (rows.split == VAL),
        "val": (rows.split == VAL) & given_val,
        "test": rows.split == TEST,
    }
    leaks, warnings = rows.leaks(), []
    if leaks.any():
        if context.data.leaks == "drop":
            used["test"] &= ~leaks
            check_test(used["test"], command=context.command)
        what = "left out of" if context.data.leaks == "drop" else "kept in"
        first = ", ".join(rows.paths[i] for i in np.flatnonzero(leaks)[:5].tolist())
        warnings.append(
            f"{leaks.sum()} test images share bytes or group with training images (leaks) and are "
            f"{what} the test figure: {first}{', ...' if leaks.sum() > 5 else ''}."
        )

    def examples(mask: NDArray[np.bool_]) -> Examples:
        return Examples(take(matrix, mask), rows.labels[mask], rows.groups[mask])

    head = fit_head(
        task.method,
        examples(used["train"]),
        examples(used["val"]) if given_val else None,
        settings,
        n_classes=manifest.n_classes,
        seed=task.seed,
        class_names=manifest.class_names,
        progress=context.progress,
    )
    fit_s = time.perf_counter() - began
    costs = asked_costs(settings.cost, manifest.class_names)
    metrics, predict_s = {}, 0.0
    probabilities = np.empty((0, manifest.n_classes))
    decided = np.empty(0, np.int64)
    for split, mask in used.items():
        if not mask.any():
            continue
        start = time.perf_counter()
        probabilities = head.predict_proba(take(matrix, mask))  # (n, K)
        predict_s = time.perf_counter() - start
        decided = head.decide(probabilities)
        metrics[split] = _figures(context, costs, rows, mask, probabilities, decided)
    test = np.flatnonzero(used["test"])  # probabilities are those of the last split, test
    predictions = Predictions(
        tuple(rows.paths[i] for i in test.tolist()),
        rows.labels[test],
        probabilities,
        manifest.class_names,
        decided if head.output.offsets is not None else None,
        manifest.groups_at(rows.at[test]),
    )
    return Measured(head, used, metrics, predictions, fit_s, predict_s, tuple(warnings))


def _by_folds(context: Context, matrix: Array, settings: HeadSettings, task: Task) -> Measured:
    """Fit a head on all images; measure heads that were fitted without the fold of each image."""
    from . import Examples, fit_head
    from .nested import nested

    manifest, rows = context.manifest, task.rows
    every = Examples(matrix, rows.labels, rows.groups)
    folds, repeats = settings.outer
    shared: dict[str, Any] = {
        "n_classes": manifest.n_classes, "seed": task.seed, "class_names": manifest.class_names,
        "progress": context.progress,
    }  # fmt: skip
    began = time.perf_counter()
    head = fit_head(task.method, every, None, settings, **shared)
    fit_s = time.perf_counter() - began
    costs = asked_costs(settings.cost, manifest.class_names)
    found = nested(task.method, every, settings, folds=folds, repeats=repeats, **shared)
    each = [
        [
            _figures(context, costs, rows, part == fold, p[part == fold], called[part == fold])
            for fold in np.unique(part).tolist()
        ]
        for p, called, part in zip(found.probabilities, found.predicted, found.parts, strict=True)
    ]
    keys = [key for key, value in each[0][0].items() if isinstance(value, float)]
    whole = np.ones(len(rows.labels), np.bool_)
    predictions = Predictions(
        rows.paths,
        rows.labels,
        found.probabilities[0],
        manifest.class_names,
        found.predicted[0] if head.output.offsets is not None else None,
        manifest.groups_at(rows.at),
    )
    start = time.perf_counter()
    head.predict_proba(matrix)
    return Measured(
        head,
        {"train": whole, "test": whole},
        {"test": _figures(context, costs, rows, whole, found.probabilities[0], found.predicted[0])},
        predictions,
        fit_s,
        time.perf_counter() - start,
        found.warnings,
        {
            "cv": {
                "folds": len(each[0]),
                "repeats": repeats,
                "values": {key: [[one[key] for one in of] for of in each] for key in keys},
                "chosen": [{k: v for k, v in one.items() if k != "curve"} for one in found.chosen],
            }
        },
    )


def _figures(
    context: Context,
    costs: NDArray[np.float64] | None,
    rows: Rows,
    mask: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    decided: NDArray[np.int64],
) -> dict[str, Any]:
    """Measure predictions of the rows in a mask (N,)."""
    return figures_of(
        rows.labels[mask],
        probabilities,
        predicted=decided,
        costs=costs,
        weight=None if rows.weight is None else rows.weight[mask],
        groups=context.manifest.groups_at(rows.at[mask]),
        seed=context.seed,
    )
