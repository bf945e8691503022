"""What a layout reader hands on: which files belong to the set, with which label and split.

Every reader (folders, list files, tables, elpv) ends in a :class:`Listing`; what comes after
(hashing, splitting) no longer knows where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .file_kinds import IMAGE_SUFFIXES, is_text
from .phrases import few, plural
from .split_words import SPLITS, TEST, TRAIN, UNSPLIT, VAL
from .words import nfc

_SUFFIXES = tuple(sorted(IMAGE_SUFFIXES))


@dataclass(eq=False)
class Listing:
    """The files of a data set, in the order of their paths, before any has been opened.

    Attributes
    ----------
    root : Path
        Absolute folder that the paths are relative to.
    paths : list of str, length N
        POSIX paths, UTF-8, sorted.
    labels : list of str, length N
        Class names.
    split : array of shape (N,), int8
        Index into ``SPLITS``, or -1 in every row where the set has no split.
    extra : dict of str to array of shape (N,)
        Further columns that came with the images.
    strata : array of shape (N,), int32, or None
        What a split is to be stratified by besides the class.
    cut_fractions : tuple of float
        Shares of train, val and test to cut where the set has no split.
    class_names : tuple of str, or None
        The order of the classes where it means something; None: sorted.
    groups : list of str, length N, or None
        Groups that the set itself brings; equal where images are of one thing.
    groups_from : str
        Where they come from.
    by_folder : bool
        Whether the classes are folders.
    rejects : list of (path, reason)
        Files that are left out already: names that are not UTF-8.
    warnings : list of str
        What somebody who uses the set should know.
    dropped : list of str
        Images that are left out because they have several labels, which is said already.
    """

    root: Path
    paths: list[str]
    labels: list[str]
    split: NDArray[np.int8]
    extra: dict[str, NDArray[Any]] = field(default_factory=dict)
    strata: NDArray[np.int32] | None = None
    cut_fractions: tuple[float, float, float] = (0.60, 0.15, 0.25)
    class_names: tuple[str, ...] | None = None
    groups: list[str] | None = None
    groups_from: str = ""
    by_folder: bool = False
    rejects: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Listing:
        """Give the listing of these rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        taken = index.tolist()
        return replace(
            self,
            paths=[self.paths[row] for row in taken],
            labels=[self.labels[row] for row in taken],
            split=self.split[index],
            extra={name: column[index] for name, column in self.extra.items()},
            strata=None if self.strata is None else self.strata[index],
            groups=None if self.groups is None else [self.groups[row] for row in taken],
        )

    def in_order(self) -> Listing:
        """Give the listing with its rows sorted by path, then split; names not UTF-8 rejected."""
        readable = [row for row, path in enumerate(self.paths) if is_text(path)]
        for row in sorted(set(range(len(self.paths))) - set(readable)):
            shown = self.paths[row].encode("utf-8", "backslashreplace").decode()
            self.rejects.append((shown, "the file's name is not UTF-8; rename it"))
        split = self.split.tolist()
        readable.sort(key=lambda row: (self.paths[row], split[row]))
        return self.take(readable)

    def classes(self) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """Give the class names that occur and, for each row, the index into them: (N,) int32.

        Sorted; names that are all numbers by their value.
        """
        present = set(self.labels)
        names = tuple(one for one in self.class_names or _sorted(present) if one in present)
        index = {name: number for number, name in enumerate(names)}
        return names, np.array([index[label] for label in self.labels], dtype=np.int32)

    def check(self, source: Path) -> None:
        """Refuse a listing that no classifier could be trained and tested on.

        Raises
        ------
        DataError
            There is no image, or one class only, or no training image, or a class in val or
            test that train lacks, or a split for some rows and none for others.
        """
        if not self.paths:
            raise DataError(
                f"{source} holds no images.",
                expected="root/<class>/<image>, root/<split>/<class>/<image>, list files "
                f"(train.txt, test.txt) or a CSV; images end in {', '.join(_SUFFIXES)}",
                todo="point DATA= at the folder that holds the class folders",
            )
        names, labels = self.classes()
        if len(names) < 2:
            raise DataError(
                f"{source} has one class only: {names[0]!r}.",
                expected="at least two classes",
                todo="point DATA= at the folder above the class folders, or add a second class",
            )
        present = set(self.split.tolist())
        if UNSPLIT in present and len(present) > 1:
            raise DataError(
                f"{source}: {int(np.sum(self.split == UNSPLIT)):,} of {len(self.paths):,} images "
                "have no split, the others have one.",
                expected="a split for every image, or for none",
                todo="fill in the split of every image, or of none",
            )
        if present == {UNSPLIT}:
            return
        if TRAIN not in present:
            raise DataError(
                f"{source} has no training images, only {' and '.join(_names(present))}.",
                expected="a split named train beside it",
                todo="add a train split, or take the splits away: the set is then cut by SEED",
            )
        known = set(labels[self.split == TRAIN].tolist())
        for split in sorted(present - {TRAIN}):
            strange = sorted(set(labels[self.split == split].tolist()) - known)
            if strange:
                lacks = f"{SPLITS[split]} has {plural(len(strange), 'class', 'classes')} that train"
                raise DataError(
                    f"{source}: {lacks} lacks: {few([repr(names[one]) for one in strange])}"
                    f"{_written(names, strange, known)}.",
                    expected="every class of val and test among the training images",
                    todo="correct the names, add training images, or take the class out",
                )


def _written(names: Sequence[str], strange: Sequence[int], known: Collection[int]) -> str:
    """Say which classes differ from one of train by case, spaces or leading zeros only."""
    plain = {_plain(names[one]): names[one] for one in known}
    pairs = [
        f"{names[one]!r} from {plain[_plain(names[one])]!r}"
        for one in strange
        if _plain(names[one]) in plain
    ]
    return f"; they differ only in writing: {few(pairs)}" if pairs else ""


def _plain(name: str) -> str:
    words = re.split(r"[\s_-]+", nfc(name).casefold().strip())
    return " ".join(word.lstrip("0") or word for word in words)


class Remark(str):
    """A sentence about a data set that knows what it is about.

    Attributes
    ----------
    kind : str
        As an audit's findings have it (``leaks``, ``contradictions``, ``tiny-class``,
        ``absent-class``), ``left-out``, or empty: what two places say is shown once.
    """

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, text: str, kind: str = "") -> Self:
        """Make one of a text."""
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def class_remarks(
    names: Sequence[str],
    labels: NDArray[np.int32],
    split: NDArray[np.int8],
    uncut: Collection[int] = (),
) -> list[str]:
    """Say what is odd about the classes without being wrong.

    Parameters
    ----------
    names : sequence of str, length K
    labels, split : arrays of shape (N,)
        Index into `names`, and into ``SPLITS``.
    uncut : collection of int
        Classes that are known to be in train only: not named for that.
    """
    remarks = []
    for alike in _alike(names):
        remarks.append(
            f"Class names that differ only by case or spaces: {few(alike)}; they are kept apart."
        )
    counts = np.bincount(labels[split == TRAIN], minlength=len(names))
    small = [f"{name!r} ({count})" for name, count in zip(names, counts, strict=True) if count < 5]
    if small:
        text = f"Classes with fewer than 5 training images: {few(small)}."
        remarks.append(Remark(text, "tiny-class"))
    for one in (VAL, TEST):
        here = np.bincount(labels[split == one], minlength=len(names))
        lost = np.flatnonzero(here == 0).tolist()
        missing = [repr(names[k]) for k in lost if k not in uncut]
        if here.any() and missing:
            text = f"Classes with no {SPLITS[one]} images: {few(missing)}."
            remarks.append(Remark(text, "absent-class"))
    return remarks


def _sorted(names: Iterable[str]) -> list[str]:
    names = sorted(names)
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def _names(splits: Iterable[int]) -> list[str]:
    return [SPLITS[split] for split in sorted(splits) if split != UNSPLIT]


def _alike(names: Iterable[str]) -> list[list[str]]:
    together: dict[str, list[str]] = {}
    for name in names:
        together.setdefault(" ".join(nfc(name).casefold().split()), []).append(repr(name))
    return [group for group in together.values() if len(group) > 1]
