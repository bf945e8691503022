"""How far an image is from the training images, and which of them are nearest.

The distance is that of codes at length 1 (0: equal, 2: opposite; over several layers, the root
of the mean square of theirs) to the nearest training image, as in Sun et al. 2022
(arXiv 2204.06507). Measured here: with EfficientNet-Lite0, at the limit that 1 % of the training
images exceed, it flags 91 to 100 % of the images of other data sets and at most 2 % of the test
images of its own; without bringing codes to length 1 it would flag 6 to 18 % of the former.

A head's training codes are in the cache; a fine-tuned network's, the input of its last layer, lie
next to it in ``<run>.train.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..errors import CacheError, ResultError
from ..files import sha256_file
from ..finetune.training_codes import load_training_codes, training_codes_path
from ..heads.examples import mean_view
from ..results.predictions import read_predictions
from .models import HeadModel, Model, NetworkModel
from .runs import Run

_SAMPLE = 1000  # training images that the limit is measured on: its share is known to 0.3 %
_BLOCK = 128


@dataclass(frozen=True)
class Nearest:
    """A training image: its path relative to the data root, its class, and how far it is."""

    path: str
    label: str
    distance: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The training images of a run, M different ones.

    Attributes
    ----------
    units : float32 (M, D)
        Their codes at length 1.
    paths, labels : tuple of str
        Path relative to the data root, and class.
    limit : float
        A distance that `share` of them keep to the nearest other one.
    share : float
        In (0, 1].
    remark : str
        What is odd about them; mostly empty.
    """

    units: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    limit: float
    share: float
    remark: str = ""

    def nearest(self, blocks: list[NDArray[Any]], count: int) -> list[list[Nearest]]:
        """List the nearest training images of each image, the nearest first.

        Parameters
        ----------
        blocks : list of array (n, V, ...)
            Codes of n images, one array per layer.
        count : int
            How many, at least 1.
        """
        return [
            [
                Nearest(self.paths[row], self.labels[row], float(distance))
                for row, distance in zip(rows, distances, strict=True)
            ]
            for rows, distances in self._search(unit_codes(blocks), count)
        ]

    def _search(
        self, units: NDArray[np.float32], count: int
    ) -> Iterator[tuple[list[int], list[float]]]:
        count = min(count, len(self.units))
        # In this order BLAS packs the few new codes, not all of those known: twice as fast for 4.
        unlikeness = np.ascontiguousarray((self.units @ -units.T).T)  # (n, M)
        for unit, row in zip(units, unlikeness, strict=True):
            best = np.argpartition(row, count - 1)[:count]
            # Differences, not products: equal codes are then at exactly 0.
            distances = np.linalg.norm(self.units[best] - unit, axis=1)
            order = np.lexsort((best, distances))
            yield best[order].tolist(), distances[order].tolist()


