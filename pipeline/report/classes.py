"""What a report says of the test images by class: confusions, calibration, thresholds."""

from __future__ import annotations

import numpy as np

from ..compare.words import label
from ..notation import number
from ..results.calibration import calibration_bins
from ..results.tables import number_cell, percent_cell
from . import charts
from .blocks import Block, Cell, Chart, Charts, Column, Folded, Section, Table, Text
from .cells import mark_of, names_of, one_split
from .gather import Evidence, Run
from .maps import confusion_map
from .numbers import average_precision, precision_recall, roc, top_confusions

MATRIX_CLASSES = 12  # with more, a matrix is drawn as shades
MOST_CLASSES = 40  # listed one by one
MOST_CURVES = 8  # classes drawn one by one


def confusion(evidence: Evidence) -> Section:
    """Count the predicted classes of each true class, for every method."""
    blocks: list[Block] = []
    n_classes = len(evidence.comparison["class_names"])
    note = one_split(evidence)
    if n_classes <= MATRIX_CLASSES:
        blocks.append(Text(f"Rows: true class; columns: predicted class.{note}"))
        matrices = [
            _matrix(run, name, f"confusion-{number}")
            for number, (run, name) in enumerate(
                zip(evidence.runs, names_of(evidence), strict=True)
            )
        ]
        blocks.append(Charts(matrices, small=True))
    else:
        name = label(evidence.best.entry, evidence.comparison)
        matrix = np.array(evidence.best.record["metrics"]["test"]["confusion"], dtype=np.float64)
        chart = confusion_map(matrix, key="confusion", name=name)
        blocks += [
            Text(f"Confusion matrix of the best method, {name}.{note}"),
            chart,
            _confusions(evidence.best),
        ]
    blocks.append(_by_class(evidence))
    return Section("confusion", "Confusion matrices", blocks)


def _matrix(run: Run, name: str, key: str) -> Table:
    names = run.record["class_names"]
    rows = []
    for true, counts in zip(names, run.record["metrics"]["test"]["confusion"], strict=True):
        total = sum(counts) or 1
        cells = [Cell(f"{n:g}", n, heat=n / total) for n in counts]
        rows.append([Cell(charts.short(true, 16)), *cells])
    columns = [Column("true", numeric=False), *(Column(charts.short(one, 16)) for one in names)]
    return Table(name, columns, rows, key, matrix=True)


def _confusions(run: Run) -> Table:
    names = run.predictions.class_names
    rows = [
        [Cell(names[true]), Cell(names[called]), Cell(str(n), n)]
        for true, called, n in top_confusions(run.predictions, 15)
    ]
    columns = [Column("True", numeric=False), Column("Predicted", numeric=False), Column("Images")]
    return Table("The most frequent confusions", columns, rows, "confusions", sortable=True)


def _by_class(evidence: Evidence) -> Table:
    best = evidence.best
    name = label(best.entry, evidence.comparison)
    listed = list(
        zip(best.record["class_names"], best.record["metrics"]["test"]["per_class"], strict=True)
    )
    caption = f"Precision, recall and F1 by class, {name}"
    if len(listed) > MOST_CLASSES:
        listed = sorted(listed, key=lambda one: one[1]["recall"])[:MOST_CLASSES]
        caption += f": the {MOST_CLASSES} classes of lowest recall"
    rows = [
        [
            Cell(one),
            *(percent_cell(figures[key]) for key in ("precision", "recall", "f1")),
            number_cell(figures["support"], 0),
        ]
        for one, figures in listed
    ]
    columns = [
        Column("Class", numeric=False),
        Column("Precision, %", "share of the images predicted as the class that belong to it"),
        Column("Recall, %", "share of the images of the class that are predicted as it"),
        Column("F1, %", "harmonic mean of precision and recall"), Column("Test images"),
    ]  # fmt: skip
    return Table(caption, columns, rows, "classes", sortable=True)


