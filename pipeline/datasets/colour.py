"""Colours through the profile (ICC) that a file carries: print colours and wide gamuts to sRGB.

A profile that is sRGB within rounding changes nothing, so pixels without need stay as decoded.
"""

from __future__ import annotations

import hashlib
import io
import threading
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_SAME_LEVELS = 8  # of 255; profiles that say sRGB in other words differ by less
_MOST_BYTES = 8_000_000  # of a profile; those of presses have 0.5 to 3 MB
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # PIL's mode to the profile's colour space
_NO_CACHE = 0x0040  # cmsFLAGS_NOCACHE: a transform with a cache may not be shared by threads


class _Local(threading.local):
    """Transforms of each thread, by profile and mode."""

    def __init__(self) -> None:
        self.transforms: dict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = {}


_LOCAL = _Local()


def changes_colours(profile: bytes | None, mode: str) -> bool:
    """Whether pixels of `mode` (``RGB``, ``L``, ``CMYK``) look otherwise through the profile.

    False where there is no profile, or it is damaged or of another colour space.
    """
    if not profile or mode not in _SPACES or len(profile) > _MOST_BYTES:
        return False
    return _changes(hashlib.sha256(profile).digest(), mode, _Bytes(profile))


class _Bytes:
    """Bytes that a cache does not compare: their digest is the key."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes)


@lru_cache(maxsize=512)
def _changes(digest: bytes, mode: str, profile: _Bytes) -> bool:
    transform = _transform(profile.data, mode)
    if transform is None:
        return False
    if mode == "CMYK":
        return True
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        probe = Image.fromarray(grid)
    seen = ImageCms.applyTransform(probe, transform)
    if seen is None:
        return False
    gap = np.abs(np.asarray(seen, int) - np.asarray(probe.convert("RGB"), int))
    return int(gap.max()) > _SAME_LEVELS


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Bring an image of mode ``RGB``, ``L`` or ``CMYK`` to sRGB (mode ``RGB``).

    Relative colorimetric, with black point compensation: whites stay white and shadows are kept,
    as viewers of photographs do it (ICC.1:2022, section 6.2).
    """
    held = _LOCAL.transforms
    key = (hashlib.sha256(profile).digest(), image.mode)
    if key not in held:
        if len(held) > 64:
            held.clear()
        held[key] = _transform(profile, image.mode)
    transform = held[key]
    if transform is None:
        return image.convert("RGB")
    return ImageCms.applyTransform(image, transform) or image.convert("RGB")


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | _NO_CACHE,
        )
    except MemoryError:
        raise
    except Exception:  # a damaged profile: littlecms raises several kinds; pixels stay as they are
        return None
