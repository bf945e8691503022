"""Explanations as files: a picture for each image, and one JSON file with every map."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ImageError, SettingsError
from ..files import replacing, write_atomic
from ..predict.inputs import Inputs
from ..progress import Progress, silent
from .explainer import Explainer

JSON_NAME = "explanations.json"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes
    ----------
    path : Path
        The JSON file.
    n_explained, n_refused : int
        Images with a picture, and images that cannot be used.
    first_error : str
        Why the first of the latter cannot; empty where all can.
    """

    path: Path
    n_explained: int
    n_refused: int
    first_error: str = ""


def write_explanations(
    explainer: Explainer, inputs: Inputs, out: Path, *, progress: Progress = silent
) -> Written:
    """Explain images into a folder.

    Parameters
    ----------
    explainer : Explainer
        Of a run.
    inputs : Inputs
        The images, from :func:`cnn_codes.predict.inputs.gathered`.
    out : Path
        The folder; it is made where it is missing. A picture is called by its image's number and
        name; files of earlier calls under the same names are replaced.
    progress : Progress
        Counts images.

    Raises
    ------
    SettingsError
        `out` is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"OUT={out} is a file.", expected="a folder, or a new name")
    out.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(inputs.paths)))
    n_explained, errors = 0, []
    about = {
        "run": explainer.classifier.run,
        "classes": list(explainer.classifier.classes),
        "method": explainer.method,
        "exact": explainer.exact,
    }
    # Written as it comes: the maps of many images need not fit into memory.
    with (
        replacing(out / JSON_NAME) as stream,
        progress("images", len(inputs.paths), "images") as meter,
    ):
        stream.write(json.dumps(about, ensure_ascii=True)[:-1].encode() + b', "images": [')
        explained = explainer.explain_all(inputs.paths, names=inputs.names)
        for index, (name, found) in enumerate(explained):
            row: dict[str, Any]
            if isinstance(found, ImageError):
                row = {"path": name, "error": found.found}
                errors.append(f"{name}: {found.found}")
            else:
                picture = f"{index + 1:0{digits}}-{_plain(name)}.png"
                write_atomic(out / picture, found.png())
                row = {"file": picture, **found.as_dict()}
                n_explained += 1
            stream.write((b",\n" if index else b"\n") + json.dumps(row, allow_nan=False).encode())
            meter.advance()
        stream.write(b"\n]}\n")
    return Written(out / JSON_NAME, n_explained, len(errors), errors[0] if errors else "")


def _plain(name: str) -> str:
    """Give a name's last part without its suffix, fit for a file name on every system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name.replace("\\", "/")).stem)[:80].strip("._")
