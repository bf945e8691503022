"""Images of more than 8 bits per sample: what they hold, and how they become 8 bits.

Which values are black and white is decided for a whole data set (:mod:`.ranges`), never for one
image, so that equal values stay equal. What Pillow cannot read goes through tifffile, imagecodecs
or pydicom, where they are installed.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import notation
from ..errors import ImageError
from .formats import TiffHeader, png_is_intact, tiff_header

_ROWS_BYTES = 4_000_000  # pixels are scaled so many bytes at once: memory does not grow with them
_KINDS = {1: "uint", 2: "int", 3: "float"}  # TIFF 6.0, tag 339 (SampleFormat)
_EIGHT = "uint8"
_READ = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class Reading:
    """How what a file stores becomes 8-bit pixels, where there is a choice.

    Attributes
    ----------
    ranges : tuple of (str, float, float)
        For each type of samples (``uint16``, ``float32``, or ``any``), the values that become
        black and white. Without an entry: ``uint16`` 0 and 65535, ``uint8`` 0 and 255; other
        types without one are not read.
    bands : tuple of int
        Which bands of an image of several, from 1: one (grey) or three (red, green, blue).
    """

    ranges: tuple[tuple[str, float, float], ...] = ()
    bands: tuple[int, ...] = ()

    def limits(self, kind: str) -> tuple[float, float] | None:
        """Values of samples of type `kind` that become 0 and 255."""
        held = {name: (low, high) for name, low, high in self.ranges}
        if kind == _EIGHT:
            return held.get(kind, (0.0, 255.0))
        usual = (0.0, 65535.0) if kind == "uint16" else None
        return held.get(kind, held.get("any", usual))


PLAIN = Reading()


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels as stored.

    Attributes
    ----------
    values : array of shape (height, width, bands)
        Numbers of any type.
    inverted : bool
        Whether the lowest value is white.
    window : tuple of 2 floats, optional
        Values of black and white that the file itself names (DICOM).
    kind : str
        Type of the stored samples: ``uint16``.
    """

    values: NDArray[Any]
    kind: str
    inverted: bool = False
    window: tuple[float, float] | None = None


def sample_type(image: Image.Image, data: bytes) -> str:
    """Type of the samples as the file stores them: ``uint8``, ``uint16``, ``float32``, ...

    PIL's mode hides it: 16-bit colours are read as ``RGB``, signed 16 bits as ``I``.
    """
    if image.format == "PNG" and len(data) > 24:
        return "uint16" if data[24] == 16 else _EIGHT  # the bit depth, which is in IHDR
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        try:
            bits = int(max(tags.get(258, (1,))))
            form = int(max(tags.get(339, (1,))))
        except (TypeError, ValueError):
            return _EIGHT
        if 8 < bits <= 64:  # more is damage, which PIL may read past
            return f"{_KINDS.get(form, 'uint')}{bits}"
        if bits <= 8 or image.mode[:1] not in "IF":
            return _EIGHT
    if image.mode == "F":
        return "float32"
    return "uint16" if image.mode.startswith("I") else _EIGHT


