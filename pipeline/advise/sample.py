"""The training images that advice rests on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..heads.folds import Fold


@dataclass(frozen=True, eq=False)
class Sample:
    """The training images that advice rests on: all, or a stratified sample of many.

    Attributes
    ----------
    rows : int64 (N,)
        Rows of the codes, the same for every network.
    labels : int32 (N,)
    groups : int64 (N,)
        Equal for copies.
    n_folds, seed : int
        Of the cross-validation.
    n_train : int
        Training images in all.
    images_a_class : float
        Mean of the classes, of all.
    names : tuple of str
        K class names.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    n_folds: int
    seed: int
    n_train: int
    images_a_class: float
    names: tuple[str, ...]

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.names)

    @cached_property
    def folds(self) -> list[Fold]:
        """Rows of `rows` to train on, and held out; cut, and scikit-learn imported, when asked."""
        from ..heads.folds import cut_folds

        folds, _ = cut_folds(
            self.labels, self.groups, folds=self.n_folds, seed=self.seed, class_names=self.names
        )
        return folds