def unit_codes(blocks: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Average the views and bring each layer to length 1, all together to length 1 too.

    Parameters
    ----------
    blocks : sequence of array (n, V, ...)
        One a layer.

    Returns
    -------
    float32 (n, D)
    """
    units = []
    for block in blocks:
        codes = mean_view(block.reshape(*block.shape[:2], -1))  # (n, D_layer)
        length = np.linalg.norm(codes, axis=1, keepdims=True)
        units.append(codes / np.maximum(length, np.finfo(np.float32).tiny))
    together = np.concatenate(units, axis=1) / np.sqrt(len(units))
    return np.asarray(together, np.float32)


def training_neighbours(run: Run, model: Model, *, share: float = 0.99) -> Neighbours:
    """Take a run's training images: from its cached codes, or its own file of them.

    Parameters
    ----------
    run, model
        The run and its model.
    share : float
        Of the training images that keep within the limit, in (0, 1].

    Raises
    ------
    CacheError
        There are no codes of this run's training images here, or they are damaged, or of other
        images or another network.
    """
    if isinstance(model, NetworkModel):
        return _beside_network(run, model, share)
    return _in_cache(run, model, share)


def _beside_network(run: Run, model: NetworkModel, share: float) -> Neighbours:
    """Take what a fine-tuning left next to its network."""
    path = training_codes_path(run.stem)
    files = (run.record or {}).get("files")
    digest = files.get(path.name) if isinstance(files, dict) else None
    if digest is not None and path.is_file() and sha256_file(path) != digest:
        raise CacheError(
            f"{path} is not the one that the run was written with.",
            expected=f"SHA-256 {str(digest)[:12]}…",
            todo="fetch all files of the run again; or remove its .json and fine-tune again",
        )
    found = load_training_codes(
        run.stem,
        network=model.weights_digest,
        code_dim=model.code_dim,
        n_classes=len(model.classes),
    )
    units = unit_codes([found.codes[:, None]])
    labels = tuple(model.classes[i] for i in found.labels.tolist())
    return Neighbours(units, found.paths, labels, limit=_limit(units, share), share=share)


def _in_cache(run: Run, model: HeadModel, share: float) -> Neighbours:
    """Take the codes that a head was trained on."""
    codes = model.cached()
    rows = _training_rows(run, codes)
    if not len(rows):
        raise CacheError(f"{codes.path} has no training images of {run.name}.")
    damaged = np.intersect1d(rows, codes.damaged_rows())
    if len(damaged):
        raise CacheError(f"{codes.path}: codes of {len(damaged)} training images are damaged.")
    n_views = int(codes.config["n_views"])
    parts = []
    for start in range(0, len(rows), 4096):  # the file may be larger than memory
        some = rows[start : start + 4096]
        blocks = [np.asarray(codes[layer][some]) for layer in codes.layers]
        parts.append(unit_codes([block.reshape(len(some), n_views, -1) for block in blocks]))
    units = np.concatenate(parts)
    return Neighbours(
        units,
        tuple(codes.paths[i] for i in rows.tolist()),
        tuple(codes.class_names[i] for i in codes.labels[rows].tolist()),
        limit=_limit(units, share),
        share=share,
        remark=_remark(run, codes, rows),
    )


def _training_rows(run: Run, codes: Codes) -> NDArray[np.int64]:
    """Find the rows the run was trained on, one for each image's bytes.

    A run on a random split of its own has other test images than the data set: those it wrote
    predictions for. A leaked image is in train too, and so stays.
    """
    training = codes.split != "test"
    try:
        tested = set(read_predictions(run.file(".predictions.csv")).paths)
    except ResultError:  # the two model files alone: the split is the data set's
        tested = set()
    if (run.record or {}).get("cv"):  # tested out of fold: the model was trained on all images
        training, tested = np.ones(len(codes), np.bool_), set()
    if tested:
        training = np.array([path not in tested for path in codes.paths])
    if "val" in (run.splits or ()):  # it chose the settings, and trained nothing
        training &= codes.split != "val"
    rows = np.flatnonzero(training)
    rows = rows[np.argsort(codes.split[rows] == "test", kind="stable")]  # paths in train first
    _, first = np.unique(codes.sha256[rows], return_index=True)
    return np.sort(rows[first])


def _remark(run: Run, codes: Codes, rows: NDArray[np.int64]) -> str:
    """Say so where the cache no longer holds the images that the run was trained on."""
    count = (run.splits or {}).get("train")
    if count is None:
        return ""
    have = int(np.isin(codes.sha256, codes.sha256[rows]).sum())
    if len(rows) <= count <= have:
        return ""
    return (
        f"The cache has codes of {len(rows)} different training images, the run was trained on "
        f"{count}: images have come or gone since."
    )


def _limit(units: NDArray[np.float32], share: float) -> float:
    """Measure the distance to the nearest other one that `share` of the images keep."""
    if len(units) < 2:
        return 2.0
    rows = np.arange(len(units))
    if len(rows) > _SAMPLE:
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:_SAMPLE])
    distances = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        likeness = units[some] @ units.T
        likeness[np.arange(len(some)), some] = -np.inf
        other = likeness.argmax(axis=1)
        distances[start : start + _BLOCK] = np.linalg.norm(units[some] - units[other], axis=1)
    return float(np.quantile(distances, share))
