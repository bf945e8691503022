"""A comparison in sentences and as a table; every word follows from the record's numbers.

Takes the comparison's record alone, so that a report can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..results.tables import Table, aligned

__all__ = [
    "LEGEND",
    "binomial_error",
    "comparison_table",
    "label",
    "listed",
    "sentences",
    "tests_made",
]

ALPHA = 0.05
LEGEND = (
    f"* highest accuracy; ~ not significantly different from it (Holm-adjusted, \u03b1 = {ALPHA:g})"
)
TESTS = {
    "mcnemar": "exact McNemar",
    "sign_flip": "exact sign-flip test over groups",
    "seeds": "bootstrap over seeds and images",
    "corrected_t": "corrected resampled t-test",
}
_FIGURES = {"macro_f1": "macro-F1", "auroc": "AUROC", "log_loss": "log-loss"}


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say what a comparison found; the first two sentences are the verdict."""
    entries, pairs = record["entries"], record["pairs"]
    best = next(at for at, one in enumerate(entries) if one["best"])
    names = [label(one, record) for one in entries]
    said = [_first(record, entries, names, best)]
    if len(entries) == 1:
        return said
    of_best = {pair["a"] + pair["b"] - best: pair for pair in pairs if best in _ends(pair)}
    if any(pair["p_holm"] is None for pair in of_best.values()):
        return [*said, _untested(record), *_cost(entries, names, best, [], of_best)]
    alike = [at for at, one in enumerate(entries) if one["alike"]]
    behind = [at for at in of_best if at not in alike]
    said.append(_verdict(names, pairs, of_best, alike, behind))
    if behind:
        said.append(_margins(of_best, behind, names, best))
    if alike:
        said.append(_bounds(of_best, alike, names, best))
    if alike and record["n_splits"] == 1:
        said.append(_needed(record, of_best, alike, names))
    said += _seeds(of_best, names)
    if record["n_splits"] > 1:
        said += _posteriors(record, of_best, names, best)
    said += _cost(entries, names, best, alike, of_best)
    said += _other_figures(record, names, best)
    return said


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
    text = "; ".join(found)
    return f"{text}; {groups.pop():,} groups" if groups else text


def _ends(pair: Mapping[str, Any]) -> tuple[int, int]:
    return pair["a"], pair["b"]


def _first(
    record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], names: list[str], best: int
) -> str:
    one = entries[best]
    n_test, n_splits = f"{one['n_test']:,} test images", record["n_splits"]
    if n_splits > 1:
        what = f"mean accuracy over {n_splits} random splits"
        figure = (
            f"{_percent(one['accuracy'])} (standard deviation {100 * one['accuracy_sd']:.1f} "
            f"points; {n_test} per split, whose binomial standard error is "
            f"{100 * binomial_error(one['accuracy'], one['n_test']):.1f} points)"
        )
    else:
        low, high = one["accuracy_ci95"]
        n_seeds = len(one.get("repeats") or [1])
        mean = f"mean accuracy over {n_seeds} training seeds" if n_seeds > 1 else "accuracy"
        groups = next((pair["n_groups"] for pair in record["pairs"] if pair.get("n_groups")), None)
        of = f" of {groups:,} groups" if groups else ""
        what = f"{mean} on the {n_test}{of}"
        figure = (
            f"{_percent(one['accuracy'])} (95 % confidence interval {100 * low:.1f} to "
            f"{100 * high:.1f})"
        )
    if len(entries) == 1:
        return f"{names[best]} has a {what} of {figure}.".replace("a accuracy", "an accuracy")
    return f"Of {len(entries)} methods, {names[best]} has the highest {what}: {figure}."


def binomial_error(accuracy: float, n: int) -> float:
    """Give the standard error of an accuracy on n independent images, above 0.

    Of (hits + 2) / (n + 4), as Agresti and Coull 1998 have it.
    """
    rate = (accuracy * n + 2) / (n + 4)
    return float((rate * (1 - rate) / (n + 4)) ** 0.5)


def _untested(record: Mapping[str, Any]) -> str:
    n = record["n_splits"]
    return (
        f"No test is made: {n} splits leave too little to estimate a variance from, and at least "
        "3 are needed. SPLITS=10 would give a test."
    )