def calibration(evidence: Evidence) -> Section:
    """Draw the reliability diagram of every method."""
    panels: list[Chart | Table] = []
    rows = []
    for at, (run, name) in enumerate(zip(evidence.runs, names_of(evidence), strict=True)):
        found = run.predictions
        bins = calibration_bins(found.labels, found.probabilities)
        ece = float((bins[:, 2] * np.abs(bins[:, 0] - bins[:, 1])).sum())
        panels.append(
            charts.reliability(
                bins, key=f"reliability-{at}", name=name, ece=ece, accent=run.entry["best"]
            )
        )
        for confidence, accuracy, share in bins.tolist():
            rows.append([Cell(name), *(number_cell(v, 3) for v in (confidence, accuracy, share))])
    columns = [
        Column("Method", numeric=False), Column("Confidence"), Column("Accuracy"),
        Column("Share of images"),
    ]  # fmt: skip
    table = Table("Bins of equal mass", columns, rows, "bins", sortable=True)
    text = (
        "Accuracy against the mean confidence of the predicted class, in 15 bins of equal mass. "
        "On the diagonal the probabilities are calibrated; below it, they are overconfident."
        f"{one_split(evidence)}"
    )
    figures = Folded("Values of the bins", [table])
    blocks = (Text(text), Charts(panels, small=True), figures)
    return Section("calibration", "Calibration", blocks)


def operating(evidence: Evidence) -> Section:
    """Draw ROC curves of all methods for two classes, else precision and recall by class."""
    names = evidence.comparison["class_names"]
    if len(names) == 2:
        return _two_classes(evidence, names[1])
    return _one_against_rest(evidence)


def _two_classes(evidence: Evidence, positive: str) -> Section:
    lines, rows = [], []
    for run, name in zip(evidence.runs, names_of(evidence), strict=True):
        found = run.predictions
        is_so, score = found.labels == 1, found.probabilities[:, 1]
        if not 0 < is_so.sum() < len(is_so):
            continue
        x, y = roc(is_so, score)
        area, precision = float(np.trapezoid(y, x)), average_precision(is_so, score)
        lines.append(
            charts.Line(f"{name} {number(area)}", x.tolist(), y.tolist(), accent=run.entry["best"])
        )
        rows.append(
            [Cell(name, mark=mark_of(run.entry)), number_cell(area, 3), number_cell(precision, 3)]
        )
    title = "ROC curves"
    if not lines:
        text = Text("The test images are of one class only: there is no ROC curve.")
        return Section("operating", title, [text])
    caption = (
        f"ROC curves, positive class “{positive}”; the legend gives the area under each curve."
        f"{one_split(evidence)}"
    )
    chart = charts.operating_curves(
        lines,
        key="roc",
        kind="roc",
        title="True positive rate against false positive rate",
        caption=caption,
    )
    columns = [Column("Method", numeric=False), Column("AUROC"), Column("Average precision")]
    table = Table(
        f"Areas under the curves, positive class “{positive}”",
        columns,
        rows,
        "areas",
        sortable=True,
    )
    return Section("operating", title, [chart, table])


def _one_against_rest(evidence: Evidence) -> Section:
    best = evidence.best
    found, name = best.predictions, label(best.entry, evidence.comparison)
    rows, curves_ = [], []
    for k, one in enumerate(found.class_names):
        is_so, score = found.labels == k, found.probabilities[:, k]
        if not 0 < is_so.sum() < len(is_so):
            continue
        x, y = roc(is_so, score)
        area, precision = float(np.trapezoid(y, x)), average_precision(is_so, score)
        rows.append((precision, [Cell(one), number_cell(area, 3), number_cell(precision, 3)]))
        recall, precise = precision_recall(is_so, score)
        curves_.append(
            (
                precision,
                charts.Line(f"{one} {number(precision)}", recall.tolist(), precise.tolist()),
            )
        )
    drawn = [line for _, line in sorted(curves_, key=lambda one: one[0])[:MOST_CURVES]]
    listed = [cells for _, cells in sorted(rows, key=lambda one: one[0])[:MOST_CLASSES]]
    of = "each class"
    if len(drawn) < len(curves_):
        of = f"the {len(drawn)} of {len(curves_)} classes with the lowest average precision"
    caption = (
        f"{name}, {of}, one against the rest; the legend gives the average precision."
        f"{one_split(evidence)}"
    )
    chart = charts.operating_curves(
        drawn, key="pr", kind="pr", title="Precision against recall", caption=caption
    )
    columns = [Column("Class", numeric=False), Column("AUROC"), Column("Average precision")]
    table = Table("Each class against the rest", columns, listed, "areas", sortable=True)
    return Section("operating", "Precision-recall curves", [chart, table])
