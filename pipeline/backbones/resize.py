"""Antialiased resize of a crop box: cykooz-resizer where it has wheels, else Pillow.

Both are separable convolutions whose filter grows with the scale. With the filters of all known
weights (bilinear, bicubic, lanczos) they differ by rounding alone, by at most two of 255 levels and
.3 on average (a test holds them to it), so fingerprints do not depend on which one ran; the record
names it. Both take the vertical pass first: what overshoots is clipped between the passes.
cykooz-resizer is four times as fast and releases the interpreter's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box: TypeAlias = tuple[float, float, float, float]
_Resize: TypeAlias = Callable[[NDArray[np.uint8], Box, tuple[int, int], str], NDArray[np.uint8]]

_SUPPORT = 3.0  # of the widest filter, lanczos, in pixels of the output
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")


def by_pillow(
    pixels: NDArray[np.uint8], box: Box, shape: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Resample `box` (left, top, width, height in pixels) to `shape` (height, width).

    Parameters
    ----------
    pixels : array of shape (H, W, 1 or 3), uint8
        The image.
    box, shape, interpolation
        Which part of it, what size it gets, one of `FILTERS`.

    Returns
    -------
    array of shape (*shape, 1 or 3), uint8
    """
    left, top, width, height = box
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    how = Image.Resampling[interpolation.upper()]
    right = min(float(image.width), left + width)
    bottom = min(float(image.height), top + height)
    left, top = max(0.0, left), max(0.0, top)
    if interpolation != "nearest":  # which has no passes
        reach = _SUPPORT * max(1.0, width / shape[1]) + 1  # columns that the second pass reads
        first, last = max(0, int(left - reach)), min(image.width, math.ceil(right + reach))
        image = image.crop((first, 0, last, image.height)).resize(
            (last - first, shape[0]), how, box=(0, top, last - first, bottom)
        )
        left, right, top, bottom = left - first, right - first, 0.0, float(shape[0])
    small = image.resize((shape[1], shape[0]), how, box=(left, top, right, bottom))
    return np.asarray(small).reshape(*shape, pixels.shape[2])


def _by_cykooz() -> _Resize:
    from cykooz_resizer import (
        CropBox,
        FilterType,
        ImageData,
        PixelType,
        ResizeAlg,
        ResizeOptions,
        Resizer,
    )

    algorithms: dict[str, Any] = {
        "nearest": ResizeAlg.nearest(),
        "box": ResizeAlg.convolution(FilterType.box),
        "bilinear": ResizeAlg.convolution(FilterType.bilinear),
        "bicubic": ResizeAlg.convolution(FilterType.catmull_rom),
        "lanczos": ResizeAlg.convolution(FilterType.lanczos3),
    }
    types = {1: PixelType.U8, 3: PixelType.U8x3}

    def resize(
        pixels: NDArray[np.uint8], box: Box, shape: tuple[int, int], interpolation: str
    ) -> NDArray[np.uint8]:
        height, width, channels = pixels.shape
        source = ImageData(width, height, types[channels], pixels.tobytes())
        target = ImageData(shape[1], shape[0], types[channels])
        options = ResizeOptions(
            resize_alg=algorithms[interpolation], crop_box=CropBox(*box), use_alpha=False
        )
        Resizer().resize(source, target, options)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(*shape, channels)

    return resize


try:
    _resize, _name = _by_cykooz(), f"cykooz-resizer {version('cykooz-resizer')}"
except ModuleNotFoundError:  # no wheel for this system (Linux on ARM); any other error is one
    _resize, _name = by_pillow, f"pillow {version('pillow')}"


def resizer() -> _Resize:
    """Give the function that resizes here; parameters as :func:`by_pillow`."""
    return _resize


def resizer_name() -> str:
    """Name what resizes here, with its version, for the record."""
    return _name
