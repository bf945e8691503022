"""Crop and resize inside the graph, bit for bit as ``make predict`` does them.

The resizer of the pipeline computes with whole numbers: the filter's weights of each output pixel
are brought to a sum of 1, multiplied by a power of two and rounded; the columns of the image are
summed with them, rounded to 8 bits, and then its rows. The same arithmetic in float64 is exact,
so that equal bytes come out (tested for every filter, and sizes from 1 x 1 to thousands of
pixels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..backbones.preprocess import Preprocessing
from .graph import DOUBLE, INT64, UINT8, Graph

_SUPPORT = {"nearest": 0.5, "box": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_MOST_BITS = 22  # of a weight; fewer where a rounded weight would not fit into 16 bits
_WEIGHT_LIMIT = 2.0**15


@dataclass(frozen=True)
class _Axis:
    """Names of one axis' scalars, float64: pixels, start and length of the box, target, offset."""

    length: str
    start: str
    extent: str
    inner: str
    offset: str


def add_resize(g: Graph, image: str, prepared: str, preprocessing: Preprocessing) -> str:
    """Add the geometry: an image to the network's square.

    Parameters
    ----------
    g : Graph
        Where the nodes go.
    image : str
        uint8 (H, W, 3).
    prepared : str
        bool: the image is the square already, and stays as it is.
    preprocessing : Preprocessing
        Size, crop and filter.

    Returns
    -------
    str
        uint8 (size, size, 3).
    """
    size = preprocessing.size
    shape = g.cast(g("Shape", image), DOUBLE)
    height = g("Gather", shape, g.constant(0, np.int64))
    width = g("Gather", shape, g.constant(1, np.int64))
    rows, columns = _axes(g, height, width, prepared, preprocessing)
    down = _weights(g, rows, size, preprocessing.interpolation)  # (S, H), scale
    across = _weights(g, columns, size, preprocessing.interpolation)  # (S, W), scale
    planes = g("Transpose", g.cast(image, DOUBLE), perm=[2, 0, 1])  # (3, H, W)
    tall = _rounded(g, g("MatMul", down[0], planes), down[1])  # (3, S, W)
    turned = g("Transpose", across[0], perm=[1, 0])
    square = _rounded(g, g("MatMul", tall, turned), across[1])  # (3, S, S)
    pixels = g("Transpose", square, perm=[1, 2, 0])  # (S, S, 3)
    if preprocessing.resize == "pad":
        colour = np.clip(np.round(np.array(preprocessing.mean) * 255), 0, 255)
        inside = g(
            "And",
            g("Reshape", down[2], g.ints(size, 1, 1)),
            g("Reshape", across[2], g.ints(1, size, 1)),
        )
        pixels = g("Where", inside, pixels, g.constant(colour.reshape(1, 1, 3)))
    return g.cast(pixels, UINT8)


def _axes(
    g: Graph, height: str, width: str, prepared: str, preprocessing: Preprocessing
) -> tuple[_Axis, _Axis]:
    """Compute the box in the image and its place in the square, as preprocessing does."""
    size, zero = g.constant(float(preprocessing.size)), g.constant(0.0)
    two = g.constant(2.0)

    def unless_prepared(value: str, otherwise: str) -> str:
        return g("Where", prepared, otherwise, value)

    if preprocessing.resize == "stretch":
        return (
            _Axis(height, zero, height, size, zero),
            _Axis(width, zero, width, size, zero),
        )
    if preprocessing.resize == "pad":
        scale = g("Div", size, g("Max", height, width))
        found = []
        for length in (height, width):
            inner = g("Max", g.constant(1.0), g("Round", g("Mul", length, scale)))
            offset = g("Floor", g("Div", g("Sub", size, inner), two))
            found.append(_Axis(length, zero, length, inner, offset))
        return found[0], found[1]
    side = g("Mul", g("Min", height, width), g.constant(preprocessing.crop_ratio))
    found = []
    for length in (height, width):
        start = g("Div", g("Sub", length, side), two)
        found.append(
            _Axis(length, unless_prepared(start, zero), unless_prepared(side, length), size, zero)
        )
    return found[0], found[1]


