"""Bytes of an image file to pixels: what it is, and what a network may see of it.

Image files are hostile input. Only known formats are opened, whatever their names say; size,
scans and directories are checked before anything is decoded; a decompression bomb or a truncated
file is an error, and of an animation or a file of several pages only the first is read. JPEG goes
through libjpeg-turbo without PIL; the rest through PIL.

What a network sees: the picture upright (EXIF orientation applied), in sRGB (print colours and
wide gamuts through the file's own profile), transparency over white, more than 8 bits scaled by
the range of the data set (:mod:`.samples`). A JPEG much larger than wanted is decoded at reduced
scale, as ``Image.draft`` does: never below twice the side that is asked for.

Only what a decoder calls damaged is an `ImageError`. Shortage of memory is a `MemoryError`: it
says nothing about the image.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import io
import logging
import stat
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import DataError, ImageError
from ..notation import megapixels
from .colour import changes_colours, to_srgb
from .formats import (
    HEAD_BYTES,
    describe,
    jpeg_scans,
    png_without_text,
    raw_kind,
    recognise,
    tiff_header,
    tiff_pages,
)
from .packed import packed_at
from .samples import (
    PLAIN,
    Reading,
    dicom_samples,
    pil_samples,
    png_samples,
    sample_type,
    tiff_bands,
    tiff_picture,
    to_bytes,
)

MAX_PIXELS = 100_000_000  # beyond this an image is refused undecoded: 300 MB of pixels
MAX_FILE_BYTES = 1 << 30  # of a file: MAX_PIXELS of 16 bits and four channels are 800 MB
_MAX_SCAN_PIXELS = 1_500_000_000  # scans of a JPEG times its pixels: about 5 s
_FEW_SCANS = 12  # that every encoder may use; libjpeg's own progressive script has 10
_REDUCE = 2  # a JPEG is decoded at reduced scale only while its sides stay this much larger
_SCALES = tuple(eighths / 8 for eighths in range(1, 9))  # of libjpeg-turbo's inverse DCT
_STRIP_BYTES = 16_000_000  # transparency is resolved in strips of so many bytes

_LIBTIFF = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)  # compressions that every libtiff reads
_DEEP_MODES = ("RGB", "RGBA", "RGBX", "RGBa")

_HEIF = importlib.util.find_spec("pillow_heif") is not None
if _HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
FORMATS = (  # what is opened at all
    *("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"),
    *(("AVIF",) if importlib.util.find_spec("PIL._avif") is not None else ()),
    *(("HEIF",) if _HEIF else ()),
)

Image.MAX_IMAGE_PIXELS = None  # the limit is checked here, before anything is decoded
# Pillow warns of odd metadata; what matters of that is found in the audit or refused below. A
# filter for good, since catch_warnings is not safe in threads; its log goes nowhere either.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", module=r"pydicom\.")
for _name in ("PIL", "tifffile", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


def _silence_libtiff() -> None:
    """Keep libtiff's own lines off the terminal: what it refuses is an exception as well."""
    folder = Path(Image.__file__).parent
    for library in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)


_silence_libtiff()
_limit = MAX_PIXELS


def limit_pixels(n_pixels: int) -> None:
    """Set the most pixels of an image that is decoded, for this process (setting MAX_PIXELS)."""
    global _limit
    _limit = n_pixels


def max_pixels() -> int:
    """Give the most pixels of an image that is decoded."""
    return _limit


def decoder_version() -> str:
    """Name what the refusal of an image depends on besides its bytes: decoders and limits."""
    extras = [
        f"{name} {version(name)}"
        for name, module in (
            ("pillow-heif", "pillow_heif"), ("pydicom", "pydicom"), ("tifffile", "tifffile"),
            ("imagecodecs", "imagecodecs"),
        )
        if importlib.util.find_spec(module) is not None
    ]  # fmt: skip
    parts = ["3", f"pillow {version('pillow')}", f"simplejpeg {version('simplejpeg')}", *extras]
    return ", ".join([*parts, f"{max_pixels()} px"])


