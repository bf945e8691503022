"""A comparison in sentences; every word follows from the record's numbers.

Takes the comparison's record alone, so that a report can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..notation import chance, count, duration, p_equals, share
from ..results.measures import ALPHA, Measure, measure_of, other_measures
from .tables import binomial_error, ends_of

FEW_IMAGES = 1000  # below, nested cross-validation tells more than a split
TESTS = {
    "mcnemar": "exact McNemar",
    "sign_flip": "exact sign-flip test over groups",
    "bootstrap": "bootstrap over images",
    "seeds": "bootstrap over seeds and images",
    "corrected_t": "corrected resampled t-test",
}


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say what a comparison found; the first two sentences are the verdict."""
    found = _Found.of(record)
    said = [_first(found)]
    if len(found.entries) == 1:
        return said + _advice(record)
    if any(pair["p_holm"] is None for pair in found.of_best.values()):
        return [*said, _untested(record)]
    said.append(_verdict(found))
    if found.behind:
        said.append(_margins(found))
    if found.alike:
        said.append(_bounds(found))
    if found.alike and all(found.of_best[at].get("images_for_one_point") for at in found.alike):
        said.append(_needed(found))
    said += _seeds(found)
    if all(pair.get("posterior") for pair in found.of_best.values()):
        said += _posteriors(found)
    return said + _cost(found) + _other_figures(found) + _advice(record)


@dataclass(frozen=True, eq=False)
class _Found:
    """A comparison as its sentences need it.

    Attributes
    ----------
    names : list of str
        Of the entries.
    best : int
        The entry of the best figure.
    alike, behind : list of int
        The entries that are not, and that are, significantly different from it.
    of_best : dict of int to pair
        For each other entry, its pair with the best.
    """

    record: Mapping[str, Any]
    names: list[str]
    best: int
    alike: list[int]
    behind: list[int]
    of_best: Mapping[int, Mapping[str, Any]]
    measure: Measure

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> _Found:
        """Read a comparison's record."""
        entries, pairs = record["entries"], record["pairs"]
        best = next(at for at, one in enumerate(entries) if one["best"])
        of_best = {pair["a"] + pair["b"] - best: pair for pair in pairs if best in _ends(pair)}
        alike = [at for at, one in enumerate(entries) if one["alike"]]
        return cls(
            record=record,
            names=[label(one, record) for one in entries],
            best=best,
            alike=alike,
            behind=[at for at in of_best if at not in alike],
            of_best=of_best,
            measure=measure_of(record),
        )

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """One per method and network."""
        entries: Sequence[Mapping[str, Any]] = self.record["entries"]
        return entries

    def than_best(self, at: int) -> tuple[float, float, float]:
        """Give by how much the best is better than another entry, and the interval of that."""
        pair = self.of_best[at]
        low, high = pair["ci95"]
        if pair["a"] == self.best:
            return pair["difference"], low, high
        return -pair["difference"], -high, -low


