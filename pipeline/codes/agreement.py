"""Whether the engine here gives the numbers that the cached rows were made with.

Fingerprints name what was asked for; libraries may still change what they compute. Each part
therefore keeps the codes of a small fixed batch, made by the engine that made its rows. Before
rows are added to others, the batch is run again and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import Engine, run_all

TOLERANCE = {
    "float32": 1e-4,
    "mixed": 2e-2,
    "int8": 2e-2,
}  # largest difference over the largest code
_N_IMAGES = 2


def probe_pixels(size: int) -> NDArray[np.uint8]:
    """Make the fixed batch (2, size, size, 3): smooth waves with bytes of SHA-256 over them.

    Integer arithmetic and a digest, so that it is the same on every machine and for ever.
    """
    rows, columns = np.mgrid[:size, :size].astype(np.int64) * 1024 // max(1, size)
    batch = np.empty((_N_IMAGES, size, size, 3), np.uint8)
    for image in range(_N_IMAGES):
        stream = hashlib.shake_256(b"probe %d" % image).digest(size * size * 3)
        noise = np.frombuffer(stream, np.uint8).reshape(size, size, 3).astype(np.int64)
        for channel in range(3):
            wave = (rows * (channel + 1 + image) + columns * (3 - channel)) % 512
            smooth = np.where(wave < 256, wave, 511 - wave)  # a triangle wave, 0 to 255
            batch[image, :, :, channel] = (3 * smooth + noise[:, :, channel]) // 4
    return batch


def probe_codes(engine: Engine, size: int, layers: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Run the fixed batch: codes (2, D) of each layer."""
    blocks = run_all(engine, probe_pixels(size))
    return dict(zip(layers, (block.reshape(len(block), -1) for block in blocks), strict=True))


def disagreement(here: Mapping[str, NDArray[Any]], there: Mapping[str, NDArray[Any]]) -> float:
    """Largest difference of two probes, over the largest code of its layer; 0: equal.

    Infinite where they are of other layers or shapes.
    """
    worst = 0.0
    if here.keys() != there.keys():
        return float("inf")
    for layer, ours in here.items():
        theirs = np.asarray(there[layer], np.float64)
        if theirs.shape != ours.shape or not np.isfinite(theirs).all():
            return float("inf")
        scale = float(np.abs(theirs).max()) or 1.0
        worst = max(worst, float(np.abs(ours.astype(np.float64) - theirs).max()) / scale)
    return worst
