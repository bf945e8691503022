"""What a decoding worker does with one image file: views for the network, or a small picture."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..backbones.preprocess import Views, preprocessing_from, read_views
from ..datasets.images import decode, probe
from ..errors import ImageError
from ..notation import megapixels

_UNKNOWN, _LARGE = "not an image of a known format", "absurdly large"


def answer(head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    """Answer one message.

    Parameters
    ----------
    head : dict
        ``do`` (``views``, ``picture`` or ``pixels``), ``pixels`` (most that are decoded), and
        ``preprocessing`` with ``views`` (kind, count, seed), or ``side``.
    data : bytes
        The image file.

    Returns
    -------
    head : dict
        ``shape`` of the views (V, size, size, 3), uint8, that are the body; or ``size`` (width,
        height) of a picture; or ``status``, an HTTP status, and ``error``.
    body : bytes
    """
    try:
        facts = probe(data)
        if facts.width * facts.height > head["pixels"]:
            raise ImageError(
                f"{_LARGE}: {facts.width} x {facts.height} px, over {megapixels(head['pixels'])}"
            )
        if head["do"] == "picture":
            picture, size = shrunk(decode(data, min_side=head["side"]), head["side"])
            return {"size": size}, picture
        if head["do"] == "pixels":
            small = _small(decode(data, min_side=head["side"]), head["side"]).convert("RGB")
            pixels = np.ascontiguousarray(np.asarray(small))
            return {"shape": pixels.shape}, pixels.data.cast("B")
        preprocessing = preprocessing_from(head["preprocessing"])
        views = Views(*head["views"])
        digest = hashlib.sha256(data).hexdigest() if views.kind == "random" else ""
        pixels = np.ascontiguousarray(read_views(data, preprocessing, views, digest))
        return {"shape": pixels.shape}, pixels.data.cast("B")
    except ImageError as error:
        status = 415 if error.found.startswith((_UNKNOWN, "empty file")) else 422
        status = 413 if error.found.startswith(_LARGE) else status
        return {"status": status, "error": error.found[:500]}, b""
    except MemoryError:
        return {"status": 413, "error": "takes more memory than an image may"}, b""


def _small(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.HAMMING)


def shrunk(pixels: NDArray[np.uint8], side: int) -> tuple[bytes, tuple[int, int]]:
    """Shrink pixels (H, W, 1 or 3) to `side` pixels on the longer side; give WebP and its size."""
    image = _small(pixels, side)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "WEBP", quality=70, method=2)
    return stream.getvalue(), image.size
