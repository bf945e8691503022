"""The codes that a command asks for: of which network, read how, and what is to be said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backbones import load_card
from ..backbones.engine import pick_device
from ..backbones.graph import graph_path
from ..backbones.preprocess import Views
from ..backbones.quantise import Calibration, agreement_of, quantised_path
from ..context import Context
from ..datasets import Manifest
from ..datasets.images import limit_pixels
from ..datasets.ranges import reading_of
from ..datasets.remaining import check_remaining
from ..notation import number
from .calibration import calibration_of
from .keys import Spec

_NEAR = 0.95  # mean cosine, below which eight bits are advised against


@dataclass(frozen=True, eq=False)
class Wanted:
    """Codes that are asked for.

    Attributes
    ----------
    context : Context
        What asks for them.
    spec : Spec
        What they are.
    calibration : Calibration or None
        The images that a network in int8 is calibrated on.
    stale : array of S64
        Digests of images that were read otherwise before; rows of them do not count.
    notes : tuple of str
        How images of more than 8 bits are read.
    """

    context: Context
    spec: Spec
    calibration: Calibration | None
    stale: NDArray[np.bytes_]
    notes: tuple[str, ...]

    def near(self) -> list[str]:
        """Say how near the codes in int8 are to float32, where it was measured."""
        if self.calibration is None:
            return []
        spec = self.spec
        graph = graph_path(
            spec.card, spec.layers, spec.pool, spec.preprocessing, cache=self.context.cache
        )
        found = agreement_of(quantised_path(graph, self.calibration.digest))
        if found is None:
            return []
        said = (
            "PRECISION=int8: the cosine between codes in int8 and in float32 is "
            f"{number(found.mean, 4)} on average (lowest {number(found.least, 4)}; {found.n} "
            "training images that were not used for calibration)."
        )
        if found.mean < _NEAR:
            said += (
                " Eight bits do not suit this network (convolutional ones have .98 and more): "
                "leave PRECISION out."
            )
        return [said]


def wanted(context: Context, calibrated_on: Manifest, *, is_part: bool) -> Wanted:
    """Look up the network, and how the images are read for it."""
    manifest, codes = context.manifest, context.codes
    pick_device(context.machine.device)
    card = load_card(codes, **context.source)
    layers = card.resolve(codes.layers)
    limit_pixels(context.machine.max_pixels)
    found = reading_of(
        manifest,
        codes.range,
        codes.bands,
        cache=context.cache,
        workers=context.machine.workers,
        progress=context.progress,
    )
    if not is_part and manifest.n_classes > 1:  # unlabelled files are refused one by one
        check_remaining(manifest, found.rejects, command=context.command)
    preprocessing = card.preprocessing.adapted(size=codes.size, resize=codes.resize).read_as(found)
    views = Views.parse(codes.views, context.seed)
    calibration = None
    if codes.precision == "int8":
        calibration = calibration_of(calibrated_on, preprocessing)
    digest = calibration.digest if calibration else ""
    spec = Spec(card, layers, preprocessing, views, codes, digest)
    stale = manifest.sha256[list(found.converts)]
    return Wanted(context, spec, calibration, stale, tuple(found.notes))
