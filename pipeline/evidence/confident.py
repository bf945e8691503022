"""Confident learning: which labels a classifier that never saw them contradicts with confidence.

The method of Northcutt, Jiang and Chuang 2021 (Journal of AI Research 70, arXiv 1911.00068), as
the package cleanlab has it, in the few lines of numpy that it takes: the package would bring
pandas with it. A test holds every function here to cleanlab's where that is installed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def class_thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Mean probability that the images labelled as a class have of it, (K,).

    Parameters
    ----------
    probabilities : float64 (N, K)
        Of images that the classifier was not trained on; rows sum to 1.
    labels : integer (N,)
        As given, right or wrong.

    Returns
    -------
    float64 (K,)
        In [0, 1]; above 1, which nothing reaches, for a class without images. A class that the
        classifier is unsure of gets a low threshold, so rare classes are judged as others are.
    """
    n_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=own, minlength=n_classes)
    thresholds: NDArray[np.float64] = np.where(counts, sums / np.maximum(counts, 1), 2.0)
    return thresholds


def confident_classes(
    probabilities: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Most probable class among those that reach their threshold, (N,); -1 where none does.

    Where it is not the label, the image is off the diagonal of the confident joint: a suspect.
    """
    # Rounding in the mean must not put a class whose images are all alike below its own threshold.
    reached = np.where(probabilities >= thresholds - 1e-9, probabilities, -1.0)
    best: NDArray[np.int64] = np.where(reached.max(axis=1) < 0, -1, reached.argmax(axis=1))
    return best


def other_class(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Most probable class besides the label, (N,)."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1.0
    best: NDArray[np.int64] = others.argmax(axis=1)
    return best


def label_margin(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Quality of each label by its normalised margin, (N,) in [0, 1]; the lowest is the worst.

    ``(p(label) - p(most probable other class) + 1) / 2``.
    """
    rows = np.arange(len(labels))
    margin = probabilities[rows, labels] - probabilities[rows, other_class(probabilities, labels)]
    quality: NDArray[np.float64] = (margin + 1.0) / 2.0
    return quality
