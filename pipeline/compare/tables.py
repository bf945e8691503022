"""A comparison as a table: its figures, one row per method and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..notation import DASH, compact, duration, megabytes, percent
from ..results.measures import ALPHA, MEASURES, Measure, measure_of
from ..results.tables import Cell, Column, Figures, Table, number_cell, percent_cell

_COLUMNS = ("macro_f1", "auroc", "log_loss")


def legend(record: Mapping[str, Any]) -> str:
    """Say what the marks of the table mean."""
    measure = measure_of(record)
    return (
        f"* {measure.extreme} {measure.word}; ~ not significantly different from it "
        f"(Holm-adjusted, \u03b1 = {ALPHA:g})"
    )


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


def ends_of(entry: Mapping[str, Any], measure: Measure) -> Sequence[float] | None:
    """Give the 95 % confidence interval of an entry's figure; None where it has none."""
    found: Sequence[float] | None = (entry.get("ci95") or {}).get(measure.key)
    return entry.get("accuracy_ci95") if measure.key == "accuracy" else found


def binomial_error(accuracy: float, n: int) -> float:
    """Give the standard error of an accuracy on n independent images, above 0.

    Of (hits + 2) / (n + 4), as Agresti and Coull 1998 have it.
    """
    rate = (accuracy * n + 2) / (n + 4)
    return float((rate * (1 - rate) / (n + 4)) ** 0.5)