@dataclass(frozen=True)
class ImageFacts:
    """What a file's header says of the image in it.

    Attributes
    ----------
    format : str
        PIL's name of the format, one of `FORMATS` (or ``MPO``, a JPEG of several pictures), or
        ``DICOM``.
    width, height : int
        In pixels, as stored (before the EXIF orientation).
    mode : str
        PIL's pixel mode: ``RGB``, ``L``, ``P``, ``CMYK``, ``I;16``, ``RGBA`` and so on.
    n_frames : int
        Above 1 for an animation or a file of several pages; of a GIF, 2 stands for several.
    orientation : int
        EXIF orientation, 1 (upright) to 8.
    transparent : bool
        Whether the file carries transparency.
    samples : str
        Type of the samples as stored: ``uint8``, ``uint16``, ``float32``.
    converted : bool
        Whether its colour profile changes its colours (they are converted to sRGB).
    """

    format: str
    width: int
    height: int
    mode: str
    n_frames: int
    orientation: int
    transparent: bool
    samples: str = "uint8"
    converted: bool = False


def read_file(path: Path) -> bytes:
    """Read an image file, if it is a regular file of at most `MAX_FILE_BYTES`.

    A path that leads through a tar is that of a member of it.

    Raises
    ------
    ImageError
        It is not, which reading might never end of.
    OSError
        It cannot be read.
    """
    try:
        status = path.stat()
    except (NotADirectoryError, FileNotFoundError):
        packed = packed_at(str(path))
        if packed is None:
            raise
        if packed.n_bytes > MAX_FILE_BYTES:
            raise ImageError(f"absurdly large: {packed.n_bytes:,} bytes") from None
        return packed.read()
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        raise ImageError("a folder, not a file" if folder else "a device or a pipe, not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"absurdly large: {status.st_size:,} bytes")
    return path.read_bytes()


def read_as(path: Path, sha256: bytes | str) -> bytes:
    """Read an image file whose SHA-256 is known, and check that it still has these bytes.

    Everything that is computed of an image is kept under the digest of its bytes, or vouches for
    it: other bytes under the same name must not enter. Hashing costs a tenth of decoding or less.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : bytes or str
        64 hexadecimal digits, as a manifest has them.

    Raises
    ------
    DataError
        The file went away, or has other bytes.
    ImageError
        It is no regular file, or too large to be read.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise DataError(
            f"{path} went away while it was being read ({error.strerror}).",
            expected="the file that was there when the command began",
            todo="give the same command again; what was finished is kept",
        ) from error
    return checked(data, sha256, path)


def checked(data: bytes, sha256: bytes | str, path: Path) -> bytes:
    """Give the bytes of an image back where they have this SHA-256.

    Raises
    ------
    DataError
        They have another: the file changed since it was hashed.
    """
    wanted = sha256.decode() if isinstance(sha256, bytes) else sha256
    if hashlib.sha256(data).hexdigest() != wanted:
        raise DataError(
            f"{path} changed while it was being read.",
            expected=f"the bytes it had when the command began, SHA-256 {wanted[:12]}...",
            todo="give the same command again; what was finished is kept",
        )
    return data


class _RawError(ImageError):
    """A camera RAW file in a TIFF container: no other reader of TIFFs is to be tried."""


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty file (0 bytes)")
    try:
        image = _opened(data)
    except UnidentifiedImageError as error:
        raise ImageError(describe(data)) from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # PIL's plugins raise many kinds on damaged headers
        raise ImageError(f"unreadable header: {error}") from error
    raw = raw_kind(getattr(image, "tag_v2", {})) if image.format == "TIFF" else ""
    if raw:
        raise _RawError(f"not an image of a known format (it is {raw}; convert it to PNG or TIFF)")
    _within_budget(image, data)
    if image.format == "TIFF":
        _has_all_strips(image)
    return image


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (MemoryError, UnidentifiedImageError):
        raise
    except Exception:
        if recognise(data[:HEAD_BYTES]) != "PNG":
            raise
        # text or a profile beyond PIL's limit: no reason to lose the pixels
        return Image.open(io.BytesIO(png_without_text(data)), formats=FORMATS)


def _within_budget(image: Image.Image, data: bytes) -> None:
    """Refuse what would take too much memory or time, before either is spent."""
    n_pixels = image.width * image.height
    if n_pixels <= 0:
        raise ImageError(f"damaged: {image.width} x {image.height} px")
    is_jpeg = image.format in ("JPEG", "MPO")
    # A large JPEG may be decoded at an eighth of its sides; decode() checks what is left.
    most = max_pixels() * (64 if is_jpeg and not image.info.get("progressive") else 1)
    if n_pixels > most:
        raise ImageError(
            f"absurdly large: {image.width} x {image.height} px, over {megapixels(max_pixels())} "
            "(MAX_PIXELS)"
        )
    if is_jpeg:
        n_scans = jpeg_scans(data)
        if n_scans > _FEW_SCANS and n_scans * n_pixels > _MAX_SCAN_PIXELS:
            raise ImageError(
                f"absurdly large: {n_scans} scans of {image.width} x {image.height} px would take "
                "very long"
            )


def _has_all_strips(image: Image.Image) -> None:
    """Refuse a TIFF whose strips end above its last row: Pillow would leave the rest black."""
    tags: Any = getattr(image, "tag_v2", {})
    offsets, n_rows = tags.get(273), tags.get(278, image.height)  # StripOffsets, RowsPerStrip
    if not offsets or not isinstance(n_rows, int) or n_rows <= 0:
        return
    planes = len(image.getbands()) if tags.get(284) == 2 else 1
    wanted = -(-image.height // n_rows) * planes
    if len(offsets) < wanted:
        raise ImageError(f"damaged: {len(offsets)} of its {wanted} strips are there")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF: the pixels may be fine, so read them upright
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _n_frames(image: Image.Image, data: bytes) -> int:
    """Frames or pages that the file says it has, at most 10,000."""
    if image.format == "TIFF":
        return tiff_pages(data)
    if image.format == "GIF":  # PIL would walk through all of them
        return 2 if getattr(image, "is_animated", False) else 1
    return min(getattr(image, "n_frames", 1), 10_000) if image.format != "MPO" else 1


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
    other = recognise(data[:HEAD_BYTES])
    if other == "DICOM":
        samples = dicom_samples(data, max_pixels())
        height, width, n_bands = samples.values.shape
        kind = "uint8" if samples.window else samples.kind
        return ImageFacts("DICOM", width, height, "L" if n_bands == 1 else "RGB", 1, 1, False, kind)
    try:
        image = _open(data)
    except _RawError:
        raise
    except ImageError:
        if other != "TIFF" or not _needs_tifffile(data):
            raise
        seen = tiff_picture(data, max_pixels())
        mode = f"{seen.n_bands} bands" if seen.n_bands > 1 else "F"
        n_pages = tiff_pages(data)
        return ImageFacts("TIFF", seen.width, seen.height, mode, n_pages, 1, False, seen.kind)
    try:
        n_frames = _n_frames(image, data)
    except MemoryError:
        raise
    except Exception as error:  # a damaged second frame
        raise ImageError(f"unreadable header: {error}") from error
    return ImageFacts(
        format=str(image.format),
        width=image.width,
        height=image.height,
        mode=image.mode,
        n_frames=n_frames,
        orientation=_orientation(image),
        transparent=_transparent(image),
        samples=sample_type(image, data),
        converted=changes_colours(image.info.get("icc_profile"), image.mode),
    )


def decode(
    data: bytes, *, min_side: int | None = None, reading: Reading = PLAIN
) -> NDArray[np.uint8]:
    """Decode an image file to upright 8-bit pixels.

    Parameters
    ----------
    data : bytes
        The whole file.
    min_side : int, optional
        The shorter side, in pixels, that is wanted. A JPEG at least twice as large may then be
        decoded at reduced scale; its shorter side stays at least ``2 * min_side``.
    reading : Reading
        Which values of more than 8 bits are black and white; which bands.

    Returns
    -------
    array of shape (height, width, C), uint8
        C is 3 (RGB) or, for greys, 1.

    Raises
    ------
    ImageError
        Unreadable, truncated, absurdly large, or with pixels that are not a picture.
    MemoryError
        There is no memory for it now.
    """
    kind = recognise(data[:HEAD_BYTES])
    if kind == "DICOM":
        return to_bytes(dicom_samples(data, max_pixels()), reading)
    try:
        image = _open(data)
    except _RawError:
        raise
    except ImageError:
        if kind == "TIFF" and _needs_tifffile(data):
            return to_bytes(tiff_bands(data, reading, max_pixels()), reading)
        raise
    pixels = None
    if image.format in ("JPEG", "MPO"):
        pixels = _decode_jpeg(data, image, min_side)
        if pixels is not None:
            pixels = _through_profile(pixels, image)
    if pixels is None:
        pixels = _decode_pil(image, data, reading)
    return _upright(pixels, _orientation(image))


def samples_of(data: bytes, reading: Reading) -> NDArray[Any]:
    """Read the samples of an image of more than 8 bits as stored, (height, width, bands).

    Raises
    ------
    ImageError
        As :func:`decode`.
    """
    kind = recognise(data[:HEAD_BYTES])
    if kind == "DICOM":
        return dicom_samples(data, max_pixels()).values
    try:
        image = _open(data)
    except _RawError:
        raise
    except ImageError:
        if kind != "TIFF":
            raise
        return tiff_bands(data, reading, max_pixels()).values
    if len(image.getbands()) > 1:
        if image.format == "TIFF":
            return tiff_bands(data, reading, max_pixels()).values
        found = png_samples(data) if image.format == "PNG" else None
        if found is not None:
            return found.values
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise many kinds on damaged data
        raise ImageError(f"damaged or truncated: {error}") from error
    if len(image.getbands()) > 1:  # PIL keeps the upper 8 of 16 bits of each colour
        return np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    return pil_samples(image, sample_type(image, data)).values


def preview(data: bytes, *, min_side: int) -> NDArray[np.uint8]:
    """Decode an image for people to look at: more than 8 bits by the image's own values.

    Parameters, what is returned and raised: as :func:`decode`.
    """
    kind = probe(data).samples
    if kind == "uint8":
        return decode(data, min_side=min_side)
    values = samples_of(data, PLAIN).astype(float)
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
    reading = Reading((("any", float(low), float(max(high, low + 1e-6))),))
    return decode(data, min_side=min_side, reading=reading)


def from_pil(image: Image.Image) -> NDArray[np.uint8]:
    """Give the pixels of an image that PIL has opened or made, as :func:`decode` gives them.

    Raises
    ------
    ImageError
        Truncated, absurdly large, without a pixel, or with pixels that are not a picture.
    """
    if not 0 < image.width * image.height <= max_pixels():
        raise ImageError(f"{image.width} x {image.height} px: no pixel, or absurdly large")
    return _upright(_decode_pil(image, b"", PLAIN), _orientation(image))


def _decode_jpeg(data: bytes, image: Image.Image, min_side: int | None) -> NDArray[np.uint8] | None:
    """Decode with libjpeg-turbo; None where PIL has to judge (CMYK, or any warning at all)."""
    height = width = 0
    scale, mode = 1.0, image.mode
    if min_side is not None:
        short = min(image.size)
        scale = next((s for s in _SCALES if short * s >= _REDUCE * min_side), 1.0)
        if scale < 1:
            height, width = int(image.height * scale), int(image.width * scale)
    n_pixels = image.width * image.height * scale**2
    if n_pixels > max_pixels():
        raise ImageError(
            f"absurdly large: {image.width} x {image.height} px, over {megapixels(max_pixels())} "
            "(MAX_PIXELS)"
        )
    if image.width * image.height > max_pixels():  # for PIL, where it comes to that
        image.draft(None, (max(1, width), max(1, height)))
    if mode not in ("RGB", "L"):
        return None
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            colorspace="RGB" if mode == "RGB" else "GRAY",
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            strict=True,
        )
    except ValueError as error:
        if "memory" in str(error).lower():  # Pillow would decode at another scale
            raise MemoryError(str(error)) from error
        return None
    return pixels


def _through_profile(pixels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    profile: bytes = image.info.get("icc_profile") or b""
    if not changes_colours(profile, image.mode):
        return pixels
    plain = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    return np.asarray(to_srgb(plain, profile))


def _decode_pil(image: Image.Image, data: bytes, reading: Reading) -> NDArray[np.uint8]:
    try:
        kind = sample_type(image, data)
        deep = _deep(image, data, kind, reading)
        if deep is not None:
            return deep
        image.load()
        return _eight_bits(image, kind, reading)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # PIL's decoders raise many kinds on damaged data
        if "memory" in str(error):  # "out of memory error when reading image file"
            raise MemoryError(str(error)) from error
        _spare_memory(image)
        if image.format == "PNG" and len(stripped := png_without_text(data)) < len(data):
            return _decode_pil(_open(stripped), stripped, reading)
        tags: Any = getattr(image, "tag_v2", {})
        if image.format == "TIFF" and tags.get(259, 1) not in _LIBTIFF:
            return to_bytes(tiff_bands(data, reading, max_pixels()), reading)
        raise ImageError(f"damaged or truncated: {error}") from error


def _spare_memory(image: Image.Image) -> None:
    """Raise MemoryError where there is no memory to decode the image: no fault of the file."""
    np.empty(8 * image.width * image.height, np.uint8)


def _deep(image: Image.Image, data: bytes, kind: str, reading: Reading) -> NDArray[np.uint8] | None:
    """Decode colours of 16 bits, and bands that were asked for; None where PIL does it."""
    if image.format == "TIFF" and reading.bands and len(image.getbands()) > 1:
        return to_bytes(tiff_bands(data, reading, max_pixels()), _with_eight(reading))
    tags: Any = getattr(image, "tag_v2", {})
    planar = image.format == "TIFF" and tags.get(284) == 2  # which PIL reads wrongly at 16 bits
    full = reading.limits(kind) == (0.0, 65535.0) and not planar
    if kind == "uint8" or len(image.getbands()) == 1 or full or image.mode not in _DEEP_MODES:
        return None
    if image.format == "TIFF":
        return to_bytes(tiff_bands(data, reading, max_pixels()), reading)
    found = png_samples(data)
    if found is None:
        raise ImageError(
            "16-bit colours that use a part of their range, which needs an extra: "
            "pip install 'cnn-codes[tiff]'"
        )
    return to_bytes(found, reading)


def _needs_tifffile(data: bytes) -> bool:
    """Whether a TIFF that PIL does not open may be one of several bands or unusual samples."""
    header = tiff_header(data)
    kinds = ("float16", "float64", "int8", "uint32", "int32")
    return header is not None and (header.n_bands > 1 or header.kind in kinds)


def _with_eight(reading: Reading) -> Reading:
    return Reading((*reading.ranges, ("uint8", 0.0, 255.0)), reading.bands)


def _eight_bits(image: Image.Image, kind: str, reading: Reading) -> NDArray[np.uint8]:
    """Bring any of PIL's modes to (H, W, 1) grey or (H, W, 3) RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # one channel of more than 8 bits
        samples = pil_samples(image, kind if kind != "uint8" else str(np.asarray(image).dtype))
        return to_bytes(samples, reading)
    if _transparent(image):
        return _over_white(image)
    profile: bytes = image.info.get("icc_profile") or b""
    if changes_colours(profile, image.mode):
        image = to_srgb(image, profile)
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _over_white(image: Image.Image) -> NDArray[np.uint8]:
    """Lay a transparent image over white, in strips: four copies of it may not fit in memory."""
    profile: bytes = image.info.get("icc_profile") or b""
    convert = image.mode in ("RGB", "RGBA") and changes_colours(profile, "RGB")
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    n_rows = max(1, _STRIP_BYTES // (4 * width))
    for top in range(0, height, n_rows):
        strip = image.crop((0, top, width, min(height, top + n_rows)))
        if "transparency" in image.info:
            strip.info["transparency"] = image.info["transparency"]
        strip = strip.convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        plain = Image.alpha_composite(white, strip).convert("RGB")
        pixels[top : top + n_rows] = np.asarray(to_srgb(plain, profile) if convert else plain)
    return pixels


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
