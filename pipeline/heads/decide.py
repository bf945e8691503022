"""From probabilities to decisions: offsets per class, and prediction sets.

Both are set on out-of-fold probabilities, of images that the scorer was not trained on, and kept
in the head. Folds respect groups, so what they promise is for images of new groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HeadError, setting
from .costs import asked_costs

TINY = 1e-300
ROUNDS = 5


@dataclass(frozen=True)
class Rule:
    """A wanted decision rule: `kind` recall, precision or cost; its value; the class meant."""

    kind: str
    value: float = 0.0
    target: int = -1


def parse_rule(text: str, class_names: Sequence[str], *, has_costs: bool) -> Rule | None:
    """Read THRESHOLD; None where it is empty.

    Raises
    ------
    HeadError
        It is not ``recall:X``, ``precision:X`` (with ``:CLASS``) or ``cost``, or needs what is
        not there: a class's name with more than two classes, COST.
    """
    if not text:
        return None
    example = "THRESHOLD=recall:0.95"
    kind, _, rest = text.partition(":")
    if kind == "cost" and not rest:
        if not has_costs:
            raise HeadError(
                "THRESHOLD=cost without COST.",
                expected="the costs of the confusions",
                todo="add COST=costs.csv",
            )
        return Rule("cost")
    number, _, name = rest.partition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in ("recall", "precision") or not 0 < value <= 1:
        raise HeadError(
            f"THRESHOLD={text} is not a decision rule.",
            expected="recall:X or precision:X with X above 0 and up to 1, or cost",
            todo=f"for instance {example}",
        )
    if not name and len(class_names) > 2:
        raise HeadError(
            f"THRESHOLD={text} with {len(class_names)} classes does not say which class.",
            expected=f"one of {', '.join(class_names[:20])}",
            todo=setting("THRESHOLD", f"{text}:{class_names[-1]}"),
        )
    if name and name not in class_names:
        raise HeadError(
            f"THRESHOLD={text}: there is no class {name}.",
            expected=f"one of {', '.join(class_names[:20])}",
        )
    return Rule(kind, value, list(class_names).index(name) if name else len(class_names) - 1)


def check_decision(settings: Any, class_names: Sequence[str]) -> None:
    """Refuse a THRESHOLD or COST that does not fit the classes, before any work.

    Parameters
    ----------
    settings : settings of a stage
        Those without ``threshold`` and ``cost`` fit.
    class_names : sequence of str

    Raises
    ------
    HeadError
        As :func:`parse_rule` and :func:`cnn_codes.heads.costs.read_costs`.
    """
    costs = asked_costs(getattr(settings, "cost", ""), class_names)
    parse_rule(getattr(settings, "threshold", ""), class_names, has_costs=costs is not None)


def decide(
    probabilities: NDArray[np.float64], offsets: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Class of the largest ``log(probability) + offset``, the first of equals, (N,)."""
    values = probabilities
    if offsets is not None and offsets.any():
        values = np.log(np.maximum(probabilities, TINY)) + offsets
    best: NDArray[np.int64] = values.argmax(axis=1)
    return best


