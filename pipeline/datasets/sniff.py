"""What a file is by its first bytes, whatever its suffix says."""

from __future__ import annotations

import importlib.util
import os
import stat
from functools import cache

from .words import words_of

__all__ = ["OTHERS", "extra_for", "is_flat", "looks_like_text", "pointer", "sniff"]

_HEAD_BYTES = 132
_READ = "JPEG PNG GIF BMP TIFF WEBP PPM".split()
_TEXTS = frozenset(
    "bib c cfg conf cpp css db doc docx exe gz h html htm ini ipynb js json jsonl lock log m mat "
    "md mp3 mp4 pdf pt pth py r rar rst rtf safetensors sh sql svg tar tex toml wav xls xlsx xml "
    "yaml yml zip 7z ckpt onnx avi mov mkv tfrecord tfrecords".split()
)
# Formats that need something more than Pillow: format → (module, extra of ours)
_EXTRAS = {"HEIC": ("pillow_heif", "heic"), "DICOM": ("pydicom", "dicom")}
OTHERS = frozenset({"HEIC", "AVIF", "JPEG XL", "DICOM", "camera raw"})


def looks_like_text(name: str) -> bool:
    """Tell whether a file is no picture by its suffix."""
    return name.rpartition(".")[2].lower() in _TEXTS


def sniff(path: str) -> str:
    """Name the format of an image file by its first bytes; empty where it is none that is known.

    Formats that this installation can read though they need an extra are named by their Pillow
    name in lower case (``heic``), those that it cannot in `OTHERS`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        head = os.read(handle, _HEAD_BYTES)
    except OSError:
        return ""
    finally:
        os.close(handle)
    kind = _kind(head)
    return kind.lower() if kind in OTHERS and _readable(kind) else kind


def _kind(head: bytes) -> str:
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) > 30:
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "camera raw" if head[8:10] == b"CR" else "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
            return "HEIC"
        return "camera raw" if brand == b"crx " else ""
    if head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "JPEG XL"
    if head[128:132] == b"DICM":
        return "DICOM"
    return ""


@cache
def _readable(kind: str) -> bool:
    if kind == "AVIF":
        return True  # Pillow's own
    module, _ = _EXTRAS.get(kind, ("", ""))
    return bool(module) and importlib.util.find_spec(module) is not None


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
    if kind in _EXTRAS:
        return f"pip install 'cnn-codes[{_EXTRAS[kind][1]}]' reads them, or convert them to PNG"
    return "convert them to JPEG or PNG"


def pointer(data: bytes) -> str:
    """Say what stands in the place of a file that was not fetched; empty for a file itself."""
    if data[:40].startswith(b"version https://git-lfs.github.com"):
        return "a Git LFS pointer, not the image: git lfs pull fetches it"
    if data[:200].lstrip(b"./").startswith((b"annex/objects", b"git/annex/objects")):
        return "a git-annex pointer, not the image: git annex get fetches it"
    if "outs" in words_of(data[:10].decode("latin-1")) and b"md5:" in data[:100]:
        return "a DVC pointer, not the image: dvc pull fetches it"
    return ""
