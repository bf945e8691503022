"""What the image files themselves give cause to say: one finding a kind of oddity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..datasets import Manifest
from ..datasets.emptiness import KINDS
from ..datasets.facts import Facts
from ..datasets.phrases import few, plural

TINY_PX = 32  # below this a 224-pixel input is seven times enlarged: blur
LONG = 4  # times as long as wide: the central square is a quarter of the picture
ODD_SHARE = 0.01  # a format that at most this share of the images have is odd
MIN_CLASS = 20  # images that a class needs before its formats are compared with other classes'
MIN_APART = 8  # the same, where all images of a class have it and none of another: 2^-16 by chance

# Images that stage one leaves out; it says so itself, in each result.
LEFT_OUT = ("unreadable", "damaged", "absurdly-large")

_SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP",
    ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".dcm": "DICOM",
    ".tif": "TIFF", ".tiff": "TIFF", ".pbm": "PPM", ".pgm": "PPM", ".ppm": "PPM",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes
    ----------
    kind : str
        A short name, stable between versions: ``leaks``, ``cmyk``, ``tiny-class``.
    is_problem : bool
        Whether it touches what a figure means; otherwise a remark: it is dealt with as the text
        says.
    text : str
        A sentence: how many, the first names, what it means for the result.
    paths : tuple of str
        All images that it concerns.
    details : dict
        What else the full list holds, fit for JSON.
    """

    kind: str
    is_problem: bool
    text: str
    paths: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def image_findings(manifest: Manifest, facts: Facts) -> list[Finding]:
    """Say what is wrong or odd with single image files, and with formats as a whole."""
    findings = _faults(manifest, facts)
    look = _Look(manifest, facts)
    rows = facts.rows
    formats = np.where(rows["format"] == b"MPO", b"JPEG", rows["format"])
    short = np.minimum(rows["width"], rows["height"])
    long = np.maximum(rows["width"], rows["height"])
    by_name = np.array(
        [_SUFFIXES.get(PurePosixPath(path).suffix.lower(), "").encode() for path in manifest.paths],
        "S8",
    )

    def shape(row: int) -> str:
        return f"{rows['width'][row]} x {rows['height'][row]} px"

    def form(row: int) -> str:
        return str(rows["format"][row].decode())

    found = [
        look("misnamed", (by_name != b"") & (by_name != formats), "of another format than {its} "
             "name says", "{they} {are} read as what {they} {are}", form),
        look("animated", rows["n_frames"] > 1, "animated or of several pages",
             "only the first frame or page is read"),
        look("cmyk", np.isin(rows["mode"], (b"CMYK", b"LAB", b"YCbCr", b"HSV")),
             "in print colours (CMYK or such)", "{they} {are} converted to RGB, through the "
             "colour profile where the file has one; without one colours may be off"),
        look("profile", rows["converted"], "of other colours than sRGB by a profile in the file",
             "{they} {are} converted to sRGB"),
        look("16-bit", np.isin(rows["samples"], (b"uint8", b""), invert=True),
             "of more than 8 bits per sample",
             "{they} {are} scaled to 8 bits by the range of the whole set (RANGE)",
             lambda row: str(rows["samples"][row].decode())),
        look("palette", np.isin(rows["mode"], (b"P", b"PA")), "stored with a colour palette",
             "{they} {are} converted to RGB; nothing is lost"),
        look("transparent", rows["transparent"], "transparent in parts, or may be",
             "{they} {are} laid over white"),
        look("rotated", rows["orientation"] > 1, "stored turned or mirrored, with a mark (EXIF)",
             "{they} {are} turned upright; tools that ignore the mark see {them} otherwise"),
        look("tiny", short < TINY_PX, f"under {TINY_PX} px high or wide",
             "enlarged to the network's input, {they} {are} mostly blur", shape, is_problem=True),
        look("long", long > LONG * short, f"over {LONG} times as long as wide",
             "the central square that a network sees leaves most of {them} out (RESIZE=pad shows "
             "all)", shape),
        *_empty(manifest, look, rows["empty"], rows["decoded"]),
        *_odd_formats(manifest, look, formats),
        _by_class(manifest, facts, "format", formats),
        _by_class(manifest, facts, "colour", _colour(rows["mode"])),
        _by_class(manifest, facts, "size", _sizes(rows)),
    ]  # fmt: skip
    return findings + [finding for finding in found if finding]