def _verdict(
    names: list[str],
    pairs: Sequence[Mapping[str, Any]],
    of_best: Mapping[int, Mapping[str, Any]],
    alike: list[int],
    behind: list[int],
) -> str:
    adjusted = "Holm-adjusted " if len(pairs) > 1 else ""
    test = f"{adjusted}{tests_made(list(of_best.values()))}, \u03b1 = {ALPHA:g}"
    if not alike:
        others = "every other method" if len(behind) > 1 else names[behind[0]]
        worst = max(of_best[at]["p_holm"] for at in behind)
        return f"It is significantly better than {others} ({test}; p at most {_p(worst)})."
    against = listed([names[at] for at in alike])
    differ = "is" if len(alike) == 1 else "are"
    least = min(of_best[at]["p_holm"] for at in alike)
    return (
        f"{against} {differ} not significantly different from the best ({test}; smallest p "
        f"{_p(least)})."
    )


def _bounds(
    of_best: Mapping[int, Mapping[str, Any]], alike: list[int], names: list[str], best: int
) -> str:
    """Say how much worse a method without a significant difference may still be."""
    parts = []
    for at in alike:
        pair = of_best[at]
        worst = pair["at_most"]["b" if pair["a"] == best else "a"]
        parts.append(f"{names[at]} at most {100 * worst:.1f} points worse")
    several = f", adjusted for {len(of_best)} comparisons" if len(of_best) > 1 else ""
    return f"Compared with the best: {listed(parts)} (95 % confidence{several})."


def _needed(
    record: Mapping[str, Any],
    of_best: Mapping[int, Mapping[str, Any]],
    alike: list[int],
    names: list[str],
) -> str:
    needed = sorted((of_best[at]["images_for_one_point"], names[at]) for at in alike)
    (low, nearest), (high, furthest) = needed[0], needed[-1]
    level = min(of_best[at]["alpha"] for at in alike)
    range_ = f"about {low:,} test images"
    if low != high:
        range_ = f"about {low:,} (against {nearest}) to {high:,} test images (against {furthest})"
    return (
        f"To detect a difference of one point (power 80 %, \u03b1 = {level:.2g}"
        f"{' after Holm' if level < ALPHA else ''}, upper 95 % limit of the rate of disagreement), "
        f"{range_} are needed; there are {record['n_test']:,}."
    )


def _margins(
    of_best: Mapping[int, Mapping[str, Any]], behind: list[int], names: list[str], best: int
) -> str:
    parts = []
    for at in sorted(behind, key=lambda at: abs(of_best[at]["difference"])):
        mean, low, high = _signed(of_best[at], best)
        parts.append(
            f"{names[at]} by {100 * mean:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
        )
    return f"Significantly worse: {listed(parts)}; 95 % confidence intervals, unadjusted."


def _signed(pair: Mapping[str, Any], first: int) -> tuple[float, float, float]:
    """Difference and its interval as those of entry `first` less the other."""
    low, high = pair["ci95"]
    if pair["a"] == first:
        return pair["difference"], low, high
    return -pair["difference"], -high, -low


def _seeds(of_best: Mapping[int, Mapping[str, Any]], names: list[str]) -> list[str]:
    """Say how much of the variance of the differences is due to the seeds."""
    found = [
        (names[at], pair["seed_share"])
        for at, pair in of_best.items()
        if pair.get("seed_share") is not None
    ]
    if not found:
        return []
    parts = listed([f"{100 * share:.0f} % ({name})" for name, share in found])
    return [
        "Share of the variance of the difference from the best that is due to the training seeds: "
        f"{parts}."
    ]


def _posteriors(
    record: Mapping[str, Any],
    of_best: Mapping[int, Mapping[str, Any]],
    names: list[str],
    best: int,
) -> list[str]:
    """Give the probability that each method is practically equivalent to the best."""
    rope = 100 * record["rope"]
    parts = []
    for at, pair in of_best.items():
        equal = pair["posterior"]["equal"]
        better = pair["posterior"]["better" if pair["a"] == best else "worse"]
        parts.append(
            f"{names[at]} {_chance(equal)} (the best is better by more: {_chance(better)})"
        )
    return [
        f"Probability that the difference from {names[best]} is within {rope:g} points (Bayesian "
        f"correlated t-test): {listed(parts)}."
    ]


