"""The images that a network in int8 is calibrated on: some of the data set's own training images.

The images' bytes alone decide which ones (those with the lowest SHA-256, a fixed random order), so
the order and the names of the files do not matter.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ..backbones.preprocess import Preprocessing, Views, read_views
from ..backbones.quantise import N_CALIBRATION, N_COMPARED, VERSION, Calibration, weight_bits
from ..datasets import SPLITS, Manifest
from ..datasets.images import read_as
from ..errors import ImageError, SettingsError


def calibration_of(manifest: Manifest, preprocessing: Preprocessing) -> Calibration:
    """Choose the calibration images of a data set.

    Raises
    ------
    SettingsError
        The data set has no training images.
    """
    rows = np.flatnonzero(manifest.split == SPLITS.index("train"))
    _, first = np.unique(manifest.sha256[rows], return_index=True)  # in order of the digests
    chosen = rows[first][: N_CALIBRATION + N_COMPARED].tolist()
    if not chosen:
        raise SettingsError(
            "PRECISION=int8 is calibrated on training images, and this data set has none.",
            todo="leave PRECISION out",
        )
    n_ranges = N_CALIBRATION if len(chosen) > N_CALIBRATION else -(-2 * len(chosen) // 3)
    digests = [manifest.sha256[row].decode() for row in chosen]
    center = Views("center", 1)

    def read(part: slice) -> NDArray[np.uint8]:
        found = []
        for row, digest in zip(chosen[part], digests[part], strict=True):
            try:
                data = read_as(manifest.root / manifest.paths[row], digest)
                found.append(read_views(data, preprocessing, center, digest)[0])
            except ImageError:
                continue  # a reject; the run names it
        size = preprocessing.size
        return np.stack(found) if found else np.empty((0, size, size, 3), np.uint8)

    def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return read(slice(n_ranges)), read(slice(n_ranges, None))

    used = f"{VERSION}:{weight_bits()}:" + "".join(digests[:n_ranges])
    return Calibration(hashlib.sha256(used.encode()).hexdigest(), images)


def known_calibration(digest: str, command: str) -> Calibration:
    """Stand for images that are not at hand: the quantised network must be in the cache.

    Parameters
    ----------
    digest : str
        Of the calibration, from the description of a head.
    command : str
        What makes the quantised network again.
    """

    def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        raise SettingsError(
            "The network of this run is in int8, and its quantised graph is not in this cache.",
            expected="the cache that the run was made with",
            todo=f"{command} makes it again in another cache; give the same CACHE= here",
        )

    return Calibration(digest, images)
