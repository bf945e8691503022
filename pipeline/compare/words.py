"""A comparison in sentences and as a table; every word follows from the record's numbers.

Takes the comparison's record alone, so that a report can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..notation import (
    DASH,
    chance,
    compact,
    count,
    duration,
    megabytes,
    p_equals,
    percent,
    share,
)
from ..results.measures import MEASURES, Measure, measure_of, other_measures
from ..results.tables import Cell, Column, Figures, Table, number_cell, percent_cell

__all__ = [
    "binomial_error",
    "comparison_figures",
    "comparison_table",
    "ends_of",
    "label",
    "legend",
    "listed",
    "sentences",
    "tests_made",
]

ALPHA = 0.05
FEW_IMAGES = 1000  # below, nested cross-validation tells more than a split
TESTS = {
    "mcnemar": "exact McNemar",
    "sign_flip": "exact sign-flip test over groups",
    "bootstrap": "bootstrap over images",
    "seeds": "bootstrap over seeds and images",
    "corrected_t": "corrected resampled t-test",
}
_COLUMNS = ("macro_f1", "auroc", "log_loss")


def legend(record: Mapping[str, Any]) -> str:
    """Say what the marks of the table mean."""
    measure = measure_of(record)
    return (
        f"* {measure.extreme} {measure.word}; ~ not significantly different from it "
        f"(Holm-adjusted, \u03b1 = {ALPHA:g})"
    )


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say what a comparison found; the first two sentences are the verdict."""
    entries, pairs = record["entries"], record["pairs"]
    best = next(at for at, one in enumerate(entries) if one["best"])
    names, measure = [label(one, record) for one in entries], measure_of(record)
    said = [_first(record, entries, names, best)]
    if len(entries) == 1:
        return said + _advice(record)
    of_best = {pair["a"] + pair["b"] - best: pair for pair in pairs if best in _ends(pair)}
    if any(pair["p_holm"] is None for pair in of_best.values()):
        return [*said, _untested(record)]
    alike = [at for at, one in enumerate(entries) if one["alike"]]
    behind = [at for at in of_best if at not in alike]
    said.append(_verdict(names, pairs, of_best, alike, behind))
    if behind:
        said.append(_margins(of_best, behind, names, best, measure))
    if alike:
        said.append(_bounds(of_best, alike, names, best, measure))
    if alike and all(of_best[at].get("images_for_one_point") for at in alike):
        said.append(_needed(record, of_best, alike, names))
    said += _seeds(of_best, names)
    if all(pair.get("posterior") for pair in of_best.values()):
        said += _posteriors(record, of_best, names, best)
    said += _cost(entries, names, best, alike, of_best, measure)
    said += _other_figures(record, names, best)
    return said + _advice(record)


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


def _first(
    record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], names: list[str], best: int
) -> str:
    one, measure = entries[best], measure_of(record)
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
        return f"{names[best]} has {article} {what} of {figure}."
    return f"Of {len(entries)} methods, {names[best]} has the {measure.extreme} {what}: {figure}."


def ends_of(entry: Mapping[str, Any], measure: Measure) -> Sequence[float] | None:
    """Give the 95 % confidence interval of an entry's figure; None where it has none."""
    found: Sequence[float] | None = (entry.get("ci95") or {}).get(measure.key)
    return entry.get("accuracy_ci95") if measure.key == "accuracy" else found


def _advice(record: Mapping[str, Any]) -> list[str]:
    """Name nested cross-validation where a split of few images was tested."""
    n_images = record.get("n_images", FEW_IMAGES)
    if record.get("folds") or record["n_splits"] > 1 or n_images >= FEW_IMAGES:
        return []
    return [
        f"TEST=cv:5 would test on all {n_images:,} images by nested cross-validation, in place of "
        f"{record['n_test']:,}."
    ]


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
        worst = p_equals(max(of_best[at]["p_holm"] for at in behind))
        largest = f"largest {worst}" if len(behind) > 1 else worst
        return f"It is significantly better than {others} ({test}; {largest})."
    against = listed([names[at] for at in alike])
    differ = "is" if len(alike) == 1 else "are"
    least = p_equals(min(of_best[at]["p_holm"] for at in alike))
    smallest = f"smallest {least}" if len(alike) > 1 else least
    return f"{against} {differ} not significantly different from the best ({test}; {smallest})."


def _bounds(
    of_best: Mapping[int, Mapping[str, Any]],
    alike: list[int],
    names: list[str],
    best: int,
    measure: Measure,
) -> str:
    """Say how much worse a method without a significant difference may still be."""
    parts = []
    for at in alike:
        pair = of_best[at]
        worst = pair["at_most"]["b" if pair["a"] == best else "a"]
        parts.append(f"{names[at]} at most {measure.gap(worst)} worse")
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
    of_best: Mapping[int, Mapping[str, Any]],
    behind: list[int],
    names: list[str],
    best: int,
    measure: Measure,
) -> str:
    parts = []
    for at in sorted(behind, key=lambda at: abs(of_best[at]["difference"])):
        mean, low, high = _signed(of_best[at], best)
        parts.append(f"{names[at]} by {measure.gap(mean)} ({measure.interval(low, high)})")
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
    parts = listed([f"{share(part, 0)} ({name})" for name, part in found])
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
    rope = measure_of(record).gap(record["rope"])
    parts = []
    for at, pair in of_best.items():
        equal = pair["posterior"]["equal"]
        better = pair["posterior"]["better" if pair["a"] == best else "worse"]
        parts.append(f"{names[at]} {chance(equal)} (the best is better by more: {chance(better)})")
    return [
        f"Probability that the difference from {names[best]} is within {rope} (Bayesian "
        f"correlated t-test): {listed(parts)}."
    ]


