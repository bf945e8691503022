"""What the numbers of a comparison say, in sentences and as a table; every word follows from them.

Takes the comparison's record alone, so that a report can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..results.tables import aligned

__all__ = ["comparison_table", "label", "listed", "sentences"]

LEGEND = "* best; ~ not to be told from the best"


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say what a comparison found; the first two sentences are the verdict."""
    entries, pairs = record["entries"], record["pairs"]
    best = next(at for at, one in enumerate(entries) if one["best"])
    names = [label(one, record) for one in entries]
    said = [_first(record, entries, names, best)]
    if len(entries) == 1:
        return said
    of_best = {pair["a"] + pair["b"] - best: pair for pair in pairs if best in _ends(pair)}
    alike = [at for at, one in enumerate(entries) if one["alike"]]
    behind = [at for at in of_best if at not in alike]
    said.append(_verdict(record, names, of_best, alike, behind, best))
    if alike and record["n_splits"] == 1:
        said.append(_needed(record, of_best, alike, best, names))
    if behind and alike:
        said.append(_margins(of_best, behind, names, best))
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


def _ends(pair: Mapping[str, Any]) -> tuple[int, int]:
    return pair["a"], pair["b"]


def _first(
    record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], names: list[str], best: int
) -> str:
    one = entries[best]
    of = f"Of {len(entries)} methods, " if len(entries) > 1 else ""
    if record["n_splits"] > 1:
        text = (
            f"{of}{names[best]} has the highest mean accuracy over {record['n_splits']} random "
            f"splits: {_percent(one['accuracy'])} (standard deviation "
            f"{100 * one['accuracy_sd']:.1f} points, {one['n_test']:,} test images each)."
        )
    else:
        low, high = one["accuracy_ci95"]
        text = (
            f"{of}{names[best]} is the most accurate on the {one['n_test']:,} test images: "
            f"{_percent(one['accuracy'])} (95 % interval {100 * low:.1f} to {100 * high:.1f})."
        )
    return text if of else text.replace("is the most accurate", "was measured")


def _verdict(
    record: Mapping[str, Any],
    names: list[str],
    of_best: Mapping[int, Mapping[str, Any]],
    alike: list[int],
    behind: list[int],
    best: int,
) -> str:
    n_pairs = len(record["pairs"])
    several = f", Holm over {n_pairs} pairs" if n_pairs > 1 else ""
    single = record["n_splits"] == 1
    test = "exact McNemar" if single else "corrected resampled t-test"
    if not alike:
        others = "every other method" if len(behind) > 1 else names[behind[0]]
        worst = max(of_best[at]["p_holm"] for at in behind)
        return f"It is better than {others} ({test}{several}: p at most {_p(worst)})."
    images = f" with {record['n_test']:,} test images" if single else ""
    against = listed([names[at] for at in alike])
    text = f"No difference can be shown{images} between it and {against} ({test}{several}"
    return text + (", 5 % level)." if behind else f", smallest p {_p(_least(of_best, alike))}).")


def _least(of_best: Mapping[int, Mapping[str, Any]], alike: list[int]) -> float:
    return float(min(of_best[at]["p_holm"] for at in alike))


def _needed(
    record: Mapping[str, Any],
    of_best: Mapping[int, Mapping[str, Any]],
    alike: list[int],
    best: int,
    names: list[str],
) -> str:
    needed = sorted((of_best[at]["images_for_one_point"], names[at]) for at in alike)
    (low, nearest), (high, furthest) = needed[0], needed[-1]
    range_ = f"about {low:,}" if low == high else f"about {low:,} (against {nearest})"
    if low != high:
        range_ += f" to {high:,} (against {furthest})"
    there = record["n_test"]
    if high <= there:
        return f"One point would be seen with {range_} test images; there are {there:,}."
    return (
        f"To see one point of difference (power 80 %, 5 % level), {range_} test images would be "
        f"needed; there are {there:,}."
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
    return f"It is better than {listed(parts)}."


def _signed(pair: Mapping[str, Any], first: int) -> tuple[float, float, float]:
    """Difference and its interval as those of entry `first` less the other."""
    low, high = pair["ci95"]
    if pair["a"] == first:
        return pair["difference"], low, high
    return -pair["difference"], -high, -low


def _posteriors(
    record: Mapping[str, Any],
    of_best: Mapping[int, Mapping[str, Any]],
    names: list[str],
    best: int,
) -> list[str]:
    """Say which methods are, as likely as not, practically as good as the best."""
    rope = 100 * record["rope"]
    parts = []
    for at, pair in of_best.items():
        equal = pair["posterior"]["equal"]
        better = pair["posterior"]["better" if pair["a"] == best else "worse"]
        parts.append(f"{names[at]} {equal:.0%} (better by more: {better:.0%})")
    return [
        f"Probability that the difference from {names[best]} is within {rope:g} points (Bayesian "
        f"correlated t-test): {listed(parts)}."
    ]


def _cost(
    entries: Sequence[Mapping[str, Any]],
    names: list[str],
    best: int,
    alike: list[int],
    of_best: Mapping[int, Mapping[str, Any]],
) -> list[str]:
    """Name the cheapest of those that cannot be told from the best."""
    if not alike:
        return []
    cost = [_seconds(one) for one in entries]
    cheapest = min([best, *alike], key=lambda at: cost[at])
    if cheapest == best:
        return [f"{names[best]} is also the cheapest of these: {_duration(cost[best])} in all."]
    mean, low, high = _signed(of_best[cheapest], best)
    return [
        f"The cheapest of these is {names[cheapest]}: {_duration(cost[cheapest])} for codes and "
        f"fit, against {_duration(cost[best])} for {names[best]}, which adds {100 * mean:.1f} "
        f"points ({100 * low:.1f} to {100 * high:.1f})."
    ]


def _other_figures(record: Mapping[str, Any], names: list[str], best: int) -> list[str]:
    """Say where another figure names another best, and surely so."""
    said = []
    entries = record["entries"]
    for key, word in (("auroc", "AUROC"), ("macro_f1", "macro-F1")):
        values = [one[key] for one in entries]
        if any(value is None for value in values):
            continue
        first = max(range(len(values)), key=lambda at: values[at])
        if first == best:
            continue
        pair = next(pair for pair in record["pairs"] if {*_ends(pair)} == {first, best})
        ends = pair.get(f"{key}_ci95")
        if ends and (ends[0] > 0 or ends[1] < 0):
            said.append(
                f"By {word}, {names[first]} is better ({values[first]:.3f} against "
                f"{values[best]:.3f}; the bootstrap interval of the difference excludes 0)."
            )
    return said


def comparison_table(record: Mapping[str, Any]) -> str:
    """Lay the comparison out as an aligned plain-text table, one line a method and network."""
    entries = record["entries"]
    several = len({one["model"] for one in entries}) > 1
    header = ["", "method", *(["model"] if several else []), "accuracy", "95% interval"]
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
    return f"± {one['accuracy_sd']:.4f}" if one.get("accuracy_sd") is not None else "-"


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
