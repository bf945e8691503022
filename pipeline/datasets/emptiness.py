"""Pictures with nothing in them: blank, almost black, of few grey levels, heavily blurred."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLACK, WHITE = 2, 250  # levels of 255: every pixel at or below, at or above
FLAT = 4  # levels between the darkest and the lightest pixel of each channel
CONTENT_BITS = 4.0  # entropy of the grey levels; photographs have 6 to 7.5
DETAIL = 0.04  # share of the contrast that is finer than 1/16 of the side; photographs: .2 to .6
_SIDE, _BLOCK = 128, 8

KINDS = {
    "black": "almost black (no pixel is lighter than 2 of 255)",
    "white": "white (no pixel is darker than 250 of 255)",
    "constant": "of one colour",
    "few-levels": f"of less than {CONTENT_BITS:g} bits of content (entropy of the grey levels)",
    "blurred": "heavily blurred, or without detail",
}


def emptiness(pixels: NDArray[np.uint8]) -> str:
    """Say in which way a picture is empty.

    Parameters
    ----------
    pixels : array of shape (H, W, 1 or 3), uint8
        A decoded image.

    Returns
    -------
    str
        One of `KINDS`, the first that holds; empty where there is something to see.
    """
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    if high.max() <= BLACK:
        return "black"
    if low.min() >= WHITE:
        return "white"
    if int((high.astype(int) - low).max()) <= FLAT:
        return "constant"
    grey = _grey(pixels)
    if content_bits(grey) < CONTENT_BITS:
        return "few-levels"
    return "blurred" if detail(grey) < DETAIL else ""


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of the channels, of every n-th row and column, so that about 512 px a side are left."""
    step = max(1, min(pixels.shape[:2]) // 512)
    some = pixels[::step, ::step]
    return some[:, :, 0] if some.shape[2] == 1 else some.mean(axis=2).astype(np.uint8)


def content_bits(grey: NDArray[np.uint8]) -> float:
    """Shannon entropy of the histogram of grey levels (H, W), in bits: 0 to 8."""
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum())


def detail(grey: NDArray[np.uint8]) -> float:
    """Share of a picture's contrast that is finer than 1/16 of its side, 0 to 1.

    The picture is reduced to 128 x 128 by block means; the standard deviation inside blocks of
    8 x 8, each without its plane (so that a smooth slope is no detail), over that of the whole.
    """
    height, width = grey.shape
    if min(height, width) < _SIDE:
        return 1.0  # too small to tell
    rows = np.linspace(0, height, _SIDE + 1).astype(int)[:-1]
    columns = np.linspace(0, width, _SIDE + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(grey.astype(float), rows, 0), columns, 1)
    areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    small = sums / areas
    n = _SIDE // _BLOCK
    blocks = small.reshape(n, _BLOCK, n, _BLOCK).transpose(0, 2, 1, 3).reshape(n * n, -1)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    slope = np.arange(_BLOCK) - (_BLOCK - 1) / 2
    down, across = np.repeat(slope, _BLOCK), np.tile(slope, _BLOCK)
    for axis in (down, across):
        blocks = blocks - np.outer(blocks @ axis / (axis @ axis), axis)
    whole = float(small.std())
    return float(np.sqrt((blocks**2).mean())) / whole if whole else 0.0
