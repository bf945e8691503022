"""Tests of every pair of methods on one test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.bootstrap import figure_intervals, interval, simultaneous
from ..results.measures import ALPHA, Measure, other_measures
from ..results.metrics import CLIP
from ..results.predictions import Predictions
from ..results.resampling import resampled, resamples
from .flips import group_sums, grouped_interval, sign_flip
from .marks import ACCURACY, adjust
from .paired import (
    Discordance,
    difference_interval,
    discordance,
    mcnemar,
    rate_limit,
    required_images,
    split_variance,
)
from .seeds import (
    Sampled,
    Seeded,
    figure_difference,
    rescaled_seeds,
    seeded_accuracy,
    seeded_difference,
)

ONE_POINT = 0.01


@dataclass(frozen=True, eq=False)
class _Method:
    """One method on the test images.

    Attributes
    ----------
    hits : bool (S, N)
        Of each seed.
    figures : dict of str to Sampled
        Values, and values on the resampled sets.
    """

    seeds: Sequence[Predictions]
    hits: NDArray[np.bool_]
    figures: Mapping[str, Sampled]
    seed: int

    def value(self, key: str) -> float:
        """Mean of a figure over the seeds."""
        return float(self.figures[key].values.mean())

    def samples(self, key: str) -> NDArray[np.float64]:
        """Resampled means (B,) of a figure, over images and seeds."""
        each = self.figures[key].samples
        weights = rescaled_seeds(each.shape[1], len(each), seed=self.seed)  # (B, S)
        found: NDArray[np.float64] = (each * weights).sum(axis=1)
        return found


def judge_pairs(
    found: Sequence[Sequence[Predictions]],
    *,
    measure: Measure = ACCURACY,
    costs: NDArray[np.float64] | None = None,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test every pair on one test split.

    By accuracy, two methods of one seed each are compared by the exact McNemar test; with
    groups, by the exact sign-flip test of the groups' differences. Where one of the two was run
    with several seeds, and by any other figure, the test is a bootstrap over images (or groups)
    and seeds. Of figures that are means over images, p is at least that of the sign-flip test.

    Parameters
    ----------
    found : sequence of sequence of Predictions
        Of each method (outer), each seed (inner): the same images in the same order.
    measure : Measure
        The figure that methods are compared by.
    costs : float64 (K, K), optional
        For ``cost``.
    groups : (N,), optional
        The group of each image: images of one group are not independent.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        One per pair: ``a`` and ``b`` (indices), ``test`` (``mcnemar``, ``sign_flip``,
        ``bootstrap`` or ``seeds``), ``n_test``, ``n_groups`` (or None), ``n_seeds`` (of a, of b),
        ``only_a`` and ``only_b`` (images, means over the seeds), ``difference`` (a less b, or b
        less a of a figure whose lower values are better: positive where a is better) with
        ``ci95``, ``p``, ``p_holm`` and ``alpha`` (the level that Holm's procedure held p to),
        ``at_most`` (how much worse a, and b, may be: one-sided 95 % limits, which hold together
        for the comparisons of one method with all others), ``seed_share`` (of the variance, or
        None), ``images_for_one_point`` (power .8 at level ``alpha``, for the upper limit of the
        rate of discordant images; None but for accuracy), and the intervals of the differences of
        :func:`~cnn_codes.results.measures.other_measures` (``auroc_ci95`` and so on, a less b; all
        of them hold together with 95 %; None where undefined).
    """
    first = found[0][0]
    counts = resamples(
        len(first.labels), groups=groups, n_classes=len(first.class_names), seed=seed
    )
    n_units = len(first.labels) if groups is None else len(np.unique(groups))
    methods = [_method(seeds, counts, costs, seed + at) for at, seeds in enumerate(found)]
    level = 1 - 2 * ALPHA / max(1, len(methods) - 1)  # of two-sided intervals, for one-sided limits
    test = _Test(counts, groups, level, seed)
    pairs = []
    for a, b in combinations(range(len(methods)), 2):
        pair = _counted(methods[a].hits, methods[b].hits, groups)
        if measure is ACCURACY:
            pair |= test.accuracies(methods[a].hits, methods[b].hits)
        else:
            pair |= test.figures(methods[a], methods[b], measure, costs)
        pairs.append({"a": a, "b": b} | pair)
    adjust(pairs)
    for pair in pairs:
        limit, design = pair.pop("rate_limit", None), pair.pop("design", 1.0)
        known = limit is not None
        pair["images_for_one_point"] = _needed(limit, pair["alpha"], design) if known else None
    ends = _other_figures(methods, pairs, measure, n_units)
    return [pair | more for pair, more in zip(pairs, ends, strict=True)]


