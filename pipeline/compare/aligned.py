"""Predictions of several runs on the images that all have, and the groups of these images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ResultError
from ..results.predictions import Predictions


def aligned_predictions(found: Sequence[Predictions]) -> list[Predictions]:
    """Reduce the predictions of several runs to the images that all have, in one order.

    Raises
    ------
    ResultError
        They are of different classes, contradict each other's labels, or share no image.
    """
    first = found[0]
    shared = set(first.paths).intersection(*(one.paths for one in found[1:]))
    order = [path for path in first.paths if path in shared]
    if not order:
        raise ResultError("The runs share no test image.", expected="runs on the same split")
    out = []
    for one in found:
        at = {path: row for row, path in enumerate(one.paths)}
        rows = np.array([at[path] for path in order])
        decided = None if one.decided is None else one.decided[rows]
        out.append(
            Predictions(
                tuple(order), one.labels[rows], one.probabilities[rows], one.class_names, decided
            )
        )
        same = out[-1].class_names == out[0].class_names
        if not same or not np.array_equal(out[-1].labels, out[0].labels):
            raise ResultError(
                "The runs disagree about classes or labels.",
                expected="runs on the same labels",
                todo="give the same command again: it repeats the runs that are out of date",
            )
    return out


def recorded_groups(
    records: Sequence[Mapping[str, Any]], paths: Sequence[str], found: Sequence[Predictions]
) -> NDArray[np.int64] | None:
    """Give the groups of test images, as the first of these runs that has groups recorded them.

    Parameters
    ----------
    records, found
        Records of runs, and the predictions of each.
    paths
        The images asked for, which each run has.
    """
    for record, predictions in zip(records, found, strict=True):
        if "test_groups" in record:
            group = dict(zip(predictions.paths, record["test_groups"], strict=True))
            return np.array([group[path] for path in paths], np.int64)
    return None
