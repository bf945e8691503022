"""What a file is by its first bytes, whatever its name says, and what to do where it is not read.

Signatures are those of the formats' specifications, as `file(1)` and the IANA registry list them.
One table serves the listing of a folder (:func:`sniff`) and the decoder (:func:`recognise`), so
that what is listed is what is read.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .words import words_of

HEAD_BYTES = 512  # what recognise() needs of a file
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (128, b"DICM", "DICOM"),
    (8, b"CR\x02", "camera RAW (CR2)"),
    (4, b"ftypcrx ", "camera RAW (CR3)"),
    (0, b"FUJIFILMCCD-RAW", "camera RAW (RAF)"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"DDS ", "DDS"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer"),
    (0, b"/annex/objects/", "a git-annex pointer"),
    (0, b"\0\x05\x16\x07", "a macOS resource fork"),
)
_BRANDS = {  # of ISO base media files (ISO/IEC 14496-12), box ftyp
    **dict.fromkeys(b"heic heix hevc hevx heim heis mif1 msf1".split(), "HEIC"),
    **dict.fromkeys(b"avif avis".split(), "AVIF"),
}
_ADVICE = {  # formats that need something more than Pillow: module, extra of ours
    "HEIC": ("pillow_heif", "heic"),
    "AVIF": ("pillow_heif", "heic"),
    "DICOM": ("pydicom", "dicom"),
}
_READ = frozenset("JPEG PNG GIF BMP TIFF WEBP PPM AVIF".split())
OTHERS = frozenset(
    "HEIC,DICOM,JPEG XL,JPEG 2000,camera RAW (CR2),camera RAW (CR3),camera RAW (RAF)".split(",")
)
PLACEHOLDER = "iCloud placeholder"  # .IMG_1.HEIC.icloud, where the image is not on this disk
_WAYS = {
    PLACEHOLDER: "the image itself is not here: in the Finder, Download Now for the whole folder",
    "JPEG XL": "convert it, as with djxl IN.jxl OUT.png",
    "JPEG 2000": "convert it, as with opj_decompress -i IN.jp2 -o OUT.png",
    "a Git LFS pointer": "the image itself is not here: git lfs pull",
    "a git-annex pointer": "the image itself is not here: git annex get .",
}


def recognise(head: bytes) -> str:
    """Name the format of a file by its first `HEAD_BYTES` bytes; empty where it is not known.

    Names of images that are read are PIL's (``JPEG``, ``PNG``, ...); others are for people.
    """
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, 64, 4))]
        kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        if kinds:
            return "AVIF" if "AVIF" in kinds else "HEIC"
        return "an MP4 or MOV file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    for text, name in (
        (b"<!doctype", "an HTML page"),
        (b"<html", "an HTML page"),
        (b"<svg", "SVG"),
        (b"<?xml", "SVG" if b"<svg" in head.lower() else "XML"),
    ):
        if start.startswith(text):
            return name
    return ""


def sniff(path: str) -> str:
    """Name the format of an image file by its first bytes; empty where it is no image.

    Returns
    -------
    str
        A name of `OTHERS` where this installation cannot read the format.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        head = os.read(handle, HEAD_BYTES)
    except OSError:
        return ""
    finally:
        os.close(handle)
    kind = recognise(head)
    if kind == "BMP" and (head[6:10] != b"\0\0\0\0" or len(head) <= 30):
        return ""  # two letters alone may begin any text
    if kind == "PPM" and not head[3:4].isdigit() and head[3:4] != b"#":
        return ""
    if kind in _READ:
        return kind
    if kind not in OTHERS:
        return ""
    return kind.lower() if kind in _ADVICE and _installed(_ADVICE[kind][0]) else kind


def is_flat(path: str) -> bool:
    """Tell whether a PNG is a mask by its header: one channel or a palette, and hardly any bytes.

    Pictures of few grey levels pack to a small part of a byte a pixel, photographs do not.
    """
    try:
        size = os.stat(path).st_size  # noqa: PTH116
        with open(path, "rb") as stream:  # noqa: PTH123
            head = stream.read(26)
    except OSError:
        return False
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 26:
        return False
    width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    return head[25] in (0, 3) and (size - 200) * 8 < width * height


def extra_for(kind: str) -> str:
    """Say what to do about a format that is not read."""
    if kind in _ADVICE:
        return f"pip install 'cnn-codes[{_ADVICE[kind][1]}]' reads them, or convert them to PNG"
    return _WAYS.get(kind, "convert them to JPEG or PNG")


def pointer(data: bytes) -> str:
    """Say what stands in the place of a file that was not fetched; empty for a file itself."""
    if data[:40].startswith(b"version https://git-lfs.github.com"):
        return "a Git LFS pointer, not the image: git lfs pull fetches it"
    if data[:200].lstrip(b"./").startswith((b"annex/objects", b"git/annex/objects")):
        return "a git-annex pointer, not the image: git annex get fetches it"
    if "outs" in words_of(data[:10].decode("latin-1")) and b"md5:" in data[:100]:
        return "a DVC pointer, not the image: dvc pull fetches it"
    return ""


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def describe(data: bytes) -> str:
    """Say what a file is that cannot be opened as an image, and how it could be."""
    name = recognise(data[:HEAD_BYTES])
    if name == "JPEG":
        return jpeg_kind(data) or "a JPEG whose header cannot be read: damaged or truncated"
    if not name and (text := _as_text(data[:HEAD_BYTES])):
        return f"not an image of a known format (starts with the text {text!r})"
    if not name:
        return "not an image of a known format (starts with " + data[:8].hex(" ") + ")"
    if name in _ADVICE:
        module, extra = _ADVICE[name]
        if not _installed(module):
            return f"{name}, which needs an extra: pip install 'cnn-codes[{extra}]'"
        return f"{name} that cannot be read: damaged or truncated"
    way = _WAYS.get(name, "convert it to PNG or TIFF" if name.startswith("camera RAW") else "")
    return f"not an image of a known format (it is {name}" + (f"; {way})" if way else ")")


