"""How accuracy grows: with labels, layer by layer, epoch by epoch; and what that advises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import charts
from .blocks import (
    Block,
    Bullets,
    Cell,
    Chart,
    Charts,
    Column,
    Commands,
    Folded,
    Missing,
    Section,
    Table,
    Text,
)
from .cells import names_of, number_cell, share_cell, with_methods
from .gather import Evidence
from .numbers import duration, percent, points, signed

__all__ = ["advice", "curves", "layers", "training"]


_DASH = "\N{EN DASH}"
_EVERY = {"layers": None}  # these stages read all layers unless told otherwise


def curves(evidence: Evidence) -> Section:
    """Show the learning curves and where they cross."""
    record = evidence.found["curve"]
    title = "Learning curve"
    if record is None:
        text = "How accuracy grows with the number of labelled images has not been measured."
        return Section("curves", title, [Missing(text, evidence.context.command_for("curve"))])
    methods = record["methods"]
    bands = [
        charts.Band(name, one["sizes"], one["mean"], ends=[e and tuple(e) for e in _ends(one)])
        for name, one in methods.items()
    ]
    caption = (
        "Mean test accuracy over the draws. Bands: 95 % confidence interval of the mean, with 5 "
        "draws or more."
    )
    crossings = [
        one
        for one in record["crossings"]
        if one.get("size") and one.get("clear") and one.get("ci95")
    ]
    if crossings:
        caption += " Dotted: where two curves cross significantly; shaded: its interval."
    chart = charts.learning_curves(bands, crossings, key="learning", caption=caption)
    rows = [
        [
            Cell(name), Cell(f"{size:g}", size), Cell(str(len(values)), len(values)),
            Cell(percent(mean), mean), Cell(_DASH if sd is None else f"{100 * sd:.1f}", sd),
            Cell(points(min(values), max(values)) if len(values) > 1 else _DASH, min(values)),
            Cell(points(*ends) if ends else _DASH, ends[0] if ends else None),
        ]
        for name, one in methods.items()
        for size, values, mean, sd, ends in zip(
            one["sizes"], one["values"], one["mean"], one["sd"] or [None] * len(one["sizes"]),
            _ends(one), strict=True
        )
    ]  # fmt: skip
    columns = [
        Column("Method", numeric=False), Column("Images per class"), Column("Draws"),
        Column("Accuracy, %"), Column("SD", "standard deviation over the draws"),
        Column("Range", "over the draws"), Column("95 % CI", "of the mean, with 5 draws or more"),
    ]  # fmt: skip
    table = Table("Accuracy by labelled images", columns, rows, "curve-figures", sortable=True)
    blocks: list[Block] = [Bullets(record.get("sentences", ())), chart]
    return Section("curves", title, [*blocks, Folded("The figures of the curves", [table])])


def _ends(curve: Mapping[str, Any]) -> list[Any]:
    """Intervals of a learning curve; none with few draws."""
    return list(curve["ci95"] or [None] * len(curve["sizes"]))


def advice(evidence: Evidence) -> Section:
    """Pass on what the advice says, and its command."""
    record = evidence.found["advise"]
    title = "Advice"
    if record is None:
        text = "Which strategy suits these images, by size and likeness, has not been asked."
        return Section("advice", title, [Missing(text, evidence.context.command_for("advise", _EVERY))])
    blocks: list[Block] = [Bullets(record["sentences"])]
    if record.get("options"):
        blocks.append(_options(record))
    if len(record.get("ranking", ())) > 1:
        blocks.append(_ranking(record))
    strategy = record.get("strategy", {})
    command = strategy.get("command")
    if command:
        blocks.append(Text(_outcome(evidence, strategy)))
        blocks.append(Commands([str(command)]))
    return Section("advice", title, blocks)


def _outcome(evidence: Evidence, strategy: Mapping[str, Any]) -> str:
    """Set what was advised beside what was measured on test: where the advice failed, say so."""
    layers = [strategy["unfreeze"]] if strategy.get("unfreeze") else strategy.get("layers", ())
    advised = [strategy.get("method"), strategy.get("model"), list(layers)]
    asked = [[run.record[key] for key in ("method", "model", "layers")] for run in evidence.runs]
    if advised not in asked:
        return "What is advised is not among the methods compared here; this measures it:"
    names, accuracy = names_of(evidence), [run.entry["accuracy"] for run in evidence.runs]
    at, best = asked.index(advised), int(np.argmax(accuracy))
    gap = 100 * (accuracy[best] - accuracy[at])
    text = f"Measured on test, what is advised ({names[at]}) reached {percent(accuracy[at])} %"
    if gap <= 0:
        return f"{text}, the highest of all compared here."
    end = "within a point" if gap <= 1 else "here the advice failed by more than a point"
    return f"{text}, {signed(gap, plus=False)} points behind the best ({names[best]}): {end}."


def _options(record: Mapping[str, Any]) -> Table:
    """List the strategies that were weighed, with what each is expected to gain and cost."""
    rows = []
    for one in record["options"]:
        best = one == record["strategy"]
        low, high = one["interval"]
        rows.append(
            [
                Cell(str(one["strategy"]), mark="best" if best else ""),
                Cell(str(one["method"])),
                share_cell(one["accuracy"]),
                Cell(signed(one["gain_points"]), one["gain_points"]),
                Cell(points(low / 100, high / 100), low),
                Cell(duration(one["cost_s"]), one["cost_s"]),
            ]
        )
    columns = [
        Column("Strategy", numeric=False),
        Column("Method", numeric=False),
        Column("Held out, %", "accuracy, cross-validated on train"),
        Column("Gain", "points expected against the first line"),
        Column("95 % interval"),
        Column("Cost", "from nothing, codes and all"),
    ]
    return Table("Strategies", columns, rows, "options", sortable=True)


def _ranking(record: Mapping[str, Any]) -> Table:
    """Rank networks by scores that take no training, beside what was measured where it was."""
    names = ("log_me", "probe")
    methods = sorted({name for one in record["ranking"] for name in one.get("measured", {})})
    rows = [
        [
            Cell(str(one["model"])),
            *(number_cell(one.get(name), 3) for name in names),
            *(share_cell(one.get("measured", {}).get(method)) for method in methods),
        ]
        for one in record["ranking"]
    ]
    columns = [Column("Network", numeric=False)]
    columns += [Column(title) for title in ("LogME", "Probe")]
    columns += [Column(f"{method}, %", "measured on test") for method in methods]
    return Table("Networks, the most suitable first", columns, rows, "ranking", sortable=True)


def layers(evidence: Evidence) -> Section:
    """Draw the accuracy of a probe on each layer."""
    record = evidence.found["layers"]
    title = "Layer by layer"
    if record is None:
        text = "How well each layer's codes separate the classes has not been measured."
        return Section("layers", title, [Missing(text, evidence.context.command_for("layers", _EVERY))])
    caption = (
        f"A linear probe on each layer's codes: accuracy on images of train held out in "
        f"{record.get('folds', 5)} folds (never on test), with its standard deviation."
    )
    chart = charts.accuracy_by_layer(
        record["layers"], best=record["best"], key="by-layer", caption=caption
    )
    rows = [
        [
            Cell(str(one["layer"]), mark="best" if one["layer"] == record["best"] else ""),
            number_cell(one.get("code_dim"), 0), Cell(percent(one["accuracy"]), one["accuracy"]),
            Cell(_DASH if one.get("sd") is None else f"{100 * one['sd']:.1f}", one.get("sd")),
            Cell(_DASH if one.get("C") is None else f"{one['C']:.1e}", one.get("C")),
        ]
        for one in record["layers"]
    ]  # fmt: skip
    columns = [
        Column("Layer", numeric=False), Column("Code length"), Column("Accuracy, %"),
        Column("Standard deviation"), Column("C"),
    ]  # fmt: skip
    table = Table("Probes by layer", columns, rows, "layer-figures", sortable=True)
    blocks: list[Block] = [Bullets(record.get("sentences", ())), chart]
    return Section("layers", title, [*blocks, Folded("The figures of the layers", [table])])


def training(evidence: Evidence) -> Section:
    """Draw loss and accuracy by epoch of every run that trained the network."""
    title = "Training by epoch"
    trained = [
        (run, name)
        for run, name in zip(evidence.runs, names_of(evidence), strict=True)
        if run.record.get("curve")
    ]
    if not trained:
        text = "No method here trains the network itself."
        command = with_methods(evidence, "finetune")
        return Section("training", title, [Missing(text, command)])
    panels: list[Chart | Table] = []
    rows = []
    for number, (run, name) in enumerate(trained):
        curve = run.record["curve"]
        kept = _kept(run.record)
        for what in ("accuracy", "loss"):
            key = f"epochs-{number}-{what}"
            panels.append(charts.epochs(curve, what=what, key=key, name=name, chosen=kept))
        rows += [
            [
                Cell(name), number_cell(row.get("epoch"), 0),
                *(number_cell(row.get(f"{split}_loss"), 4) for split in ("train", "val")),
                *(share_cell(row.get(f"{split}_accuracy")) for split in ("train", "val")),
            ]
            for row in curve
        ]  # fmt: skip
    columns = [
        Column("Method", numeric=False), Column("Epoch"), Column("Train loss"), Column("Val loss"),
        Column("Train accuracy, %"), Column("Val accuracy, %"),
    ]  # fmt: skip
    table = Table("Every epoch", columns, rows, "epoch-figures", sortable=True)
    text = "Dotted: the epoch whose weights were kept, chosen on val."
    return Section(
        "training",
        title,
        [Text(text), Charts(panels), Folded("The figures of the epochs", [table])],
    )


def _kept(record: Mapping[str, Any]) -> int | None:
    """Place in the curve of the epoch whose weights were kept; the last phase's."""
    epoch = record.get("chosen", {}).get("epoch")
    at = [i for i, row in enumerate(record["curve"]) if row.get("epoch") == epoch]
    return at[-1] if at else None
