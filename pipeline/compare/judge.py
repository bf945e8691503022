"""Every pair of methods judged, and which methods cannot be told from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ResultError
from ..results.predictions import Predictions
from .bootstrap import interval, resampled, resamples
from .paired import ALPHA, difference_interval, discordance, holm, mcnemar, required_images
from .repeated import corrected_t, correlated_posterior, signed_rank

__all__ = ["aligned_predictions", "best_of", "judge_pairs", "judge_splits", "mark"]

ONE_POINT = 0.01


def best_of(entries: Sequence[Mapping[str, Any]]) -> int:
    """Index of the most accurate entry; of equals, the one of the lowest log-loss."""
    ranks = [(-one["accuracy"], one["log_loss"], at) for at, one in enumerate(entries)]
    return min(ranks)[2]


def aligned_predictions(found: Sequence[Predictions]) -> list[Predictions]:
    """Bring the predictions of several runs to the images that all have, in one order.

    Raises
    ------
    ResultError
        They are of different classes, contradict each other's labels, or share no image.
    """
    first = found[0]
    shared = set(first.paths).intersection(*(one.paths for one in found[1:]))
    order = [path for path in first.paths if path in shared]
    if not order:
        raise ResultError("The runs share no test image.", expected="runs on the same split")
    out = []
    for one in found:
        at = {path: row for row, path in enumerate(one.paths)}
        rows = np.array([at[path] for path in order])
        out.append(
            Predictions(tuple(order), one.labels[rows], one.probabilities[rows], one.class_names)
        )
        same = out[-1].class_names == out[0].class_names
        if not same or not np.array_equal(out[-1].labels, out[0].labels):
            raise ResultError(
                "The runs disagree about classes or labels.",
                expected="runs on the same labels",
                todo="give the same command again: what is not current is run anew",
            )
    return out


def judge_pairs(found: Sequence[Predictions], *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge every pair on one split: exact McNemar, Holm over the pairs, paired bootstrap.

    Parameters
    ----------
    found : sequence of Predictions
        Of the same images in the same order; at least one.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        One a pair: ``a`` and ``b`` (indices), ``only_a`` and ``only_b`` (images), ``n_test``,
        ``difference`` (accuracy, a less b) with ``ci95`` (Bonett and Price), ``p`` and ``p_holm``,
        ``images_for_one_point`` (at power .8), ``macro_f1_ci95`` and ``auroc_ci95`` of the
        differences (bootstrap; None where undefined).
    """
    hits = [one.predicted == one.labels for one in found]
    counts = resamples(len(hits[0]), n_classes=len(found[0].class_names), seed=seed)
    drawn = [resampled(one, counts) for one in found] if len(found) > 1 else []
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(range(len(found)), 2):
        split = discordance(hits[a], hits[b])
        pairs.append(
            {
                "a": a,
                "b": b,
                "only_a": split.only_a,
                "only_b": split.only_b,
                "n_test": split.n,
                "difference": split.difference,
                "ci95": list(difference_interval(split)),
                "p": mcnemar(split.only_a, split.only_b),
                "images_for_one_point": required_images(split.rate, ONE_POINT),
                **{
                    f"{key}_ci95": _ends(interval(drawn[a][key] - drawn[b][key]))
                    for key in ("macro_f1", "auroc")
                },
            }
        )
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = p
    return pairs


def judge_splits(
    values: Sequence[Sequence[float]], *, n_train: int, n_test: int, rope: float
) -> list[dict[str, Any]]:
    """Judge every pair over the same random splits.

    Parameters
    ----------
    values : sequence of sequence of float
        Accuracy of each method (outer) on each split (inner), at least 2 splits.
    n_train, n_test : int
        Images a split.
    rope : float
        Differences of accuracy of at most this size count as none.

    Returns
    -------
    list of dict
        One a pair: ``a``, ``b``, ``difference`` (mean, a less b), ``ci95``, ``p`` and ``p_holm``
        of the corrected resampled t-test; ``posterior`` (correlated t-test) and ``signed_rank``,
        each with the probabilities that a is ``worse``, practically ``equal``, ``better``.
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=np.float64)  # (M, R)
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(range(len(table)), 2):
        d = table[a] - table[b]
        test = corrected_t(d, n_train=n_train, n_test=n_test)
        posterior = correlated_posterior(d, n_train=n_train, n_test=n_test, rope=rope)
        pairs.append(
            {
                "a": a,
                "b": b,
                "n_test": n_test,
                "difference": test.mean,
                "ci95": list(test.ci95),
                "t": test.t if math.isfinite(test.t) else None,
                "df": test.df,
                "p": test.p,
                "posterior": vars(posterior),
                "signed_rank": vars(signed_rank(d, rope=rope)),
            }
        )
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = p
    return pairs


def mark(entries: Sequence[dict[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> int:
    """Mark the best entry (``best``) and those not distinguishable from it (``alike``).

    Returns
    -------
    int
        Index of the best.
    """
    best = best_of(entries)
    behind = {
        pair["a"] + pair["b"] - best
        for pair in pairs
        if best in (pair["a"], pair["b"]) and pair["p_holm"] <= ALPHA
    }
    for at, entry in enumerate(entries):
        entry["best"] = at == best
        entry["alike"] = at != best and at not in behind
    return best


def _ends(ends: tuple[float, float] | None) -> list[float] | None:
    return list(ends) if ends else None
