"""The exported ONNX file against ``make predict``.

Hypothesis: the file gives the same class wherever the two highest probabilities are more than 1e-3
apart, probabilities within 1e-3 from the decoded image, the resize inside, and within 1e-5 from the
square that the pipeline cut out. The image is decoded as the pipeline does it: upright, in sRGB.
Last column: as pillow's ``Image.open(...).convert("RGB")`` gives it, colour profiles ignored.

    python -m benchmarks.export RUN=<run.json> IMAGES=<folder> [CACHE=cache] [RESULTS=results]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MARGIN, RESIZED, PREPARED = 1e-3, 1e-3, 1e-5


def agreement(
    session: Any, classifier: Any, paths: Iterable[Path]
) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
    """Compare a session on an exported file with the run's classifier, image by image.

    Returns
    -------
    dict of arrays (N,)
        ``margin``: between the two highest probabilities of make predict. ``resized``,
        ``prepared`` and ``plain``: largest difference in a probability, from the image, from its
        square, and from the image without its colour profile. ``same``: whether image and square
        give the class of make predict.
    """
    from cnn_codes.backbones.preprocess import Views
    from cnn_codes.datasets.images import decode
    from cnn_codes.predict.items import load_item

    paths = list(paths)
    expected, named = classifier.predict_proba(paths), classifier.predict(paths).tolist()
    names = [one.name for one in session.get_outputs()]
    rows = []
    for path, one, name in zip(paths, expected, named, strict=True):
        pixels = decode(path.read_bytes())
        colour = pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
        view = load_item(path).views(classifier.preprocessing, Views("center", 1))[0]
        plain = np.asarray(Image.open(path).convert("RGB"))
        gaps, classes = [], []
        for inputs in (
            {"image": colour},
            {"image": view, "prepared": np.array(True)},
            {"image": plain},
        ):
            found = dict(zip(names, session.run(None, inputs), strict=True))
            gaps.append(float(np.abs(found["probabilities"] - one).max()))
            classes.append(classifier.classes[int(found["class_index"])])
        margin = float(np.diff(np.sort(one)[-2:])[0])
        rows.append((margin, *gaps, classes[:2] == [name, name]))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return dict(zip(("margin", "resized", "prepared", "plain", "same"), columns, strict=True))


def main() -> None:
    """Export a run, compare, and print a row of a table."""
    from cnn_codes.export import export_run
    from cnn_codes.export.run import session_of
    from cnn_codes.predict import Classifier

    asked = {"CACHE": "cache", "RESULTS": "results"}
    asked |= dict(one.split("=", 1) for one in sys.argv[1:])
    places = {"cache": asked["CACHE"], "results": asked["RESULTS"], "offline": True}
    with tempfile.TemporaryDirectory() as out:
        made = export_run(asked["RUN"], Path(out), **places)
        session, n_bytes = session_of(made.files[0]), made.files[0].stat().st_size
    paths = [one for one in sorted(Path(asked["IMAGES"]).rglob("*.*")) if one.is_file()]
    classifier = Classifier.load(asked["RUN"], **places)
    found = agreement(session, classifier, paths)
    clear = found["margin"] > MARGIN
    print(
        f"| {classifier.run} | {len(paths)} | {n_bytes / 1e6:.1f} | "
        f"{int(found['same'][clear].sum())} of {int(clear.sum())} | "
        f"{int(found['same'].sum())} of {len(paths)} | {found['margin'].min():.1e} | "
        f"{found['resized'].max():.1e} | {found['prepared'].max():.1e} | "
        f"{found['plain'].max():.1e} ({int((found['plain'] > RESIZED).sum())} images) |"
    )


if __name__ == "__main__":
    main()