def label(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Name an entry: its method, and its network where the comparison has several."""
    several = len({one["model"] for one in record["entries"]}) > 1
    return f"{entry['method']} on {entry['model']}" if several else str(entry["method"])


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def tests_made(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Name the tests of these pairs: ``exact McNemar``."""
    kinds = dict.fromkeys(pair.get("test", "mcnemar") for pair in pairs)
    found = [TESTS[kind] for kind in TESTS if kind in kinds]
    groups = {pair.get("n_groups") for pair in pairs} - {None}
    text = " and ".join(found)
    folds = {pair.get("n_folds") for pair in pairs} - {None}
    if folds:
        text += f" over {count(folds.pop())} folds"
    if not groups:
        return text
    return f"{text.replace('images', 'groups')}, {count(groups.pop())} groups"


def _ends(pair: Mapping[str, Any]) -> tuple[int, int]:
    return pair["a"], pair["b"]


def _first(found: _Found) -> str:
    record, entries, measure = found.record, found.entries, found.measure
    one, name = entries[found.best], found.names[found.best]
    value = measure.text(one[measure.key])
    n_test, n_splits = f"{one['n_test']:,} test images", record["n_splits"]
    if n_splits > 1:
        what = f"mean {measure.word} over {n_splits} random splits"
        error = (
            ", whose binomial standard error is "
            f"{measure.gap(binomial_error(one['accuracy'], one['n_test']))}"
            if measure.key == "accuracy"
            else ""
        )
        sd = measure.gap(one[f"{measure.key}_sd"])
        figure = f"{value} (standard deviation {sd}; {n_test} per split{error})"
    else:
        n_seeds = len(one.get("repeats") or [1])
        word = measure.word
        mean = f"mean {word} over {n_seeds} training seeds" if n_seeds > 1 else word
        groups = next((pair["n_groups"] for pair in record["pairs"] if pair.get("n_groups")), None)
        of = f" of {groups:,} groups" if groups else ""
        what = f"{mean} on the {n_test}{of}"
        if record.get("folds"):
            what = (
                f"{measure.word} on all {one['n_test']:,} images{of}, each tested by a fit without "
                f"its fold ({record['folds']} folds)"
            )
        ends = ends_of(one, measure)
        between = f" (95 % confidence interval {measure.interval(*ends)})" if ends else ""
        figure = f"{value}{between}"
    if len(entries) == 1:
        article = "an" if what[0] in "aA" else "a"
        return f"{name} has {article} {what} of {figure}."
    return f"Of {len(entries)} methods, {name} has the {measure.extreme} {what}: {figure}."


def _advice(record: Mapping[str, Any]) -> list[str]:
    """Name nested cross-validation where a split of few images was tested."""
    n_images = record.get("n_images", FEW_IMAGES)
    if record.get("folds") or record["n_splits"] > 1 or n_images >= FEW_IMAGES:
        return []
    return [
        f"TEST=cv:5 would test on all {n_images:,} images by nested cross-validation, in place of "
        f"{record['n_test']:,}."
    ]


def _untested(record: Mapping[str, Any]) -> str:
    n = record["n_splits"]
    return (
        f"No test is made: {n} splits leave too little to estimate a variance from, and at least "
        "3 are needed. SPLITS=10 would give a test."
    )


def _verdict(found: _Found) -> str:
    names, of_best, alike, behind = found.names, found.of_best, found.alike, found.behind
    adjusted = "Holm-adjusted " if len(found.record["pairs"]) > 1 else ""
    test = f"{adjusted}{tests_made(list(of_best.values()))}, \u03b1 = {ALPHA:g}"
    if not alike:
        others = "every other method" if len(behind) > 1 else names[behind[0]]
        worst = p_equals(max(of_best[at]["p_holm"] for at in behind))
        largest = f"largest {worst}" if len(behind) > 1 else worst
        return f"It is significantly better than {others} ({test}; {largest})."
    against = listed([names[at] for at in alike])
    differ = "is" if len(alike) == 1 else "are"
    least = p_equals(min(of_best[at]["p_holm"] for at in alike))
    smallest = f"smallest {least}" if len(alike) > 1 else least
    return f"{against} {differ} not significantly different from the best ({test}; {smallest})."


def _bounds(found: _Found) -> str:
    """Say how much worse a method without a significant difference may still be."""
    parts = []
    for at in found.alike:
        pair = found.of_best[at]
        worst = pair["at_most"]["b" if pair["a"] == found.best else "a"]
        parts.append(f"{found.names[at]} at most {found.measure.gap(worst)} worse")
    n_others = len(found.of_best)
    several = f", adjusted for {n_others} comparisons" if n_others > 1 else ""
    return f"Compared with the best: {listed(parts)} (95 % confidence{several})."


def _needed(found: _Found) -> str:
    of_best, alike, names = found.of_best, found.alike, found.names
    needed = sorted((of_best[at]["images_for_one_point"], names[at]) for at in alike)
    (low, nearest), (high, furthest) = needed[0], needed[-1]
    level = min(of_best[at]["alpha"] for at in alike)
    range_ = f"about {low:,} test images"
    if low != high:
        range_ = f"about {low:,} (against {nearest}) to {high:,} test images (against {furthest})"
    return (
        f"To detect a difference of one point (power 80 %, \u03b1 = {level:.2g}"
        f"{' after Holm' if level < ALPHA else ''}, upper 95 % limit of the rate of disagreement), "
        f"{range_} are needed; there are {found.record['n_test']:,}."
    )


def _margins(found: _Found) -> str:
    parts, measure = [], found.measure
    for at in sorted(found.behind, key=lambda at: abs(found.of_best[at]["difference"])):
        mean, low, high = found.than_best(at)
        parts.append(f"{found.names[at]} by {measure.gap(mean)} ({measure.interval(low, high)})")
    return f"Significantly worse: {listed(parts)}; 95 % confidence intervals, unadjusted."


def _seeds(found: _Found) -> list[str]:
    """Say how much of the variance of the differences is due to the seeds."""
    parts = [
        f"{share(pair['seed_share'], 0)} ({found.names[at]})"
        for at, pair in found.of_best.items()
        if pair.get("seed_share") is not None
    ]
    if not parts:
        return []
    return [
        "Share of the variance of the difference from the best that is due to the training seeds: "
        f"{listed(parts)}."
    ]


def _posteriors(found: _Found) -> list[str]:
    """Give the probability that each method is practically equivalent to the best."""
    rope = found.measure.gap(found.record["rope"])
    names, best, parts = found.names, found.best, []
    for at, pair in found.of_best.items():
        equal = pair["posterior"]["equal"]
        better = pair["posterior"]["better" if pair["a"] == best else "worse"]
        parts.append(f"{names[at]} {chance(equal)} (the best is better by more: {chance(better)})")
    return [
        f"Probability that the difference from {names[best]} is within {rope} (Bayesian "
        f"correlated t-test): {listed(parts)}."
    ]


def _cost(found: _Found) -> list[str]:
    """Name the cheapest of those that do not differ significantly from the best."""
    if not found.alike:
        return []
    names, best, measure = found.names, found.best, found.measure
    cost = [_seconds(one) for one in found.entries]
    cheapest = min([best, *found.alike], key=lambda at: cost[at])
    if cheapest == best:
        return [f"{names[best]} is also the cheapest of these: {duration(cost[best])} in total."]
    mean, low, high = found.than_best(cheapest)
    # The best has the highest figure on all images; over the folds another's mean can be higher.
    gap = f"is better by {measure.gap(mean)}"
    if mean < 0:
        gap = f"is, on average over the folds, worse by {measure.gap(-mean)}"
        low, high = -high, -low
    return [
        f"The cheapest of these is {names[cheapest]}: {duration(cost[cheapest])} for codes and "
        f"fit, against {duration(cost[best])} for {names[best]}, whose {measure.word} {gap} "
        f"(95 % confidence interval {measure.interval(low, high)})."
    ]


def _other_figures(found: _Found) -> list[str]:
    """Say where another figure has another best, and significantly so."""
    said = []
    names, best, pairs = found.names, found.best, found.record["pairs"]
    others = other_measures(found.measure.key)
    for measure in others:
        key = measure.key
        values = [one[key] for one in found.entries]
        if any(value is None for value in values):
            continue
        sign = measure.sign
        first = max(range(len(values)), key=lambda at: sign * values[at])
        if first == best:
            continue
        pair = next(pair for pair in pairs if {*_ends(pair)} == {first, best})
        ends = pair.get(f"{key}_ci95")
        if not ends or ends[0] <= 0 <= ends[1]:
            continue
        if (ends[0] > 0) != (sign * (1 if pair["a"] == first else -1) > 0):
            continue
        said.append(
            f"By {measure.word}, {names[first]} is significantly better "
            f"({measure.text(values[first])} against {measure.text(values[best])}; bootstrap, "
            f"adjusted for {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} and {len(others)} "
            "figures)."
        )
    return said


def _seconds(one: Mapping[str, Any]) -> float:
    return float(one["times_s"]["codes"] + one["times_s"]["fit"])
