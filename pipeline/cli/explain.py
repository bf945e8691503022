"""The command of explanations: explain."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ImageError
from ..progress import terminal
from ..settings import ExplainSettings, MachineSettings, PlaceSettings
from .options import settings_from
from .stage import Stage, note

__all__ = ["STAGES"]


def _explain(options: argparse.Namespace) -> None:
    from ..explain import Explainer
    from ..explain.write import write_explanations
    from ..predict.inputs import gathered

    settings: ExplainSettings = settings_from(options, ExplainSettings)
    with gathered(settings.images, progress=terminal) as inputs:
        explainer = Explainer.load(
            settings.run,
            results=options.results,
            cache=options.cache,
            machine=settings_from(options, MachineSettings),
            weights=settings.weights,
            offline=settings.offline,
            progress=terminal,
        )
        for text in (*inputs.remarks, *explainer.classifier.notes):
            note(f"note: {text}")
        found = write_explanations(explainer, inputs, Path(settings.out), progress=terminal)
    sums = "; each map sums to the logit" if explainer.exact else ""
    print(f"{found.n_explained} images explained by {explainer.method}{sums}")
    print(found.path)
    if not found.n_explained:
        raise ImageError(
            f"None of the {found.n_refused} images can be used; the first: {found.first_error}.",
            expected="at least one image that can be read",
        )
    if found.n_refused:
        note(f"warning: {found.n_refused} cannot be used; the first: {found.first_error}.")


STAGES = {
    "explain": Stage(
        _explain,
        "show which regions of images speak for the predicted class",
        (ExplainSettings, MachineSettings, PlaceSettings),
    )
}
