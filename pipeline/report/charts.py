"""The charts of a report, drawn by matplotlib: few marks, direct labels, one accent colour.

Each takes plain numbers and gives a :class:`cnn_codes.report.blocks.Chart`. Sizes are those of a
page's column on a telephone or half of it on a desk, so that text stays readable on both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ..notation import duration, number, share
from ..results.measures import Measure
from .blocks import Chart
from .svg import ACCENT, GRID, INK, MUTED, PAPER, SERIES, new_figure, rewritten

WIDTH = 420
_LETTER = 7.0  # mean width of a letter of a label
_LONGEST = 22  # letters of a label
_LINE_PX = 16.0  # from one label to the next
_COLOURS = {"best": ACCENT, "alike": INK}
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.6)), (0, (7, 2, 1.5, 2)), (0, (1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_TIMES = (
    (0.01, "10 ms"), (0.1, "0.1 s"), (0.3, "0.3 s"), (1, "1 s"), (3, "3 s"), (10, "10 s"),
    (20, "20 s"), (30, "30 s"), (60, "1 min"), (180, "3 min"), (600, "10 min"), (1800, "30 min"),
    (3600, "1 h"), (10800, "3 h"), (36000, "10 h"), (86400, "1 d"), (864000, "10 d"),
)  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """A method in the chart of a figure against cost in seconds."""

    name: str
    cost_s: float
    value: float
    low: float | None = None
    high: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points, and whether it is the one to look at."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    accent: bool = False


@dataclass(frozen=True)
class Band(Line):
    """A curve with an interval at its points, None where there is none."""

    ends: Sequence[tuple[float, float] | None] = ()


def short(text: str, longest: int = _LONGEST) -> str:
    """Cut a name in its middle to `longest` letters; line breaks become spaces."""
    text = " ".join(text.split())
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[len(text) - half :]}"


def figure_by_cost(spots: Sequence[Spot], measure: Measure, *, key: str, interval: str) -> Chart:
    """Draw a figure, with its interval, against seconds of codes and fit, on a log axis."""
    times = 100 if measure.percent else 1
    names = [short(one.name) for one in spots]
    right = round(26 + _LETTER * max(map(len, names)))
    figure = new_figure(WIDTH, 320, left=44, right=right)
    ax = figure.add_subplot()
    ax.set_xscale("log")
    cost = np.array([max(one.cost_s, 1e-3) for one in spots])
    for one, x in zip(spots, cost, strict=True):
        colour = _COLOURS.get(one.mark, MUTED)
        if one.low is not None and one.high is not None:
            ax.plot([x, x], [times * one.low, times * one.high], color=colour, lw=1.4)
        ground = colour if one.mark else PAPER
        ax.plot(x, times * one.value, "o", ms=7, mfc=ground, mec=colour, mew=1.5, zorder=4)
    low, high = cost.min(), cost.max()
    pad = max(1.25, math.sqrt(8 / (high / low))) if high / low < 8 else (high / low) ** 0.07
    ax.set_xlim(low / pad, high * pad)
    span = math.log(high * pad) - math.log(low / pad)
    ticks = [(at, text) for at, text in _TIMES if low / pad <= at <= high * pad]
    _log_ticks(ax, ticks, span, width_px=WIDTH - 44 - right)
    _figure_axis(ax, measure)
    ax.set_xlabel("time for codes and fit (log scale)")
    values = [times * one.value for one in spots]
    places = _spread(values, ax.get_ylim(), height_px=266)
    for one, name, x, y, at in zip(spots, names, cost, values, places, strict=True):
        colour = _COLOURS.get(one.mark, MUTED)
        ax.annotate(
            name, (x, y), xytext=(1.045, at), textcoords=("axes fraction", "data"),
            va="center", fontsize=12.5, color=colour, annotation_clip=False,
            weight="bold" if one.mark == "best" else "normal",
            arrowprops={"arrowstyle": "-", "color": GRID, "lw": 0.8, "shrinkA": 1, "shrinkB": 5},
            zorder=1,
        )  # fmt: skip
    said = "; ".join(
        f"{one.name} {measure.text(one.value)} in {duration(one.cost_s)}" for one in spots
    )
    alt = f"{measure.heading} against the time for codes and fit: {said}."
    svg = rewritten(figure, key=key, alt=alt)
    caption = (
        f"{measure.heading} on test against the time for extraction of the codes and fit. "
        f"Bars: {interval}. "
        "Coloured: the best; filled: not significantly different from it; outlined: significantly "
        "worse."
    )
    return Chart(key, svg, alt, "", caption)


def learning_curves(
    bands: Sequence[Band],
    crossings: Sequence[Mapping[str, Any]],
    measure: Measure,
    *,
    key: str,
    caption: str,
) -> Chart:
    """Draw a mean figure against labelled images per class, log axis, with crossings marked."""
    times = 100 if measure.percent else 1
    names = [short(one.name, 16) for one in bands]
    right = round(18 + _LETTER * max(map(len, names)))
    figure = new_figure(WIDTH, 310, left=44, right=right)
    ax = figure.add_subplot()
    ax.set_xscale("log")
    for at, one in enumerate(bands):
        colour = SERIES[at % len(SERIES)]
        y = [times * value for value in one.y]
        known = [
            (x, times * e[0], times * e[1]) for x, e in zip(one.x, one.ends, strict=False) if e
        ]
        if known:
            x_, low, high = zip(*known, strict=True)
            ax.fill_between(x_, low, high, color=colour, alpha=0.16, lw=0)
        ax.plot(
            one.x, y, color=colour, ls=_DASHES[at % len(_DASHES)],
            marker=MARKERS[at % len(MARKERS)], ms=4.5,
        )  # fmt: skip
    for found in crossings:
        if found.get("ci95"):
            ax.axvspan(*found["ci95"], color=MUTED, alpha=0.1, lw=0)
        ax.axvline(found["size"], color=MUTED, lw=1, ls=(0, (2, 2)))
    sizes = sorted({x for one in bands for x in one.x})
    span = max(math.log(sizes[-1] / sizes[0]), 1e-9)
    ticks = [(float(x), f"{x:g}") for x in reversed(sizes)]  # the largest is sure to be named
    _log_ticks(ax, ticks, span, width_px=WIDTH - 44 - right)
    _figure_axis(ax, measure)
    ax.set_xlabel("labelled images per class (log scale)")
    _end_labels(ax, [times * one.y[-1] for one in bands], names, height_px=256)
    alt = "Learning curves: " + "; ".join(
        f"{one.name} from {measure.text(one.y[0])} with {one.x[0]:g} images per class to "
        f"{measure.text(one.y[-1])} with {one.x[-1]:g}"
        for one in bands
    )
    alt += "."
    return Chart(key, rewritten(figure, key=key, alt=alt), alt, "", caption)


def reliability(
    bins: NDArray[np.float64], *, key: str, name: str, ece: float, accent: bool
) -> Chart:
    """Draw accuracy against confidence in bins (B, 3) of confidence, accuracy and share."""
    figure = new_figure(180, 176, left=34, right=8, top=8, bottom=36)
    ax = figure.add_subplot()
    floor = max(0.0, min(0.5, math.floor(10 * min(bins[:, 0].min(), bins[:, 1].min())) / 10))
    ax.plot([floor, 1], [floor, 1], color=MUTED, lw=0.8, ls=(0, (3, 3)))
    ax.plot(bins[:, 0], bins[:, 1], color=ACCENT if accent else INK, marker="o", ms=4, lw=1.2)
    ax.set_xlim(floor, 1.02)
    ax.set_ylim(floor, 1.02)
    ticks = [floor, (floor + 1) / 2, 1]
    ax.set_xticks(ticks, [f"{x:.2g}" for x in ticks])
    ax.set_yticks(ticks, [f"{x:.2g}" for x in ticks])
    ax.set_xlabel("confidence", fontsize=11)
    ax.set_ylabel("accuracy", fontsize=12, labelpad=2)
    alt = (
        f"Reliability diagram of {name}: from accuracy {number(bins[0, 1], 2)} at confidence "
        f"{number(bins[0, 0], 2)} to {number(bins[-1, 1], 2)} at {number(bins[-1, 0], 2)}; "
        f"expected calibration error {number(ece)}."
    )
    svg = rewritten(figure, key=key, alt=alt)
    return Chart(key, svg, alt, name, f"ECE {number(ece)}")


def operating_curves(
    lines: Sequence[Line], *, key: str, kind: str, title: str, caption: str
) -> Chart:
    """Draw curves of ``roc`` or ``pr``; their names, with their areas, stand in a key below."""
    figure = new_figure(WIDTH, 350 + 17 * math.ceil(len(lines) / 2), left=44, right=12,
                        bottom=52 + 17 * math.ceil(len(lines) / 2))  # fmt: skip
    ax = figure.add_subplot()
    if kind == "roc":
        ax.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (3, 3)))
    order = sorted(range(len(lines)), key=lambda at: lines[at].accent)  # what matters on top
    drawn = {}
    rank = 0
    for at in order:
        one = lines[at]
        colour = ACCENT if one.accent else SERIES[1 + rank % (len(SERIES) - 1)]
        (drawn[at],) = ax.plot(
            one.x, one.y, color=colour, lw=2.2 if one.accent else 1.3, label=short(one.name, 30),
            ls="-" if one.accent else _DASHES[1 + rank % (len(_DASHES) - 1)],
        )  # fmt: skip
        rank += not one.accent
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.02)
    ax.set_xlabel("false positive rate" if kind == "roc" else "recall")
    ax.set_ylabel("true positive rate" if kind == "roc" else "precision")
    ax.grid(True)
    ax.legend(
        handles=[drawn[at] for at in range(len(lines))], loc="upper left",
        bbox_to_anchor=(0.0, -46 / (350 - 62)), ncols=2, frameon=False, fontsize=12,
        labelcolor=INK, borderpad=0, borderaxespad=0, handlelength=2.2, columnspacing=1.4,
        labelspacing=0.35,
    )  # fmt: skip
    alt = f"{title}: {', '.join(one.name for one in lines)}."
    return Chart(key, rewritten(figure, key=key, alt=alt), alt, title, caption)


def accuracy_by_layer(
    layers: Sequence[Mapping[str, Any]], *, best: str, key: str, caption: str
) -> Chart:
    """Draw the accuracy of a linear probe on each layer, first layer on top."""
    names = [short(str(one["layer"]), 20) for one in layers]
    left = round(16 + _LETTER * max(map(len, names)))
    figure = new_figure(WIDTH, 64 + 26 * len(layers), left=left, right=48, top=8, bottom=44)
    ax = figure.add_subplot()
    for y, one in enumerate(layers):
        colour = ACCENT if one["layer"] == best else INK
        middle, sd = 100 * one["accuracy"], 100 * (one.get("sd") or 0.0)
        ax.plot([middle - sd, middle + sd], [y, y], color=colour, lw=1.4)
        ax.plot(middle, y, "o", ms=7, color=colour)
        ax.annotate(
            number(middle, 1), (1.02, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=12.5, color=colour, annotation_clip=False,
            weight="bold" if one["layer"] == best else "normal",
        )  # fmt: skip
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_yticks(range(len(layers)), names)
    ax.tick_params(axis="y", length=0)
    ax.grid(True)
    ax.set_xlabel("cross-validated accuracy on train, %")
    alt = "Accuracy of a linear probe by layer: " + "; ".join(
        f"{one['layer']} {share(one['accuracy'])}" for one in layers
    )
    alt += "."
    return Chart(key, rewritten(figure, key=key, alt=alt), alt, "", caption)


def epochs(
    curve: Sequence[Mapping[str, Any]], *, what: str, key: str, name: str, chosen: int | None
) -> Chart:
    """Draw ``accuracy`` or ``loss`` of train and val by epoch."""
    figure = new_figure(WIDTH, 250, left=44, right=52)
    ax = figure.add_subplot()
    scale = 100.0 if what == "accuracy" else 1.0
    ends, names = [], []
    for split, colour, dash in (("train", MUTED, _DASHES[1]), ("val", ACCENT, "-")):
        points = [(i, row.get(f"{split}_{what}")) for i, row in enumerate(curve)]
        known = [(i, scale * value) for i, value in points if value is not None]
        if known:
            x, y = zip(*known, strict=True)
            ax.plot(x, y, color=colour, ls=dash, marker="o", ms=3.5)
            ends.append(y[-1])
            names.append(split)
    for i, row in enumerate(curve):
        if i and row.get("epoch") == 0:
            ax.axvline(i - 0.5, color=GRID, lw=1)  # the next phase
    if chosen is not None:
        ax.axvline(chosen, color=ACCENT, lw=1, ls=(0, (2, 2)))
    step = max(1, math.ceil(len(curve) / 8))
    ax.set_xticks(range(0, len(curve), step), [f"{row['epoch']:g}" for row in curve[::step]])
    ax.grid(True, axis="y")
    ax.set_xlabel("epoch")
    ax.set_ylabel("accuracy, %" if what == "accuracy" else "loss")
    _end_labels(ax, ends, names, height_px=196)
    alt = f"{what.capitalize()} of {name} by epoch: " + "; ".join(
        f"{split} ends at {end:.3g}" for split, end in zip(names, ends, strict=True)
    )
    alt += "."
    svg = rewritten(figure, key=key, alt=alt)
    return Chart(key, svg, alt, f"{name}: {what} by epoch", "")


def _log_ticks(ax: Axes, ticks: Sequence[tuple[float, str]], span: float, *, width_px: int) -> None:
    """Name places on a log axis of `span` e-foldings, those first that do not touch others."""
    kept: list[tuple[float, str]] = []
    for at, text in ticks:
        room = 10 + _LETTER * len(text)  # from middle to middle
        if all(abs(math.log(at / other)) / span * width_px >= room for other, _ in kept):
            kept.append((at, text))
    ax.set_xticks([at for at, _ in kept], [text for _, text in kept], minor=False)
    ax.set_xticks([], minor=True)


def _figure_axis(ax: Axes, measure: Measure) -> None:
    """Name the axis of a figure; show nothing beyond what its values can be."""
    ax.set_ylabel(f"{measure.word}{', %' if measure.percent else ''}")
    if measure.percent:
        _percent_axis(ax)
        return
    low, high = ax.get_ylim()
    pad = 0.04 * (high - low)
    ax.set_ylim(max(low - pad, -0.01), min(high + pad, 1.01) if measure.bound == 1 else high + pad)
    ax.grid(True, axis="y")


def _percent_axis(ax: Axes) -> None:
    """Leave room above and below, but show nothing beyond what an accuracy can be."""
    low, high = ax.get_ylim()
    pad = 0.04 * (high - low)
    ax.set_ylim(max(low - pad, -1), min(high + pad, 101))
    ax.grid(True, axis="y")


def _end_labels(ax: Axes, ends: Sequence[float], names: Sequence[str], *, height_px: int) -> None:
    """Name lines at their right ends, without one name upon another."""
    places = _spread(ends, ax.get_ylim(), height_px=height_px)
    lines = [line for line in ax.get_lines() if line.get_marker() != "None"]
    for line, name, place in zip(lines, names, places, strict=False):
        ax.annotate(
            name, (1.02, place), xycoords=("axes fraction", "data"), va="center",
            fontsize=12.5, color=line.get_color(), annotation_clip=False,
        )  # fmt: skip


def _spread(values: Sequence[float], limits: tuple[float, float], *, height_px: int) -> list[float]:
    """Give each label a height near its value, at least a line from its neighbours.

    Labels that would meet form a group, which stands evenly about the mean of its values and
    within the limits; groups that meet are joined in turn.
    """
    gap = _LINE_PX * (limits[1] - limits[0]) / height_px
    order = sorted(range(len(values)), key=lambda at: values[at])

    def base(group: list[int]) -> float:
        """Place of the group's lowest label."""
        middle = sum(values[at] for at in group) / len(group) - gap * (len(group) - 1) / 2
        return max(limits[0], min(middle, limits[1] - gap * (len(group) - 1)))

    groups: list[list[int]] = []
    for at in order:
        groups.append([at])
        while len(groups) > 1 and base(groups[-2]) + gap * len(groups[-2]) > base(groups[-1]):
            upper = groups.pop()
            groups[-1] += upper
    out = [0.0] * len(values)
    for group in groups:
        for rank, at in enumerate(group):
            out[at] = base(group) + gap * rank
    return out
