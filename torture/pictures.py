"""Runs under the interpreter that has Pillow: a small data set, and one sound image of each kind.

Started as a script: ``pictures.py SET KINDS``.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """Make a smooth picture that no other seed gives; odd seeds are darker."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3)) // (1 + seed % 2)
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def main(place: Path, kinds: Path) -> None:
    """Write 28 images of two classes with splits, and the kinds."""
    for split, first, count in (("train", 0, 20), ("test", 100, 8)):
        for i in range(first, first + count):
            folder = place / split / ("dark" if i % 2 else "bright")
            folder.mkdir(parents=True, exist_ok=True)
            suffix = ("jpg", "png", "jpg", "webp")[i % 4]
            photo(i).save(folder / f"{i:03}.{suffix}")
    kinds.mkdir(parents=True)
    image = photo(1000, (90, 70))
    more = {"save_all": True, "append_images": [image.rotate(90)]}
    for name, made, options in (
        ("rgb.jpg", image, {}),
        ("progressive.jpg", image, {"progressive": True}),
        ("grey.jpg", image.convert("L"), {}),
        ("cmyk.jpg", image.convert("CMYK"), {}),
        ("rgb.png", image, {}),
        ("rgba.png", image.convert("RGBA"), {}),
        ("palette.png", image.quantize(32), {}),
        ("two.gif", image.quantize(64), {}),
        ("plain.bmp", image, {}),
        ("palette.bmp", image.quantize(16), {}),
        ("plain.tif", image, {}),
        ("lzw.tif", image, {"compression": "tiff_lzw"}),
        ("jpeg.tif", image, {"compression": "jpeg"}),
        ("lossy.webp", image, {"quality": 70}),
        ("lossless.webp", image, {"lossless": True}),
        ("moving.webp", image, more),
        ("plain.ppm", image, {}),
    ):
        made.save(kinds / name, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
