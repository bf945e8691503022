"""A run's network in eight bits: calibrated on its training images, compared on its test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from ..backbones.preprocess import Views, read_views
from ..backbones.quantise import quantise
from ..codes.calibration import calibration_of
from ..compare.precision import effect_words
from ..datasets import SPLITS, Manifest, load_manifest
from ..datasets.images import read_as
from ..errors import DataError, PipelineError, first_line
from ..predict.models import Model
from ..predict.runs import Run
from ..progress import Progress, silent
from ..results.predictions import read_predictions
from ..settings import DataSettings, PlaceSettings, from_mapping
from .assemble import Parts

LOSS_SAID = 0.5  # points of accuracy, above which the loss is a warning


def images_of(run: Run, places: PlaceSettings, *, progress: Progress = silent) -> Manifest:
    """Open the data set of a run as the run opened it.

    Raises
    ------
    DataError
        The record does not name it, or it is not here.
    """
    try:
        asked: Mapping[str, Any] = (run.record or {})["provenance"]["settings"]
        data = replace(from_mapping(DataSettings, asked), offline=True)
        return load_manifest(data, places, progress=progress)
    except (KeyError, TypeError, PipelineError) as error:
        reason = "its record is not there" if isinstance(error, KeyError) else first_line(error)
        raise DataError(
            f"PRECISION=int8 needs the images of {run.name}, which cannot be opened: {reason}",
            expected="the run's .json, and its data set where the run had it",
            todo="run make export in the folder where the run was made, with the same DATA_ROOT=; "
            "or leave PRECISION out",
        ) from error


def quantised(parts: Parts, model: Model, manifest: Manifest) -> Parts:
    """Quantise a network on training images; see :func:`cnn_codes.backbones.quantise.quantise`.

    Raises
    ------
    SettingsError
        The data set has no training images.
    BackboneError
        None of them can be read, or the network cannot be quantised.
    """
    images, _ = calibration_of(manifest, model.preprocessing).images()
    small = quantise(parts.graph.SerializeToString(deterministic=True), images)
    return replace(parts, graph=onnx.load_from_string(small))


def effect_of(
    run: Run, model: Model, session: Any, manifest: Manifest, *, progress: Progress = silent
) -> str | None:
    """Compare an exported model in int8 with the run's own test predictions, image by image.

    Parameters
    ----------
    run : Run
        With its predictions.
    model : Model
        Of the run.
    session : InferenceSession
        The exported model, with its geometry.
    manifest : Manifest
        The run's data set.

    Returns
    -------
    str or None
        What eight bits changed, in a sentence; it begins with "warning: " where more than half a
        point is lost. None where the run was tested on images that it trained on in other folds
        (TEST=cv:5).

    Raises
    ------
    ResultError
        The predictions are not there.
    DataError
        An image of the predictions is not in this data set, or has changed.
    """
    own = read_predictions(run.file(".predictions.csv"))
    rows = manifest.row_of
    lost = [path for path in own.paths if path not in rows]
    if lost:
        raise DataError(
            f"{manifest.root} is not the data set of {run.name}: {lost[0]} is not in it.",
            todo="make the run again (make svm, for example); or leave PRECISION out",
        )
    at = [rows[path] for path in own.paths]
    if np.any(manifest.split[at] == SPLITS.index("train")):
        return None
    center, found = Views("center", 1), []
    with progress("test images in int8", len(at), "images") as meter:
        for row in at:
            digest = manifest.sha256[row].decode()
            data = read_as(manifest.root / manifest.paths[row], digest)
            square = read_views(data, model.preprocessing, center, digest)[0]
            inputs = {"image": square, "prepared": np.array(True)}
            found.append(int(session.run(["class_index"], inputs)[0]))
            meter.advance()
    small, full = np.array(found) == own.labels, own.predicted == own.labels
    lost_points = 100 * float(full.mean() - small.mean())
    groups = manifest.groups_at(np.array(at))
    return ("warning: " if lost_points > LOSS_SAID else "") + effect_words(small, full, groups)
