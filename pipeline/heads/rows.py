"""The rows that a head is fitted on: what the manifest says of each row of a file of codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest, resplit
from ..errors import DataError

if TYPE_CHECKING:
    from ..codes.reader import Codes

__all__ = ["TEST", "TRAIN", "VAL", "Rows", "redrawn", "rows_of"]

TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of each row of a file of codes, N rows.

    Attributes
    ----------
    at : int64 (N,)
        Rows of the manifest.
    paths : tuple of str
        Relative to the data root.
    sha256 : S64 (N,)
        Digests of the images' bytes.
    labels : int32 (N,)
        Indices into the class names.
    groups : int64 (N,)
        Equal for images of one group: of equal bytes, or of one thing.
    keys : S64 (N,)
        Keys of the groups, which random splits are cut by.
    split : int8 (N,)
        Index into ``SPLITS``.
    strata : int32 (N,) or None
        What random splits are stratified by besides the class.
    weight : float64 (N,) or None
        Of each image in weighted metrics, where the data set brings it.
    """

    at: NDArray[np.int64]
    paths: tuple[str, ...]
    sha256: NDArray[np.bytes_]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    keys: NDArray[np.bytes_]
    split: NDArray[np.int8]
    strata: NDArray[np.int32] | None
    weight: NDArray[np.float64] | None

    def leaks(self) -> NDArray[np.bool_]:
        """Test rows (N,) whose group is in train or val too."""
        test = self.split == TEST
        leaks: NDArray[np.bool_] = test & np.isin(self.groups, self.groups[~test])
        return leaks

    def split_of(
        self, train: NDArray[np.int64], test: NDArray[np.int64], n_images: int
    ) -> NDArray[np.int8]:
        """Split all images (n_images,): these rows train, those are tested on, -1 all others."""
        split = np.full(n_images, -1, np.int8)
        split[self.at[train]], split[self.at[test]] = TRAIN, TEST
        return split


def rows_of(manifest: Manifest, codes: Codes) -> Rows:
    """Take the rows of the manifest that have codes, in the order of the codes.

    Raises
    ------
    DataError
        After bad images were left out, a class has none, or there is no test image.
    """
    kept = np.flatnonzero(~np.isin(manifest.sha256, np.array(list(codes.rejects), "S64")))
    weight = manifest.extra.get("weight")
    rows = Rows(
        at=kept,
        paths=codes.paths,
        sha256=codes.sha256,
        labels=manifest.labels[kept],
        groups=manifest.groups[kept],
        keys=manifest.keys[kept],
        split=manifest.split[kept],
        strata=None if manifest.strata is None else manifest.strata[kept],
        weight=None if weight is None else np.asarray(weight[kept], np.float64),
    )
    for split, name in ((TRAIN, "train"), (TEST, "test")):
        have = np.unique(rows.labels[rows.split == split])
        lost = [manifest.class_names[k] for k in range(manifest.n_classes) if k not in have]
        if not len(have) or (lost and name == "train"):
            raise DataError(
                f"No readable image is left in {name} of {', '.join(lost)}.",
                expected="at least one image of every class that can be read",
                todo="make audit names the images that cannot be read",
            )
    return rows


def redrawn(rows: Rows, manifest: Manifest, seed: int) -> Rows:
    """Split all images again into train and test, as many to test as the set itself has.

    Split r (from 0) of several has the seed of the data plus r, with every method.
    """
    fraction = float(np.mean(rows.split == TEST))
    split = resplit(
        rows.labels,
        rows.keys,
        fraction,
        seed,
        strata=rows.strata,
        class_names=manifest.class_names,
    )
    return replace(rows, split=split)
