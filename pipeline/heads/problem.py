"""What a setting is chosen for: examples, folds, and what decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .examples import Codes
from .folds import Fold


@dataclass(frozen=True, eq=False)
class Problem:
    """What to choose a setting for.

    Attributes
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    codes : float32 or float16 (N, V, D)
    labels : int32 (N,)
    held_codes, held_labels : (M, V, D), (M,)
        Where held-out rows come from: the same arrays for a cross-validation.
    folds : list of (rows of codes, rows of held_codes)
    n_classes : int
    balanced : bool
        Weigh each example by N / (K * images of its class).
    views : str
        ``"mean"``: one example per image; ``"all"``: one per view.
    metric, costs, by_cost
        What decides; see :func:`cnn_codes.heads.merit.contributions`.
    """

    method: str
    codes: Codes
    labels: NDArray[np.int32]
    held_codes: Codes
    held_labels: NDArray[np.int32]
    folds: list[Fold]
    n_classes: int
    balanced: bool = False
    views: str = "mean"
    metric: str = "accuracy"
    costs: NDArray[np.float64] | None = None
    by_cost: bool = False
