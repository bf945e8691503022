"""Files that hold images and are not read here: what each is, and the one step that helps.

Known by their first bytes, else by their suffix. What is read (zip, tar, arrays) is not named here.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MAGIC = (
    (0, b"Rar!\x1a\x07", "RAR"), (0, b"7z\xbc\xaf\x27\x1c", "7-Zip"), (0, b"MSCF", "CAB"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"), (0, b"\x04\x22\x4d\x18", "LZ4"),
    (0, b"\x1f\x9d", "compress"), (0, b"LZIP", "lzip"), (0, b"\x5d\0\0", "LZMA"),
    (32769, b"CD001", "ISO image"), (0, b"%PDF", "PDF"), (4, b"ftyp", "video"),
    (0, b"\x1aE\xdf\xa3", "video"), (0, b"\n\x23\xd7\xce", "RecordIO"),
    (16, b"\xde\xc0\xef\xbe", "LMDB"), (0, b"SQLite format 3", "SQLite"),
    (344, b"n+1\0", "NIfTI"), (344, b"ni1\0", "NIfTI"),
)  # fmt: skip
_SUFFIXES = {
    "Brotli": ".br", "disk image": ".dmg", "video": ".mp4 .mov .avi .mkv .webm .m4v .mts .wmv .3gp",
    "TFRecord": ".tfrecord .tfrecords .tfrec", "NIfTI": ".nii .nii.gz", "LMDB": ".mdb",
    "SVG": ".svg .svgz", "RecordIO": ".rec", "FFCV": ".beton", "SQLite": ".sqlite .sqlite3 .db",
    "microscope file": ".czi .nd2 .lif .oib .oif .vsi .lsm .zvi",
    "slide": ".svs .ndpi .mrxs .scn .vms .bif",
    "unfinished download": ".crdownload .part .download .partial",
    "placeholder of iCloud": ".icloud", "PyTorch file": ".pt .pth",
}  # fmt: skip
_UNPACK = "unpack it: cd {here} && {tool} {name}; then give that folder"
_WRITE = "write the images out as files, in one folder a class, with the program that made it"
_STEPS = {
    "RAR": ("a RAR archive", _UNPACK.replace("{tool}", "unrar x")),
    "7-Zip": ("a 7-Zip archive", _UNPACK.replace("{tool}", "7z x")),
    "CAB": ("a cabinet archive", _UNPACK.replace("{tool}", "cabextract")),
    "Zstandard": ("a Zstandard archive", _UNPACK.replace("{tool}", "tar --zstd -xf")),
    "LZ4": ("an LZ4 archive", _UNPACK.replace("{tool}", "tar -I lz4 -xf")),
    "compress": ("an archive of compress (.Z)", _UNPACK.replace("{tool}", "tar -xZf")),
    "lzip": ("an lzip archive", _UNPACK.replace("{tool}", "tar --lzip -xf")),
    "LZMA": ("an LZMA archive", _UNPACK.replace("{tool}", "tar --lzma -xf")),
    "Brotli": ("packed by Brotli", _UNPACK.replace("{tool}", "brotli -d")),
    "ISO image": ("an ISO image", _UNPACK.replace("{tool}", "7z x")),
    "disk image": ("a macOS disk image", _UNPACK.replace("{tool}", "7z x")),
    "packed file": ("one packed file", "unpack it: cd {here} && {tool} {name}; then give {stem}"),
    "PDF": ("a PDF", "write its pages out: cd {here} && pdftoppm -png {name} page"),
    "video": ("a video", "write frames out: cd {here} && ffmpeg -i {name} -vf fps=1 "
              "{stem}-%05d.jpg; frames of one video are alike: keep them together with GROUP="),
    "SVG": ("an SVG drawing", "draw it: cd {here} && rsvg-convert {name} -o {stem}.png"),
    "NIfTI": ("a NIfTI volume", "write its slices out as PNG, and keep those of one volume "
              "together with GROUP="),
    "TFRecord": ("a TFRecord file", f"{_WRITE} (tf.data.TFRecordDataset, tf.io.write_file)"),
    "RecordIO": ("a RecordIO file of MXNet", f"{_WRITE} (mxnet.recordio.unpack_img)"),
    "LMDB": ("an LMDB database", _WRITE), "FFCV": ("an FFCV file", _WRITE),
    "SQLite": ("a SQLite database", _WRITE),
    "PyTorch file": ("a PyTorch file, which runs code when it is opened", _WRITE),
    "microscope file": ("a microscope's file", "convert it: cd {here} && bfconvert {name} "
                        "{stem}.ome.tif (Bio-Formats)"),
    "slide": ("a whole-slide image", "cut tiles from it, as with OpenSlide, and keep those of one "
              "slide together with GROUP="),
    "unfinished download": ("an unfinished download", "fetch it again"),
    "placeholder of iCloud": ("a placeholder of iCloud, not the image", "in the Finder: Download "
                              "Now, for the whole folder"),
}  # fmt: skip
_PACKERS: dict[str, tuple[Any, str]] = {
    ".gz": (gzip.open, "gunzip -k"),
    ".bz2": (bz2.open, "bunzip2 -k"),
    ".xz": (lzma.open, "unxz -k"),
}


def kind_of(path: Path) -> str:
    """Name the kind of a file that is not read, as the tables above have it; empty for others."""
    try:
        with path.open("rb") as stream:
            head = stream.read(352)
            if len(head) == 352 and path.suffix.lower() in (".iso", ".img"):
                stream.seek(32769)
                head = head.ljust(32769, b"\0") + stream.read(5)
    except OSError:
        return ""
    name = path.name.lower()
    by_name = next((kind for kind, suffixes in _SUFFIXES.items()
                    if name.endswith(tuple(suffixes.split()))), "")  # fmt: skip
    if by_name == "NIfTI":
        return by_name
    if path.suffix.lower() in _PACKERS and _holds_one_file(path):
        return "packed file"
    for at, magic, kind in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return "" if kind == "video" and head[8:12] in _IMAGES_OF_FTYP else kind
    return by_name


_IMAGES_OF_FTYP = (b"heic", b"heix", b"hevc", b"mif1", b"avif", b"avis", b"crx ")


def _holds_one_file(path: Path) -> bool:
    """Tell whether what is packed is sound and no tar."""
    try:
        with _PACKERS[path.suffix.lower()][0](path, "rb") as stream:
            head = stream.read(512)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return False
    return len(head) > 0 and head[257:262] != b"ustar"


def step_for(path: Path) -> tuple[str, str] | None:
    """Say what a file is that is not read, and what to do about it; None where it is not known.

    Returns
    -------
    what : str
        Such as "a RAR archive".
    todo : str
        The step, with the command.
    """
    if step := joining(path):
        return "one part of an archive of several", step
    kind = kind_of(path)
    if not kind:
        return None
    what, todo = _STEPS[kind]
    tool = _PACKERS[path.suffix.lower()][1] if kind == "packed file" else ""
    stem = path.name[: len(path.name) - len(path.suffix)]
    here, name = shlex.quote(str(path.parent)), shlex.quote(path.name)
    for mark, value in (("{here}", here), ("{tool}", tool), ("{name}", name),
                        ("{stem}", shlex.quote(stem))):  # fmt: skip
        todo = todo.replace(mark, value)
    return what, todo


def most_of(paths: Sequence[Path], folder: Path) -> tuple[str, str] | None:
    """Say what most of some files below a folder are, and what to do about the first of them."""
    parts = [one for one in paths if joining(one)]
    if parts:
        return step_for(parts[0])
    kinds = Counter(kind for one in paths if (kind := kind_of(one)))
    if not kinds:
        return None
    kind, count = kinds.most_common(1)[0]
    found = step_for(next(one for one in paths if kind_of(one) == kind))
    assert found is not None
    if kind == "packed file" and count > 1:
        tool = _PACKERS[next(one for one in paths if kind_of(one) == kind).suffix.lower()][1]
        return f"{count:,} packed files", (
            f"unpack them: find {shlex.quote(str(folder))} -type f -exec {tool.split()[0]} {{}} +; "
            "then give the command again"
        )
    more = f" (and {count - 1:,} more of the kind)" if count > 1 else ""
    return found[0] + more, found[1]


def joining(path: Path) -> str:
    """Give the command that joins the parts of an archive; empty where it is not one of several.

    ``a.z01`` and ``a.zip`` (split by zip), ``a.zip.001`` (7-Zip), ``a.tar.gz.aa`` and ``xaa``
    (split).
    """
    here, stem = shlex.quote(str(path.parent)), shlex.quote(path.stem)
    if path.suffix.lower() in (".zip", ".z01", ".z02") and path.with_suffix(".z01").exists():
        return (
            f"cd {here} && zip -s 0 {stem}.zip --out {stem}-whole.zip; then give {stem}-whole.zip"
        )
    if re.fullmatch(r"\.(\d{3}|[a-z]{2})", path.suffix):
        parts = path.parent.glob(f"{glob.escape(path.stem)}.*")
        if sum(len(one.suffix) == len(path.suffix) for one in parts) > 1:
            if path.stem.lower().endswith((".7z", ".rar")):
                first = shlex.quote(f"{path.stem}.{'001' if path.suffix[1:].isdigit() else 'aa'}")
                return f"cd {here} && 7z x {first}; then give that folder"
            mark = "?" * (len(path.suffix) - 1)
            return f"cd {here} && cat {stem}.{mark} > {stem}; then give {stem}"
    if re.fullmatch(r"x[a-z]{2}", path.name) and (path.parent / "xab").exists():
        try:
            with (path.parent / "xaa").open("rb") as stream:
                head = stream.read(4)
        except OSError:
            return ""
        kind = {b"PK": "zip", b"\x1f\x8b": "tar.gz", b"BZ": "tar.bz2"}.get(head[:2], "tar")
        return f"cd {here} && cat x?? > whole.{kind}; then give whole.{kind}"
    return ""
