"""All figures of one split, as they are stored: with sample weights and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import measure


def figures_of(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    predicted: NDArray[np.integer],
    costs: NDArray[np.float64] | None = None,
    weight: NDArray[np.float64] | None = None,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predictions.

    Parameters
    ----------
    labels, probabilities, predicted, costs
        As :func:`.metrics.measure`.
    weight : float (N,), optional
        Of the images; adds ``weighted_accuracy``.
    groups : (N,), optional
        The group of each image, where the data set has groups: ``accuracy_ci95`` is then over
        groups (:func:`.bootstrap.accuracy_interval`), and ``n_groups`` says how many.
    seed : int
        Of the bootstrap over groups.

    Returns
    -------
    dict
        As :func:`.metrics.measure`.
    """
    found = measure(labels, probabilities, predicted=predicted, costs=costs)
    if groups is not None:
        from .bootstrap import accuracy_interval  # with SciPy, which takes a fifth of a second

        ends = accuracy_interval(
            predicted == labels, groups=groups, n_classes=probabilities.shape[1], seed=seed
        )
        found |= {"accuracy_ci95": list(ends), "n_groups": len(np.unique(groups))}
    if weight is not None:
        weighted = measure(labels, probabilities, sample_weight=weight, predicted=predicted)
        found["weighted_accuracy"] = weighted["accuracy"]
    return found
