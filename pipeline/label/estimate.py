"""The accuracy on test images while people correct labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.bootstrap import accuracy_interval
from .images import TEST, Images

_CHOSEN = ("doubtful", "mistakes", "near")  # lists in which a model has a say


def estimate(images: Images, probabilities: NDArray[np.floating[Any]]) -> dict[str, Any] | None:
    """Estimate the accuracy on test images, of which no model has had a say.

    A test image whose label was changed because a model doubted it counts with the label that
    it had before: else the head would be praised for what it asked for. Images have the groups
    of GROUP= and of the page; the interval is then over groups.

    Parameters
    ----------
    images : Images
        With their labels.
    probabilities : float (n, K)
        Of the first n images, by heads that did not train on them.

    Returns
    -------
    dict or None
        ``accuracy``, ``low``, ``high`` (95 %), ``n``, ``n_groups``, ``n_as_given``; None where
        there is no test image.
    """
    called, labels = probabilities.argmax(axis=1), images.labels()
    hits: list[bool] = []
    groups: list[str] = []
    n_old = 0
    for row, guess in enumerate(called.tolist()):
        one = images[row]
        if one.split != TEST or one.state.excluded or one.state.label is None:
            continue
        label = int(labels[row])
        if one.source in _CHOSEN and one.given.label is not None:
            label = images.class_of(one.given.label)
            n_old += 1
        hits.append(guess == label)
        groups.append(images.group(row))
    if not hits:
        return None
    of = np.array(groups) if images.grouped else None
    low, high = accuracy_interval(np.array(hits), groups=of, n_classes=len(images.classes))
    return {
        "accuracy": float(np.mean(hits)), "low": low, "high": high, "n": len(hits),
        "n_groups": None if of is None else len(set(groups)), "n_as_given": n_old,
    }  # fmt: skip
