"""Which rows train, which choose the epoch, which are looked at once at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest, cut_val
from ..errors import DataError
from ..settings import DataSettings, FinetuneSettings

__all__ = ["Rows", "part_of", "rows_of"]

TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of the manifest by use; readable images only.

    Attributes
    ----------
    train, val, test : int64 (n,)
        Test without leaked images, unless they are to be kept.
    val_from : str
        ``data``, or ``cut`` where it was cut from train.
    warnings : tuple of str
        For the result.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    val_from: str
    warnings: tuple[str, ...]

    def counts(self, manifest: Manifest) -> dict[str, dict[str, int]]:
        """Images by use and class."""
        return {
            name: dict(
                zip(
                    manifest.class_names,
                    np.bincount(manifest.labels[rows], minlength=manifest.n_classes).tolist(),
                    strict=True,
                )
            )
            for name, rows in (("train", self.train), ("val", self.val), ("test", self.test))
        }


def rows_of(
    manifest: Manifest, rejects: Iterable[str], data: DataSettings, settings: FinetuneSettings
) -> Rows:
    """Divide the readable images; a set without a val gets one cut from train, by seed.

    Parameters
    ----------
    manifest : Manifest
        All images.
    rejects : iterable of str
        Digests of images that cannot be read.

    Raises
    ------
    DataError
        A class is too small to be in train and val, or a split is empty.
    """
    good = np.flatnonzero(~np.isin(manifest.sha256, np.array(list(rejects), "S64")))
    split = manifest.split.copy()
    val_from = "data" if np.any(split[good] == VAL) else "cut"
    if val_from == "cut":
        split[good] = cut_val(
            manifest.labels[good],
            split[good],
            manifest.keys[good],
            data.seed,
            fraction=settings.val_fraction,
            strata=None if manifest.strata is None else manifest.strata[good],
            class_names=manifest.class_names,
        )
    train, val, test = (good[split[good] == one] for one in (TRAIN, VAL, TEST))
    have = np.bincount(manifest.labels[train], minlength=manifest.n_classes)
    lost = [name for name, n in zip(manifest.class_names, have.tolist(), strict=True) if not n]
    if lost or not len(val) or not len(test):
        what = f"no training image of {', '.join(lost)}" if lost else "an empty val or test"
        raise DataError(
            f"After unreadable images were left out there is {what}.",
            expected="images of every class in train, and some in val and test",
            todo="make audit names the images that cannot be read",
        )
    warnings = []
    leaks = np.isin(manifest.groups[test], manifest.groups[np.concatenate([train, val])])
    if leaks.any():
        kept = data.leaks == "keep"
        first = ", ".join(manifest.paths[i] for i in test[leaks][:5].tolist())
        warnings.append(
            f"{leaks.sum()} test images share bytes or group with training images (leaks) and are "
            f"{'kept in' if kept else 'left out of'} the test figure: "
            f"{first}{', ...' if leaks.sum() > 5 else ''}."
        )
        test = test if kept else test[~leaks]
    return Rows(train, val, test, val_from, tuple(warnings))


def part_of(manifest: Manifest, rows: NDArray[np.int64]) -> Manifest:
    """Give the manifest of some rows only."""
    return manifest.take(rows)
