"""Maps of a run's most confident errors: a record that the report draws over its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..context import Context
from ..datasets.images import read_as
from ..errors import DataError, ImageError
from ..files import digest_of
from ..results.frame import framed, known, write_framed
from ..results.names import named
from ..results.predictions import Predictions
from .explainer import Explainer

KIND = "explained"
_VERSION = 1  # of the way that the maps are made


def explain_mistakes(
    context: Context, run: Path, record: Mapping[str, Any], predictions: Predictions, most: int
) -> dict[str, Any]:
    """Explain the wrong predictions of a run, the most confident first.

    Parameters
    ----------
    context : Context
        The images; the record goes into its folder.
    run : Path
        The run's ``.json``; its model files lie next to it.
    record : mapping
        The run's record.
    predictions : Predictions
        Of its test images, none of which the model was trained on.
    most : int
        Number of images.

    Returns
    -------
    dict
        A record of kind ``explained``. For each image: ``path``, ``explained`` (the predicted
        class), ``box`` (left, top, width, height of the map, as shares of the image's width and
        height) and ``evidence`` (h lists of w numbers, see :class:`.Explanation`).

    Raises
    ------
    DataError
        The run has no model that did not see its test images, or an image has changed.
    """
    if record.get("cv"):
        raise DataError(
            f"{run.stem} was tested by cross-validation: its model has seen the images.",
            expected="a run with a test split",
        )
    rows = context.manifest.row_of
    wrong = [row for row in predictions.most_confident_errors() if predictions.paths[row] in rows]
    asked = {
        predictions.paths[row]: predictions.class_names[predictions.predicted[row]]
        for row in wrong[:most]
    }
    fingerprint = digest_of(
        {"kind": KIND, "version": _VERSION, "run": record["fingerprint"], "images": asked}
    )
    name, subject = named(context, f"{KIND}-{run.stem}", fingerprint=fingerprint)
    path = context.folder / f"{name}.json"
    if (found := known(path, fingerprint, kind=KIND)) is not None:
        return found
    explainer = Explainer.load(
        run, cache=context.cache, machine=context.machine, offline=context.data.offline,
        progress=context.progress,
    )  # fmt: skip
    images = []
    with context.progress("maps", len(asked), "images") as meter:
        for one, target in asked.items():
            sha = context.manifest.sha256[rows[one]]
            try:
                data = read_as(context.manifest.root / one, sha)
                made = explainer.explain(data, target=target, name=one)
            except ImageError:
                continue
            finally:
                meter.advance()
            height, width = made.pixels.shape[:2]
            box = [side / whole for side, whole in zip(made.box, (width, height) * 2, strict=True)]
            images.append({"path": one, "explained": target, "box": box,
                           "evidence": made.evidence})  # fmt: skip
    body = {
        "model": str(record["model"]),
        "seed": context.seed,
        "subject": subject,
        "class_names": list(predictions.class_names),
        "run": run.stem,
        "run_fingerprint": str(record["fingerprint"]),
        "method": explainer.method,
        "exact": explainer.exact,
        "images": images,
        "warnings": [],
        "sentences": [f"{len(images)} wrong predictions of {run.stem}: {explainer.method}."],
    }
    record = framed(context, KIND, name, body, fingerprint=fingerprint, settings={})
    return write_framed(path, record)
