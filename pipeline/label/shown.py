"""What a page shows of the images of a session: counts, the columns of the map, one entry each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS
from .images import TEST, Images
from .queues import Board


def counts(images: Images) -> dict[str, Any]:
    """Count the images, by class and by what was done with them, and name the classes."""
    labels = images.labels()
    states = [one.state for one in images]
    return {
        "classes": list(images.classes),
        "counts": np.bincount(labels[labels >= 0], minlength=len(images.classes)).tolist(),
        "n_images": len(states),
        "n_checked": sum(one.checked for one in states),
        "n_excluded": sum(one.excluded for one in states),
        "n_unlabelled": sum(one.label is None and not one.excluded for one in states),
        "n_changed": sum(
            one.state.label != one.given.label and one.given.label is not None for one in images
        ),
        "n_corrections": len(images.log.entries),
        "file": str(images.log.path),
    }


def columns(images: Images, board: Board | None, xy: NDArray[np.float32]) -> bytes:
    """Give what the map needs of all images: x and y float32, label and guess int16, flags uint8.

    Flags: 1 checked, 2 excluded, 4 test, 8 suspect, 16 added.
    """
    labels = np.array([images.class_of(one.state.label) for one in images], np.int16)
    guess = np.full(len(labels), -1, np.int16)
    suspect = np.zeros(len(labels), bool)
    if board is not None:
        guess = board.probabilities.argmax(axis=1).astype(np.int16)
        suspect = board.suspects
    flags = np.zeros(len(labels), np.uint8)
    for bit, mask in (
        (1, [one.state.checked for one in images]),
        (2, [one.state.excluded for one in images]),
        (4, [one.split == TEST for one in images]),
        (8, suspect),
        (16, [one.added for one in images]),
    ):
        flags |= np.asarray(mask, np.uint8) * np.uint8(bit)
    return xy.astype("<f4").tobytes() + labels.tobytes() + guess.tobytes() + flags.tobytes()


def described(
    images: Images,
    rows: Sequence[int],
    board: Board | None,
    pairs: Sequence[tuple[str, str, float]],
) -> list[dict[str, Any]]:
    """Give what a page shows of some images; `pairs` are near-duplicates with their likeness."""
    near: dict[str, list[tuple[str, float]]] = {}
    for a, b, likeness in pairs:
        near.setdefault(a, []).append((b, likeness))
        near.setdefault(b, []).append((a, likeness))
    found = []
    for row in rows:
        one = images[row]
        entry: dict[str, Any] = {
            "row": row,
            "path": one.path,
            "sha": one.sha256[:16],
            "split": "new" if one.added else SPLITS[one.split],
            "label": one.state.label,
            "given": one.given.label,
            "checked": one.state.checked,
            "excluded": one.state.excluded,
            "group": one.state.group,
            "near": [
                {"row": images.by_path[path], "path": path, "likeness": round(s, 3)}
                for path, s in near.get(one.path, [])[:5]
                if path in images.by_path
            ],
        }
        if board is not None:
            k, s = images.class_of(one.state.label), int(board.suggested[row])
            p = board.probabilities[row]
            entry["suggested"] = images.classes[s]
            entry["p_suggested"] = round(float(p[s]), 4)
            if 0 <= k < len(p):
                entry["p_label"] = round(float(p[k]), 4)
        found.append(entry)
    return found
