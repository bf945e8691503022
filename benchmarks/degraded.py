"""Data sets made from others: few images a class, heavy distortions, digits drawn as images.

For measurements that need sets of every size and of every likeness to photographs. Made in a
folder of the caller's and never kept in the repository; the same call makes the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cnn_codes.datasets import SPLITS, Manifest
from cnn_codes.datasets.splits import cut
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

__all__ = ["digits", "distorted", "shuffled", "subset", "written"]

TRAIN, VAL, TEST = range(len(SPLITS))
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def distorted(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Blur, invert the colours of half of the patches, add noise, and posterise."""
    small = image.convert("RGB").resize((224, 224)).filter(ImageFilter.GaussianBlur(4))
    for x in range(0, 224, 56):
        for y in range(0, 224, 56):
            if random.random() < 0.5:
                box = (x, y, x + 56, y + 56)
                small.paste(ImageOps.invert(small.crop(box)), box)
    noisy = np.asarray(small, np.float64) + random.normal(0, 40, (224, 224, 3))
    return ImageOps.posterize(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), 2)


def shuffled(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut into 8 x 8 tiles, put in another order each time, all colours inverted."""
    pixels = np.asarray(ImageOps.invert(image.convert("RGB").resize((224, 224))))
    tiles = pixels.reshape(8, 28, 8, 28, 3).swapaxes(1, 2).reshape(64, 28, 28, 3)
    mixed = tiles[random.permutation(64)].reshape(8, 8, 28, 28, 3).swapaxes(1, 2)
    return Image.fromarray(np.ascontiguousarray(mixed.reshape(224, 224, 3)))


def subset(
    manifest: Manifest, *, train: int, mixed: bool = False, seed: int = 0
) -> NDArray[np.int64]:
    """Choose rows: all test images, and `train` training images a class, no leak among them.

    With `mixed`, `train` times the number of classes in all, classes mixed as they are in the set.
    """
    random = np.random.default_rng(seed)
    labelled = manifest.split != TEST
    shares = np.bincount(manifest.labels[labelled], minlength=manifest.n_classes)
    rows = [np.flatnonzero((manifest.split == TEST) & ~manifest.leaks)]
    for k in range(manifest.n_classes):
        have = np.flatnonzero(labelled & (manifest.labels == k))
        most = round(train * manifest.n_classes * shares[k] / shares.sum()) if mixed else train
        rows.append(random.permutation(have)[:most])
    return np.sort(np.concatenate(rows))


def written(
    manifest: Manifest, rows: NDArray[np.int64], target: Path, change: Change | None = None
) -> Path:
    """Write images to target/<split>/<class>/*, changed or byte for byte; once."""
    if (target / "complete").is_file():
        return target
    for row in rows.tolist():
        source = manifest.root / manifest.paths[row]
        split = "test" if manifest.split[row] == TEST else "train"
        folder = target / split / manifest.class_names[manifest.labels[row]]
        folder.mkdir(parents=True, exist_ok=True)
        data = source.read_bytes()
        name = f"{row:05}-{source.stem}"
        if change is None:
            (folder / f"{name}{source.suffix}").write_bytes(data)
            continue
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        with Image.open(source) as image:
            change(image, np.random.default_rng(seed)).save(folder / f"{name}.png")
    (target / "complete").touch()
    return target


def digits(target: Path) -> Path:
    """Draw scikit-learn's 1,797 handwritten digits, 8 x 8 grey, as images of 96 x 96."""
    from sklearn.datasets import load_digits

    if (target / "complete").is_file():
        return target
    found = load_digits()
    split = cut(found.target, np.arange(len(found.target)), (0.6, 0.0, 0.4), 0)
    for row, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        folder = target / SPLITS[split[row]] / f"digit{label}"
        folder.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).convert("RGB")
        grey.resize((96, 96), Image.Resampling.BILINEAR).save(folder / f"{row:04}.png")
    (target / "complete").touch()
    return target
