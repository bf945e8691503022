"""One image's explanation: its map, where it lies on the image, and the picture of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..backbones.preprocess import Preprocessing

_FINE = 8  # points a cell of the map, along each side, among which the peak is sought
_SIGMA_CELLS = 1.25


def source_box(
    width: int, height: int, preprocessing: Preprocessing
) -> tuple[float, float, float, float]:
    """Give the part of an image that the network's input square shows.

    Returns
    -------
    tuple of 4 floats
        Left, top, width and height in pixels of the image; with padding it reaches beyond it.
    """
    if preprocessing.resize == "stretch":
        return 0.0, 0.0, float(width), float(height)
    if preprocessing.resize == "pad":
        side = float(max(width, height))
    else:
        side = min(width, height) * preprocessing.crop_ratio
    return (width - side) / 2, (height - side) / 2, side, side


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which regions of an image speak for a class.

    Attributes
    ----------
    name : str
        The image's path, or its place in the list.
    classes : tuple of str
        K class names.
    probabilities : float64 (K,)
        As ``make predict`` gives them.
    predicted : int
        The predicted class, as ``make predict`` gives it.
    target : int
        The class that is explained, the predicted one unless another was asked for.
    logit : float
        Its score before the temperature.
    map : float64 (h, w)
        Contribution of each region to the logit; where `exact`, they sum to it.
    evidence : float64 (h, w)
        The map minus the mean of all classes' maps: what sets the class apart. A softmax does not
        change when all logits do alike.
    method : str
        ``class activation map`` or ``gradient x activation``, with its particulars.
    exact : bool
        The map sums to the logit.
    box : tuple of 4 floats
        Left, top, width, height of the part of the image that the map covers, in pixels.
    pixels : uint8 (H, W, 3)
        The image, upright.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    predicted: int
    target: int
    logit: float
    map: NDArray[np.float64]
    evidence: NDArray[np.float64]
    method: str
    exact: bool
    box: tuple[float, float, float, float]
    pixels: NDArray[np.uint8]

    @property
    def peak(self) -> tuple[float, float]:
        """Place (x, y), in pixels of the image, of the strongest evidence.

        A cell of the map is some 30 px wide and sees beyond its borders; so the evidence is
        interpolated and smoothed (Gaussian, 1.25 cells) before its highest point is taken.
        """
        rows, columns = self.evidence.shape
        fine = Image.fromarray(self.evidence.astype(np.float32)).resize(
            (columns * _FINE, rows * _FINE), Image.Resampling.BICUBIC
        )
        smooth = gaussian_filter(np.asarray(fine), _SIGMA_CELLS * _FINE, mode="constant")
        row, column = divmod(int(smooth.argmax()), columns * _FINE)
        left, top, width, height = self.box
        return (
            left + (column + 0.5) * width / (columns * _FINE),
            top + (row + 0.5) * height / (rows * _FINE),
        )

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the pixels, as plain values."""
        return {
            "path": self.name,
            "predicted": self.classes[self.predicted],
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
            "explained": self.classes[self.target],
            "logit": self.logit,
            "sum": float(self.map.sum()),
            "method": self.method,
            "exact": self.exact,
            "width": self.pixels.shape[1],
            "height": self.pixels.shape[0],
            "box": list(self.box),
            "peak": list(self.peak),
            "map": self.map.tolist(),
            "evidence": self.evidence.tolist(),
        }

    def heat(self, width: int, height: int) -> NDArray[np.float32]:
        """Spread the evidence over an image of `width` x `height` px: 0 (none) to 1, (H, W).

        Only what speaks for the class is shown; outside the map's box it is 0.
        """
        full_height, full_width = self.pixels.shape[:2]
        left, top, box_width, box_height = (
            side * scale
            for side, scale in zip(
                self.box, (width / full_width, height / full_height) * 2, strict=True
            )
        )
        inner = (max(1, round(box_width)), max(1, round(box_height)))
        heat = Image.new("F", (width, height), 0.0)
        heat.paste(Image.fromarray(region_heat(self.evidence, *inner)), (round(left), round(top)))
        return np.asarray(heat, np.float32)

    def overlay(self, max_side: int = 640) -> Image.Image:
        """Draw the image with the regions that speak for the class in colour.

        Parameters
        ----------
        max_side : int
            Longest side of the picture, in pixels; smaller images keep their size.
        """
        image = Image.fromarray(self.pixels)
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        colours = heat_colours(self.heat(*image.size))  # (H, W, 4)
        grey = np.asarray(image.convert("L"), np.float32)[..., None]
        strength = colours[..., 3:]
        mixed = grey * (1 - strength) + 255 * colours[..., :3] * strength
        return Image.fromarray(mixed.round().astype(np.uint8))

    def png(self, max_side: int = 640) -> bytes:
        """Give the picture of :meth:`overlay` as the bytes of a PNG file."""
        stream = io.BytesIO()
        self.overlay(max_side).save(stream, "PNG")
        return stream.getvalue()


def region_heat(evidence: NDArray[Any], width: int, height: int) -> NDArray[np.float32]:
    """Spread the positive evidence of regions (h, w) over `width` x `height` px: 0 to 1, (H, W)."""
    positive = np.clip(evidence, 0, None).astype(np.float32)
    highest = float(positive.max(initial=0))
    field = Image.fromarray(positive / highest if highest > 0 else positive)
    spread = np.asarray(field.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(spread, 0, 1)


def heat_colours(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Colours and opacity of heat (H, W) of 0 to 1, RGBA from 0 to 1: (H, W, 4)."""
    import matplotlib

    colours: NDArray[np.float64] = matplotlib.colormaps["inferno"](heat)
    colours[..., 3] = 0.75 * heat**0.7
    return colours
