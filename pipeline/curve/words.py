"""A learning curve in sentences, as a table and a picture; every word follows from numbers.

Takes the curve's record alone, so that a report can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..notation import DASH, count, duration, share
from ..results.drawing import drawing, write_svg
from ..results.measures import Measure, measure_of
from ..results.tables import Cell, Column, Figures, Table, number_cell


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say where which method is better, and how accuracy grows with more labels."""
    measure = measure_of(record)
    said = [_pair(one, measure) for one in record["crossings"]]
    for name, one in record["methods"].items():
        said.append(_growth(name, one, measure))
        said += _forecast(name, one, measure)
    return said


def _pair(one: Mapping[str, Any], measure: Measure) -> str:
    a, b, found = one["a"], one["b"], one["differences"]
    over = "1 draw" if one["n_draws"] == 1 else f"{one['n_draws']} draws"
    range_ = _range([point["size"] for point in found])
    if any(point["ci95"] is None for point in found):
        return _untested(one, range_, over, measure)
    ahead_a = [point for point in found if point["ci95"][0] > 0]
    ahead_b = [point for point in found if point["ci95"][1] < 0]
    if one["clear"] and one["ci95"]:
        later = one["direction"]
        sooner = a if later == b else b
        text = (
            f"{sooner} is significantly better with fewer than about {_rounded(one['size'])} "
            f"images per class{_ends(one)}, {later} with more."
        )
        if one["share"] < 0.995:
            text += f" {share(one['share'], 0)} of the resamples cross in this direction."
        return text
    if not ahead_a and not ahead_b:
        widest = max(found, key=lambda point: abs(point["mean"]))
        text = f"No significant difference between {a} and {b} {range_} ({over})"
        if widest["mean"] == 0:
            return f"{text}."
        name = a if widest["mean"] > 0 else b
        bound = max(abs(end) for point in found for end in point["ci95"])
        return (
            f"{text}; the largest is {measure.gap(abs(widest['mean']))} in favour of {name}, "
            f"at {widest['size']:,}. At every size the difference is at most {measure.gap(bound)} "
            "(95 % confidence)."
        )
    parts = [
        f"{name} is significantly better than {other} {_at(points, measure)}"
        for name, other, points in ((a, b, ahead_a), (b, a, ahead_b))
        if points
    ]
    same = len(ahead_a) + len(ahead_b) < len(found)
    rest = "; no significant difference at the other sizes" if same else ""
    return f"{' and '.join(parts)}{rest} ({over})."


def _untested(one: Mapping[str, Any], range_: str, over: str, measure: Measure) -> str:
    """Describe a difference by its range over the draws; claim nothing."""
    points = [
        f"{measure.signed(point['mean'])} at {point['size']:,}"
        + (f" (range {measure.signed_interval(*point['range'])})" if one["n_draws"] > 1 else "")
        for point in one["differences"]
    ]
    unit = ", in points" if measure.percent else f" of {measure.word}"
    first, second = (one["b"], one["a"]) if measure.lower else (one["a"], one["b"])
    return (
        f"{first} minus {second} {range_}{unit}: {', '.join(points)}. No test is made "
        f"with {over}: at least 5 are needed."
    )


