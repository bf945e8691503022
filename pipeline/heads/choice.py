"""The setting of a head, chosen on held-out examples: the grids of a method, and of its views."""

from __future__ import annotations

from dataclasses import dataclass

import joblib
import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from ..settings import HeadSettings
from .decide import Rule
from .examples import Examples
from .folds import cut_folds
from .grids import around, axes_of
from .linear import LINEAR, searched_folds
from .problem import Problem
from .search import Search, search
from .trials import pick

UNWEIGHTED = ("centroid", "knn")
SLOW = (*LINEAR, "rbf")  # searched on one fold where the problem is large
RBF_MOST_EXAMPLES = 6000  # a kernel of all pairs; beyond, trying all views takes hours


@dataclass(frozen=True, eq=False)
class Fitting:
    """One head that is to be chosen and fitted.

    Attributes
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    train : Examples
        What it is fitted to.
    settings : HeadSettings
        How.
    names : tuple of str
        K class names.
    seed : int
        Of the folds.
    progress : Progress
        Told of each fold.
    costs : float64 (K, K) or None
        COST, as it was read.
    rule : Rule or None
        THRESHOLD, as it was read.
    """

    method: str
    train: Examples
    settings: HeadSettings
    names: tuple[str, ...]
    seed: int
    progress: Progress
    costs: NDArray[np.float64] | None
    rule: Rule | None

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.names)

    @property
    def jobs(self) -> int:
        """Threads."""
        return self.settings.jobs or joblib.cpu_count()

    @property
    def balanced(self) -> bool:
        """Whether all classes weigh alike."""
        return self.settings.class_weight == "balanced" and self.method not in UNWEIGHTED


def choose(fitting: Fitting, val: Examples | None) -> tuple[Search, str, list[str]]:
    """Search the method's grid for each way to use the views: the best, its way, warnings.

    Parameters
    ----------
    fitting : Fitting
        The head.
    val : Examples or None
        What the setting is chosen on; None: cross-validation on its training examples.
    """
    method, train, settings = fitting.method, fitting.train, fitting.settings
    notes: list[str] = []
    if val is None:
        folds, notes = cut_folds(
            train.labels,
            train.groups,
            folds=settings.folds,
            seed=fitting.seed,
            class_names=fitting.names,
        )
    else:
        folds = [(np.arange(train.n_images), np.arange(val.n_images))]
    if settings.class_weight == "balanced" and not fitting.balanced:
        notes.append(f"Class weights have no effect on {method}.")
    ways = _ways(method, train, settings, notes)
    if method in SLOW:
        n_examples = train.n_images * (train.n_views if "all" in ways else 1)
        folds = searched_folds(
            folds, n_examples=n_examples, code_dim=train.code_dim, n_classes=fitting.n_classes
        )
    found: list[tuple[Search, str]] = []
    for way in ways:
        problem = Problem(
            method=method,
            codes=train.codes,
            labels=train.labels,
            held_codes=train.codes if val is None else val.codes,
            held_labels=train.labels if val is None else val.labels,
            folds=folds,
            n_classes=fitting.n_classes,
            balanced=fitting.balanced,
            views=way,
            metric=settings.metric,
            costs=fitting.costs,
            by_cost=fitting.rule is not None and fitting.rule.kind == "cost",
        )
        per_image = 1 if way == "mean" else train.n_views
        n_train = max(len(rows) for rows, _ in folds) * per_image
        axes = axes_of(method, n_train=n_train, code_dim=train.code_dim)
        if found:  # 'all' after 'mean': several times the examples, and a best not far off
            axes = around(axes, found[0][0].best)
        found.append((search(problem, axes, jobs=fitting.jobs, progress=fitting.progress), way))
    searches = [one for one, _ in found]
    at = pick([one.log_loss for one in searches], [one.merit for one in searches])
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
