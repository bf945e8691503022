"""Augmentations of training images by name, from torchvision's transforms v2.

The random numbers of an image come from a seed of its own, so that neither the number of
reading processes nor the order of reading changes a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from ..backbones.preprocess import Preprocessing
from ..errors import SettingsError

GEOMETRY = ("resized-crop", "resize", "center-crop", "random-crop")  # begin from the whole image
_MODES = {
    "nearest": v2.InterpolationMode.NEAREST,
    "box": v2.InterpolationMode.BILINEAR,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "lanczos": v2.InterpolationMode.BICUBIC,  # tensors have no Lanczos filter
}


class _Dihedral(nn.Module):
    """One of the eight symmetries of the square."""

    def forward(self, image: Tensor) -> Tensor:
        turn = int(torch.randint(8, ()))
        image = torch.rot90(image, turn % 4, (-2, -1))
        return image.flip(-1) if turn >= 4 else image


# Name: the transform from (size in pixels, resize options, the number behind the colon), and that
# number where none is given (None: it must be given).
_MAKERS: dict[str, tuple[Callable[[int, dict[str, Any], float], nn.Module], float | None]] = {
    "resized-crop": (lambda s, o, a: v2.RandomResizedCrop(s, scale=(a, 1.0), **o), 0.08),
    "resize": (lambda s, o, a: v2.Resize((round(a), round(a)), **o), None),
    "center-crop": (lambda s, o, a: v2.CenterCrop(round(a) or s), 0),
    "random-crop": (lambda s, o, a: v2.RandomCrop(s, padding=round(a)), 0),
    "hflip": (lambda s, o, a: v2.RandomHorizontalFlip(a), 0.5),
    "vflip": (lambda s, o, a: v2.RandomVerticalFlip(a), 0.5),
    "dihedral": (lambda s, o, a: _Dihedral(), 0),
    "rotate": (lambda s, o, a: v2.RandomRotation(a, v2.InterpolationMode.BILINEAR), None),
    "color": (lambda s, o, a: v2.ColorJitter(a, a, a, min(a / 4, 0.5)), 0.4),
    "grey": (lambda s, o, a: v2.RandomGrayscale(a), 0.1),
    "randaugment": (lambda s, o, a: v2.RandAugment(2, round(a)), 9),
    "erase": (lambda s, o, a: v2.RandomErasing(a), 0.25),
}
NAMES = tuple(_MAKERS)


class Augmentation:
    """A row of augmentations.

    Parameters
    ----------
    names : sequence of str
        From `NAMES`, each perhaps with a colon and a number; in the order of application.
    preprocessing : Preprocessing
        Size of the result and filter of the resizing.

    Raises
    ------
    SettingsError
        A name or number that is not known.

    Attributes
    ----------
    whole : bool
        Whether it takes the whole decoded image (else: the central view).
    """

    def __init__(self, names: Sequence[str], preprocessing: Preprocessing) -> None:
        self._size = preprocessing.size
        options = {"interpolation": _MODES[preprocessing.interpolation], "antialias": True}
        self._steps = []
        kinds = []
        for name in names:
            kind, _, text = name.partition(":")
            if kind not in _MAKERS:
                raise SettingsError(
                    f"AUGMENT={name} is not known.",
                    expected="auto, none, or " + ", ".join(NAMES),
                )
            make, usual = _MAKERS[kind]
            try:
                value = float(text) if text or usual is None else usual
                self._steps.append(make(self._size, options, value))
            except (ValueError, TypeError) as error:
                raise SettingsError(
                    f"AUGMENT={name}: {error}.", expected=f"a number that fits behind {kind}:"
                ) from error
            kinds.append(kind)
        self.whole = any(kind in GEOMETRY for kind in kinds)

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Augment (3, H, W) uint8 to (3, size, size) uint8, by `seed` alone.

        Raises
        ------
        SettingsError
            The result has another size.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step in self._steps:
                image = step(image)
        if image.shape[-2:] != (self._size, self._size):
            raise SettingsError(
                f"AUGMENT gives images of {image.shape[-1]} x {image.shape[-2]} px.",
                expected=f"{self._size} x {self._size} px, the network's input",
                todo="end with center-crop, or give SIZE to match",
            )
        return image