@dataclass(frozen=True, eq=False)
class _Look:
    """Turns a mask over the readable images into a finding."""

    manifest: Manifest
    facts: Facts

    def __call__(
        self,
        kind: str,
        mask: NDArray[np.bool_],
        what: str,
        meaning: str,
        detail: Callable[[int], str] | None = None,
        *,
        is_problem: bool = False,
    ) -> Finding | None:
        """Give the finding, or None where no readable image is so."""
        rows = np.flatnonzero(mask & (self.facts.rows["format"] != b"")).tolist()
        if not rows:
            return None
        one = len(rows) == 1
        words = {"its": "its" if one else "their", "they": "it" if one else "they",
                 "are": "is" if one else "are", "them": "it" if one else "them"}  # fmt: skip
        paths = [self.manifest.paths[row] for row in rows]
        names = [
            f"{path} ({detail(row)})" if detail else path
            for path, row in zip(paths[:5], rows[:5], strict=True)
        ]
        text = (
            f"{plural(len(rows), 'image is', 'images are')} {what.format(**words)}: "
            f"{few(names + paths[5:])}; {meaning.format(**words)}."
        )
        details = {"details": [detail(row) for row in rows]} if detail else {}
        return Finding(kind, is_problem, text, tuple(paths), details)


def _faults(manifest: Manifest, facts: Facts) -> list[Finding]:
    findings = []
    kinds: dict[str, list[int]] = {kind: [] for kind in LEFT_OUT}
    for row, reason in sorted(facts.faults.items()):
        if reason.startswith("absurdly large"):
            kinds["absurdly-large"].append(row)
        elif facts.rows["format"][row] == b"":
            kinds["unreadable"].append(row)
        else:
            kinds["damaged"].append(row)
    words = {
        "unreadable": "that cannot be read at all",
        "damaged": "damaged, cut short or no picture",
        "absurdly-large": "absurdly large",
    }
    for kind, rows in kinds.items():
        if rows:
            reasons = [facts.faults[row] for row in rows]
            paths = [manifest.paths[row] for row in rows]
            names = [f"{path} ({why})" for path, why in zip(paths, reasons, strict=True)]
            are = "image is" if kind != "unreadable" else "file is an image"
            many = "images are" if kind != "unreadable" else "files are images"
            text = (
                f"{plural(len(rows), are, many)} {words[kind]}: {few(names)}; left out, so no "
                "figure counts them."
            )
            findings.append(Finding(kind, True, text, tuple(paths), {"details": reasons}))
    return findings


def _empty(
    manifest: Manifest, look: _Look, empty: NDArray[np.bytes_], decoded: NDArray[np.bool_]
) -> list[Finding]:
    """Find pictures with nothing in them; most of a set or of a class of them is a problem."""
    blank = np.isin(empty, (b"black", b"white", b"constant"))
    findings = []
    for kind, words in KINDS.items():
        mask = empty == kind.encode()
        many = bool(mask.mean() > 0.5) if kind in ("few-levels", "blurred") else bool(mask.any())
        finding = look(
            f"empty-{kind}", mask, words, "there is little or nothing in {them} to learn from",
            is_problem=many,
        )  # fmt: skip
        findings += [finding] if finding else []
    n_seen = int(decoded.sum())
    looked = f"{n_seen:,} images" + (" that were decoded" if n_seen < len(decoded) else "")
    step = (
        "Were they saved with values 0 to 1 as 8 bits, or exported without their content? make "
        "audit lists them"
    )
    of_class = [
        k
        for k in range(manifest.n_classes)
        if np.sum(blank[manifest.labels == k]) * 2 > np.sum(decoded[manifest.labels == k])
    ]
    paths = tuple(manifest.paths[row] for row in np.flatnonzero(blank).tolist())
    if blank.sum() * 2 > n_seen:
        text = (
            f"{blank.sum():,} of {looked} are blank (black, white or of one colour): no figure on "
            f"this set means anything. {step}."
        )
        findings.insert(0, Finding("blank-set", True, text, paths))
    elif of_class:
        names = few([repr(manifest.class_names[k]) for k in of_class])
        text = (
            f"Most images of {names} are blank (black, white or of one colour): figures tell blank "
            f"images from others, not the classes. {step}."
        )
        findings.insert(0, Finding("blank-class", True, text, paths))
    return findings