def _chance(value: float) -> str:
    """Write a probability; none is exactly 0 or 1."""
    return "< 1 %" if value < 0.005 else "> 99 %" if value > 0.995 else f"{100 * value:.0f} %"


def _cost(
    entries: Sequence[Mapping[str, Any]],
    names: list[str],
    best: int,
    alike: list[int],
    of_best: Mapping[int, Mapping[str, Any]],
) -> list[str]:
    """Name the cheapest of those that do not differ significantly from the best."""
    if not alike:
        return []
    cost = [_seconds(one) for one in entries]
    cheapest = min([best, *alike], key=lambda at: cost[at])
    if cheapest == best:
        return [f"{names[best]} is also the cheapest of these: {_duration(cost[best])} in total."]
    mean, low, high = _signed(of_best[cheapest], best)
    return [
        f"The cheapest of these is {names[cheapest]}: {_duration(cost[cheapest])} for codes and "
        f"fit, against {_duration(cost[best])} for {names[best]}, whose accuracy is "
        f"{100 * mean:.1f} points higher (95 % confidence interval {100 * low:.1f} to "
        f"{100 * high:.1f})."
    ]


def _other_figures(record: Mapping[str, Any], names: list[str], best: int) -> list[str]:
    """Say where another figure has another best, and significantly so."""
    said = []
    entries, n_pairs = record["entries"], len(record["pairs"])
    for key, word in _FIGURES.items():
        values = [one[key] for one in entries]
        if any(value is None for value in values):
            continue
        sign = -1 if key == "log_loss" else 1
        first = max(range(len(values)), key=lambda at: sign * values[at])
        if first == best:
            continue
        pair = next(pair for pair in record["pairs"] if {*_ends(pair)} == {first, best})
        ends = pair.get(f"{key}_ci95")
        if not ends or ends[0] <= 0 <= ends[1]:
            continue
        if (ends[0] > 0) != (sign * (1 if pair["a"] == first else -1) > 0):
            continue
        said.append(
            f"By {word}, {names[first]} is significantly better ({values[first]:.3f} against "
            f"{values[best]:.3f}; bootstrap, adjusted for {n_pairs} "
            f"{'pair' if n_pairs == 1 else 'pairs'} and {len(_FIGURES)} figures)."
        )
    return said


def comparison_table(record: Mapping[str, Any]) -> Table:
    """Format the comparison as an aligned text table, one line per method and network."""
    entries = record["entries"]
    several = len({one["model"] for one in entries}) > 1
    single = record["n_splits"] == 1
    spread = "95% interval" if single else "sd (binomial se)"
    header = ["", "method", *(["model"] if several else []), "accuracy", spread]
    header += ["macro-F1", "AUROC", "log-loss", "ECE", "codes s", "fit s", "predict s"]
    header += ["images/s", "MB", "trained"]
    lines = [header]
    for one in entries:
        times = one["times_s"]
        lines.append(
            [
                "*" if one["best"] else "~" if one["alike"] else "",
                one["method"],
                *([one["model"]] if several else []),
                f"{one['accuracy']:.4f}",
                _interval(one),
                *(_number(one[key], 4) for key in ("macro_f1", "auroc")),
                *(_number(one[key], 3) for key in ("log_loss", "ece")),
                *(_number(times[key], 1) for key in ("codes", "fit")),
                _number(times["predict"], 2),
                _number(one["images_per_s"], 0),
                f"{one['disk_bytes'] / 1e6:.1f}",
                _count(one["n_trained"]),
            ]
        )
    return aligned(lines, text_columns=3 if several else 2)


def _interval(one: Mapping[str, Any]) -> str:
    if one["accuracy_ci95"]:
        low, high = one["accuracy_ci95"]
        return f"{low:.3f} to {high:.3f}"
    if one.get("accuracy_sd") is None:
        return "-"
    error = binomial_error(one["accuracy"], one["n_test"])
    return f"{one['accuracy_sd']:.4f} ({error:.4f})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _count(value: int) -> str:
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return str(value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _p(value: float) -> str:
    return f"{value:.1g}" if value < 0.001 else f"{value:.3f}"


def _seconds(one: Mapping[str, Any]) -> float:
    return float(one["times_s"]["codes"] + one["times_s"]["fit"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
