"""The images of a session, each with what the file of corrections says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest
from ..datasets.corrections import Correction, CorrectionLog, State
from ..files import write_atomic

TEST = SPLITS.index("test")
_FOLDER = ".images"  # next to the file of corrections: what was dropped in


class Conflict(Exception):
    """What was asked cannot be done, as things are now."""


@dataclass(eq=False)
class Image:
    """One image, and what is known of it."""

    path: str  # as in the file of corrections
    sha256: str
    file: Path
    split: int
    given: State
    state: State
    added: bool = False
    version: int = 0
    source: str = ""  # of the last correction of its label

    @property
    def path_and_sha256(self) -> tuple[str, str]:
        """What the file of corrections knows it by."""
        return self.path, self.sha256

    def after(self, what: str, value: str) -> State:
        """Give its state after an action of :meth:`cnn_codes.label.session.Session.act`."""
        before = self.state
        return {
            "label": replace(before, label=value, checked=True, excluded=False),
            "confirm": replace(before, checked=before.label is not None),
            "skip": before,
            "exclude": replace(before, excluded=True),
            "include": replace(before, excluded=False),
            "group": replace(before, group=value),
        }[what]

    def correction(self, what: str, after: State, source: str) -> Correction:
        """Give the line of the file of corrections for a change of its state."""
        return Correction(
            path=self.path, sha256=self.sha256, what=what, before=self.state, after=after,
            source=source, added=self.added,
        )  # fmt: skip


class Images:
    """The images of a data set and those that were dropped in; an image's number is its place.

    Parameters
    ----------
    manifest : Manifest
        Without corrections.
    path : Path
        The file of corrections.

    Attributes
    ----------
    log : CorrectionLog
        The file of corrections.
    classes : list of str
        Those of the data set, then those that people made.
    version : int
        Grows with each change.
    row : dict of (str, str) to int
        Path and digest of each image, to its number.
    by_path : dict of str to int
        The last image of each path.
    """

    def __init__(self, manifest: Manifest, path: Path) -> None:
        self.log = CorrectionLog(path)
        self.classes = list(manifest.class_names)
        self.version = 1
        self.row: dict[tuple[str, str], int] = {}
        self.by_path: dict[str, int] = {}
        self._all: list[Image] = []
        self._groups = manifest.groups_at(np.arange(manifest.n_images))
        for row, name in enumerate(manifest.paths):
            state = State(label=self.classes[manifest.labels[row]])
            sha256, split = manifest.sha256[row].decode(), int(manifest.split[row])
            self.put(Image(name, sha256, manifest.root / name, split, state, state))

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Image]:
        return iter(self._all)

    def __getitem__(self, row: int) -> Image:
        """Give an image by its number.

        Raises
        ------
        Conflict
            There is none.
        """
        if not 0 <= row < len(self._all):
            raise Conflict(f"There is no image {row}.")
        return self._all[row]

    def put(self, one: Image) -> None:
        """Add an image."""
        self.row[one.path_and_sha256] = self.by_path[one.path] = len(self._all)
        self._all.append(one)

    def take(self, entries: Sequence[Correction]) -> None:
        """Bring the images to what entries of the file of corrections say."""
        for one in entries:
            row = self.row.get((one.path, one.sha256))
            if row is None:
                continue
            image = self._all[row]
            image.state = one.after
            self.version += 1
            image.version = self.version
            if one.after.label != one.before.label:
                image.source = one.source if one.what != "undo" else ""
            if one.after.label is not None and one.after.label not in self.classes:
                self.classes.append(one.after.label)

    def class_of(self, label: str | None) -> int:
        """Give the number of a class; -1 for no label."""
        return -1 if label is None else self.classes.index(label)

    def labels(self) -> NDArray[np.int32]:
        """Give the class (N,) of each image; -1: unlabelled or excluded."""
        index = {name: k for k, name in enumerate(self.classes)}
        return np.array(
            [
                -1 if one.state.excluded or one.state.label is None else index[one.state.label]
                for one in self
            ],
            np.int32,
        )

    @property
    def grouped(self) -> bool:
        """Whether any images belong together, by GROUP= or by the page."""
        return self._groups is not None or any(one.state.group for one in self)

    def group(self, row: int) -> str:
        """Name the group of an image: that of the page, of GROUP=, or its own."""
        name = self._all[row].state.group
        if name:
            return f"page {name}"
        if self._groups is not None and row < len(self._groups):
            return f"data {self._groups[row]}"
        return f"row {row}"

    def new_file(self, data: bytes, suffix: str) -> Path:
        """Keep the bytes of an image that was dropped in, next to the file of corrections."""
        digest = hashlib.sha256(data).hexdigest()
        file = self._folder / f"{digest[:32]}{suffix}"
        if not file.is_file():
            write_atomic(file, data)
        return file

    def new_files(self) -> list[Path]:
        """Files of the images that were dropped in before."""
        return sorted(one for one in self._folder.glob("*") if not one.name.startswith("."))

    @property
    def _folder(self) -> Path:
        return self.log.path.with_name(self.log.path.stem + _FOLDER)