def _odd_formats(manifest: Manifest, look: _Look, formats: NDArray[np.bytes_]) -> list[Finding]:
    """Find the few images of another format than nearly all; placeholders come so."""
    have, counts = np.unique(formats[formats != b""], return_counts=True)
    if len(have) < 2:
        return []
    usual = have[np.argmax(counts)]
    odd = (formats != usual) & (formats != b"")
    if odd.sum() > max(1, ODD_SHARE * counts.sum()):
        return []
    finding = look(
        "odd-format",
        odd,
        f"of another format than the rest ({usual.decode()})",
        "look at {them}: placeholders ('image not found') and strays come so",
        lambda row: str(formats[row].decode()),
        is_problem=True,
    )
    return [finding] if finding else []


def _colour(modes: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    grey = np.isin(modes, (b"1", b"L", b"LA", b"La", b"I", b"I;16", b"I;16B", b"I;16L", b"F"))
    known = (modes != b"") & ~np.isin(modes, (b"P", b"PA"))  # a palette may be either
    return np.where(grey, b"grey", np.where(known, b"colour", b"")).astype("S8")


def _sizes(rows: NDArray[Any]) -> NDArray[np.bytes_]:
    """Give each image's size as text (N,); empty where most images have a size of their own."""
    known = rows["format"] != b""
    pairs = np.char.add(
        np.char.add(rows["width"].astype("S6"), b" x "), rows["height"].astype("S6")
    )
    sizes, counts = np.unique(pairs[known], return_counts=True)
    usual = sizes[counts * 20 >= known.sum()]
    return np.where(known & np.isin(pairs, usual), pairs, np.where(known, b"another", b""))


def _by_class(
    manifest: Manifest, facts: Facts, what: str, values: NDArray[np.bytes_]
) -> Finding | None:
    """Find whether a property of the files, not of the pictures, tells classes apart."""
    known = facts.readable & (values != b"")
    total = np.bincount(manifest.labels[known], minlength=manifest.n_classes)
    large = np.flatnonzero(total >= MIN_APART)
    widest: tuple[float, str, int, int] = (0.0, "", 0, 0)
    for value in np.unique(values[known]) if len(large) > 1 else []:
        have = np.bincount(manifest.labels[known & (values == value)], minlength=len(total))
        share = have[large] / total[large]
        high, low = int(share.argmax()), int(share.argmin())
        few_images = min(total[large[high]], total[large[low]]) < MIN_CLASS
        margin = 0.0 if few_images else 0.1
        if value != b"another" and share[high] >= 1 - margin and share[low] <= margin:
            gap = float(share[high] - share[low])
            widest = max(widest, (gap, value.decode(), int(large[high]), int(large[low])))
    if not widest[0]:
        return None
    _, value_, most, least = widest
    shares = {
        manifest.class_names[k]: float(
            np.mean(values[known & (manifest.labels == k)] == value_.encode())
        )
        for k in large.tolist()
    }
    a, b = manifest.class_names[most], manifest.class_names[least]
    text = (
        f"The {what} of the files goes with the class: {notation.share(shares[a], 0)} of {a!r} but "
        f"{notation.share(shares[b], 0)} of {b!r} are {value_}; a classifier may learn its traces "
        "instead of what is in the picture, and its test figure would not show it."
    )
    return Finding(f"{what}-by-class", True, text, (), {"value": value_, "share": shares})
