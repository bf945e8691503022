"""Images as a program has them: paths, encoded bytes, PIL images, arrays of pixels.

All end in the views that training took. A file's bytes are decoded as stage one does it; what is
decoded already joins behind the decoder.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..backbones.preprocess import Preprocessing, Views, read_views, take_views
from ..datasets.images import from_pil
from ..errors import ImageError

Item: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
Images: TypeAlias = Item | Iterable[Item]

_MAX_BYTES = 1 << 30  # of a file: MAX_PIXELS of 16 bits and four channels are 800 MB
_LOCKS = [threading.Lock() for _ in range(61)]  # PIL decodes an opened image at its first use


def as_items(images: Any) -> list[Item]:
    """List images that are given singly or several at once.

    Parameters
    ----------
    images : Images
        A path, the bytes of an image file, a PIL image, pixels (H, W), (H, W, 1), (H, W, 3) or,
        with transparency, (H, W, 4) of uint8; any iterable of these, a column of a data frame
        among them; or pixels of several images of one size, (N, H, W, C).

    Raises
    ------
    ImageError
        Nothing of the kind.
    """
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        return [images]
    if hasattr(images, "to_numpy"):  # pandas, polars
        images = images.to_numpy()
    if not isinstance(images, np.ndarray):
        if not isinstance(images, Iterable):
            raise ImageError(f"{type(images).__name__} is no image.", expected=_EXPECTED)
        several: list[Item] = list(images)
        return several
    if images.dtype.kind in "OU":
        if images.ndim == 2 and images.shape[1] == 1:  # a data frame of one column
            images = images[:, 0]
        if images.ndim == 1:
            return list(images)
    elif images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3, 4)):
        return [images]
    elif images.ndim == 4:
        return list(images)
    raise ImageError(
        f"An array of shape {images.shape} and type {images.dtype} holds no images.",
        expected="pixels (H, W, 3) of one image or (N, H, W, 3) of several, uint8; or paths (N,)",
    )


_EXPECTED = "a path, the bytes of an image file, a PIL image, or pixels (H, W, 3) of uint8"


def name_of(item: Item, index: int) -> str:
    """Call an image by its path, or by its place in the list."""
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"image {index}"


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image at hand.

    Attributes
    ----------
    content : bytes, or uint8 (H, W, 1 or 3)
        The file's bytes, or upright pixels.
    """

    content: bytes | NDArray[np.uint8]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes; of pixels, over their shape and bytes."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        total = hashlib.sha256(f"pixels {self.content.shape};".encode())
        total.update(np.ascontiguousarray(self.content).data)
        return total.hexdigest()

    def views(self, preprocessing: Preprocessing, views: Views) -> NDArray[np.uint8]:
        """Take the views (V, size, size, 3), uint8; for several networks (V, P).

        Raises
        ------
        ImageError
            The bytes are no image that can be used.
        """
        digest = self.digest if views.kind == "random" else ""
        if isinstance(self.content, bytes):
            return read_views(self.content, preprocessing, views, digest)
        return take_views(self.content, preprocessing, views, digest)


def load_item(item: Item) -> Loaded:
    """Bring an image to hand; a file's bytes are not decoded yet.

    Raises
    ------
    ImageError
        It cannot be read, or is no image.
    """
    if isinstance(item, str | os.PathLike | bytes):
        return Loaded(_bytes_of(item))
    return Loaded(_pixels(item))


def _bytes_of(item: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    try:
        path = Path(item)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            folder = stat.S_ISDIR(status.st_mode)
            raise ImageError("a folder, no file" if folder else "a device or a pipe, no file")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"absurdly large: {status.st_size:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', error)})") from error


def _pixels(item: Any) -> NDArray[np.uint8]:
    """Upright 8-bit pixels (H, W, 1 or 3)."""
    if isinstance(item, Image.Image):
        with _LOCKS[(id(item) >> 4) % len(_LOCKS)]:
            return from_pil(item)
    if not isinstance(item, np.ndarray):
        raise ImageError(f"{type(item).__name__} is no image", expected=_EXPECTED)
    if item.dtype != np.uint8:
        raise ImageError(f"pixels of type {item.dtype}, not uint8", expected="numbers 0 to 255")
    if item.ndim == 2:
        item = item[:, :, None]
    if item.ndim != 3 or item.shape[2] not in (1, 3, 4) or 0 in item.shape:
        raise ImageError(f"pixels of shape {item.shape}", expected="(H, W), (H, W, 1, 3 or 4)")
    if item.shape[2] == 4:
        return from_pil(Image.fromarray(np.ascontiguousarray(item), "RGBA"))
    return np.ascontiguousarray(item)
