"""Small pictures of images: each once, by the digest of its bytes, and remembered in the cache."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..datasets import Manifest
from ..datasets.images import checked, preview, read_file
from ..errors import ImageError
from ..explain.explanation import heat_colours, region_heat
from ..memory import recall_arrays, remember_arrays
from ..progress import Progress, silent

LARGE_PX = 176  # the longer side of a picture that is looked at
_SMALL_PX = (112, 96, 80, 64, 56, 48)  # of one that comes up under the pointer, by preference
BUDGET_BYTES = 7_500_000  # all small ones together; base64 adds a third
_QUALITIES = (60, 45, 30)
_LEAST_BYTES = 600  # below this a picture shows nothing
_CHUNK = 32
_REGION_PX = 8
_KIND = "small pictures 2"
_KEY = np.dtype([("sha256", "S64"), ("side", "<i4"), ("most", "<i4")])
_ROW = np.dtype([("key", _KEY), ("width", "<i2"), ("height", "<i2"), ("start", "<i8"),
                 ("length", "<i4")])  # fmt: skip


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes
    ----------
    key : str
        Names it in a page: the beginning of the digest of the image's bytes.
    width, height : int
        In pixels.
    data : bytes
        A WebP file.
    """

    key: str
    width: int
    height: int
    data: bytes


def make_thumbnails(
    manifest: Manifest,
    large: Sequence[str],
    small: Sequence[str],
    *,
    cache: Path,
    workers: int = 0,
    progress: Progress = silent,
) -> dict[str, Thumbnail]:
    """Make small pictures of some of a manifest's images.

    Parameters
    ----------
    manifest : Manifest
        Where the images are, and the digests of their bytes.
    large : sequence of str
        Paths of images that are looked at: ``LARGE_PX`` on the longer side.
    small : sequence of str
        Paths of images that come up under the pointer; the more there are, the smaller, so that
        all together stay under ``BUDGET_BYTES``.
    cache : Path
        Pictures are remembered in ``<cache>/<name>/pictures.npz``, those of the last call only;
        a damaged file is ignored, one that cannot be written is no error.
    workers : int
        Threads; 0: one per core.
    progress : Progress
        Counts images.

    Returns
    -------
    dict of str to Thumbnail
        By path; images of equal bytes share one. Images that the manifest lacks, that went away
        or that cannot be decoded are left out.

    Raises
    ------
    DataError
        An image has other bytes than the manifest says: it changed since.
    """
    rows = manifest.row_of
    wanted: dict[bytes, tuple[int, int, int]] = {}  # digest -> (row, side, most bytes)
    known_small = dict.fromkeys(path for path in small if path in rows)
    most = BUDGET_BYTES // max(1, len(known_small))
    for path in known_small:
        wanted[bytes(manifest.sha256[rows[path]])] = (rows[path], _small_side(most), most)
    for path in dict.fromkeys(path for path in large if path in rows):
        wanted[bytes(manifest.sha256[rows[path]])] = (rows[path], LARGE_PX, 0)
    memory = cache / manifest.name / "pictures.npz"
    kept = _recall(memory)
    todo = [(sha, *how) for sha, how in wanted.items() if (sha, *how[1:]) not in kept]

    def make(chunk: Sequence[tuple[bytes, int, int, int]]) -> list[Thumbnail | None]:
        return [_make(manifest, *one) for one in chunk]

    if todo:
        chunks = [todo[at : at + _CHUNK] for at in range(0, len(todo), _CHUNK)]
        with (
            ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
            progress("pictures", len(todo), "images") as meter,
        ):
            for chunk, made in zip(chunks, pool.map(make, chunks), strict=True):
                for (sha, _, side, most_), one in zip(chunk, made, strict=True):
                    if one is not None:
                        kept[(sha, side, most_)] = one
                meter.advance(len(chunk))
        used = {(sha, *how[1:]) for sha, how in wanted.items()}
        _remember(memory, {key: one for key, one in kept.items() if key in used})
    by_digest = {sha: kept.get((sha, *how[1:])) for sha, how in wanted.items()}
    out = {}
    for path in (*large, *known_small):
        one = by_digest.get(bytes(manifest.sha256[rows[path]])) if path in rows else None
        if one is not None:
            out[path] = one
    return out


def heat_png(evidence: Sequence[Sequence[float]]) -> bytes:
    """Draw the positive evidence of (h, w) regions as a PNG, clear elsewhere, 8 pixels a region."""
    field = np.array(evidence, np.float32)
    rows, columns = field.shape
    colours = heat_colours(region_heat(field, columns * _REGION_PX, rows * _REGION_PX))
    stream = io.BytesIO()
    Image.fromarray((255 * colours).round().astype(np.uint8)).quantize(
        64, method=Image.Quantize.FASTOCTREE
    ).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _small_side(most_bytes: int) -> int:
    """Give the longer side that fits so many bytes: about a quarter of a byte a pixel."""
    return next((side for side in _SMALL_PX if side * side // 4 <= most_bytes), _SMALL_PX[-1])


def _make(manifest: Manifest, sha: bytes, row: int, side: int, most: int) -> Thumbnail | None:
    """Decode and shrink one image; lower the quality, then the size, until it fits `most` bytes."""
    try:
        path = manifest.root / manifest.paths[row]
        pixels = preview(checked(read_file(path), sha, path), min_side=side // 2 + 8)
    except (ImageError, OSError):
        return None
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    sides = [side, *(less for less in _SMALL_PX if less < side)] if most else [side]
    best: Thumbnail | None = None
    for longer in sides:
        scale = min(1.0, longer / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        shrunk = image.resize(size, Image.Resampling.HAMMING).convert("RGB")
        for quality in _QUALITIES:
            stream = io.BytesIO()
            shrunk.save(stream, "WEBP", quality=quality, method=2)
            best = Thumbnail(f"p{sha[:16].decode()}", *size, stream.getvalue())
            if not most or len(best.data) <= max(most, _LEAST_BYTES):
                return best
            if len(best.data) > 2 * most:  # no quality makes up for that
                break
    return best


def _recall(path: Path) -> dict[tuple[bytes, int, int], Thumbnail]:
    """Give the pictures of an earlier call, by digest, side and most bytes."""
    saved = recall_arrays(path, _KIND)
    if saved is None:
        return {}
    blob = saved["blob"].tobytes()
    return {
        key: Thumbnail(f"p{key[0][:16].decode()}", width, height, blob[start : start + length])
        for key, width, height, start, length in saved["rows"].tolist()
    }


def _remember(path: Path, kept: Mapping[tuple[bytes, int, int], Thumbnail]) -> None:
    rows: NDArray[Any] = np.zeros(len(kept), _ROW)
    start = 0
    for row, (key, one) in zip(rows, kept.items(), strict=True):
        row["key"], row["width"], row["height"] = key, one.width, one.height
        row["start"], row["length"] = start, len(one.data)
        start += len(one.data)
    blob = np.frombuffer(b"".join(one.data for one in kept.values()), np.uint8)
    remember_arrays(path, _KIND, {"rows": rows, "blob": blob})
