"""How accuracy grows: with labels, layer by layer, epoch by epoch; and what that advises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..advise.words import options_figures, ranking_figures
from ..curve.words import curve_figures
from ..evidence.words import layers_figures
from ..notation import percent, share
from ..results.measures import measure_of
from ..results.tables import number_cell, percent_cell
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
from .cells import figures_table, names_of, relocated, updated, with_methods
from .gather import Evidence

_EVERY = {"layers": None}  # these stages read all layers unless told otherwise


def curves(evidence: Evidence) -> Section:
    """Show the learning curves and where they cross."""
    record = evidence.found["curve"]
    title = "Learning curves"
    if record is None:
        text = "Not measured: accuracy as a function of the number of labelled images."
        return Section("curves", title, [Missing(text, evidence.context.command_for("curve"))])
    methods, measure = record["methods"], measure_of(record)
    bands = [
        charts.Band(
            name, one["sizes"], one["mean"], ends=[e and tuple(e) for e in one["ci95"] or ()]
        )
        for name, one in methods.items()
    ]
    caption = (
        f"Mean {measure.word} on test over random draws of the training images. Bands: 95 % "
        "confidence interval of the mean (5 draws or more)."
    )
    crossings = [
        one
        for one in record["crossings"]
        if one.get("size") and one.get("clear") and one.get("ci95")
    ]
    if crossings:
        caption += " Dotted line: significant crossing of two curves; shaded: 95 % interval."
    chart = charts.learning_curves(bands, crossings, measure, key="learning", caption=caption)
    table = figures_table(
        curve_figures(record), f"{measure.heading} by labelled images", "curve-figures"
    )
    blocks: list[Block] = [Bullets(record.get("sentences", ())), chart]
    return Section("curves", title, [*blocks, Folded("Values of the learning curves", [table])])


def advice(evidence: Evidence) -> Section:
    """Pass on what the advice says, and its command."""
    record = evidence.found["advise"]
    title = "Advice"
    if record is None:
        text = "Not measured: which strategy, layers and network suit these images."
        return Section(
            "advice", title, [Missing(text, evidence.context.command_for("advise", _EVERY))]
        )
    commands = [
        one["command"]
        for one in (*record.get("options", ()), record.get("strategy", {}))
        if one.get("command")
    ]
    said = updated(record["sentences"], commands, evidence.context)
    blocks: list[Block] = [Bullets(said)]
    if record.get("options"):
        blocks.append(figures_table(options_figures(record), "Strategies", "options"))
    if len(record.get("ranking", ())) > 1:
        blocks.append(figures_table(ranking_figures(record), "Networks by LogME", "ranking"))
    strategy = record.get("strategy", {})
    command = strategy.get("command")
    if command:
        blocks.append(Text(_outcome(evidence, strategy)))
        blocks.append(Commands([relocated(str(command), evidence.context)]))
    return Section("advice", title, blocks)


def _outcome(evidence: Evidence, strategy: Mapping[str, Any]) -> str:
    """Compare the advised method with what was measured on test."""
    layers = [strategy["unfreeze"]] if strategy.get("unfreeze") else strategy.get("layers", ())
    advised = [strategy.get("method"), strategy.get("model"), list(layers)]
    asked = [[run.record[key] for key in ("method", "model", "layers")] for run in evidence.runs]
    if advised not in asked:
        return "The advised method is not in this comparison. This command measures it on test:"
    names, accuracy = names_of(evidence), [run.entry["accuracy"] for run in evidence.runs]
    at, best = asked.index(advised), int(np.argmax(accuracy))
    gap = accuracy[best] - accuracy[at]
    text = f"On test, the advised method ({names[at]}) reached {share(accuracy[at])}"
    if gap <= 0:
        return f"{text}, the highest accuracy of the comparison."
    end = "" if gap <= 0.01 else " Here the advice was wrong by more than one point."
    return f"{text}, {percent(gap)} points below the best ({names[best]}).{end}"


def layers(evidence: Evidence) -> Section:
    """Draw the accuracy of a probe on each layer."""
    record = evidence.found["layers"]
    title = "Linear probes by layer"
    if record is None:
        text = "Not measured: how well the codes of each layer separate the classes."
        return Section(
            "layers", title, [Missing(text, evidence.context.command_for("layers", _EVERY))]
        )
    caption = (
        f"Accuracy of a linear probe on the codes of each layer, by {record.get('folds', 5)}-fold "
        "cross-validation on train (test is not used). Bars: standard deviation over the folds."
    )
    chart = charts.accuracy_by_layer(
        record["layers"], best=record["best"], key="by-layer", caption=caption
    )
    table = figures_table(layers_figures(record), "Probes by layer", "layer-figures")
    blocks: list[Block] = [Bullets(record.get("sentences", ())), chart]
    return Section("layers", title, [*blocks, Folded("Values of the probes", [table])])


def training(evidence: Evidence) -> Section:
    """Draw loss and accuracy by epoch of every run that trained the network."""
    title = "Training curves"
    trained = [
        (run, name)
        for run, name in zip(evidence.runs, names_of(evidence), strict=True)
        if run.record.get("curve")
    ]
    if not trained and any("unfreeze" in run.record for run in evidence.runs):
        text = "Not included: a network was trained for each fold, in a folder of its own."
        return Section("training", title, [Text(text, "note")])
    if not trained:
        text = "Not included: no compared method trains the network."
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
                *(percent_cell(row.get(f"{split}_accuracy")) for split in ("train", "val")),
            ]
            for row in curve
        ]  # fmt: skip
    columns = [
        Column("Method", numeric=False), Column("Epoch"), Column("Train loss"), Column("Val loss"),
        Column("Train accuracy, %"), Column("Val accuracy, %"),
    ]  # fmt: skip
    table = Table("Loss and accuracy by epoch", columns, rows, "epoch-figures", sortable=True)
    text = "Dotted line: the epoch whose weights were kept, selected on val. Epoch 0 is the start."
    return Section(
        "training",
        title,
        [Text(text), Charts(panels), Folded("Values by epoch", [table])],
    )


def _kept(record: Mapping[str, Any]) -> int | None:
    """Place in the curve of the epoch whose weights were kept; the last phase's."""
    epoch = record.get("chosen", {}).get("epoch")
    at = [i for i, row in enumerate(record["curve"]) if row.get("epoch") == epoch]
    return at[-1] if at else None
