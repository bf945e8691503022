"""The methods in the report: table, cost, pairwise tests, benefit of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.words import binomial_error, tests_made
from . import charts
from .blocks import Block, Cell, Column, Missing, Section, Table, Text
from .cells import mark_of, names_of, number_cell, with_methods
from .gather import Evidence
from .numbers import duration, p_value, percent, points, signed

__all__ = ["comparison", "cost", "pairs", "scratch_gap"]


_DASH = "\N{EN DASH}"
ALPHA = 0.05


def comparison(evidence: Evidence) -> Section:
    """Show all methods in one table, one line per method."""
    record = evidence.comparison
    single = record["n_splits"] == 1
    several = len(record["models"]) > 1
    columns = [
        Column("Method", numeric=False),
        *([Column("Network", numeric=False)] if several else []),
        Column("Accuracy, %"),
        Column("95 % CI")
        if single
        else Column(
            "SD (binomial SE)",
            "standard deviation over the splits, and the standard error on the test images of one "
            "split; in points",
        ),
        Column("Macro-F1", "mean of the classes' F1"),
        Column("AUROC", "area under the ROC curve; 0.5 is chance"),
        Column("Log-loss", "of the calibrated probabilities, in nats; lower is better"),
        Column("ECE", "expected calibration error, 15 bins of equal mass; lower is better"),
        Column("Codes", "time to extract the codes"),
        Column("Fit", "time to select hyper-parameters and fit"),
        Column("Predict", "time for all test images, from codes"),
        Column("Images/s", "prediction rate, from file to probabilities"),
        Column("MB", "size of all files needed for prediction"),
        Column("Trained", "number of trained parameters"),
    ]
    rows = []
    for run in evidence.runs:
        one = run.entry
        times = one["times_s"]
        rows.append(
            [
                Cell(one["method"], mark=mark_of(one)),
                *([Cell(one["model"])] if several else []),
                Cell(percent(one["accuracy"]), one["accuracy"], mark_of(one)),
                _interval(one, single),
                *(number_cell(one[key], 3) for key in ("macro_f1", "auroc", "log_loss", "ece")),
                *(Cell(duration(times[key]), times[key]) for key in ("codes", "fit", "predict")),
                number_cell(one["images_per_s"], 0),
                Cell(f"{one['disk_bytes'] / 1e6:.1f}", one["disk_bytes"]),
                Cell(_count(one["n_trained"]), one["n_trained"]),
            ]
        )
    note = (
        "Best: highest accuracy. Not significantly different: from the best, with Holm-adjusted "
        f"p > {ALPHA:g}."
    )
    if not single:
        note += f" Figures are means over {record['n_splits']} random splits."
    caption = f"Methods on the same {record['n_test']:,} test images"
    blocks: list[Block] = [Table(caption, columns, rows, "methods", sortable=True, note=note)]
    blocks += [
        Text(f"Left out: {one['method']} on {one['model']}: {one['why']}", "note")
        for one in record.get("left_out", ())
    ]
    return Section("comparison", "Comparison of methods", blocks)


def cost(evidence: Evidence) -> Section:
    """Draw accuracy against time."""
    single = evidence.comparison["n_splits"] == 1
    spots = []
    for run, name in zip(evidence.runs, names_of(evidence), strict=True):
        one = run.entry
        ends = one.get("accuracy_ci95")
        if not ends and one.get("accuracy_sd") is not None:
            ends = [one["accuracy"] - one["accuracy_sd"], one["accuracy"] + one["accuracy_sd"]]
        low, high = ends or (None, None)
        seconds = (one["times_s"]["codes"] or 0.0) + (one["times_s"]["fit"] or 0.0)
        spots.append(charts.Spot(name, seconds, one["accuracy"], low, high, mark_of(one)))
    interval = "95 % confidence interval" if single else "standard deviation over the splits"
    chart = charts.accuracy_by_cost(spots, key="cost", interval=interval)
    return Section("cost", "Accuracy against cost", [chart])


def pairs(evidence: Evidence) -> Section:
    """Show the test of each pair of methods."""
    record, names = evidence.comparison, names_of(evidence)
    found = record["pairs"]
    if not found:
        text = "There is only one method."
        command = with_methods(evidence, "svm", "softmax")
        return Section("pairs", "Pairwise comparison", [Missing(text, command)])
    single = record["n_splits"] == 1
    if found[0]["p"] is None:
        text = f"No test is made with {record['n_splits']} splits: at least 3 are needed."
        command = evidence.context.command_for("compare", {"splits": 10})
        return Section("pairs", "Pairwise comparison", [Missing(text, command)])
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
    if not single:
        middle, last = [], [Column("P(worse)"), Column("P(equal)"), Column("P(better)")]
    columns = [
        Column("First", numeric=False), Column("Second", numeric=False), *middle,
        Column("Difference", "points of accuracy, first minus second"), Column("95 % CI"),
        Column("p"), Column("p (Holm)", "adjusted for the number of pairs"),
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
                Cell(signed(100 * pair["difference"]), pair["difference"]),
                Cell(points(low, high), low),
                Cell(p_value(pair["p"]), pair["p"]), Cell(p_value(pair["p_holm"]), pair["p_holm"]),
                Cell(f"{better} significantly better" if shown else "not significant",
                     mark="best" if shown else ""),
                *_last_cells(pair, single),
            ]
        )  # fmt: skip
    table = Table("Every pair of methods", columns, rows, "pairs", sortable=True)
    return Section("pairs", "Pairwise comparison", [Text(_tests_text(record)), table])


def _tests_text(record: Mapping[str, Any]) -> str:
    """Name the tests and the intervals of the pairs."""
    found = record["pairs"]
    made = tests_made(found)
    text = f"{made[0].upper()}{made[1:]}"
    if record["n_splits"] == 1:
        text += f" on the {record['n_test']:,} shared test images"
    else:
        text += f" over {record['n_splits']} random splits (Nadeau and Bengio)"
    if len(found) > 1:
        text += f"; p-values adjusted for {len(found)} pairs by Holm's procedure"
    if record["n_splits"] == 1:
        return f"{text}. Confidence intervals of the differences are not adjusted."
    return (
        f"{text}; posterior probabilities by the Bayesian correlated t-test, where equal means "
        f"within {100 * record['rope']:g} points."
    )


def _last_cells(pair: Mapping[str, Any], single: bool) -> list[Cell]:
    if single:
        needed = pair["images_for_one_point"]
        return [Cell(f"{needed:,}", needed)]
    return [number_cell(pair["posterior"][key], 2) for key in ("worse", "equal", "better")]


def scratch_gap(evidence: Evidence) -> Section:
    """Show the benefit of pretraining: fine-tuning minus training from scratch."""
    title = "Benefit of pretraining"
    names = names_of(evidence)
    of = {
        kind: [at for at, run in enumerate(evidence.runs) if run.record["method"] == kind]
        for kind in ("finetune", "scratch")
    }
    if not of["finetune"] or not of["scratch"]:
        lacking = " and no ".join(kind for kind, found in of.items() if not found)
        text = f"The comparison has no {lacking}, so the benefit of pretraining is unknown."
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
            gap = signed(100 * sign * pair["difference"], plus=False)
            tested = ""
            if pair["ci95"]:
                low, high = sorted(sign * end for end in pair["ci95"])
                p = p_value(pair["p_holm"])
                tested = f" (95 % confidence interval {points(low, high)}; Holm-adjusted p {p})"
            said.append(
                f"{names[a]}, which starts from the pretrained weights, reaches "
                f"{percent(one['accuracy'])} %; {names[b]}, which starts from random weights, "
                f"{percent(other['accuracy'])} %: a difference of {gap} points{tested}."
            )
    return Section("scratch", title, [Text(one) for one in said])


def _interval(entry: Mapping[str, Any], single: bool) -> Cell:
    if single and entry.get("accuracy_ci95"):
        low, high = entry["accuracy_ci95"]
        return Cell(points(low, high), low)
    sd = entry.get("accuracy_sd")
    if sd is None:
        return Cell(_DASH, None)
    error = binomial_error(entry["accuracy"], entry["n_test"])
    return Cell(f"{100 * sd:.1f} ({100 * error:.1f})", sd)


def _count(value: int) -> str:
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)