def method_intervals(
    found: Sequence[Sequence[Predictions]],
    *,
    costs: NDArray[np.float64] | None = None,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> list[dict[str, list[float] | None]]:
    """95 % confidence interval of every figure of every method, over images (or groups) and seeds.

    Parameters
    ----------
    found, costs, groups, seed
        As :func:`judge_pairs`.

    Returns
    -------
    list of dict
        One per method, by the names of :data:`~cnn_codes.results.resampling.FIGURES`, and ``cost``
        with `costs`.
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
            ends = figure_intervals(
                one.labels, one.probabilities, predicted=one.predicted, costs=costs,
                groups=groups, seed=seed,
            )  # fmt: skip
        else:
            method = _method(seeds, counts, costs, seed + at)
            ends = {
                key: interval(key, method.samples(key), n_units=n_units) for key in method.figures
            }
            ends["accuracy"] = seeded_accuracy(method.hits, counts, groups=groups)
        out.append({key: list(pair) if pair else None for key, pair in ends.items()})
    return out


def _method(
    seeds: Sequence[Predictions],
    counts: NDArray[np.int32],
    costs: NDArray[np.float64] | None,
    seed: int,
) -> _Method:
    once = np.ones((1, counts.shape[1]), np.int32)
    each, plain = (
        [
            resampled(one.labels, one.probabilities, some, predicted=one.predicted, costs=costs)
            for one in seeds
        ]
        for some in (counts, once)
    )
    return _Method(
        seeds=seeds,
        hits=np.stack([one.predicted == one.labels for one in seeds]),
        figures={
            key: Sampled(
                np.array([one[key][0] for one in plain]),
                np.stack([one[key] for one in each], axis=1),
            )
            for key in plain[0]
        },
        seed=seed,
    )


def _counted(
    a: NDArray[np.bool_], b: NDArray[np.bool_], groups: NDArray[np.generic] | None
) -> dict[str, Any]:
    """Count the images, groups, seeds and discordant images of hits (S_a, N) and (S_b, N)."""
    each = [discordance(one, other) for one in a for other in b]
    whole = len(each) == 1
    out: dict[str, Any] = {
        "n_test": each[0].n,
        "n_groups": None if groups is None else len(np.unique(groups)),
        "n_seeds": [len(a), len(b)],
        "seed_share": None,
    }
    for key in ("only_a", "only_b"):
        counts = [getattr(one, key) for one in each]
        out[key] = counts[0] if whole else float(np.mean(counts))
    return out


@dataclass(frozen=True, eq=False)
class _Test:
    """How pairs are tested: on which resampled sets, at which level.

    Attributes
    ----------
    counts : int32 (B, N)
        Resampled images or groups.
    groups : (N,) or None
        The group of each image.
    level : float
        Coverage of the intervals whose limits say how much worse a method may be.
    seed : int
        Of the bootstrap.
    """

    counts: NDArray[np.int32]
    groups: NDArray[np.generic] | None
    level: float
    seed: int

    def accuracies(self, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
        """Test one pair by its hits (S_a, N) and (S_b, N)."""
        each = [discordance(one, other) for one in a for other in b]
        only = [float(np.mean([getattr(one, key) for one in each])) for key in ("only_a", "only_b")]
        mean = Discordance(round(only[0]), round(only[1]), each[0].n)
        out: dict[str, Any] = {"rate_limit": rate_limit(mean), "design": 1.0}
        if len(each) > 1:
            tested = seeded_difference(a, b, self.counts, groups=self.groups, seed=self.seed)
            out |= {"test": "seeds", "difference": tested.difference, "p": tested.p}
            out |= {"seed_share": tested.seed_share, "design": _design(tested, mean)}
            ends, wide = tested.interval(), tested.interval(self.level)
        elif self.groups is None:
            out |= {"test": "mcnemar", "difference": mean.difference}
            out["p"] = mcnemar(mean.only_a, mean.only_b)
            ends, wide = difference_interval(mean), difference_interval(mean, level=self.level)
        else:
            sums, sizes = group_sums(a[0].astype(np.int64) - b[0], self.groups)
            out |= {"test": "sign_flip", "difference": mean.difference, "p": sign_flip(sums)}
            ends, wide = (
                grouped_interval(mean, sums, sizes, level=one, seed=self.seed)
                for one in (0.95, self.level)
            )
            independent = difference_interval(mean)
            out["design"] = max(1.0, ((ends[1] - ends[0]) / (independent[1] - independent[0])) ** 2)
        out["ci95"] = list(ends)
        out["at_most"] = {"a": max(0.0, -wide[0]), "b": max(0.0, wide[1])}
        return out

    def figures(
        self, a: _Method, b: _Method, measure: Measure, costs: NDArray[np.float64] | None
    ) -> dict[str, Any]:
        """Test one pair by a figure other than accuracy."""
        first, second = (a, b) if measure.sign > 0 else (b, a)
        n_units = a.hits.shape[1] if self.groups is None else len(np.unique(self.groups))
        key, several = measure.key, len(a.hits) * len(b.hits) > 1
        tested = figure_difference(
            first.figures[key],
            second.figures[key],
            n_units=n_units,
            bound=measure.bound,
            seed=self.seed,
        )
        parts = [_contributions(one, measure, costs) for one in (first, second)]
        p = tested.p
        if parts[0] is not None and parts[1] is not None:
            p = max(p, sign_flip(group_sums(parts[0] - parts[1], self.groups)[0], seed=self.seed))
        wide = tested.interval(self.level)
        return {
            "test": "seeds" if several else "bootstrap",
            "difference": tested.difference,
            "p": p,
            "ci95": list(tested.interval()),
            "at_most": {"a": max(0.0, -wide[0]), "b": max(0.0, wide[1])},
            "seed_share": tested.seed_share if several else None,
        }


def _contributions(
    method: _Method, measure: Measure, costs: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """Contribution (N,) of each image to a figure, the mean over the seeds; None of no mean."""
    labels = method.seeds[0].labels
    if measure.key == "cost":
        assert costs is not None
        each = [costs[labels, one.predicted] for one in method.seeds]
    elif measure.key == "log_loss":
        true = [one.probabilities[np.arange(len(labels)), labels] for one in method.seeds]
        each = [-np.log(np.clip(one, CLIP, 1 - CLIP)) for one in true]
    elif measure.key == "balanced_accuracy":
        each = list(method.hits / np.bincount(labels)[labels])
    else:
        return None
    found: NDArray[np.float64] = np.mean(each, axis=0)
    return found


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
    methods: Sequence[_Method],
    pairs: Sequence[Mapping[str, Any]],
    measure: Measure,
    n_units: int,
) -> list[dict[str, list[float] | None]]:
    """Intervals of the differences of other figures, which hold together over pairs and figures."""
    if not pairs:
        return []
    differences, samples = {}, {}
    keys = [one.key for one in other_measures(measure.key)]
    for at, pair in enumerate(pairs):
        a, b = methods[pair["a"]], methods[pair["b"]]
        for key in keys:
            differences[f"{at} {key}"] = a.value(key) - b.value(key)
            samples[f"{at} {key}"] = a.samples(key) - b.samples(key)
    found = simultaneous(differences, samples, n_units=n_units)
    out = []
    for at in range(len(pairs)):
        ends = {key: found[f"{at} {key}"] for key in keys}
        out.append({f"{key}_ci95": list(one) if one else None for key, one in ends.items()})
    return out
