"""What a report says of the methods: the table, the cost, the tests, the worth of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import charts
from .blocks import Block, Cell, Column, Missing, Section, Table, Text
from .cells import mark_of, names_of, number_cell, with_methods
from .gather import Evidence
from .numbers import duration, p_value, percent, points, signed

__all__ = ["comparison", "cost", "pairs", "scratch_gap"]


_DASH = "\N{EN DASH}"
ALPHA = 0.05


def comparison(evidence: Evidence) -> Section:
    """Say it all in one table, a line a method."""
    record = evidence.comparison
    single = record["n_splits"] == 1
    several = len(record["models"]) > 1
    columns = [
        Column("Method", numeric=False),
        *([Column("Network", numeric=False)] if several else []),
        Column("Accuracy, %"),
        Column("95 % interval" if single else "Standard deviation"),
        Column("Macro-F1", "mean of the classes' F1"),
        Column("AUROC", "area under the receiver's operating curve; 0.5 is chance"),
        Column("Log-loss", "of the calibrated probabilities, in nats; lower is better"),
        Column("ECE", "expected calibration error, 15 bins of equal mass; lower is better"),
        Column("Codes", "seconds of stage one"),
        Column("Fit", "seconds of choosing and fitting"),
        Column("Predict", "seconds for all test images, codes given"),
        Column("Images/s", "from the file to its probabilities"),
        Column("MB", "all files that prediction reads"),
        Column("Trained", "parameters that were trained"),
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
    note = "Best: the highest accuracy. Level: no difference from it can be shown."
    if not single:
        note += f" Figures are means over {record['n_splits']} random splits."
    caption = f"Methods on the same {record['n_test']:,} test images"
    blocks: list[Block] = [Table(caption, columns, rows, "methods", sortable=True, note=note)]
    blocks += [
        Text(f"Left out: {one['method']} on {one['model']}: {one['why']}", "note")
        for one in record.get("left_out", ())
    ]
    return Section("comparison", "The comparison", blocks)


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
    interval = "95 % interval" if single else "standard deviation over the splits"
    chart = charts.accuracy_by_cost(spots, key="cost", interval=interval)
    return Section("cost", "Accuracy against cost", [chart])


def pairs(evidence: Evidence) -> Section:
    """Say what the test of each pair says."""
    record, names = evidence.comparison, names_of(evidence)
    found = record["pairs"]
    if not found:
        text = "There is one method, so there is nothing to compare it with."
        command = f"make compare DATA={record['data']} METHODS=svm,softmax"
        return Section("pairs", "Pair by pair", [Missing(text, command)])
    single = record["n_splits"] == 1
    said = (
        f"Exact McNemar test on the {record['n_test']:,} shared test images, p corrected for "
        f"{len(found)} pairs by Holm's procedure; intervals by Bonett and Price."
        if single
        else f"Corrected resampled t-test over {record['n_splits']} random splits (Nadeau and "
        f"Bengio), p corrected for {len(found)} pairs by Holm's procedure; probabilities by the "
        f"Bayesian correlated t-test, equal meaning within {100 * record['rope']:g} points."
    )
    middle = [
        Column("Only first right", "images that the first alone calls rightly"),
        Column("Only second right", "images that the second alone does"),
    ]
    last = [Column("Images for a point", "test images that would show one point, power 80 %")]
    if not single:
        middle, last = [], [Column("P(worse)"), Column("P(equal)"), Column("P(better)")]
    columns = [
        Column("First", numeric=False), Column("Second", numeric=False), *middle,
        Column("Difference", "points of accuracy, first less second"), Column("95 % interval"),
        Column("p"), Column("p (Holm)"), Column("It says", numeric=False), *last,
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
                Cell(f"{better} is better" if shown else "no difference shown",
                     mark="best" if shown else ""),
                *_last_cells(pair, single),
            ]
        )  # fmt: skip
    table = Table("Every pair of methods", columns, rows, "pairs", sortable=True)
    return Section("pairs", "Pair by pair", [Text(said), table])


def _last_cells(pair: Mapping[str, Any], single: bool) -> list[Cell]:
    if single:
        needed = pair["images_for_one_point"]
        return [Cell(f"{needed:,}", needed)]
    return [number_cell(pair["posterior"][key], 2) for key in ("worse", "equal", "better")]


def scratch_gap(evidence: Evidence) -> Section:
    """Say what the pretrained start is worth: fine-tuning less training from scratch."""
    title = "What pretraining is worth"
    names = names_of(evidence)
    of = {
        kind: [at for at, run in enumerate(evidence.runs) if run.record["method"] == kind]
        for kind in ("finetune", "scratch")
    }
    if not of["finetune"] or not of["scratch"]:
        lacking = " and no ".join(kind for kind, found in of.items() if not found)
        text = f"The comparison has no {lacking}, so the worth of the pretrained start is unknown."
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
            low, high = sorted(sign * end for end in pair["ci95"])
            said.append(
                f"{names[a]}, which starts from the pretrained weights, reaches "
                f"{percent(one['accuracy'])} %; {names[b]}, which starts at random, "
                f"{percent(other['accuracy'])} %: a gap of "
                f"{gap} points ({points(low, high)}; "
                f"p {p_value(pair['p_holm'])} after Holm)."
            )
    return Section("scratch", title, [Text(one) for one in said])


def _interval(entry: Mapping[str, Any], single: bool) -> Cell:
    if single and entry.get("accuracy_ci95"):
        low, high = entry["accuracy_ci95"]
        return Cell(points(low, high), low)
    sd = entry.get("accuracy_sd")
    return Cell(_DASH if sd is None else f"{100 * sd:.1f}", sd)


def _count(value: int) -> str:
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)
