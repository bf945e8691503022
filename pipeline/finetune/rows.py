"""Which rows train, which choose the epoch, which are looked at once at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..datasets import SPLITS, Manifest, cut_val
from ..datasets.remaining import check_test
from ..errors import DataError
from ..settings import FinetuneSettings

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

    @property
    def to_train(self) -> NDArray[np.int64]:
        """Rows (n,) that the network may be trained on: train, and val where it is refitted."""
        return np.sort(np.concatenate([self.train, self.val]))

    @property
    def used(self) -> NDArray[np.int64]:
        """All rows (n,) in use."""
        return np.sort(np.concatenate([self.train, self.val, self.test]))

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
    context: Context,
    rejects: Iterable[str],
    settings: FinetuneSettings,
    split: NDArray[np.int8] | None = None,
) -> Rows:
    """Divide the readable images; a set without a val of its own gets one cut from train, by seed.

    Parameters
    ----------
    context : Context
        The images, the seed, and whether leaks are kept.
    rejects : iterable of str
        Digests of images that cannot be read.
    split : int8 (N,) or None
        Index into ``SPLITS`` of each image, -1 for one that is not used; None: as the manifest
        has it.

    Raises
    ------
    DataError
        A class is too small to be in train and val, or a split is empty.
    """
    manifest = context.manifest
    own_val = split is None and manifest.val_from == "data"
    split = (manifest.split if split is None else split).copy()
    readable = ~np.isin(manifest.sha256, np.array(list(rejects), "S64"))
    good = np.flatnonzero(readable & (split >= 0))
    warnings = []
    if own_val:
        copies = (split == VAL) & np.isin(manifest.groups, manifest.groups[split == TRAIN])
        if copies.any():
            split[copies] = -1
            good = np.flatnonzero(readable & (split >= 0))
            warnings.append(
                f"{copies.sum()} val images have copies or images of their group in train and "
                "choose nothing: they were left out of val."
            )
    if not np.any(split[good] == VAL):
        own_val = False
        split[good] = cut_val(
            manifest.labels[good],
            split[good],
            manifest.keys[good],
            context.seed,
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
    leaks = np.isin(manifest.groups[test], manifest.groups[np.concatenate([train, val])])
    if leaks.any():
        kept = context.data.leaks == "keep"
        first = ", ".join(manifest.paths[i] for i in test[leaks][:5].tolist())
        warnings.append(
            f"{leaks.sum()} test images share bytes or group with training images (leaks) and are "
            f"{'kept in' if kept else 'left out of'} the test figure: "
            f"{first}{', ...' if leaks.sum() > 5 else ''}."
        )
        test = test if kept else test[~leaks]
        check_test(test, command=context.command)
    return Rows(train, val, test, "data" if own_val else "cut", tuple(warnings))
