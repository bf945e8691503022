"""The order of a report: the verdict first, then what it rests on, then what was run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..datasets.names import safe_name
from ..notation import count
from ..settings import ReportSettings
from . import classes, growth, imagery, methods
from .blocks import Block, Folded, Gallery, Projection, Report
from .gather import Evidence
from .origin import origin
from .svg import theme

_DIGITS = re.compile(r"[0-9a-f]{6}")


def compose(evidence: Evidence, settings: ReportSettings) -> Report:
    """Say and draw everything that the evidence gives.

    Parameters
    ----------
    evidence : Evidence
        From :func:`cnn_codes.report.gather.gather`.
    settings : ReportSettings
        How many pictures each gallery shows.
    """
    record = evidence.comparison
    shown = settings.gallery
    with theme():
        sections = (
            methods.comparison(evidence),
            methods.cost(evidence),
            methods.pairs(evidence),
            growth.curves(evidence),
            growth.advice(evidence),
            classes.confusion(evidence),
            classes.calibration(evidence),
            classes.operating(evidence),
            imagery.embedding(evidence),
            imagery.worst_mistakes(evidence, shown=shown),
            imagery.doubtful_labels(evidence, shown=shown),
            imagery.copies(evidence, shown=shown),
            growth.layers(evidence),
            growth.training(evidence),
            methods.scratch_gap(evidence),
            origin(evidence),
        )
    splits = evidence.runs[0].record["splits"]
    n_train = sum(sum(splits.get(key, {}).values()) for key in ("train", "val"))
    n_classes = len(record["class_names"])
    facts = (
        ("classes", count(n_classes)),
        *(
            [("images", count(record["n_test"])), ("folds", count(record["folds"]))]
            if record.get("folds")
            else [("training images", count(n_train)), ("test images", count(record["n_test"]))]
        ),
        ("methods", count(len(record["entries"]))),
        ("network" if len(record["models"]) == 1 else "networks", ", ".join(record["models"])),
        ("seed", str(record["seed"])),
        ("date", str(record.get("provenance", {}).get("date", ""))[:10]),
    )
    sentences = [str(one) for one in record["sentences"]]
    title, digest = title_of(evidence.context.data.data, str(record["data"]))
    return Report(title, sentences[:2], sentences[2:], facts, sections, digest)


def title_of(given: str, name: str) -> tuple[str, str]:
    """Give a data set's name for a reader, and the digits that tell it from its namesakes.

    Parameters
    ----------
    given : str
        ``DATA``: a registered name, or a path.
    name : str
        Of the folder of its results: ``photos``, or ``photos-40e9e4`` where the first was taken.
    """
    place = Path(given)
    own = place.name if place.name not in ("", "..") else place.resolve().name
    if safe_name(own) == name:
        return own, ""
    stem, _, digits = name.rpartition("-")
    if not _DIGITS.fullmatch(digits):
        return name, ""
    return (own if safe_name(own) == stem else stem), digits


def wanted_pictures(report: Report) -> tuple[list[str], list[str]]:
    """Give the paths of the images that are looked at, and of those under the pointer."""
    large: list[str] = []
    small: list[str] = []
    for section in report.sections:
        _collect(section.blocks, large, small)
    return list(dict.fromkeys(large)), list(dict.fromkeys(small))


def _collect(blocks: Sequence[Block], large: list[str], small: list[str]) -> None:
    for block in blocks:
        if isinstance(block, Gallery):
            large += [path for picture in block.pictures for path in picture.paths]
        elif isinstance(block, Projection):
            small += block.paths
        elif isinstance(block, Folded):
            _collect(block.blocks, large, small)
