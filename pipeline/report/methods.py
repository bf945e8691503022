"""The methods in the report: table, cost, pairwise tests, benefit of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.tables import comparison_figures, ends_of
from ..compare.words import tests_made
from ..notation import (
    count,
    p_equals,
    p_value,
)
from ..results.measures import ALPHA, Measure, measure_of
from ..results.tables import number_cell
from . import charts
from .blocks import Block, Cell, Column, Missing, Section, Table, Text
from .cells import figures_table, mark_of, names_of, with_methods
from .gather import Evidence


def comparison(evidence: Evidence) -> Section:
    """Show all methods in one table, one line per method."""
    record = evidence.comparison
    measure = measure_of(record)
    note = (
        f"Best: {measure.extreme} {measure.word}; of equals, lowest log-loss. Not significantly "
        "different: from "
        f"the best, Holm-adjusted p > {ALPHA:g}. Unmarked: significantly worse."
    )
    if record["n_splits"] > 1:
        note += f" Means over {record['n_splits']} random splits."
    what = "images, out of fold" if record.get("folds") else "test images"
    caption = f"Methods on the same {count(record['n_test'])} {what}"
    blocks: list[Block] = [figures_table(comparison_figures(record), caption, "methods", note)]
    blocks += [
        Text(f"Not included: {one['method']} on {one['model']}: {one['why']}", "note")
        for one in record.get("left_out", ())
    ]
    return Section("comparison", "Comparison of methods", blocks)


def cost(evidence: Evidence) -> Section:
    """Draw the figure that is compared against time."""
    single = evidence.comparison["n_splits"] == 1
    measure = measure_of(evidence.comparison)
    spots = []
    for run, name in zip(evidence.runs, names_of(evidence), strict=True):
        one = run.entry
        value, ends, sd = one[measure.key], ends_of(one, measure), one.get(f"{measure.key}_sd")
        if not ends and sd is not None:
            ends = [value - sd, value + sd]
        low, high = ends or (None, None)
        seconds = (one["times_s"]["codes"] or 0.0) + (one["times_s"]["fit"] or 0.0)
        spots.append(charts.Spot(name, seconds, value, low, high, mark_of(one)))
    interval = "95 % confidence interval" if single else "standard deviation over the splits"
    chart = charts.figure_by_cost(spots, measure, key="cost", interval=interval)
    return Section("cost", f"{measure.heading} and training time", [chart])


def pairs(evidence: Evidence) -> Section:
    """Show the test of each pair of methods."""
    record, names = evidence.comparison, names_of(evidence)
    measure = measure_of(record)
    found = record["pairs"]
    if not found:
        text = "The comparison has one method only."
        command = with_methods(evidence, "svm", "softmax")
        return Section("pairs", "Pairwise tests", [Missing(text, command)])
    single = "posterior" not in found[0] if found else True
    if found[0]["p"] is None:
        text = f"No test is made with {record['n_splits']} splits: at least 3 are needed."
        command = evidence.context.command_for("compare", {"splits": 10})
        return Section("pairs", "Pairwise tests", [Missing(text, command)])
    middle = [
        Column("Only first correct", "images that only the first classifies correctly"),
        Column("Only second correct", "images that only the second classifies correctly"),
    ]
    last = [
        Column(
            "Images for one point",
            "test images needed to detect a difference of one point, power 80 %, at the level of "
            "this test and the upper 95 % limit of the rate of disagreement",
        )
    ]
    if measure.key != "accuracy":
        last = []
    if not single:
        middle, last = [], [Column("P(worse)"), Column("P(equal)"), Column("P(better)")]
    columns = [
        Column("First", numeric=False), Column("Second", numeric=False), *middle,
        Column("Difference", _difference_hint(measure)),
        Column("95 % CI", "confidence interval of the difference, not adjusted"),
        Column("p", "two-sided"), Column("p (Holm)", "adjusted for the number of pairs"),
        Column("Result", numeric=False), *last,
    ]  # fmt: skip
    rows = []
    for pair in found:
        a, b = names[pair["a"]], names[pair["b"]]
        shown = pair["p_holm"] <= ALPHA
        better = a if pair["difference"] > 0 else b
        low, high = pair["ci95"]
        rows.append(
            [
                Cell(a), Cell(b),
                *([number_cell(pair[key], 0) for key in ("only_a", "only_b")] if single else []),
                Cell(measure.signed(pair["difference"]), pair["difference"]),
                Cell(measure.signed_interval(low, high), low),
                Cell(p_value(pair["p"]), pair["p"]), Cell(p_value(pair["p_holm"]), pair["p_holm"]),
                Cell(f"{better} significantly better" if shown else "not significant",
                     mark="best" if shown else ""),
                *_last_cells(pair, single)[: len(last)],
            ]
        )  # fmt: skip
    table = Table("All pairs of methods", columns, rows, "pairs", sortable=True)
    return Section("pairs", "Pairwise tests", [Text(_tests_text(record)), table])


def _difference_hint(measure: Measure) -> str:
    if measure.lower:
        return f"{measure.word} of the second minus that of the first: above 0, the first is better"
    unit = ", in points" if measure.percent else ""
    return f"{measure.word} of the first minus that of the second{unit}"


def _tests_text(record: Mapping[str, Any]) -> str:
    """Name the tests and the intervals of the pairs."""
    found = record["pairs"]
    made = tests_made(found)
    text = f"{made[0].upper()}{made[1:]}"
    repeated = any(pair.get("posterior") for pair in found)
    if record["n_splits"] == 1 and record.get("folds"):
        text += f" of the {count(record['n_test'])} images (Nadeau and Bengio)"
    elif record["n_splits"] == 1:
        text += f" on the {count(record['n_test'])} test images"
    else:
        text += f" over {record['n_splits']} random splits (Nadeau and Bengio)"
    if len(found) > 1:
        text += f"; p-values adjusted for {len(found)} pairs by Holm's procedure"
    if not repeated:
        return f"{text}. Confidence intervals of the differences are not adjusted."
    return (
        f"{text}; posterior probabilities by the Bayesian correlated t-test, where equal means "
        f"within {measure_of(record).gap(record['rope'])}."
    )


def _last_cells(pair: Mapping[str, Any], single: bool) -> list[Cell]:
    if single:
        needed = pair["images_for_one_point"]
        return [number_cell(needed, 0)]
    return [number_cell(pair["posterior"][key], 2) for key in ("worse", "equal", "better")]


def scratch_gap(evidence: Evidence) -> Section:
    """Show the benefit of pretraining: fine-tuning minus training from scratch."""
    title, measure = "Benefit of pretraining", measure_of(evidence.comparison)
    names = names_of(evidence)
    of = {
        kind: [at for at, run in enumerate(evidence.runs) if run.record["method"] == kind]
        for kind in ("finetune", "scratch")
    }
    if not of["finetune"] or not of["scratch"]:
        lacking = " and no ".join(kind for kind, found in of.items() if not found)
        text = (
            f"Not measured: the comparison has no {lacking}. The benefit of pretraining is the "
            f"{measure.word} of fine-tuning minus that of training from random weights."
        )
        command = with_methods(evidence, *(kind for kind, found in of.items() if not found))
        return Section("scratch", title, [Missing(text, command)])
    said = []
    for a in of["finetune"]:
        for b in of["scratch"]:
            one, other = evidence.runs[a].entry, evidence.runs[b].entry
            if one["model"] != other["model"]:
                continue
            pair = next(p for p in evidence.comparison["pairs"] if {p["a"], p["b"]} == {a, b})
            sign = 1 if pair["a"] == a else -1
            gap = measure.signed(sign * pair["difference"])
            tested = ""
            if pair["ci95"]:
                low, high = sorted(sign * end for end in pair["ci95"])
                p = p_equals(pair["p_holm"])
                ends = measure.signed_interval(low, high)
                tested = f" (95 % confidence interval {ends}; Holm-adjusted {p})"
            unit = " points" if measure.percent else ""
            said.append(
                f"{names[a]}, which starts from the pretrained weights, reaches {measure.word} "
                f"{measure.text(one[measure.key])}; {names[b]}, which starts from random weights, "
                f"reaches {measure.text(other[measure.key])}. Difference: {gap}{unit}{tested}."
            )
    return Section("scratch", title, [Text(one) for one in said])
