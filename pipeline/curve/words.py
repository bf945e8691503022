"""What a learning curve says: sentences, a table and a picture; every word follows from numbers.

Takes the curve's record alone, so that a report can say the same.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomic
from ..results.tables import aligned

__all__ = ["curve_table", "draw_picture", "sentences"]


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say where which method is better, and what more labels are worth."""
    said = [_pair(one) for one in record["crossings"]]
    return said + [_growth(name, one) for name, one in record["methods"].items()]


def _pair(one: Mapping[str, Any]) -> str:
    a, b, found = one["a"], one["b"], one["differences"]
    over = "1 draw" if one["n_draws"] == 1 else f"{one['n_draws']} draws"
    range_ = _range([point["size"] for point in found])
    ahead_a = [point for point in found if point["ci95"][0] > 0]
    ahead_b = [point for point in found if point["ci95"][1] < 0]
    if one["clear"]:
        later = one["direction"]
        sooner = a if later == b else b
        text = (
            f"With fewer than about {_rounded(one['size'])} images a class{_ends(one)} {sooner} is "
            f"better; from there {later}."
        )
        if one["ci95"] and one["share"] < 0.995:
            text += f" {one['share']:.0%} of the resamples cross so."
        return text
    if one["size"] is None:
        text = f"{a} and {b} do not cross {range_}"
    else:
        text = (
            f"{a} and {b} cross at about {_rounded(one['size'])} images a class{_ends(one)}, but "
            "that is not sure"
        )
    if not ahead_a and not ahead_b:
        widest = max(found, key=lambda point: abs(point["mean"]))
        if one["size"] is None:
            text += f", and no difference can be shown at any size ({over})"
        else:
            text = f"No difference between {a} and {b} can be shown {range_} ({over})"
        name = a if widest["mean"] > 0 else b
        if widest["mean"] == 0:
            return f"{text}."
        return (
            f"{text}; the largest is {100 * abs(widest['mean']):.1f} points for {name}, at "
            f"{widest['size']:,}."
        )
    parts = [
        f"{name} is better {_at(points)}" for name, points in ((a, ahead_a), (b, ahead_b)) if points
    ]
    same = len(ahead_a) + len(ahead_b) < len(found)
    rest = "; at the other sizes no difference can be shown" if same else ""
    return f"{text}: {' and '.join(parts)}{rest} ({over})."


def _range(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"at {sizes[0]:,} images a class"
    return f"between {sizes[0]:,} and {sizes[-1]:,} images a class"


def _at(points: Sequence[Mapping[str, Any]]) -> str:
    """Name sizes, and the range of the differences there."""
    sizes = [f"{point['size']:,}" for point in points]
    where = sizes[0] if len(sizes) == 1 else f"{', '.join(sizes[:-1])} and {sizes[-1]}"
    points_ = sorted(100 * abs(point["mean"]) for point in points)
    low, high = f"{points_[0]:.1f}", f"{points_[-1]:.1f}"
    by = f"{high} points" if low == high else f"{low} to {high} points"
    return f"with {where} images a class (by {by})"


def _ends(one: Mapping[str, Any]) -> str:
    if not one["ci95"]:
        return ""
    low, high = (_rounded(end) for end in one["ci95"])
    return f" (95 % interval {low} to {high})" if low != high else ""


def _rounded(size: float) -> str:
    """Two significant digits: no crossing is known better."""
    if size < 10:
        return f"{size:.0f}"
    digits = len(str(int(size))) - 2
    return f"{round(size / 10**digits) * 10**digits:,}"


def _growth(name: str, one: Mapping[str, Any]) -> str:
    sizes, mean, ends = one["sizes"], one["mean"], one["ci95"]
    text = f"{name}: {100 * mean[0]:.1f} % with {sizes[0]:,} images a class"
    if len(sizes) == 1:
        return f"{text}."
    text += f", {100 * mean[-1]:.1f} % with {sizes[-1]:,}"
    if ends:
        text += f" (95 % interval {100 * ends[-1][0]:.1f} to {100 * ends[-1][1]:.1f})"
    step = 100 * (mean[-1] - mean[-2])
    last = f"the last step, from {sizes[-2]:,}, {'adds' if step >= 0 else 'costs'}"
    return f"{text}; {last} {abs(step):.1f} points."


def curve_table(record: Mapping[str, Any]) -> str:
    """Lay the curve out as an aligned plain-text table, one line a size."""
    methods = record["methods"]
    header = ["images a class", "in all"]
    for name, one in methods.items():
        n_draws = len(one["values"][0])
        header += [name, "± sd" if n_draws > 1 else "", "95% interval", "fit s"]
    lines = [header]
    for at, (size, total) in enumerate(zip(record["sizes"], record["n_train_total"], strict=True)):
        line = [f"{size:,}", f"{total:,}"]
        for one in methods.values():
            sd, ends = one["sd"], one["ci95"]
            line += [
                f"{one['mean'][at]:.4f}",
                f"{sd[at]:.4f}" if sd else "",
                f"{ends[at][0]:.3f} to {ends[at][1]:.3f}" if ends else "-",
                f"{one['fit_s'][at]:.2f}",
            ]
        lines.append(line)
    return aligned(lines, text_columns=0)


def draw_picture(path: Path, record: Mapping[str, Any]) -> None:
    """Draw accuracy by images a class as SVG: means, intervals, draws, and sure crossings."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    with matplotlib.rc_context({"svg.hashsalt": record["name"], "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4.4), layout="constrained")
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
        ax.set_xlabel("labelled images a class")
        ax.set_ylabel(f"accuracy on {record['n_test']:,} test images")
        ax.set_title(f"{record['data']}: {record['model']}", fontsize=10)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    write_atomic(path, stream.getvalue())
