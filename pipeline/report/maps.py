"""Drawings of many things at once: images as points of a map, confusions as shades."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from .. import notation
from .blocks import Chart
from .charts import MARKERS, WIDTH
from .svg import SERIES, new_figure, rewritten


def projection(
    xy: NDArray[np.float64],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    key: str,
    title: str,
    caption: str,
) -> Chart:
    """Draw the images as points (N, 2), a colour and shape a class; points carry their number."""
    figure = new_figure(WIDTH, WIDTH, left=6, right=6, top=6, bottom=6)
    ax = figure.add_subplot()
    size = 5.0 if len(xy) < 800 else 3.8 if len(xy) < 2500 else 3.0
    numbers: dict[str, Sequence[int]] = {}
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        gid = f"class-{label}"
        ax.plot(
            xy[rows, 0], xy[rows, 1], linestyle="none", gid=gid, ms=size, mew=0, alpha=0.75,
            color=SERIES[label % len(SERIES)], marker=marker_of(label),
        )  # fmt: skip
        numbers[gid] = rows.tolist()
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = 0.03 * np.maximum(high - low, 1e-9)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(True)
    alt = f"{title}: {len(xy):,} images as points, a colour and a shape a class."
    svg = rewritten(figure, key=key, alt=alt, points=numbers)
    return Chart(key, svg, alt, title, caption)


def marker_of(label: int) -> str:
    """Give the shape of a class; colours repeat after eight, shapes change then."""
    return MARKERS[(label + label // len(SERIES)) % len(MARKERS)]


def confusion_map(confusion: NDArray[np.float64], *, key: str, name: str) -> Chart:
    """Draw a confusion matrix (K, K) of many classes as shades, rows true, as shares of the row."""
    figure = new_figure(WIDTH, WIDTH, left=34, right=8, top=8, bottom=34)
    ax = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # A drawing of pixels cannot follow the page's colours: one shade that suits both grounds.
    shades = LinearSegmentedColormap.from_list("shades", [(0.1, 0.55, 0.55, a) for a in (0, 1)])
    ax.imshow(np.sqrt(share), cmap=shades, vmin=0, vmax=1, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    recall = notation.share(float(np.trace(share) / len(share)), 0)
    alt = f"Confusion matrix of {name}: mean recall {recall}."
    svg = rewritten(figure, key=key, alt=alt)
    return Chart(
        key,
        svg,
        alt,
        name,
        "Rows: true class; columns: predicted class; shade: square root of the share of the row.",
    )


def legend_mark(label: int) -> str:
    """Draw the mark of a class, for the key of a map; markup."""
    shape = MarkerStyle(marker_of(label))
    path = shape.get_path().transformed(shape.get_transform())
    extent = np.abs(path.vertices).max()
    path = path.transformed(Affine2D().scale(5 / extent, -5 / extent).translate(6, 6))
    d = _spelled(path)
    return (
        f'<svg class="mark-shape" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
        f'<path d="{d}" fill="var(--c{label % len(SERIES) + 1})"/></svg>'
    )


def _spelled(path: Path) -> str:
    """Write a path of matplotlib's as SVG has it."""
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for vertices, code in path.iter_segments():
        parts.append(letters[int(code)])
        if int(code) != 79:
            parts += [f"{v:.2f}" for v in vertices]
    return " ".join(parts)