def jpeg_kind(data: bytes) -> str:
    """Name a kind of JPEG that is not decoded here, by its frame header; empty for others.

    Start-of-frame markers of ITU-T T.81, table B.1, and of JPEG-LS (T.87).
    """
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xF7:
            return "JPEG-LS, which is not read here; convert it to PNG"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if data[at + 4] != 8:
                return f"a JPEG of {data[at + 4]} bits, which is not read here; convert it to PNG"
            return ""
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return ""


def raw_kind(tags: Mapping[int, Any]) -> str:
    """Name the camera RAW format that a TIFF is by the tags of its first page; empty for none.

    The first page of such a file is a thumbnail, or mosaic samples (TIFF/EP, DNG 1.7): neither is
    the picture.
    """
    if 50706 in tags:
        return "camera RAW (DNG)"
    if tags.get(262) in (32803, 34892):  # a colour filter array; linear raw
        return "camera RAW"
    reduced = isinstance(tags.get(254), int) and bool(tags[254] & 1)
    return "camera RAW (such as NEF or ARW)" if reduced and 330 in tags else ""


def _as_text(head: bytes) -> str:
    """Give the first characters of what is text; empty where it is not."""
    try:
        text = head.decode("utf-8", "strict").strip()
    except UnicodeDecodeError:
        return ""
    shown = " ".join(text[:30].replace(")", " ").split())
    return shown if text and all(one.isprintable() or one in "\r\n\t" for one in text) else ""


def tiff_pages(data: bytes, most: int = 10_000) -> int:
    """Count the pages (image file directories) of a TIFF, at most `most`, without decoding one.

    A chain that comes back to itself, or that leaves the file, ends there (TIFF 6.0, section 2;
    BigTIFF).
    """
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        seen: set[int] = set()
        while at and at not in seen and len(seen) < most:
            (n_entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
            last = at + (8 + 20 * n_entries if big else 2 + 12 * n_entries)
            following = struct.unpack_from(order + ("Q" if big else "I"), data, last)[0]
            seen.add(at)
            at = following
        return len(seen)
    except (KeyError, struct.error):
        return 1


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory of a TIFF says of its picture (TIFF 6.0, section 8).

    Attributes
    ----------
    width, height, n_bands : int
        Size in pixels, samples per pixel.
    kind : str
        Type of the samples: ``uint8``, ``int16``, ``float32``.
    is_rgb : bool
        Whether the first three samples are red, green and blue (PhotometricInterpretation 2).
    """

    width: int
    height: int
    n_bands: int
    kind: str
    is_rgb: bool = False


_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # of a tag's values: byte, short, long, long8
_TAGS = (256, 257, 258, 262, 277, 339)  # that are read
_FORMS = {1: "uint", 2: "int", 3: "float"}  # tag 339, SampleFormat


def tiff_header(data: bytes) -> TiffHeader | None:
    """Read the size and type of a TIFF's first page; None where they cannot be read."""
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        (n_entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        found: dict[int, tuple[int, ...]] = {}
        for entry in range(min(n_entries, 200)):
            start = at + (8 + 20 * entry if big else 2 + 12 * entry)
            tag, form, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, start)
            if (
                tag not in (256, 257, 258, 262, 277, 339)
                or form not in _TYPES
                or not 1 <= count <= 1000
            ):
                continue
            values, held = start + (12 if big else 8), 8 if big else 4
            if count * struct.calcsize(_TYPES[form]) > held:
                values = struct.unpack_from(order + ("Q" if big else "I"), data, values)[0]
            found[tag] = struct.unpack_from(f"{order}{count}{_TYPES[form]}", data, values)
        bits, form = found.get(258, (1,)), max(found.get(339, (1,)))
        return TiffHeader(
            found[256][0],
            found[257][0],
            found.get(277, (1,))[0],
            f"{_FORMS[form]}{max(bits)}",
            found.get(262, (1,))[0] == 2,
        )
    except (KeyError, struct.error, OverflowError):
        return None


def jpeg_scans(data: bytes) -> int:
    """Count the scans of a JPEG: start-of-scan markers, which entropy-coded data cannot hold."""
    return data.count(b"\xff\xda")


def png_without_text(data: bytes) -> bytes:
    """Leave out text and colour profiles of a PNG, whose size may stop a decoder (not pixels)."""
    return data[:8] + b"".join(
        chunk for kind, chunk in _png_chunks(data) if kind not in _TEXT_CHUNKS
    )


def png_is_intact(data: bytes) -> bool:
    """Whether every chunk of a PNG has the checksum that it names (PNG, section 5.4)."""
    return all(
        zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        for _, chunk in _png_chunks(data)
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at : at + 12 + length]
        at += 12 + length
