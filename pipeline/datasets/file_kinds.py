"""What a file is by its name: an image, an archive, something that a system left."""

from __future__ import annotations

import re

IMAGE_SUFFIXES = frozenset(
    "avif bmp cr2 cr3 dcm dicom dng gif heic heif jfif jp2 jpe jpeg jpg jxl nef pbm pgm png ppm "
    "tif tiff webp".split()
)  # an allow-list: images are asked for by name; those that are not read here are named, and why
_TAIL = re.compile(r"(avif|bmp|gif|heic|heif|jpe?g|png|tiff?|webp)([?_:~!&;@].*|[-_]?large)")
ARCHIVE_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip
_JUNK = frozenset(
    {
        "__macosx", "thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "@recycle",
        "@recently-snapshot", "recycler", "recycled", "system volume information", "lost+found",
        "captureone", "network trash folder", "temporary items", "found.000", "#snapshot",
        "__pycache__", "node_modules", "ehthumbs.db", "icon\r", "dfsrprivate", "resource.frk",
        "finder.dat",
    }
)  # fmt: skip


def is_image(name: str) -> bool:
    """Tell whether a file's name has a suffix of the allow-list.

    What a web page put behind it does not count: ``a.jpg?w=640``, ``a.jpg_large``, ``a.jpg:orig``.
    """
    stem, dot, suffix = name.rpartition(".")
    if bool(dot) and bool(stem) and suffix.lower() in IMAGE_SUFFIXES:
        return True
    return _odd_suffix(name) is not None


def _odd_suffix(name: str) -> int | None:
    """Give where a suffix begins that a web page put something behind; None where none does."""
    at = name.find(".", 1)
    while at > 0:
        if _TAIL.fullmatch(name[at + 1 :].lower()):
            return at
        at = name.find(".", at + 1)
    return None


def image_stem(name: str) -> str:
    """Give a file's name without its suffix: ``a.jpg``, ``a.jpg?w=640``, ``a.jpg_large`` → a.

    What follows a dot is a suffix only where it is short and of letters and digits.
    """
    at = _odd_suffix(name)
    if at is not None:
        return name[:at]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and len(suffix) <= 5 and suffix.isalnum() else name


def is_archive(name: str) -> bool:
    """Tell whether a file's name has the suffix of an archive that can be unpacked."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(name: str) -> str:
    """Name without the archive's suffix: ``a.b.tar.gz`` → ``a.b``."""
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - len(max(suffixes, key=len, default=""))]


def is_junk(name: str) -> bool:
    """Tell whether a name is left by a system: hidden, ``__MACOSX``, ``@eaDir``, ``Thumbs.db``."""
    lower = name.lower()
    return name.startswith(".") or lower in _JUNK or lower.endswith(".lrdata")


def is_text(name: str) -> bool:
    """Tell whether a file's name can be written as UTF-8 (Linux allows any bytes)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
