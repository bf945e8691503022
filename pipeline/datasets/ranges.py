"""Which values are black and white in a data set of more than 8 bits per sample.

Decided once for the whole set, from a sample of its images, so that the same value is the same
grey in every image. 8-bit images are not concerned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..errors import ImageError, SettingsError
from ..files import digest_of
from ..memory import recall_values, remember_values
from ..progress import Progress, silent
from .facts import Facts, read_facts
from .images import read_as, samples_of
from .manifest import Manifest
from .samples import Reading, bands_missing

_KIND = "quantiles of images 4"
_MOST_IMAGES = 500  # that are looked at for each type of samples
_PIXELS = 4096  # of each
_LOW, _HIGH = 0.1, 99.9  # percentiles: single hot or dead pixels decide nothing
_STEPS = 64  # a window's ends are rounded outwards to its 64th, so that more images rarely move it
_MISSING = (-9999.0, -99999.0, -32768.0, -32767.0, 65535.0, 4294967295.0)  # no value here
_GAP = 3  # a value for "missing" is so many ranges of the other values away from them
_DARK = 8  # an image whose values reach only an eighth of the range is almost black
_DARK_SHARE = 0.05


@dataclass(frozen=True)
class SetReading:
    """How the images of a data set are read.

    Attributes
    ----------
    reading : Reading
        Ranges and bands.
    converts : tuple of int
        Rows of the manifest whose colours a profile in the file changes.
    notes : tuple of str
        What a user should know: which range, from what; images that do not fit it.
    rejects : dict of str to str
        Images that cannot be used by their headers alone: SHA-256 to reason.
    """

    reading: Reading
    converts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    rejects: Mapping[str, str] = field(default_factory=dict)


def read_range(text: str) -> tuple[str, float, float]:
    """Read the setting RANGE: its kind (``auto``, ``full``, ``percentile``, ``values``), its ends.

    Raises
    ------
    SettingsError
        It is none of these.
    """
    if text in ("auto", "full"):
        return text, 0.0, 0.0
    kind, colon, ends = text.rpartition(":")
    try:
        low, high = (float(part) for part in ends.split(","))
        sound = -math.inf < low < high < math.inf
        if colon:
            sound = sound and kind == "percentile" and 0 <= low and high <= 100
        if sound:
            return ("percentile" if colon else "values"), low, high
    except ValueError:
        pass
    raise SettingsError(
        f"RANGE={text} is not known.",
        expected="auto, full, percentile:LOW,HIGH (such as percentile:1,99), or MIN,MAX (such as "
        "0,4095)",
    )


def read_bands(bands: Sequence[str]) -> tuple[int, ...]:
    """Read the setting BANDS: one band or three, counted from 1.

    Raises
    ------
    SettingsError
        It is not that.
    """
    if not bands:
        return ()
    if len(bands) in (1, 3) and all(one.isdecimal() and 1 <= int(one) <= 1000 for one in bands):
        return tuple(int(one) for one in bands)
    raise SettingsError(
        f"BANDS={','.join(bands)} is not known.",
        expected="one band (grey) or three (red, green, blue), counted from 1: BANDS=4,3,2",
    )


def bands_for(n_bands: int) -> str:
    """Give the bands of red, green and blue that are likely for an image of `n_bands`.

    Twelve and more: Sentinel-2 as ESA orders them (B2, B3 and B4 are blue, green and red, after
    B1). Eight: WorldView-2. Seven and nine to eleven: Landsat 8 and 9. Else blue, green and red
    first, as most instruments of four and five bands store them.
    """
    if n_bands == 8:
        return "5,3,2"
    return "4,3,2" if n_bands >= 7 else "3,2,1"


def reading_of(
    manifest: Manifest,
    wanted: str,
    bands: Sequence[str],
    *,
    cache: Path,
    workers: int = 0,
    progress: Progress = silent,
) -> SetReading:
    """Decide how the images of a data set are read.

    Parameters
    ----------
    manifest : Manifest
        The images.
    wanted, bands : str, sequence of str
        Settings RANGE and BANDS.
    cache : Path
        Headers and ranges are remembered there, by the digests of the images.
    workers : int
        Threads; 0: one per core.
    progress : Progress
        Counts headers.

    Raises
    ------
    SettingsError
        `wanted` or `bands` mean nothing for these images.
    """
    kind, low, high = read_range(wanted)
    chosen = read_bands(bands)
    facts = read_facts(manifest, cache, workers=workers, progress=progress)
    converts = tuple(np.flatnonzero(facts.rows["converted"] & facts.readable).tolist())
    types = facts.rows["samples"].astype(str)
    deep = sorted({*types.tolist()} - {"", "uint8"})
    ranges: list[tuple[str, float, float]] = []
    notes: list[str] = []
    for name in deep:
        rows = np.flatnonzero(types == name)
        if kind == "values":
            ends = (low, high)
        elif kind == "full":
            ends = _whole(name)
        else:
            shas = np.unique(manifest.sha256[rows], return_index=True)[1]
            some = rows[shas[:: max(1, -(-len(shas) // _MOST_IMAGES))]]
            seen, missing = _spread(manifest, some.tolist(), chosen, cache, workers)
            if not len(seen):
                continue
            ends = _ends(name, seen, (low, high) if kind == "percentile" else None)
            if missing:
                colour = "white" if missing[0] > ends[1] else "black"
                notes.append(
                    f"The value {missing[0]:g} stands for missing pixels in {name} images, it "
                    f"seems ({notation.share(missing[1])} of the pixels of those that have it); it "
                    f"is {colour}, and the range is that of the other values."
                )
            notes += _misfits(name, seen, ends, len(rows))
        if (name, *ends) != ("uint16", 0.0, 65535.0):
            ranges.append((name, *ends))
        n = "1 image has" if len(rows) == 1 else f"{len(rows)} images have"
        notes.insert(
            0,
            f"{n} {name} samples: {ends[0]:g} is black and {ends[1]:g} is white, for all of them "
            f"(RANGE={wanted}).",
        )
    used = chosen if _has_bands(facts.rows["mode"], facts.rows["format"]) else ()
    if used:
        notes.append(f"Of images of several bands, BANDS={','.join(map(str, used))} are read.")
    rejects = _by_header(manifest, facts) | _without_bands(manifest, facts, chosen)
    return SetReading(Reading(tuple(ranges), used), converts, tuple(notes), rejects)


def _by_header(manifest: Manifest, facts: Facts) -> dict[str, str]:
    """Give the images whose header cannot be read: SHA-256 to reason."""
    unknown = facts.rows["format"] == b""
    return {
        manifest.sha256[row].decode(): reason
        for row, reason in facts.faults.items()
        if unknown[row]
    }


def _without_bands(manifest: Manifest, facts: Facts, bands: tuple[int, ...]) -> dict[str, str]:
    """Give the images of several bands of which nobody said which to take: SHA-256 to reason."""
    found: dict[str, str] = {}
    modes = facts.rows["mode"]
    several = [] if bands else np.unique(modes[np.char.endswith(modes, b" bands")]).tolist()
    for mode in several:
        for row in np.flatnonzero(modes == mode).tolist():
            kind = str(facts.rows["samples"][row].decode())
            if reason := bands_missing(int(mode.split()[0]), kind):
                found[manifest.sha256[row].decode()] = reason
    return found


def _has_bands(modes: NDArray[np.bytes_], formats: NDArray[np.bytes_]) -> bool:
    several = ~np.isin(modes, (b"", b"1", b"L", b"P", b"I", b"F")) & ~np.char.startswith(
        modes, b"I;"
    )
    return bool(np.any((formats == b"TIFF") & several))


def _whole(name: str) -> tuple[float, float]:
    """Give the range of an integer type."""
    if name.startswith("float"):
        raise SettingsError(
            f"RANGE=full says nothing for images of {name} samples.",
            expected="RANGE=auto, RANGE=percentile:LOW,HIGH or RANGE=MIN,MAX",
            todo="RANGE=auto",
        )
    bits = int(name.lstrip("uint"))
    if name.startswith("u"):
        return 0.0, float(2**bits - 1)
    return float(-(2 ** (bits - 1))), float(2 ** (bits - 1) - 1)


def _spread(
    manifest: Manifest, rows: list[int], bands: tuple[int, ...], cache: Path, workers: int
) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    """Measure the quantiles of some images, each by itself.

    Returns
    -------
    seen : array of shape (n_images, 101)
        Quantiles of each image that can be read: percentiles 0.1, 1, 2, ..., 99, 99.9; without the
        value that stands for missing pixels.
    missing : tuple of 2 floats, or None
        That value, and its share of the pixels of the images that have it.
    """
    memory = cache / manifest.name / "ranges.json"
    key = digest_of([bands, [manifest.sha256[row].decode() for row in rows]])
    held: dict[str, Any] = recall_values(memory, _KIND) or {}
    if key in held:
        found = held[key]
    else:
        with ThreadPoolExecutor(workers or None) as pool:
            found = [one for one in pool.map(lambda row: _levels(manifest, row, bands), rows)
                     if one]  # fmt: skip
        remember_values(memory, _KIND, {**dict(list(held.items())[-20:]), key: found})
    table = np.array(found, float).reshape(-1, 2 * len(_LEVELS) + 2 + len(_MISSING))
    every, others, ends, shares = np.split(
        table, [len(_LEVELS), 2 * len(_LEVELS), 2 * len(_LEVELS) + 2], axis=1
    )
    known = np.isfinite(ends[:, 0])
    if not known.any():
        return every, None
    low, high = float(ends[known, 0].min()), float(ends[known, 1].max())
    for value, share in zip(_MISSING, shares.T, strict=True):
        has = share > 0
        away = max(low - value, value - high)
        if has.any() and away > _GAP * max(high - low, 1):
            rest = shares[:, [one != value for one in _MISSING]].sum(axis=1) == 0
            return others[known & rest], (value, float(share[has].mean()))
    return every, None


_LEVELS = (_LOW, *range(1, 100), _HIGH)


def _levels(manifest: Manifest, row: int, bands: tuple[int, ...]) -> list[float | None]:
    """Quantiles of all values, of those that are no mark of missing pixels; ends; shares."""
    try:
        data = read_as(manifest.root / manifest.paths[row], manifest.sha256[row])
        values = samples_of(data, Reading(bands=bands))
    except ImageError:  # said where it is to be used
        return []
    flat = values.reshape(-1)
    flat = flat[:: max(1, len(flat) // _PIXELS)].astype(float)
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return []
    shares = [float(np.mean(flat == value)) for value in _MISSING]
    others = flat[~np.isin(flat, _MISSING)]
    rest: list[float | None] = [None] * (len(_LEVELS) + 2)
    if len(others):
        ends = (*np.percentile(others, _LEVELS), others.min(), others.max())
        rest = [float(one) for one in ends]
    return [*(float(one) for one in np.percentile(flat, _LEVELS)), *rest, *shares]


def _ends(
    name: str, seen: NDArray[np.float64], wanted: tuple[float, float] | None
) -> tuple[float, float]:
    """Choose black and white for samples of type `name` from the quantiles of some images."""
    pooled = np.sort(seen, axis=None)  # as if every image had as many pixels
    if wanted:
        low, high = np.percentile(pooled, wanted)
        return _window(float(low), float(high))
    low, high = (float(one) for one in np.percentile(pooled, (_LOW, _HIGH)))
    if name.startswith("float"):
        for most in (1.0, 255.0):
            if low >= 0 and most / 10 < high <= most * (1 + 1e-6):
                return 0.0, most
    elif low >= 0 and low < high / 4:
        return 0.0, float(2 ** max(1, math.ceil(math.log2(high + 1))) - 1)
    return _window(low, high)


def _window(low: float, high: float) -> tuple[float, float]:
    step = (high - low) / _STEPS
    if step <= 0:
        return low, low + 1.0
    step = 10.0 ** math.floor(math.log10(step))
    return (
        float(round(math.floor(low / step + 1e-9) * step, 12)),
        float(round(math.ceil(high / step - 1e-9) * step, 12)),
    )


def _misfits(
    name: str, seen: NDArray[np.float64], ends: tuple[float, float], n_images: int
) -> list[str]:
    """Say that some images use a much smaller part of the range than the rest."""
    low, high = ends
    dark = seen[:, -1] - low < (high - low) / _DARK
    share = float(np.mean(dark))
    if share <= _DARK_SHARE:
        return []
    return [
        f"About {notation.share(share, 0)} of the {n_images} images of {name} samples use less "
        f"than 1/{_DARK} of the range of the set and are almost black: they seem to be of another "
        "scale; convert them to one scale, or split the set."
    ]
