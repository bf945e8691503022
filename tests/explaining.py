"""What the tests of explanations and exports share: a set of photographs, and runs on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from predicting import Workshop
from sklearn.datasets import load_sample_images

CLASSES = ("china", "flower")


def crops(
    n: int, seed: int = 0, sides: tuple[int, int] = (96, 96)
) -> tuple[list[NDArray[np.uint8]], NDArray[np.str_]]:
    """Cut `n` pieces each out of scikit-learn's two photographs, by turns.

    `sides` are the least and the largest side of a piece, in pixels.
    """
    random = np.random.default_rng(seed)
    pieces, labels = [], []
    for _ in range(n):
        for name, image in zip(CLASSES, load_sample_images().images, strict=True):
            height, width = random.integers(sides[0], sides[1] + 1, 2)
            top, left = random.integers(0, 427 - height), random.integers(0, 640 - width)
            pieces.append(image[top : top + height, left : left + width])
            labels.append(name)
    return pieces, np.array(labels)


def write_crops(
    folder: Path, n: int = 16, seed: int = 0, sides: tuple[int, int] = (96, 160)
) -> Path:
    """Write a data set of pieces: train/<class>/*.png and test/<class>/*.png, a quarter to test."""
    for index, (pixels, label) in enumerate(zip(*crops(n, seed, sides), strict=True)):
        path = folder / ("test" if index % 8 >= 6 else "train") / label / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def workshop(folder: Path, backbones: Path, n: int = 16) -> Workshop:
    """Give a workshop on such a set, with a cache and results of its own."""
    backbones.mkdir(exist_ok=True)
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / "backbones").symlink_to(backbones)
    return Workshop(write_crops(folder / "crops", n), folder / "cache", folder / "results")