def choose_offsets(
    rule: Rule,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.integer[Any]],
    costs: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Find the offsets that reach what is wanted on out-of-fold probabilities.

    Parameters
    ----------
    rule : Rule
        ``recall``: the least offset of the class at which so many of its images are called it.
        ``precision``: the offset that calls most images it, of those at which so many of them
        are. ``cost``: offsets of least mean cost, one class at a time until none improves.
    probabilities : float64 (N, K)
    labels : integer (N,)
    costs : float64 (K, K) or None

    Returns
    -------
    offsets : float64 (K,)
    reached : dict
        ``recall`` and ``precision`` of the class, or ``cost`` and ``cost_before``, out of fold.
    """
    logs = np.log(np.maximum(probabilities, TINY))
    offsets = np.zeros(logs.shape[1])
    if rule.kind == "cost":
        assert costs is not None
        before = float(costs[labels, logs.argmax(axis=1)].mean())
        least = before
        for _ in range(ROUNDS):
            start = least
            for k in range(len(offsets)):
                offsets[k], least = _cheapest(logs, labels, offsets, k, costs, least)
            if least >= start:
                break
        return offsets, {"cost": least, "cost_before": before}
    others = logs.copy()
    others[:, rule.target] = -np.inf
    needed = others.max(axis=1) - logs[:, rule.target]  # the offset from which it is called so
    positive = labels == rule.target
    n_positive = int(positive.sum())
    if n_positive == 0:
        raise HeadError("The class of THRESHOLD has no image.", expected="at least one")
    if rule.kind == "recall":
        count = math.ceil(rule.value * n_positive - 1e-9)
        offset = float(np.sort(needed[positive])[count - 1])
    else:
        order = np.argsort(needed, kind="stable")
        hits = np.cumsum(positive[order])
        precision = hits / np.arange(1, len(order) + 1)
        whole = np.append(np.diff(needed[order]) > 0, True)  # equal ones are called together
        able = np.flatnonzero(whole & (precision >= rule.value))
        at = able[-1] if len(able) else np.flatnonzero(whole)[precision[whole].argmax()]
        offset = float(needed[order[at]])
    offset += 1e-9 * max(1.0, abs(offset))
    offsets[rule.target] = offset
    called = needed < offset
    return offsets, {
        "recall": float(called[positive].mean()),
        "precision": float(positive[called].mean()) if called.any() else 0.0,
    }


def _cheapest(
    logs: NDArray[np.float64],
    labels: NDArray[np.integer[Any]],
    offsets: NDArray[np.float64],
    k: int,
    costs: NDArray[np.float64],
    least: float,
) -> tuple[float, float]:
    """Best offset of one class, the others given, and the mean cost with it."""
    values = logs + offsets
    values[:, k] = -np.inf
    other = values.argmax(axis=1)
    needed = values.max(axis=1) - logs[:, k]
    change = costs[labels, k] - costs[labels, other]  # where it is called k instead
    order = np.argsort(needed, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(change[order])])
    edges = np.concatenate([[needed[order[0]] - 1], needed[order], [needed[order[-1]] + 1]])
    open_ = np.diff(edges) > 1e-12  # an offset can lie between these two
    total[~open_] = np.inf
    at = int(total.argmin())
    found = float(costs[labels, other].mean() + total[at] / len(labels))
    if found >= least - 1e-12:
        return float(offsets[k]), least
    return float((edges[at] + edges[at + 1]) / 2), found


def conformal(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer[Any]], level: float
) -> dict[str, Any]:
    """Thresholds of prediction sets that hold the true class in a share `level` of cases.

    A class is in the set where its probability is at least the threshold. The threshold is the
    n + 1-corrected quantile of the true class's out-of-fold probabilities (split conformal, Vovk
    et al. 2005; Sadinle, Lei and Wasserman 2019, also for each class by itself; out-of-fold
    scores in place of a split: Vovk 2015).

    Returns
    -------
    dict
        ``level``; ``threshold`` (marginal); ``class_thresholds`` (K: class-conditional; 0, so
        that the class is always in the set, where it has too few images for the level).
    """
    true = probabilities[np.arange(len(labels)), labels]

    def lowest(values: NDArray[np.float64]) -> float:
        # The k-th smallest, k = floor((n + 1) (1 - level)): at least `level` lie at or above it.
        k = math.floor((len(values) + 1) * (1 - level) + 1e-9)
        return float(np.sort(values)[k - 1]) if k >= 1 else 0.0

    return {
        "level": level,
        "threshold": lowest(true),
        "class_thresholds": [lowest(true[labels == k]) for k in range(probabilities.shape[1])],
    }


def prediction_sets(
    probabilities: NDArray[np.float64], sets: Any, *, conditional: bool = False
) -> NDArray[np.bool_]:
    """Which classes are in the set of each image, (N, K); the most probable class always is."""
    limits = np.asarray(sets["class_thresholds"] if conditional else sets["threshold"])
    inside: NDArray[np.bool_] = probabilities >= limits
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside
