"""What is left of a data set after images that cannot be used were left out.

A set, a split or a class of which nothing is left is a mistake to be corrected, not a smaller data
set: the command stops, counts the reasons and says what to do about the most frequent one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .manifest import Manifest
from .phrases import few, plural
from .ranges import bands_for
from .split_words import SPLITS, TRAIN

_VARIABLE = re.compile(r"(?<=[ (])[\d,.]+ x [\d,.]+ px| \(starts with [^)]*\)|\b\d[\d,.]* bytes")


def check_remaining(manifest: Manifest, rejects: Mapping[str, str], *, command: str = "") -> None:
    """Refuse a data set of which a split, or a class of the training images, is left out entirely.

    Parameters
    ----------
    manifest : Manifest
        The images.
    rejects : mapping
        SHA-256 of an image to the reason why it cannot be used.
    command : str
        The command that was given, which the missing setting is added to.

    Raises
    ------
    DataError
        Nothing is left of the set, of a split, or of a class in train; counts the reasons.
    """
    if not rejects:
        return
    lost = np.isin(manifest.sha256, np.array(list(rejects), "S64"))
    if not lost.any():
        return
    where, rows = _emptied(manifest, lost)
    if not where:
        return
    reasons = [rejects[manifest.sha256[row].decode()] for row in np.flatnonzero(rows).tolist()]
    raise DataError(
        f"{where} can be used: {plural(len(reasons), 'image is', 'images are')} left out: "
        f"{counted(reasons)}.",
        expected="at least one readable image of every class in train, and of every split",
        todo=advice(reasons, command),
    )


def _emptied(manifest: Manifest, lost: NDArray[np.bool_]) -> tuple[str, NDArray[np.bool_]]:
    """Name what nothing is left of, and give its rows; an empty name where something is left."""
    if lost.all():
        return f"No image of {manifest.name}", lost
    for number, name in enumerate(SPLITS):
        mine = manifest.split == number
        if mine.any() and lost[mine].all():
            return f"No image of {name}", mine
    train = manifest.split == TRAIN
    gone = [
        number
        for number in range(manifest.n_classes)
        if lost[train & (manifest.labels == number)].all()
    ]
    if not gone:
        return "", lost
    names = few([manifest.class_names[number] for number in gone])
    return f"No training image of {names}", train & np.isin(manifest.labels, gone)


def check_test(left: NDArray[np.bool_] | NDArray[np.integer[Any]], *, command: str = "") -> None:
    """Refuse to measure on a test split of which every image is in train or val too.

    Parameters
    ----------
    left : array of bool or of int
        Test images that are not leaks: a mask, or rows.
    command : str
        The command that was given.

    Raises
    ------
    DataError
        There is none.
    """
    if left.any() if left.dtype == bool else len(left):
        return
    raise DataError(
        "No test image is left: every one of them, or its group, is in train or val too.",
        expected="test images that were not trained on",
        todo="make audit lists the pairs: take these images out of train, or let the "
        f"splits be made again; {_with(command, 'LEAKS=keep')} measures on images that were seen",
    )


def classes_without(manifest: Manifest, rejects: Mapping[str, str]) -> list[str]:
    """Name the classes that lost all their images of val or test, a sentence for each split."""
    if not rejects:
        return []
    lost = np.isin(manifest.sha256, np.array(list(rejects), "S64"))
    notes = []
    for number, name in enumerate(SPLITS):
        mine = manifest.split == number
        gone = [
            f"{one} ({int(here.sum()):,})"
            for k, one in enumerate(manifest.class_names)
            if (here := mine & (manifest.labels == k)).any() and lost[here].all()
        ]
        if gone and number != TRAIN:
            notes.append(f"All {name} images of {few(gone)} were left out: see the reasons.")
    return notes


def counted(reasons: Sequence[str]) -> str:
    """Count reasons, the most frequent first; sizes and other details of one image are dropped."""
    counts = Counter(_kind(reason) for reason in reasons)
    return few([f"{reason} ({count:,})" for reason, count in counts.most_common()], 4)


def _kind(reason: str) -> str:
    text = _VARIABLE.sub("", reason.partition("; ")[0])
    text += ")" * (text.count("(") - text.count(")"))
    return re.sub(r"\s+", " ", text).strip(" :,")


def advice(reasons: Sequence[str], command: str = "") -> str:
    """Say what to do about the most frequent reason."""
    kind, _ = Counter(_kind(reason) for reason in reasons).most_common(1)[0]
    mine = [reason for reason in reasons if _kind(reason) == kind]
    bands = [int(found[1]) for one in mine if (found := re.match(r"(\d+) bands of", one))]
    if bands:
        return _with(command, f"BANDS={bands_for(min(bands))}") + (
            " (bands of red, green and blue; or BANDS=<number> for one band as grey)"
        )
    if "MAX_PIXELS" in kind or kind.startswith("absurdly large"):
        sizes = [
            int(found[1]) * int(found[2])
            for one in mine
            if (found := re.search(r"(\d+) x (\d+) px", one))
        ]
        if sizes:
            return _with(command, f"MAX_PIXELS={max(sizes)}") + " (needs memory in proportion)"
    if "RANGE" in mine[0]:
        return _with(command, "RANGE=auto")
    for pattern in (r"pip install '[^']+'", r"git lfs pull", r"git annex get ?\.?", r"dvc pull"):
        if found := re.search(pattern, mine[0]):
            return f"{found[0].strip()}; then give the command again"
    if found := re.search(r"; (convert [^)]*)\)?", mine[0]):
        return f"{found[1]}; then give the command again"
    return (
        "replace these images with sound ones, or take that class or split out; make audit "
        "lists every image with its reason"
    )


def _with(command: str, setting: str) -> str:
    return f"{command} {setting}" if command else f"add {setting}"
