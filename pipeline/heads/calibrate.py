"""Scores to probabilities: one temperature, fitted to scores that the head never trained on.

Every head turns its scores into probabilities by ``softmax(temperature_scale * scores)``. The
scale is the one that maximises the likelihood of the out-of-fold scores of the chosen setting,
which the cross-validation leaves behind anyway: calibration costs no further fit. A scale keeps
the order of the classes, so the predicted class is the one the scores name; an offset a class
(Platt's sigmoid) would move the decision, and would undo balanced class weights.

Method: Guo et al. 2017 (arXiv 1706.04599), with the targets smoothed as by Platt 1999, so that
scores which separate all examples do not yield probabilities of exactly 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from ..results.calibration import expected_calibration_error
from ..results.metrics import brier, log_loss

LOG_SCALE_BOUNDS = (-12.0, 12.0)
PARTS = 5
BLOCK_CELLS = 2**20


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities, and what that was worth out of fold.

    Attributes
    ----------
    scale : float
        Positive; probabilities are ``softmax(scale * scores)``.
    before, after : dict of str to float
        ``log_loss`` (nats), ``brier`` and ``ece`` of the out-of-fold scores as they are, and
        with a scale fitted, each part of the examples by the scale of the other parts.
    """

    scale: float
    before: dict[str, float]
    after: dict[str, float]


