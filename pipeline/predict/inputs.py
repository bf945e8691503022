"""What IMAGES means: one image, a folder with all below it, a glob, a list file, an archive.

Files that are named are taken whatever they are called, so that a row can say what is wrong with
them; of folders and globs only what has an image's suffix.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..datasets.archive import unpack
from ..datasets.file_kinds import image_stem, is_archive, is_image, is_junk
from ..datasets.formats import OTHERS, sniff
from ..datasets.phrases import nature, plural
from ..datasets.tables import TABLE_SUFFIXES
from ..datasets.texts import read_sheet
from ..datasets.words import PATHS, key_of
from ..errors import DataError, SettingsError
from ..progress import Progress, silent

_EXPECTED = (
    "an image, a folder, a glob in quotes, a .txt of one path a line, a .csv with a column path, "
    "a .zip or .tar"
)


@dataclass(frozen=True)
class Inputs:
    """Images to predict.

    Attributes
    ----------
    names : tuple of str
        What each is called in the output: its path as the user would write it; of an archive,
        its path inside it, without a folder that wraps everything.
    paths : tuple of str
        Where each lies.
    remarks : tuple of str
        What was passed over.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@contextmanager
def gathered(images: str, *, progress: Progress = silent) -> Iterator[Inputs]:
    """List the images that `images` means; an archive is unpacked as long as the block lasts.

    Raises
    ------
    SettingsError
        `images` is empty.
    DataError
        There is nothing there, or no image in it, or an archive or list that cannot be read.
    NoSpaceError
        No room to unpack an archive.
    """
    if not images:
        raise SettingsError("IMAGES says which images to predict.", expected=_EXPECTED)
    path = Path(images)
    if path.is_file() and _is_readable(images):  # whatever its suffix says
        yield Inputs((images,), (images,))
    elif path.is_file() and is_archive(path.name):
        with tempfile.TemporaryDirectory(prefix="cnn-codes-") as folder:
            try:
                root = unpack(path, Path(folder) / "images", progress=progress)
            except DataError as error:
                todo = error.todo.replace("DATA=", "IMAGES=")
                raise DataError(error.found, expected=error.expected, todo=todo) from error
            inside = _below([str(root)], images)
            names = [os.path.relpath(one, root).replace(os.sep, "/") for one in inside.paths]
            yield Inputs(tuple(names), inside.paths, inside.remarks)
    elif path.is_dir():
        yield _below([images], images)
    elif path.is_file() and path.suffix.lower() == ".txt":
        yield _named(_lines(path), path)
    elif path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        yield _named(_cells(path), path)
    elif path.is_file():
        yield Inputs((images,), (images,))
    elif glob.has_magic(images):
        yield _below(sorted(glob.glob(images, recursive=True)), images)  # noqa: PTH207
    else:
        raise DataError(f"There is nothing at {images}.", expected=_EXPECTED)


def _below(roots: list[str], asked: str) -> Inputs:
    """Take the images among `roots` and in all folders below, each once, in order."""
    found: dict[str, None] = {}
    passed: Counter[str] = Counter()
    closed: list[str] = []
    for root in roots:
        if not os.path.isdir(root):  # noqa: PTH112
            _take(root, found, passed)
            continue
        seen = set()
        for folder, folders, files in os.walk(
            root, followlinks=True, onerror=lambda error: closed.append(str(error.filename))
        ):
            status = os.stat(folder)  # noqa: PTH116
            here = (status.st_dev, status.st_ino)
            if here in seen:  # a link back up, or a second way to the same folder
                folders.clear()
                continue
            seen.add(here)
            folders[:] = sorted(name for name in folders if not is_junk(name))
            for name in sorted(files):
                if not is_junk(name):
                    _take(os.path.join(folder, name), found, passed)  # noqa: PTH118
    if not found:
        held = f", only {nature(passed)}" if passed else ""
        raise DataError(f"{asked} holds no image{held}.", expected=_EXPECTED)
    remarks = [f"{name} cannot be opened and was passed over." for name in closed]
    if passed:
        n_passed = sum(passed.values())
        remarks.append(
            f"{plural(n_passed, 'file is no image and was', 'files are no images and were')} "
            f"ignored: {nature(passed)}."
        )
    return Inputs(tuple(found), tuple(found), tuple(remarks))


def _take(path: str, found: dict[str, None], passed: Counter[str]) -> None:
    name = os.path.basename(path)  # noqa: PTH119
    if is_image(name) or _is_readable(path):
        found[path] = None
    else:
        passed[Path(path).suffix.lower() or "no suffix"] += 1


def _is_readable(path: str) -> bool:
    """Tell whether a file is an image by its first bytes."""
    return sniff(path) not in ("", *OTHERS)


def _named(names: list[str], source: Path) -> Inputs:
    """Find named files next to the list that names them, or from here."""
    if not names:
        raise DataError(f"{source} names no images.", expected="one path a line, or a column path")
    seen: dict[str, dict[str, list[str]]] = {}
    return Inputs(tuple(names), tuple(_found(name, source.parent, seen) for name in names))


def _found(name: str, folder: Path, seen: dict[str, dict[str, list[str]]] | None = None) -> str:
    """Give the file that a list means: next to the list, from here, or one of that stem there.

    Folders that were looked into for stems are kept in `seen`; without it none is.
    """
    beside = os.path.join(folder, name)  # noqa: PTH118
    if os.path.exists(beside):  # noqa: PTH110
        return beside
    if os.path.exists(name):  # noqa: PTH110
        return name
    if seen is None:
        return beside
    place, stem = os.path.split(beside)
    there = seen.get(place)
    if there is None:
        there = seen[place] = _stems_in(place)
    alike = there.get(stem) or there.get(image_stem(stem)) or []
    return os.path.join(place, alike[0]) if len(alike) == 1 else beside  # noqa: PTH118


def _stems_in(folder: str) -> dict[str, list[str]]:
    """Images of a folder by their names without suffix."""
    found: dict[str, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return found
    for name in names:
        if is_image(name) or _is_readable(os.path.join(folder, name)):  # noqa: PTH118
            found.setdefault(image_stem(name), []).append(name)
    return found


def _lines(path: Path) -> list[str]:
    """Read a list of paths; a label behind a path, as training has it, is passed over."""
    names = []
    for line in _text(path).split("\n"):
        name = line.strip()
        bare = name.rpartition(" ")[0].rstrip() or name
        whole_is_there, bare_is_there = (
            os.path.exists(_found(one, path.parent)) for one in (name, bare)  # noqa: PTH110
        )  # fmt: skip
        if name:
            names.append(bare if bare_is_there and not whole_is_there else name)
    return names


def _cells(path: Path) -> list[str]:
    header, *rows = read_sheet(path).rows or [[]]
    keys = [key_of(cell) for cell in header]
    named = [key for key in PATHS if key in keys]
    if not named:
        raise DataError(
            f"{path} has no column path; its first line has {', '.join(header)[:300]}.",
            expected="a column called path, file or image",
            todo="name the column path in the first line",
        )
    at = keys.index(named[0])
    return [row[at] for row in rows if len(row) > at and row[at]]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
