"""Tests of every pair of methods, and which methods do not differ significantly from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ResultError
from ..results.predictions import Predictions
from .bootstrap import figure_intervals, interval, resampled, resamples, simultaneous
from .flips import flip_interval, group_sums, sign_flip
from .paired import (
    ALPHA,
    Discordance,
    difference_interval,
    discordance,
    holm,
    holm_levels,
    mcnemar,
    rate_limit,
    required_images,
    split_variance,
)
from .repeated import FEWEST_SPLITS, corrected_t, correlated_posterior, signed_rank
from .seeds import Seeded, rescaled_seeds, seeded_accuracy, seeded_difference

__all__ = [
    "OTHER_FIGURES",
    "aligned_predictions",
    "best_of",
    "judge_pairs",
    "judge_splits",
    "least_variances",
    "mark",
    "method_intervals",
]

ONE_POINT = 0.01
OTHER_FIGURES = ("macro_f1", "auroc", "log_loss")  # that a difference is looked for in too


def best_of(entries: Sequence[Mapping[str, Any]]) -> int:
    """Index of the most accurate entry; of equals, the one of the lowest log-loss."""
    ranks = [(-one["accuracy"], one["log_loss"], at) for at, one in enumerate(entries)]
    return min(ranks)[2]


def aligned_predictions(found: Sequence[Predictions]) -> list[Predictions]:
    """Reduce the predictions of several runs to the images that all have, in one order.

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
                todo="give the same command again: it repeats the runs that are out of date",
            )
    return out


@dataclass(frozen=True, eq=False)
class _Method:
    """One method on the test images: hits (S, N) of each seed, and its resampled figures (B,)."""

    hits: NDArray[np.bool_]
    figures: Mapping[str, float]
    samples: Mapping[str, NDArray[np.float64]]


