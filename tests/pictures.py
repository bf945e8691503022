"""Pictures made on the spot: sound and damaged ones, data sets of them, and pieces of photographs.

The photographs are those that scikit-learn and matplotlib are installed with, so that the tests
need no data of their own.
"""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance


def photo(seed: int, size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    """Make a smooth picture of `size` (width, height) that no other seed gives."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def jpeg(seed: int, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    return encoded(photo(seed, size), "JPEG", **{"quality": 90, **options})


def write_set(
    root: Path, n: int, *, classes: Sequence[str] = ("cat", "dog"), size: tuple[int, int] = (64, 48)
) -> Path:
    """Write `n` pictures into `root`, a folder a class, by turns."""
    for i in range(n):
        path = root / classes[i % len(classes)] / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, size))
    return root


# Photographs that packages bring, as module and path in it.
PHOTOGRAPHS = {
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


def photograph(name: str) -> Image.Image:
    """Open one of `PHOTOGRAPHS`; ``cells`` is a sheet of 24 solar cells."""
    if name == "cells":
        sheet = Image.new("RGB", (6 * 300, 4 * 300))
        folder = files("elpv_dataset").joinpath("data/images")
        for i in range(24):
            with Image.open(Path(str(folder.joinpath(f"cell{100 * i + 1:04}.png")))) as cell:
                sheet.paste(cell.convert("RGB"), (i % 6 * 300, i // 6 * 300))
        return sheet
    module, path = PHOTOGRAPHS[name]
    with Image.open(Path(str(files(module).joinpath(path)))) as image:
        return image.convert("RGB")


def piece(source: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut a piece of a photograph: another place, size, shape, side and brightness each time."""
    size = random.integers(110, 260, 2)
    at = random.integers(0, np.array(source.size) - size + 1)
    cut = source.crop((*at.tolist(), *(at + size).tolist()))
    if random.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(cut).enhance(float(random.uniform(0.7, 1.3)))


def write_pieces(
    root: Path, kinds: Mapping[str, Sequence[str]], splits: Mapping[str, int], *, seed: int = 0
) -> Path:
    """Write ``root/<split>/<kind>/*.jpg``, so many pieces of the photographs of each kind."""
    random = np.random.default_rng(seed)
    sources = {name: photograph(name) for names in kinds.values() for name in names}
    for split, n in splits.items():
        for kind, names in kinds.items():
            folder = root / split / kind
            folder.mkdir(parents=True)
            for i in range(n):
                cut = piece(sources[names[i % len(names)]], random)
                cut.save(folder / f"{1000 + i}.jpg", quality=int(random.integers(80, 96)))
    return root


def claiming_png(width: int, height: int) -> bytes:
    """Make a PNG of a few hundred bytes whose header claims width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def damaged(n: int) -> list[tuple[str, bytes]]:
    """Make `n` files that no decoder may take for a picture, each with a name to give it.

    Truncated JPEGs and PNGs, PNGs with flipped bits (their checksums tell), headers destroyed,
    web pages and text under an image's name, bombs, and formats that are not opened.
    """
    random = np.random.default_rng(7)
    files = []
    for i in range(n):
        whole, png = jpeg(1000 + i, (80, 60)), encoded(photo(2000 + i, (80, 60)), "PNG")
        kind = i % 8
        if kind == 0:
            name, data = "cut.jpg", whole[: random.integers(1, int(len(whole) * 0.9))]
        elif kind == 1:
            name, data = "cut.png", png[: random.integers(9, int(len(png) * 0.9))]
        elif kind == 2:
            flipped = bytearray(png)
            flipped[random.integers(60, len(png) - 30)] ^= 1 << random.integers(0, 8)
            name, data = "flipped.png", bytes(flipped)
        elif kind == 3:
            name, data = "header.jpg", bytes(random.integers(0, 256, 20, np.uint8)) + whole[20:]
        elif kind == 4:
            page = f"<!DOCTYPE html><title>404</title>{i}"
            name, data = "page.jpg", page.encode()
        elif kind == 5:
            name, data = "bomb.png", claiming_png(20_000 + i, 20_000)
        elif kind == 6:
            name, data = "text.png", f"no picture, number {i}\n".encode()
        else:
            name, data = "icon.jpg", encoded(photo(3000 + i, (32, 32)), "ICO")
        files.append((f"{i:03}-{name}", data))
    return files