def to_bytes(samples: Samples, reading: Reading) -> NDArray[np.uint8]:
    """Scale samples to 8 bits by the range of their type, and clip.

    Returns
    -------
    array of shape (height, width, 1 or 3), uint8
        ``round(255 * (value - low) / (high - low))``; of full 16 bits that is exact for values
        that are 257 times an 8-bit value.

    Raises
    ------
    ImageError
        No range is known for the type, or values are not numbers.
    """
    limits = samples.window or reading.limits(samples.kind)
    if limits is None:
        _check_finite(samples)
        raise ImageError(
            f"samples are {samples.kind}, whose black and white are not known here; "
            "RANGE=MIN,MAX names them"
        )
    low, high = limits
    values = samples.values
    pixels = np.empty(values.shape, np.uint8)
    n_rows = max(1, _ROWS_BYTES // max(1, values[:1].nbytes))
    whole = values.dtype == np.uint16 and (low, high) == (0.0, 65535.0)
    for top in range(0, len(values), n_rows):
        some = values[top : top + n_rows]
        if whole:
            level = (some.astype(np.uint32) + 128) // 257
        else:
            if some.dtype.kind == "f" and not np.isfinite(some).all():
                _check_finite(samples)
            level = np.clip((some.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
            level = np.floor(level + 0.5)
        pixels[top : top + n_rows] = 255 - level if samples.inverted else level
    return pixels


def _check_finite(samples: Samples) -> None:
    if samples.values.dtype.kind == "f" and not np.isfinite(samples.values).all():
        share = float(np.mean(~np.isfinite(samples.values)))
        raise ImageError(
            f"{notation.share(share)} of its {samples.kind} pixels are NaN or infinite"
        )


def pil_samples(image: Image.Image, kind: str) -> Samples:
    """Take the samples of a loaded grey image of more than 8 bits (PIL's modes ``I`` and ``F``)."""
    tags: Any = getattr(image, "tag_v2", {})
    inverted = image.format == "TIFF" and tags.get(262) == 0  # WhiteIsZero
    values = np.asarray(image)
    if kind == "uint16" and values.dtype != np.uint16:
        values = values.astype(np.uint16) if 0 <= values.min() <= values.max() <= 65535 else values
    if kind == "uint32" and values.dtype == np.int32:
        values = values.view(np.uint32)
    return Samples(values[:, :, None], kind, inverted)


def tiff_picture(data: bytes, max_pixels: int) -> TiffHeader:
    """Read the header of a TIFF that Pillow does not open.

    Raises
    ------
    ImageError
        It is damaged or absurdly large, or has samples that nothing here reads.
    """
    header = tiff_header(data)
    if header is None or not 0 < header.width * header.height or header.kind not in _READ:
        raise ImageError("a TIFF that cannot be read: damaged, or of unusual samples")
    if header.width * header.height * header.n_bands > 4 * max_pixels:
        raise ImageError(
            f"absurdly large: {header.width} x {header.height} px of {header.n_bands} bands"
        )
    return header


def tiff_bands(data: bytes, reading: Reading, max_pixels: int) -> Samples:
    """Read the first page of a TIFF that Pillow cannot, by tifffile: many bands, 16-bit colours.

    Raises
    ------
    ImageError
        tifffile is missing, the file is damaged or absurdly large, or it has bands of which
        nobody said which to take.
    """
    header = tiff_picture(data, max_pixels)
    kind = header.kind
    _choose(header, reading)
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise ImageError(
            "a TIFF of many bands or 16-bit colours, which needs an extra: "
            "pip install 'cnn-codes[tiff]'"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]
            shape, axes = tuple(page.shape), str(page.axes)
            size = {header.width, header.height}
            if not 2 <= len(shape) <= 3 or not size <= {*shape}:
                raise ImageError(f"a TIFF of axes {axes} {shape}, not a picture")
            # What is allocated is by these, which damage sets to anything.
            whole, piece = math.prod(shape), math.prod(page.chunks)
            if whole > 4 * max_pixels or piece > 4 * max(whole, 2**20):
                raise ImageError(f"absurdly large: {whole:,} values in pieces of {piece:,}")
            values = np.asarray(page.asarray())
            if values.shape != shape:  # of damaged headers tifffile makes what it can
                raise ImageError(f"a damaged TIFF: {shape} in its header, {values.shape} in fact")
            inverted = int(getattr(page, "photometric", 1)) == 0
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs raise many kinds on damaged files
        raise ImageError(f"damaged, truncated or of an unknown compression: {error}") from error
    if values.ndim == 2:
        values = values[:, :, None]
    elif axes.startswith("S"):  # bands one after the other
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[:2] != (header.height, header.width):
        raise ImageError(f"damaged: its pixels are of shape {values.shape}, unlike its header")
    if values.shape[2] != header.n_bands:
        raise ImageError(f"damaged: {values.shape[2]} bands, {header.n_bands} in its header")
    chosen = _choose(header, reading)
    return Samples(values[:, :, [band - 1 for band in chosen]], kind, inverted)


def _choose(header: TiffHeader, reading: Reading) -> tuple[int, ...]:
    """Which bands to take, from 1."""
    n_bands, kind = header.n_bands, header.kind
    if reading.bands and max(reading.bands) <= n_bands:
        return reading.bands
    if n_bands in (1, 3):
        return tuple(range(1, n_bands + 1))
    if n_bands == 2:
        return (1,)
    if n_bands == 4 and (kind == _EIGHT or header.is_rgb):  # the fourth is transparency, or extra
        return (1, 2, 3)
    asked = ",".join(map(str, reading.bands))
    raise ImageError(bands_missing(n_bands, kind, asked))


def bands_missing(n_bands: int, kind: str, asked: str = "") -> str:
    """Say why an image of several bands cannot be read; empty where it can without BANDS."""
    if n_bands <= 3 or (n_bands == 4 and kind == _EIGHT):
        return ""
    return (
        f"{n_bands} bands of {kind}"
        + (f", so that BANDS={asked} are not all there" if asked else "")
        + "; BANDS=3,2,1 names the three that are red, green and blue, BANDS=1 one that is grey"
    )


def png_samples(data: bytes) -> Samples | None:
    """Read a PNG of 16-bit colours by imagecodecs; None where that is not installed."""
    try:
        import imagecodecs
    except ModuleNotFoundError:
        return None
    if not png_is_intact(data):  # libpng would print that, and may go on
        raise ImageError("damaged: a checksum in it is wrong")
    try:
        values = np.asarray(imagecodecs.png_decode(data))
    except MemoryError:
        raise
    except Exception as error:  # imagecodecs raises many kinds on damaged files
        raise ImageError(f"damaged or truncated: {error}") from error
    return Samples(values[:, :, :3] if values.ndim == 3 else values[:, :, None], str(values.dtype))


def dicom_samples(data: bytes, max_pixels: int) -> Samples:
    """Read the first frame of a DICOM file by pydicom.

    The rescale slope and intercept are applied (DICOM PS3.3, C.11.1), then the first window that
    the file names is its range (C.11.2); MONOCHROME1 means that the lowest value is white.

    Raises
    ------
    ImageError
        pydicom is missing, or the file is damaged, absurdly large or no picture.
    """
    try:
        import pydicom
        from pydicom import pixels
    except ModuleNotFoundError as error:
        raise ImageError("DICOM, which needs an extra: pip install 'cnn-codes[dicom]'") from error
    try:
        found = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in found:
            raise ImageError("a DICOM file without a picture")
        if int(found.Rows) * int(found.Columns) > max_pixels:
            raise ImageError(f"absurdly large: {found.Columns} x {found.Rows} px")
        values = pixels.pixel_array(found, index=0)  # type: ignore[attr-defined]
        kind = str(values.dtype)
        meaning = str(found.PhotometricInterpretation)
        if values.ndim == 3:
            return Samples(np.asarray(values), kind)
        scaled = np.asarray(pixels.apply_rescale(values, found))  # type: ignore[attr-defined]
        window = None
        if "WindowCenter" in found and "WindowWidth" in found:
            center = float(np.ravel(np.asarray(found.WindowCenter, float))[0])
            width = float(np.ravel(np.asarray(found.WindowWidth, float))[0])
            if width > 1:  # PS3.3 C.11.2.1.2.1
                window = (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds
        raise ImageError(f"a DICOM file that cannot be read: {error}") from error
    if window is None and kind == _EIGHT:
        window = (0.0, 255.0)
    return Samples(scaled[:, :, None], kind, meaning == "MONOCHROME1", window)
