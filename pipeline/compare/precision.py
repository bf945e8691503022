"""What a lower precision of the network costs: a run against its twin in float32.

Both are heads fitted on the same images with the same settings; only the precision of the network
differs. Their test predictions are compared image by image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ResultError
from ..notation import number
from ..results.predictions import read_predictions
from ..results.runs import list_records
from .aligned import aligned_predictions, recorded_groups
from .flips import accuracy_difference

_FREE = ("precision", "methods", "jobs")


def float_twin(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find the run in float32 that agrees with `record` in everything else; None: there is none."""

    def what(one: Mapping[str, Any]) -> list[Any]:
        settings = dict(one.get("provenance", {}).get("settings", {}))
        for name in _FREE:
            settings.pop(name, None)
        keys = ("data", "method", "model", "layers", "views", "size", "seed", "subject")
        return [*(one.get(key) for key in keys), one.get("kind"), settings]

    wanted = what(record)
    for one in list_records(folder, on_error=lambda _: None):
        settings = one.get("provenance", {}).get("settings", {})
        if settings.get("precision") == "float32" and what(one) == wanted:
            return one
    return None


def precision_effect(folder: Path, record: Mapping[str, Any], command: str) -> str:
    """Say what int8 changed in the accuracy on the test images, against the same run in float32.

    Parameters
    ----------
    folder : Path
        Of the data set's results.
    record : mapping
        A run of a head on codes in int8.
    command : str
        What makes the run in float32.

    Returns
    -------
    str
        The two accuracies and the paired difference with its 95 % confidence interval, in
        percentage points; or, where there is no such run, the command.
    """
    run = str(record["run"])
    twin = float_twin(folder, record)
    try:
        found = [
            read_predictions(folder / f"{one['run']}.predictions.csv")
            for one in ((record, twin) if twin else ())
        ]
    except ResultError:
        found = []
    if not found:
        return (
            f"{run}: what int8 costs in accuracy is measured against the same run in float32, "
            f"which is not there. {command} makes it; then run this command again."
        )
    small, full = aligned_predictions(found)
    hits = [one.predicted == one.labels for one in (small, full)]
    groups = recorded_groups([record], small.paths, found[:1])
    return f"{run}: {effect_words(hits[0], hits[1], groups)}"


def effect_words(
    small: NDArray[np.bool_], full: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> str:
    """Give both accuracies and their paired difference, from what each classified correctly (N,).

    Parameters
    ----------
    small, full
        In int8 and in float32, on the same images.
    groups
        As :func:`~cnn_codes.compare.flips.accuracy_difference`.
    """
    _, ends = accuracy_difference(small, full, groups)
    low, high = (number(100 * end, 2) for end in ends)
    points = 100 * (float(small.mean()) - float(full.mean()))
    over = "" if groups is None else f" of {len(np.unique(groups))} groups"
    return (
        f"accuracy {number(float(small.mean()), 4)} in int8, {number(float(full.mean()), 4)} in "
        f"float32 on the same {len(small)} test images{over}; difference {number(points, 2)} "
        f"points (95 % CI {low} to {high})."
    )
