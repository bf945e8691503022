"""What each image file is: format, size, mode, and whether it decodes; kept by SHA-256.

A fact belongs to bytes, so a file that is renamed, moved or labelled again is not read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..memory import recall_arrays, remember_arrays
from ..progress import Progress, silent
from .emptiness import emptiness
from .images import ImageFacts, decode, decoder_version, preview, probe, read_as
from .manifest import Manifest

_LOOK_PX = 256  # side that is enough to see whether a picture holds anything
_CHUNK = 16  # files per task
_ROW = np.dtype(
    [
        ("sha256", "S64"),
        ("format", "S8"),
        ("mode", "S8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("bits", "u1"),
        ("n_frames", "<i4"),
        ("orientation", "u1"),
        ("transparent", "?"),
        ("samples", "S8"),
        ("converted", "?"),
        ("empty", "S12"),
        ("decoded", "?"),
        ("brightness", "<f4"),
        ("border", "<f4", 3),
    ]
)


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of the N images of a manifest.

    Attributes
    ----------
    rows : structured array of shape (N,)
        ``format`` (PIL's name; empty where the header cannot be read), ``mode``, ``width`` and
        ``height`` in pixels as stored, ``bits`` a channel, ``n_frames``, ``orientation`` (EXIF),
        ``transparent``, ``samples`` (type as stored: ``uint8``, ``uint16``, ``float32``),
        ``converted`` (a colour profile changes its colours), ``decoded`` (whether it has been
        tried in full); where it has, ``empty`` (one of `cnn_codes.datasets.emptiness.KINDS`, or
        nothing), ``brightness`` (mean of all pixels and channels, 0 to 1) and ``border`` (mean of
        red, green and blue in the outermost rows and columns, 0 to 1).
    faults : dict of row to str
        Why an image cannot be used.
    n_read : int
        Files that were read; the others were remembered.
    """

    rows: NDArray[Any]
    faults: dict[int, str]
    n_read: int

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Images (N,) without a fault, so far as is known."""
        readable = np.ones(len(self.rows), dtype=bool)
        readable[list(self.faults)] = False
        return readable


def read_facts(
    manifest: Manifest,
    cache: Path,
    *,
    full: bool = False,
    looked: Collection[int] = (),
    workers: int = 0,
    progress: Progress = silent,
) -> Facts:
    """Read the headers of a manifest's images, those that are remembered excepted.

    Parameters
    ----------
    manifest : Manifest
        The images.
    cache : Path
        Facts are remembered in ``<cache>/<name>/facts.npz``; a damaged file is ignored, one that
        cannot be written is no error.
    full : bool
        Decode every image in full too.
    looked : collection of int
        Rows whose images are decoded in full where the others are not.
    workers : int
        Threads; 0: one per core.
    progress : Progress
        Counts images.

    Raises
    ------
    DataError
        A file went away or changed since the manifest was loaded.
    """
    memory = cache / manifest.name / "facts.npz"
    unique, first, inverse = np.unique(manifest.sha256, return_index=True, return_inverse=True)
    table = np.zeros(len(unique), _ROW)
    table["sha256"] = unique
    old, reasons = _recall(memory)
    known = np.zeros(len(unique), dtype=bool)
    if len(old):
        at = np.searchsorted(old["sha256"], unique)
        at[at == len(old)] = 0
        known = old["sha256"][at] == unique
        table[known] = old[at[known]]
    deep = np.full(len(unique), full)
    deep[inverse[list(looked)]] = True
    wanted = ~known | (deep & ~table["decoded"])
    todo = np.flatnonzero(wanted).tolist()
    done = known.copy()

    def read_chunk(chunk: Sequence[int]) -> int:
        for one in chunk:
            fault = _read(manifest, int(first[one]), table, one, bool(deep[one]))
            if fault:
                reasons[unique[one].decode()] = fault
            done[one] = True
        return len(chunk)

    if todo:
        chunks = [todo[at : at + _CHUNK] for at in range(0, len(todo), _CHUNK)]
        pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
        try:
            with progress("decoding" if full else "headers", len(todo), "images") as meter:
                for count in pool.map(read_chunk, chunks):
                    meter.advance(count)
        finally:  # on Ctrl-C too: what has been read is not read again
            pool.shutdown(wait=True, cancel_futures=True)
            _remember(memory, table[done], reasons)
    faults = {
        row: reasons[sha]
        for row, sha in enumerate(manifest.sha256.astype(str).tolist() if reasons else [])
        if sha in reasons
    }
    return Facts(table[inverse], faults, len(todo))


def _read(manifest: Manifest, row: int, table: NDArray[Any], one: int, full: bool) -> str:
    """Fill row `one` of the table; give the reason why the image cannot be used, or nothing."""
    path = manifest.root / manifest.paths[row]
    try:
        data = read_as(path, manifest.sha256[row])
    except ImageError as error:
        table[one]["decoded"] = True
        return error.found
    fact = table[one]
    try:
        seen = probe(data)
    except ImageError as error:
        fact["decoded"] = True  # there is no more to be known
        return error.found
    fact["format"], fact["mode"] = seen.format.encode(), seen.mode.encode()
    fact["width"], fact["height"] = seen.width, seen.height
    fact["bits"] = _bits(seen)
    fact["n_frames"] = seen.n_frames
    fact["orientation"] = seen.orientation
    fact["transparent"] = seen.transparent
    fact["samples"] = seen.samples.encode()
    fact["converted"] = seen.converted
    if full:
        fact["decoded"] = True
        try:
            deep = seen.samples != "uint8"  # by its own range: the set's is not known here
            pixels = preview(data, min_side=_LOOK_PX) if deep else decode(data)
            kind = emptiness(pixels)
            fact["empty"] = ("constant" if deep and kind in ("black", "white") else kind).encode()
            fact["brightness"], fact["border"] = pixels.mean() / 255, _border(pixels) / 255
        except ImageError as error:
            return error.found
    return ""


def _border(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean colour (1 or 3,) of the outermost rows and columns of (H, W, 1 or 3) pixels."""
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    mean: NDArray[np.float64] = np.concatenate(sides).mean(axis=0)
    return mean


def _bits(seen: ImageFacts) -> int:
    """Bits a sample as stored."""
    return int(seen.samples.lstrip("uintfloa"))


def _kind() -> str:
    return f"facts of images 4, {_ROW.descr}, {decoder_version()}"


def _recall(memory: Path) -> tuple[NDArray[Any], dict[str, str]]:
    """Give the rows that are remembered, by rising digest, and the reasons by digest."""
    saved = recall_arrays(memory, _kind())
    if saved is None:
        return np.zeros(0, _ROW), {}
    return saved["rows"], json.loads(saved["faults"].tobytes())


def _remember(memory: Path, rows: NDArray[Any], reasons: dict[str, str]) -> None:
    held = set(rows["sha256"].astype(str).tolist())
    text = json.dumps({sha: reason for sha, reason in sorted(reasons.items()) if sha in held})
    faults = np.frombuffer(text.encode(), np.uint8)
    remember_arrays(memory, _kind(), {"rows": rows, "faults": faults})
