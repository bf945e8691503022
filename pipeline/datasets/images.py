"""Bytes of an image file to pixels: what it is, and what a network may see of it.

Image files are hostile input. Only known formats are opened, the size is checked before anything
is decoded, a decompression bomb or a truncated file is an error, and of an animation only the
first frame is read. JPEG goes through libjpeg-turbo without PIL; the rest through PIL.

What a network sees: the picture upright (EXIF orientation applied), transparency over white,
16-bit greys scaled to 8, CMYK converted. A JPEG much larger than wanted is decoded at reduced
scale, as ``Image.draft`` does: never below twice the side that is asked for.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import ImageError

__all__ = ["FORMATS", "MAX_PIXELS", "ImageFacts", "decode", "from_pil", "probe"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # what is opened at all
MAX_PIXELS = 100_000_000  # beyond this an image is refused undecoded: 300 MB of pixels
_REDUCE = 2  # a JPEG is decoded at reduced scale only while its sides stay this much larger
_SCALES = tuple(eighths / 8 for eighths in range(1, 9))  # of libjpeg-turbo's inverse DCT

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Pillow warns of odd metadata and half a bomb; what matters of that is found in the audit or
# refused below. A filter for good, since catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class ImageFacts:
    """What a file's header says of the image in it.

    Attributes
    ----------
    format : str
        PIL's name of the format, one of `FORMATS` (or ``MPO``, a JPEG of several pictures).
    width, height : int
        In pixels, as stored (before the EXIF orientation).
    mode : str
        PIL's pixel mode: ``RGB``, ``L``, ``P``, ``CMYK``, ``I;16``, ``RGBA`` and so on.
    n_frames : int
        Above 1 for an animation or a file of several pages.
    orientation : int
        EXIF orientation, 1 (upright) to 8.
    transparent : bool
        Whether the file carries transparency.
    """

    format: str
    width: int
    height: int
    mode: str
    n_frames: int
    orientation: int
    transparent: bool


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"absurdly large: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image of a known format ({_guess(data)})") from error
    except Exception as error:  # PIL's plugins raise many kinds on damaged headers
        raise ImageError(f"unreadable header: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"absurdly large: {image.width} x {image.height} px, over {MAX_PIXELS / 1e6:.0f} Mpx"
        )
    return image


def _guess(data: bytes) -> str:
    start = data[:64].lstrip().lower()
    for magic, name in (
        (b"<!doctype", "an HTML page"),
        (b"<html", "an HTML page"),
        (b"<svg", "SVG"),
        (b"<?xml", "XML"),
        (b"%pdf", "PDF"),
        (b"pk\x03\x04", "a zip archive"),
    ):
        if start.startswith(magic):
            return f"it is {name}"
    return "starts with " + data[:8].hex(" ")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the pixels may be fine, so read them upright
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def probe(data: bytes) -> ImageFacts:
    """Read the header of an image file.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    ImageError
        Not an image of a known format, or absurdly large.
    """
    image = _open(data)
    return ImageFacts(
        format=str(image.format),
        width=image.width,
        height=image.height,
        mode=image.mode,
        n_frames=getattr(image, "n_frames", 1) if image.format != "MPO" else 1,
        orientation=_orientation(image),
        transparent=_transparent(image),
    )


def decode(data: bytes, *, min_side: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file to upright 8-bit pixels.

    Parameters
    ----------
    data : bytes
        The whole file.
    min_side : int, optional
        The shorter side, in pixels, that is wanted. A JPEG at least twice as large may then be
        decoded at reduced scale; its shorter side stays at least ``2 * min_side``.

    Returns
    -------
    array of shape (height, width, C), uint8
        C is 3 (RGB) or, for greys, 1.

    Raises
    ------
    ImageError
        Unreadable, truncated, absurdly large, or with pixels that are no picture.
    """
    image = _open(data)
    pixels = _decode_jpeg(data, image, min_side) if image.format in ("JPEG", "MPO") else None
    if pixels is None:
        pixels = _decode_pil(image)
    return _upright(pixels, _orientation(image))


def from_pil(image: Image.Image) -> NDArray[np.uint8]:
    """Give the pixels of an image that PIL has opened or made, as :func:`decode` gives them.

    Raises
    ------
    ImageError
        Truncated, absurdly large, without a pixel, or with pixels that are no picture.
    """
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} px: no pixel, or absurdly large")
    return _upright(_decode_pil(image), _orientation(image))


def _decode_jpeg(data: bytes, image: Image.Image, min_side: int | None) -> NDArray[np.uint8] | None:
    """Decode with libjpeg-turbo; None where PIL has to judge (CMYK, or any warning at all)."""
    if image.mode not in ("RGB", "L"):
        return None
    height = width = 0
    if min_side is not None:
        short = min(image.size)
        scale = next((s for s in _SCALES if short * s >= _REDUCE * min_side), 1.0)
        if scale < 1:
            height, width = int(image.height * scale), int(image.width * scale)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            colorspace="RGB" if image.mode == "RGB" else "GRAY",
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            strict=True,
        )
    except ValueError:
        return None
    return pixels


def _decode_pil(image: Image.Image) -> NDArray[np.uint8]:
    try:
        image.load()
        return _eight_bits(image)
    except ImageError:
        raise
    except Exception as error:  # PIL's decoders raise many kinds on damaged data
        raise ImageError(f"damaged or truncated: {error}") from error


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Bring any of PIL's modes to (H, W, 1) grey or (H, W, 3) RGB."""
    if image.mode.startswith("I"):  # 16-bit greys; "I" is how PIL reads some of them
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError("pixels are 32-bit integers, not a picture")
        return ((wide + 128) // 257).astype(np.uint8)[:, :, None]
    if image.mode == "F":
        raise ImageError("pixels are floating-point numbers, not a picture")
    if _transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply the EXIF orientation (JEITA CP-3451, tag 0x0112)."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