def judge_pairs(
    found: Sequence[Sequence[Predictions]],
    *,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test every pair on one test split.

    Without groups, two methods of one seed each are compared by the exact McNemar test; with
    groups, by the exact sign-flip test of the groups' differences. Where one of the two was run
    with several seeds, the test is a bootstrap over seeds and images (or groups).

    Parameters
    ----------
    found : sequence of sequence of Predictions
        Of each method (outer), each seed (inner): the same images in the same order.
    groups : (N,), optional
        The group of each image: images of one group are not independent.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        One per pair: ``a`` and ``b`` (indices), ``test`` (``mcnemar``, ``sign_flip`` or
        ``seeds``), ``n_test``, ``n_groups`` (or None), ``n_seeds`` (of a, of b), ``only_a`` and
        ``only_b`` (images, means over the seeds), ``difference`` (accuracy, a less b) with
        ``ci95``, ``p``, ``p_holm`` and ``alpha`` (the level that Holm's procedure held p to),
        ``at_most`` (how much worse a, and b, may be: one-sided 95 % limits, which hold together
        for the comparisons of one method with all others), ``seed_share`` (of the variance, or
        None), ``images_for_one_point`` (power .8 at level ``alpha``, for the upper limit of the
        rate of discordant images), and the intervals of the differences of
        :data:`OTHER_FIGURES` (``auroc_ci95`` and so on, a less b; all of them hold together with
        95 %; None where undefined).
    """
    first = found[0][0]
    counts = resamples(
        len(first.labels), groups=groups, n_classes=len(first.class_names), seed=seed
    )
    n_units = len(first.labels) if groups is None else len(np.unique(groups))
    methods = [_method(seeds, counts, seed + at) for at, seeds in enumerate(found)]
    level = 1 - 2 * ALPHA / max(1, len(methods) - 1)  # of two-sided intervals, for one-sided limits
    pairs = []
    for a, b in combinations(range(len(methods)), 2):
        pair = _tested(methods[a].hits, methods[b].hits, counts, groups, level, seed)
        pairs.append({"a": a, "b": b} | pair)
    _adjust(pairs)
    for pair in pairs:
        limit = pair.pop("rate_limit")
        pair["images_for_one_point"] = _needed(limit, pair["alpha"], pair.pop("design"))
    ends = _other_figures(methods, pairs, n_units)
    return [pair | more for pair, more in zip(pairs, ends, strict=True)]


def method_intervals(
    found: Sequence[Sequence[Predictions]],
    *,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> list[dict[str, list[float] | None]]:
    """95 % confidence interval of every figure of every method, over images (or groups) and seeds.

    Parameters
    ----------
    found, groups, seed
        As :func:`judge_pairs`.

    Returns
    -------
    list of dict
        One per method, by the names of :data:`~cnn_codes.compare.bootstrap.FIGURES`.
    """
    first = found[0][0]
    n_units = len(first.labels) if groups is None else len(np.unique(groups))
    counts = resamples(
        len(first.labels), groups=groups, n_classes=len(first.class_names), seed=seed
    )
    out = []
    for at, seeds in enumerate(found):
        ends: dict[str, tuple[float, float] | None]
        if len(seeds) == 1:
            one = seeds[0]
            ends = figure_intervals(one.labels, one.probabilities, groups=groups, seed=seed)
        else:
            weights = rescaled_seeds(len(seeds), len(counts), seed=seed + at)
            each = [resampled(one.labels, one.probabilities, counts) for one in seeds]
            ends = {
                key: interval(
                    (np.stack([one[key] for one in each], axis=1) * weights).sum(axis=1),
                    n_units=n_units,
                )
                for key in each[0]
            }
            hits = np.stack([one.predicted == one.labels for one in seeds])
            ends["accuracy"] = seeded_accuracy(hits, counts, groups=groups)
        out.append({key: list(pair) if pair else None for key, pair in ends.items()})
    return out


def _method(seeds: Sequence[Predictions], counts: NDArray[np.int32], seed: int) -> _Method:
    each = [resampled(one.labels, one.probabilities, counts) for one in seeds]
    once = np.ones((1, counts.shape[1]), np.int32)
    plain = [resampled(one.labels, one.probabilities, once) for one in seeds]
    weights = rescaled_seeds(len(seeds), len(counts), seed=seed)  # (B, S)
    return _Method(
        hits=np.stack([one.predicted == one.labels for one in seeds]),
        figures={key: float(np.mean([one[key][0] for one in plain])) for key in OTHER_FIGURES},
        samples={
            key: (np.stack([one[key] for one in each], axis=1) * weights).sum(axis=1)
            for key in OTHER_FIGURES
        },
    )


def _tested(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    counts: NDArray[np.int32],
    groups: NDArray[np.generic] | None,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """Test one pair of hits (S_a, N) and (S_b, N)."""
    each = [discordance(one, other) for one in a for other in b]
    only = [float(np.mean([getattr(one, key) for one in each])) for key in ("only_a", "only_b")]
    mean = Discordance(round(only[0]), round(only[1]), each[0].n)
    whole = len(each) == 1
    out: dict[str, Any] = {
        "n_test": mean.n,
        "n_groups": None if groups is None else len(np.unique(groups)),
        "n_seeds": [len(a), len(b)],
        "only_a": each[0].only_a if whole else only[0],
        "only_b": each[0].only_b if whole else only[1],
        "seed_share": None,
        "rate_limit": rate_limit(mean),
        "design": 1.0,
    }
    if not whole:
        tested = seeded_difference(a, b, counts, groups=groups, seed=seed)
        out |= {"test": "seeds", "difference": tested.difference, "p": tested.p}
        out |= {"seed_share": tested.seed_share, "design": _design(tested, mean)}
        ends, wide = tested.interval(), tested.interval(level)
    elif groups is None:
        out |= {"test": "mcnemar", "difference": mean.difference}
        out["p"] = mcnemar(mean.only_a, mean.only_b)
        ends, wide = difference_interval(mean), difference_interval(mean, level=level)
    else:
        sums, sizes = group_sums(a[0].astype(np.int64) - b[0], groups)
        out |= {"test": "sign_flip", "difference": mean.difference, "p": sign_flip(sums)}
        ends, wide = (_grouped(mean, sums, sizes, one, seed) for one in (0.95, level))
        independent = difference_interval(mean)
        out["design"] = max(1.0, ((ends[1] - ends[0]) / (independent[1] - independent[0])) ** 2)
    out["ci95"] = list(ends)
    out["at_most"] = {"a": max(0.0, -wide[0]), "b": max(0.0, wide[1])}
    return out


def _grouped(
    found: Discordance,
    sums: NDArray[np.generic],
    sizes: NDArray[np.int64],
    level: float,
    seed: int,
) -> tuple[float, float]:
    """Interval over groups; never shorter than that for independent images."""
    low, high = flip_interval(sums, sizes, level=level, seed=seed)
    plain = difference_interval(found, level=level)
    return min(low, plain[0]), max(high, plain[1])


def _design(found: Seeded, mean: Discordance) -> float:
    """How many times the variance of independent images that of the images in fact is."""
    images = found.error**2 * (1 - found.seed_share)
    return max(1.0, images / split_variance(mean))


def _needed(rate: float, alpha: float, design: float) -> int:
    needed = required_images(rate, ONE_POINT, alpha=alpha)
    if design <= 1:
        return needed
    step: int = 10 ** max(0, len(str(int(needed * design))) - 2)
    return int(-(-needed * design // step)) * step


def _other_figures(
    methods: Sequence[_Method], pairs: Sequence[Mapping[str, Any]], n_units: int
) -> list[dict[str, list[float] | None]]:
    """Intervals of the differences of other figures, which hold together over pairs and figures."""
    if not pairs:
        return []
    differences, samples = {}, {}
    for at, pair in enumerate(pairs):
        a, b = methods[pair["a"]], methods[pair["b"]]
        for key in OTHER_FIGURES:
            differences[f"{at} {key}"] = a.figures[key] - b.figures[key]
            samples[f"{at} {key}"] = a.samples[key] - b.samples[key]
    found = simultaneous(differences, samples, n_units=n_units)
    out = []
    for at in range(len(pairs)):
        ends = {key: found[f"{at} {key}"] for key in OTHER_FIGURES}
        out.append({f"{key}_ci95": list(one) if one else None for key, one in ends.items()})
    return out


def judge_splits(
    values: Sequence[Sequence[float]],
    *,
    n_train: int,
    n_test: int,
    rope: float,
    least: Mapping[tuple[int, int], float] | None = None,
) -> list[dict[str, Any]]:
    """Test every pair over the same random splits.

    Parameters
    ----------
    values : sequence of sequence of float
        Accuracy of each method (outer) on each split (inner).
    n_train, n_test : int
        Images of a split.
    rope : float
        Region of practical equivalence: differences of accuracy of at most this size count as
        none.
    least : mapping of (int, int) to float, optional
        Least variance of the differences of each pair, from :func:`least_variances`.

    Returns
    -------
    list of dict
        One per pair: ``a``, ``b``, ``test`` (``corrected_t``), ``n_test``, ``difference`` (mean, a
        less b), ``ci95``, ``t``, ``df``, ``p``, ``p_holm`` and ``alpha`` of the corrected
        resampled t-test, ``floored`` (whether the binomial variance was the larger one),
        ``at_most`` as in :func:`judge_pairs`; ``posterior`` (correlated t-test) and
        ``signed_rank``, each with the probabilities that a is ``worse``, practically ``equal``,
        ``better``. With fewer than 3 splits there is no test: ``test`` is ``none``, and all of
        this but the difference is None.
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=np.float64)  # (M, R)
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(range(len(table)), 2):
        d = table[a] - table[b]
        pair: dict[str, Any] = {"a": a, "b": b, "n_test": n_test, "difference": float(d.mean())}
        if len(d) < FEWEST_SPLITS:
            nothing = ("ci95", "t", "df", "p", "p_holm", "alpha", "floored", "at_most")
            pairs.append(
                pair
                | {"test": "none"}
                | dict.fromkeys((*nothing, "posterior", "signed_rank"), None)
            )
            continue
        floor = None if least is None else least[a, b]
        test = corrected_t(d, n_train=n_train, n_test=n_test, least_variance=floor)
        posterior = correlated_posterior(
            d, n_train=n_train, n_test=n_test, rope=rope, least_variance=floor
        )
        level = 1 - ALPHA / max(1, len(table) - 1)
        upper = test.limit(level)
        lower = 2 * test.mean - upper
        pairs.append(
            pair
            | {
                "test": "corrected_t",
                "ci95": list(test.ci95),
                "t": test.t,
                "df": test.df,
                "p": test.p,
                "floored": test.floored,
                "at_most": {"a": max(0.0, -lower), "b": max(0.0, upper)},
                "posterior": vars(posterior),
                "signed_rank": vars(signed_rank(d, rope=rope)),
            }
        )
    if pairs and pairs[0]["p"] is not None:
        _adjust(pairs)
    return pairs


def least_variances(
    found: Sequence[Sequence[Predictions]],
) -> dict[tuple[int, int], float]:
    """Mean binomial variance of a split, for each pair of methods.

    Parameters
    ----------
    found : sequence of sequence of Predictions
        Of each method (outer) on each split (inner), on the same test images of each split.
    """
    hits = [[one.predicted == one.labels for one in splits] for splits in found]
    return {
        (a, b): float(
            np.mean(
                [
                    split_variance(discordance(one, other))
                    for one, other in zip(hits[a], hits[b], strict=True)
                ]
            )
        )
        for a, b in combinations(range(len(found)), 2)
    }


def _adjust(pairs: Sequence[dict[str, Any]]) -> None:
    """Add Holm's adjusted p, and the level each p was held to."""
    p = [pair["p"] for pair in pairs]
    for pair, adjusted, level in zip(pairs, holm(p), holm_levels(p), strict=True):
        pair |= {"p_holm": adjusted, "alpha": level}


def mark(entries: Sequence[dict[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> int:
    """Mark the best entry (``best``) and those that do not differ significantly (``alike``).

    Where there was no test, no entry is marked as alike.

    Returns
    -------
    int
        Index of the best.
    """
    best = best_of(entries)
    of_best = {
        pair["a"] + pair["b"] - best: pair["p_holm"]
        for pair in pairs
        if best in (pair["a"], pair["b"])
    }
    for at, entry in enumerate(entries):
        p = of_best.get(at)
        entry["best"] = at == best
        entry["alike"] = at != best and p is not None and p > ALPHA
    return best