def _weights(g: Graph, axis: _Axis, size: int, kind: str) -> tuple[str, str, str]:
    """Give whole-number weights (size, n), the power of two in them, and which rows are inside."""
    half = g.constant(0.5)
    n = g("Range", g.constant(0, np.int64), g.cast(axis.length, INT64), g.constant(1, np.int64))
    places = g("Unsqueeze", g.cast(n, DOUBLE), g.ints(0))  # (1, n)
    out = g("Sub", g.constant(np.arange(size)[:, None] + 0.0), axis.offset)  # (size, 1)
    inside = g("And", g("GreaterOrEqual", out, g.constant(0.0)), g("Less", out, axis.inner))
    scale = g("Div", axis.extent, axis.inner)
    centre = g("Add", axis.start, g("Mul", g("Add", out, half), scale))  # (size, 1)
    if kind == "nearest":
        chosen = g("Equal", places, g("Floor", centre))
        rows = g.cast(g("And", chosen, inside), DOUBLE)
        return rows, g.constant(1.0), inside
    wide = g("Max", scale, g.constant(1.0))
    reach = g("Mul", wide, g.constant(_SUPPORT[kind]))
    low = g("Floor", g("Max", g("Sub", centre, reach), g.constant(0.0)))
    high = g("Ceil", g("Min", g("Add", centre, reach), axis.length))
    within = g("And", g("GreaterOrEqual", places, low), g("Less", places, high))
    x = g("Div", g("Sub", places, g("Sub", centre, half)), wide)
    kept = g.cast(g("And", within, inside), DOUBLE)
    raw = g("Mul", _filter(g, x, kind), kept)  # (size, n)
    sums = g.total(raw, 1)
    whole = g("Where", g("Equal", sums, g.constant(0.0)), g.constant(1.0), sums)
    weights = g("Div", raw, whole)
    power = _power(g, weights)
    scaled = g("Mul", weights, power)
    negative = g("Less", scaled, g.constant(0.0))
    rounded = g(
        "Where", negative, g("Ceil", g("Sub", scaled, half)), g("Floor", g("Add", scaled, half))
    )
    return rounded, power, inside


def _power(g: Graph, weights: str) -> str:
    """Give the largest power of two with which every rounded weight fits into 16 bits."""
    highest = g("Reshape", g("ReduceMax", weights, keepdims=0), g.ints(1))
    powers = 2.0 ** np.arange(_MOST_BITS)
    next_value = g("Floor", g("Add", g("Mul", highest, g.constant(powers * 2)), g.constant(0.5)))
    limits = np.full(_MOST_BITS, _WEIGHT_LIMIT)
    limits[-1] = -np.inf  # there the search ends
    beyond = g.cast(g("GreaterOrEqual", next_value, g.constant(limits)), INT64)
    first = g("ArgMax", beyond, axis=0, keepdims=0)
    return g("Gather", g.constant(powers), first)


def _rounded(g: Graph, sums: str, power: str) -> str:
    """Divide by the power of two, round, and bring to 0 to 255."""
    shifted = g("Add", sums, g("Mul", power, g.constant(0.5)))
    whole = g("Floor", g("Div", shifted, power))
    return g("Min", g("Max", whole, g.constant(0.0)), g.constant(255.0))


def _filter(g: Graph, x: str, kind: str) -> str:
    ax = g("Abs", x)
    one, zero = g.constant(1.0), g.constant(0.0)
    if kind == "box":
        above = g("Greater", x, g.constant(-0.5))
        return g.cast(g("And", above, g("LessOrEqual", x, g.constant(0.5))), DOUBLE)
    if kind == "bilinear":
        return g("Max", g("Sub", one, ax), zero)
    if kind == "bicubic":
        near = _polynomial(g, ax, (1.5, -2.5, 0.0, 1.0))
        far = _polynomial(g, ax, (-0.5, 2.5, -4.0, 2.0))
        outer = g("Where", g("Less", ax, g.constant(2.0)), far, zero)
        return g("Where", g("Less", ax, one), near, outer)
    product = g("Mul", _sinc(g, x), _sinc(g, g("Div", x, g.constant(3.0))))
    return g("Where", g("Less", ax, g.constant(3.0)), product, zero)


def _polynomial(g: Graph, x: str, coefficients: tuple[float, ...]) -> str:
    value = g.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = g("Mul", value, x)
        if coefficient:
            value = g("Add", value, g.constant(coefficient))
    return value


def _sinc(g: Graph, x: str) -> str:
    angle = g("Mul", x, g.constant(math.pi))
    at_zero = g("Equal", angle, g.constant(0.0))
    safe = g("Where", at_zero, g.constant(1.0), angle)
    return g("Where", at_zero, g.constant(1.0), g("Div", g("Sin", safe), safe))