def _range(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"at {sizes[0]:,} images per class"
    return f"from {sizes[0]:,} to {sizes[-1]:,} images per class"


def _at(points: Sequence[Mapping[str, Any]], measure: Measure) -> str:
    """Name sizes, and the range of the differences there."""
    sizes = [f"{point['size']:,}" for point in points]
    where = sizes[0] if len(sizes) == 1 else f"{', '.join(sizes[:-1])} and {sizes[-1]}"
    gaps = sorted(abs(point["mean"]) for point in points)
    low, high = measure.cell(gaps[0]), measure.gap(gaps[-1])
    by = high if low == measure.cell(gaps[-1]) else f"{low} to {high}"
    return f"with {where} images per class (by {by})"


def _ends(one: Mapping[str, Any]) -> str:
    if not one["ci95"]:
        return ""
    low, high = (_rounded(end) for end in one["ci95"])
    return f" (95 % confidence interval {low} to {high})" if low != high else ""


def _rounded(size: float) -> str:
    """Round to two significant digits: no crossing is known better."""
    if size < 10:
        return count(size)
    digits = len(str(int(size))) - 2
    return f"{round(size / 10**digits) * 10**digits:,}"


def _growth(name: str, one: Mapping[str, Any], measure: Measure) -> str:
    sizes, mean = one["sizes"], one["mean"]
    text = f"{name}: {measure.text(mean[0])} with {sizes[0]:,} images per class"
    if len(sizes) == 1:
        return f"{text}{_spread(one, 0, measure)}."
    text += f", {measure.text(mean[-1])} with {sizes[-1]:,}{_spread(one, -1, measure)}"
    step = mean[-1] - mean[-2]
    change = "an increase" if step >= 0 else "a decrease"
    return f"{text}; from {sizes[-2]:,} to {sizes[-1]:,}, {change} of {measure.gap(abs(step))}."


def _spread(one: Mapping[str, Any], at: int, measure: Measure) -> str:
    """Give the confidence interval at a size, or else the range over the draws."""
    if one["ci95"]:
        return f" (95 % confidence interval {measure.interval(*one['ci95'][at])})"
    values = one["values"][at]
    if len(values) == 1:
        return ""
    return f" (range over {len(values)} draws {measure.interval(min(values), max(values))})"


def _forecast(name: str, one: Mapping[str, Any], measure: Measure) -> list[str]:
    """Say what more images would be worth, by the power law."""
    found = one.get("forecast")
    if not found:
        return []
    parts = [
        f"{measure.text(point['mean'])} with {_rounded(point['size'])} images per class (90 % "
        f"band {measure.interval(point['low'], point['high'])})"
        for point in found
    ]
    return [f"{name}, extrapolated by a power law: {', '.join(parts)}."]


def curve_table(record: Mapping[str, Any]) -> Table:
    """Format the curve as an aligned text table, one line per method and size."""
    return curve_figures(record).plain()


def curve_figures(record: Mapping[str, Any]) -> Figures:
    """Give the figure by method and number of labelled images per class."""
    measure = measure_of(record)
    unit = ", in points" if measure.percent else ""
    rows = [
        [
            Cell(name),
            number_cell(size, 0),
            number_cell(len(values), 0),
            Cell(measure.cell(mean), mean),
            Cell(DASH if sd is None else measure.cell(sd), sd),
            Cell(measure.interval(min(values), max(values)), min(values))
            if values[1:]
            else Cell(DASH),
            Cell(measure.interval(*ends), ends[0]) if ends else Cell(DASH),
            Cell(duration(seconds), seconds),
        ]
        for name, one in record["methods"].items()
        for size, values, mean, sd, ends, seconds in zip(
            one["sizes"], one["values"], one["mean"], one["sd"] or [None] * len(one["sizes"]),
            one["ci95"] or [None] * len(one["sizes"]), one["fit_s"], strict=True,
        )
    ]  # fmt: skip
    columns = [
        Column("Method", numeric=False), Column("Images per class"), Column("Draws"),
        Column(measure.title, "mean over the draws"),
        Column("SD", f"standard deviation over the draws{unit}"),
        Column("Range", "over the draws"),
        Column("95 % CI", "confidence interval of the mean, with 5 draws or more"),
        Column("Fit", "mean time to select hyper-parameters and fit"),
    ]  # fmt: skip
    return Figures(columns, rows)


def draw_picture(path: Path, record: Mapping[str, Any]) -> None:
    """Draw a curve as SVG: means, intervals, draws, significant crossings."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    with drawing(**{"svg.hashsalt": record["name"]}):
        figure = Figure(figsize=(7, 4.4))  # margins given: finding them takes a second
        figure.subplots_adjust(left=0.1, right=0.97, bottom=0.12, top=0.93)
        ax = figure.subplots()
        markers = "osD^vP*X<>"
        for at, (name, one) in enumerate(record["methods"].items()):
            colour, sizes = f"C{at % 10}", one["sizes"]
            for draw in zip(*one["values"], strict=True):
                ax.plot(sizes, draw, color=colour, alpha=0.18, linewidth=0.7)
            if one["ci95"]:
                low, high = zip(*one["ci95"], strict=True)
                ax.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
            ax.plot(sizes, one["mean"], color=colour, marker=markers[at % 10], label=name)
        for one in record["crossings"]:
            if one["clear"]:
                if one["ci95"]:
                    ax.axvspan(*one["ci95"], color="0.5", alpha=0.12, linewidth=0)
                ax.axvline(one["size"], color="0.4", linestyle="--", linewidth=1)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(record["sizes"]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([f"{size:,}" for size in record["sizes"]])
        ax.set_xlabel("labelled images per class")
        ax.set_ylabel(f"{measure_of(record).word} on {record['n_test']:,} test images")
        ax.set_title(f"{record['data']}: {record['model']}", fontsize=10)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
        write_svg(path, figure)