def _row_blocks(scores: NDArray[np.floating[Any]]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of rows in float64, so that many classes take no more memory than they must."""
    step = max(1, BLOCK_CELLS // scores.shape[1])
    for start in range(0, len(scores), step):
        rows = slice(start, start + step)
        yield rows, scores[rows].astype(np.float64)


def log_losses(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer], *, scale: float = 1.0
) -> NDArray[np.float64]:
    """Negative log-likelihood (nats) of each of `labels` (N,) under softmax of scale * `scores`."""
    losses = np.empty(len(scores))
    for rows, block in _row_blocks(scores):
        block *= scale
        block -= block.max(axis=1, keepdims=True)
        true = block[np.arange(len(block)), labels[rows]]
        np.exp(block, out=block)
        losses[rows] = np.log(block.sum(axis=1)) - true
    return losses


def fit_scale(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.integer],
    *,
    smoothing: float | None = None,
) -> float:
    """Find the scale by which softmax of the scores is most likely to have made the labels.

    By Newton's method, safeguarded by bisection: the loss is convex in the scale.

    Parameters
    ----------
    scores : float (N, K)
        Scores of examples that the scorer was not trained on.
    labels : integer (N,)
        True classes, 0 to K - 1.
    smoothing : float, optional
        Share of each target spread evenly over the classes; by default ``1 / (N + 2)``.

    Returns
    -------
    float
        Positive and finite.
    """
    n_images = len(scores)
    share = 1.0 / (n_images + 2) if smoothing is None else smoothing
    # The smoothed target's expectation of the scores is all that the loss needs of the labels.
    lead, square = 0.0, 0.0  # sums of top - target, and of squared distances to the row's mean
    for rows, block in _row_blocks(scores):
        centre = block.mean(axis=1)
        true = block[np.arange(len(block)), labels[rows]]
        lead += float((block.max(axis=1) - (1.0 - share) * true - share * centre).sum())
        block -= centre[:, None]
        square += float(np.einsum("nk,nk->", block, block))
    spread = float(np.sqrt(square / scores.size))
    if not spread > 0.0:
        return 1.0

    def slopes(scale: float) -> tuple[float, float]:
        """First and second derivative of the mean loss in the scale."""
        first, second = lead, 0.0
        for _, block in _row_blocks(scores):
            block -= block.max(axis=1, keepdims=True)
            odds = np.exp(scale * block)
            odds /= odds.sum(axis=1, keepdims=True)
            odds *= block
            mean = odds.sum(axis=1)
            first += float(mean.sum())
            second += float(np.einsum("nk,nk->", odds, block) - mean @ mean)
        return first / n_images, second / n_images

    # The scores' own size sets where to look: a nearest-mean score is thousands, a margin about 1.
    low, high = (float(np.exp(bound)) / spread for bound in LOG_SCALE_BOUNDS)
    scale = float(1.0 / spread)
    for _ in range(100):
        first, second = slopes(scale)
        low, high = (low, scale) if first > 0 else (scale, high)
        # In the logarithm of the scale, where the loss is closer to a parabola.
        bend = scale * scale * second + scale * first
        move = -scale * first / bend if bend > 0 else np.inf
        new = scale * float(np.exp(np.clip(move, -2.0, 2.0)))
        if not low < new < high:
            new = float(np.sqrt(low * high))
        if abs(new - scale) <= 1e-10 * scale or high / low < 1 + 1e-10:
            return new
        scale = new
    return scale


def calibrate(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer],
    parts: NDArray[np.integer],
    *,
    optional: bool = False,
) -> Calibration:
    """Fit the scale, and measure it without the scale having seen what it is measured on.

    Parameters
    ----------
    scores : float64 (N, K)
        Out-of-fold scores.
    labels : integer (N,)
        True classes.
    parts : integer (N,)
        Which part (fold) each example belongs to; with a single one, five are cut by position.
    optional : bool
        For scores that are log-probabilities already: keep them as they are (a scale of 1)
        unless the scale lowers the log-loss measured this way.
    """
    if np.unique(parts).size < 2:
        parts = np.arange(len(labels)) % PARTS
    scales = np.ones(len(labels))
    for part in np.unique(parts):
        held = parts == part
        if not held.all():
            scales[held] = fit_scale(scores[~held], labels[~held])
    before = _figures(scores, labels, np.ones(len(labels)))
    after = _figures(scores, labels, scales)
    if optional and after["log_loss"] >= before["log_loss"]:
        return Calibration(1.0, before, before)
    return Calibration(fit_scale(scores, labels), before, after)


def fit_prior(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """Undo balanced training: the scale, and the shift towards the classes' shares in the data.

    Training with all classes weighing alike makes scores of a world where they are equally
    common. The probabilities of this one are ``softmax(scale * scores + strength * log(K *
    share))``: for exact scores the strength is 1 (Saerens, Latinne and Decaestecker 2002); it is
    fitted together with the scale, between 0 and 2, for scores that are only nearly
    log-probabilities.

    Returns
    -------
    scale : float
    shift : float64 (K,)
    """
    n_images, n_classes = scores.shape
    counts = np.bincount(labels, minlength=n_classes)
    prior = np.log((counts + 0.5) / (n_images + n_classes / 2) * n_classes)  # (K,)
    begin = fit_scale(scores, labels)
    smooth = 1.0 / (n_images + 2)

    def loss(x: NDArray[np.float64]) -> float:
        scale, total = float(np.exp(x[0])) * begin, 0.0
        for rows, block in _row_blocks(scores):
            block *= scale
            block += x[1] * prior
            block -= block.max(axis=1, keepdims=True)
            target = (1 - smooth) * block[np.arange(len(block)), labels[rows]]
            target += smooth * block.mean(axis=1)
            total += float((np.log(np.exp(block).sum(axis=1)) - target).sum())
        return float(total / n_images)

    bounds = [(-4.0, 4.0), (0.0, 2.0)]
    found = minimize(loss, np.array([0.0, 0.5]), method="L-BFGS-B", bounds=bounds)
    shift: NDArray[np.float64] = found.x[1] * prior
    return float(np.exp(found.x[0])) * begin, shift


def uncalibrated(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> Calibration:
    """Measure scores that are log-probabilities as they are, at a scale of 1."""
    figures = _figures(scores, labels, np.ones(len(labels)))
    return Calibration(1.0, figures, figures)


def calibrate_balanced(
    scores: NDArray[np.float64], labels: NDArray[np.integer], parts: NDArray[np.integer]
) -> tuple[Calibration, NDArray[np.float64]]:
    """:func:`calibrate` for scores of balanced training, with the shift of :func:`fit_prior`."""
    if np.unique(parts).size < 2:
        parts = np.arange(len(labels)) % PARTS
    shifted = scores.copy()
    for part in np.unique(parts):
        held = parts == part
        if not held.all():
            scale, shift = fit_prior(scores[~held], labels[~held])
            shifted[held] = scale * scores[held] + shift
    ones = np.ones(len(labels))
    before, after = _figures(scores, labels, ones), _figures(shifted, labels, ones)
    scale, shift = fit_prior(scores, labels)
    return Calibration(scale, before, after), shift


def _figures(
    scores: NDArray[np.float64], labels: NDArray[np.integer], scales: NDArray[np.float64]
) -> dict[str, float]:
    """Log-loss, Brier score and calibration error of softmax(scales * scores)."""
    p = softmax(scores * scales[:, None], axis=1)
    return {
        "log_loss": log_loss(labels, p),
        "brier": brier(labels, p),
        "ece": expected_calibration_error(labels, p),
    }
