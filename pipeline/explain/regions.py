"""Contributions of positions to a score, from the maps of a network's layers, by numpy alone.

A code is a weighted sum of the activations over the positions of a map, ``code_d = sum over p of
s_d(p) a_d(p)``: with mean pooling ``s`` is one over the number of positions, with max pooling it
picks the largest activation, with grid pooling it averages the positions of a cell. A score that
is linear in the codes is then a sum over positions too, ``score = bias + sum over p of
(sum over d of w_d s_d(p) a_d(p))``: the class activation map of Zhou et al. 2016
(arXiv 1512.04150). For a score that is not linear, the gradient at the codes takes the place of w
(gradient x activation, Shrikumar et al. 2017, arXiv 1704.02685).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.pooling import bins_of
from ..heads import Head
from ..heads.model import AFFINE_METHODS
from ..heads.scoring import kernel_weights


def layer_contributions(
    maps: NDArray[Any], gradient: NDArray[np.float64], pool: str
) -> NDArray[np.float64]:
    """Give each position's contribution to some scores.

    Parameters
    ----------
    maps : array (C, h, w)
        Activations of one layer, of one view.
    gradient : float64 (Q, D)
        Derivative of Q scores with respect to the pooled codes of the layer; D is C, or
        C * K * K with grid pooling.
    pool : str
        ``mean``, ``max`` or ``grid:K``.

    Returns
    -------
    float64 (Q, h, w)
        Sums, over the positions, to ``gradient @ codes``.
    """
    a = maps.astype(np.float64)
    n_channels, height, width = a.shape
    if pool == "mean":
        mean: NDArray[np.float64] = np.einsum("qc,chw->qhw", gradient, a) / (height * width)
        return mean
    if pool == "max":
        flat = a.reshape(n_channels, -1)
        at = flat.argmax(axis=1)  # (C,)
        found = np.zeros((len(gradient), flat.shape[1]))
        parts = gradient * flat[np.arange(n_channels), at]  # (Q, C)
        for position in np.unique(at):
            found[:, position] = parts[:, at == position].sum(axis=1)
        return found.reshape(-1, height, width)
    k = int(pool.partition(":")[2])
    cells = gradient.reshape(len(gradient), n_channels, k, k)
    grid: NDArray[np.float64] = np.einsum(
        "qcij,chw,ih,jw->qhw", cells, a, bins_of(height, k), bins_of(width, k)
    )
    return grid


def combined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add maps (Q, h, w) of several layers on the finest of their grids; the sums are kept."""
    height = max(part.shape[1] for part in parts)
    width = max(part.shape[2] for part in parts)
    total = np.zeros((parts[0].shape[0], height, width))
    for part in parts:
        total += np.einsum(
            "yh,qhw,xw->qyx", spread(part.shape[1], height), part, spread(part.shape[2], width)
        )
    return total


def spread(n: int, fine: int) -> NDArray[np.float64]:
    """Share of each of `n` cells that falls into each of `fine` cells, (fine, n); columns sum 1."""
    edges, finer = np.arange(n + 1) / n, np.arange(fine + 1) / fine
    low = np.maximum(edges[None, :-1], finer[:-1, None])
    high = np.minimum(edges[None, 1:], finer[1:, None])
    shares: NDArray[np.float64] = np.clip(high - low, 0, None) * n
    return shares


def upright(found: NDArray[np.float64], kind: str, view: int) -> NDArray[np.float64]:
    """Turn a map (Q, h, w) of one view back to how the image stands."""
    if kind == "flip":
        return found[:, :, ::-1] if view else found
    if kind == "dihedral":
        if view >= 4:
            found = found[:, :, ::-1]
        return np.rot90(found, -(view % 4), axes=(1, 2))
    return found


def score_gradient(head: Head, codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the derivative of each class's score with respect to the raw codes.

    Parameters
    ----------
    head : Head
        Of any method. A nearest-neighbour vote is a step, so there the derivative is of minus
        half the mean squared distance to the k nearest examples of each class.
    codes : float64 (D,)
        Of one image.

    Returns
    -------
    float64 (K, D)
    """
    if head.method in AFFINE_METHODS:
        return head.affine()[0]
    z = (codes - head.mean) / head.scale
    rows = _rbf_gradient(head, z) if head.method == "rbf" else _knn_gradient(head, z)
    return rows / head.scale


def _rbf_gradient(head: Head, z: NDArray[np.float64]) -> NDArray[np.float64]:
    support = head.arrays["support"].astype(np.float64)  # (M, D)
    weight, _ = kernel_weights(*(head.arrays[k] for k in ("dual", "intercept", "n_support")))
    gamma = float(head.parameters["gamma"])
    away = z - support
    kernel = np.exp(-gamma * (away**2).sum(axis=1))  # (M,)
    slopes: NDArray[np.float64] = weight.T @ (-2 * gamma * kernel[:, None] * away)  # (K, D)
    return slopes


def _knn_gradient(head: Head, z: NDArray[np.float64]) -> NDArray[np.float64]:
    examples = head.arrays["examples"].astype(np.float64)
    labels, k = head.arrays["example_labels"], int(head.parameters["k"])
    length = 1.0
    if head.parameters["metric"] == "cosine":
        norms = np.linalg.norm(examples, axis=1, keepdims=True)
        examples = examples / np.where(norms > 0, norms, 1.0)
        length = float(np.linalg.norm(z)) or 1.0
        z = z / length
    distances = ((z - examples) ** 2).sum(axis=1)
    found = np.zeros((head.n_classes, len(z)))
    for label in range(head.n_classes):
        own = np.flatnonzero(labels == label)
        near = own[np.argsort(distances[own], kind="stable")[:k]]
        if len(near):
            found[label] = examples[near].mean(axis=0) - z
    if head.parameters["metric"] == "cosine":  # the codes are brought to length 1 first
        found -= (found @ z)[:, None] * z
        found /= length
    return found
