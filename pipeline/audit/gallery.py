"""A picture of the classes: one row per class, a few random training images each."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..datasets import SPLITS, Manifest
from ..datasets.images import checked, preview, read_file
from ..datasets.phrases import plural
from ..datasets.split_words import TRAIN
from ..errors import ImageError

COLUMNS = 8
MOST_CLASSES = 12
_CELL, _GAP, _MARGIN, _LABEL = 132, 8, 20, 210  # pixels
_PAPER, _INK, _FAINT, _FRAME = "#ffffff", "#1b1f24", "#667078", "#eef0f2"


def draw_gallery(
    manifest: Manifest, *, readable: NDArray[np.bool_] | None = None, seed: int = 0
) -> bytes:
    """Draw random training images of each class, whole and upright.

    Parameters
    ----------
    manifest : Manifest
        The images; with over ``MOST_CLASSES`` classes the largest are drawn.
    readable : bool array of shape (N,), optional
        Images that may be drawn; default: all.
    seed : int
        Of the choice; the same images for the same seed and data set.

    Returns
    -------
    bytes
        A PNG file.
    """
    size = np.bincount(manifest.labels, minlength=manifest.n_classes)
    shown = np.sort(np.argsort(-size, kind="stable")[:MOST_CLASSES]).tolist()
    title, small, name_font = _font(19, bold=True), _font(13), _font(16, bold=True)
    top = _MARGIN + 60
    width = 2 * _MARGIN + _LABEL + COLUMNS * (_CELL + _GAP) - _GAP
    page = Image.new("RGB", (width, top + len(shown) * (_CELL + _GAP) - _GAP + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    head = f"{manifest.name}: {manifest.n_images:,} images of {manifest.n_classes:,} classes"
    draw.text((_MARGIN, _MARGIN), _fitted(head, title, width - 2 * _MARGIN), _INK, title)
    note = f"{COLUMNS} random training images of each class"
    if len(shown) < manifest.n_classes:
        note += f", of the {len(shown)} largest; {manifest.n_classes - len(shown):,} left out"
    draw.text((_MARGIN, _MARGIN + 28), note, _FAINT, small)
    counts = manifest.counts()
    for line, label in enumerate(shown):
        y = top + line * (_CELL + _GAP)
        name = manifest.class_names[label]
        draw.text((_MARGIN, y + 8), _fitted(name, name_font, _LABEL - 16), _INK, name_font)
        for number, split in enumerate(split for split in SPLITS if split in counts):
            text = f"{counts[split][name]:,} {split}"
            draw.text((_MARGIN, y + 36 + 19 * number), text, _FAINT, small)
        rows = _sample(manifest, label, readable, seed)
        for column in range(COLUMNS):
            x = _MARGIN + _LABEL + column * (_CELL + _GAP)
            if column < len(rows):
                draw.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), _FRAME)
                _paste(page, manifest, rows[column], x, y)
        if not rows:
            text = f"no readable training image ({plural(int(size[label]), 'image', 'images')})"
            draw.text((_MARGIN + _LABEL, y + 8), text, _FAINT, small)
    stream = io.BytesIO()
    page.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _sample(
    manifest: Manifest, label: int, readable: NDArray[np.bool_] | None, seed: int
) -> list[int]:
    mask = (manifest.labels == label) & (manifest.split == TRAIN)
    rows = np.flatnonzero(mask if readable is None else mask & readable)
    random = np.random.default_rng([seed, label])
    chosen: list[int] = random.choice(rows, min(COLUMNS, len(rows)), replace=False).tolist()
    return sorted(chosen)


def _paste(page: Image.Image, manifest: Manifest, row: int, x: int, y: int) -> None:
    """Put an image into the middle of its cell; one that cannot be read leaves it empty."""
    path = manifest.root / manifest.paths[row]
    try:
        pixels = preview(checked(read_file(path), manifest.sha256[row], path), min_side=_CELL)
    except (ImageError, OSError):
        return
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = _CELL / max(picture.size)
    inner = tuple(max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((inner[0], inner[1]), Image.Resampling.LANCZOS)
    page.paste(picture, (x + (_CELL - inner[0]) // 2, y + (_CELL - inner[1]) // 2))


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings DejaVu, which knows far more letters than Pillow's own font.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Shorten a text, in its middle, to a width in pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: (keep + 1) // 2]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - keep // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return "\N{HORIZONTAL ELLIPSIS}"
