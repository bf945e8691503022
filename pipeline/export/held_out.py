"""A run's own images, for what an export must measure: to calibrate on train, to test on test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, load_manifest
from ..errors import DataError, PipelineError, first_line
from ..predict.runs import Run
from ..progress import Progress, silent
from ..results.runs import read_predictions
from ..settings import DataSettings, PlaceSettings

__all__ = ["RunImages", "images_of"]


@dataclass(frozen=True, eq=False)
class RunImages:
    """Images of a run's data set.

    Attributes
    ----------
    train : list of Path
        Training images.
    test : list of Path
        Those that the run was tested on.
    labels : int64 (n_test,)
        Their true classes, indices into the run's classes.
    """

    train: list[Path]
    test: list[Path]
    labels: NDArray[np.int64]


def images_of(run: Run, places: PlaceSettings, *, progress: Progress = silent) -> RunImages:
    """Find a run's images.

    Parameters
    ----------
    run : Run
        With its record and predictions.
    places : PlaceSettings
        Data root and cache.

    Raises
    ------
    DataError
        The data set is not here, or not the one of the run.
    """
    record = run.record or {}
    try:
        asked = str(record["provenance"]["settings"]["data"])
        predictions = read_predictions(run.file(".predictions.csv"))
        manifest = load_manifest(DataSettings(data=asked, offline=True), places, progress=progress)
    except (KeyError, TypeError, PipelineError) as error:
        raise DataError(
            f"PRECISION=int8 needs the images of {run.name}, which cannot be found: "
            f"{first_line(error)}",
            expected="the data set, where the run had it, and the run's .json and .predictions.csv",
            todo="give DATA_ROOT=; or leave PRECISION out",
        ) from error
    tested = set(predictions.paths)
    train = [
        manifest.root / path
        for path, split in zip(manifest.paths, manifest.split.tolist(), strict=True)
        if path not in tested and SPLITS[split] == "train"
    ]
    test = [manifest.root / path for path in predictions.paths]
    lost = [path for path in test if not path.is_file()]
    if lost or not train:
        first = lost[0] if lost else manifest.root
        raise DataError(
            f"The data set here is not the one of {run.name}: {first} is not there.",
            todo="give DATA_ROOT=; or leave PRECISION out",
        )
    return RunImages(train, test, np.asarray(predictions.labels, np.int64))