def _cost(
    entries: Sequence[Mapping[str, Any]],
    names: list[str],
    best: int,
    alike: list[int],
    of_best: Mapping[int, Mapping[str, Any]],
    measure: Measure,
) -> list[str]:
    """Name the cheapest of those that do not differ significantly from the best."""
    if not alike:
        return []
    cost = [_seconds(one) for one in entries]
    cheapest = min([best, *alike], key=lambda at: cost[at])
    if cheapest == best:
        return [f"{names[best]} is also the cheapest of these: {duration(cost[best])} in total."]
    mean, low, high = _signed(of_best[cheapest], best)
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


def _other_figures(record: Mapping[str, Any], names: list[str], best: int) -> list[str]:
    """Say where another figure has another best, and significantly so."""
    said = []
    entries, n_pairs = record["entries"], len(record["pairs"])
    others = other_measures(measure_of(record).key)
    for measure in others:
        key = measure.key
        values = [one[key] for one in entries]
        if any(value is None for value in values):
            continue
        sign = measure.sign
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
            f"By {measure.word}, {names[first]} is significantly better "
            f"({measure.text(values[first])} against {measure.text(values[best])}; bootstrap, "
            f"adjusted for {n_pairs} {'pair' if n_pairs == 1 else 'pairs'} and {len(others)} "
            "figures)."
        )
    return said


def comparison_table(record: Mapping[str, Any]) -> Table:
    """Format the comparison as an aligned text table, one line per method and network."""
    return comparison_figures(record).plain()


def comparison_figures(record: Mapping[str, Any]) -> Figures:
    """Give the figures of a comparison, one row per method and network."""
    entries, measure = record["entries"], measure_of(record)
    several = len({one["model"] for one in entries}) > 1
    single = record["n_splits"] == 1
    others = [MEASURES[key] for key in _COLUMNS if key != measure.key]
    plain = measure.key == "accuracy"
    columns = [
        Column("Method", numeric=False),
        *([Column("Network", numeric=False)] if several else []),
        Column(measure.title, measure.hint),
        _spread_column(measure, single),
        *([] if plain else [Column("Accuracy, %")]),
        *(Column(one.title, one.hint) for one in others),
        Column("ECE", "expected calibration error, 15 bins of equal mass; lower is better"),
        Column("Codes", "time to extract the codes"),
        Column("Fit", "time to select hyper-parameters and fit"),
        Column("Predict", "time for all test images, from codes"),
        Column("Images/s", "prediction rate, from file to probabilities"),
        Column("MB", "size of all files needed for prediction"),
        Column("Trained", "number of trained parameters"),
    ]
    rows = []
    for one in entries:
        times = one["times_s"]
        mark = "best" if one["best"] else "alike" if one["alike"] else ""
        rows.append(
            [
                Cell(one["method"], mark=mark),
                *([Cell(one["model"])] if several else []),
                Cell(measure.cell(one[measure.key]), one[measure.key], mark),
                _spread(one, measure, single),
                *([] if plain else [percent_cell(one["accuracy"])]),
                *(number_cell(one[other.key]) for other in others),
                number_cell(one["ece"]),
                *(Cell(duration(times[key]), times[key]) for key in ("codes", "fit", "predict")),
                number_cell(one["images_per_s"], 0),
                Cell(megabytes(one["disk_bytes"]), one["disk_bytes"]),
                Cell(compact(one["n_trained"]), one["n_trained"]),
            ]
        )
    return Figures(columns, rows)


def _spread_column(measure: Measure, single: bool) -> Column:
    if single:
        return Column("95 % CI", f"confidence interval of the {measure.word}")
    if measure.key != "accuracy":
        return Column("SD", "standard deviation over the splits")
    return Column(
        "SD (binomial SE)",
        "standard deviation over the splits, and the standard error on the test images of one "
        "split; in points",
    )


def _spread(entry: Mapping[str, Any], measure: Measure, single: bool) -> Cell:
    """Write the interval of a figure, or over several splits its standard deviation."""
    ends = ends_of(entry, measure)
    if single and ends:
        return Cell(measure.interval(*ends), ends[0])
    sd = entry.get(f"{measure.key}_sd")
    if sd is None:
        return Cell(DASH)
    if measure.key != "accuracy":
        return Cell(measure.cell(sd), sd)
    error = binomial_error(entry["accuracy"], entry["n_test"])
    return Cell(f"{percent(sd)} ({percent(error)})", sd)


def _seconds(one: Mapping[str, Any]) -> float:
    return float(one["times_s"]["codes"] + one["times_s"]["fit"])
