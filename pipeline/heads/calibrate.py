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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ..results.metrics import measure

__all__ = ["Calibration", "calibrate", "fit_scale", "log_losses"]

LOG_SCALE_BOUNDS = (-12.0, 12.0)
PARTS = 5


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


def log_losses(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Negative log-likelihood (nats) of each of `labels` (N,) under softmax of `scores` (N, K)."""
    log_probability: NDArray[np.float64] = log_softmax(scores, axis=1)  # (N, K)
    losses: NDArray[np.float64] = -log_probability[np.arange(len(labels)), labels]
    return losses


def fit_scale(
    scores: NDArray[np.float64], labels: NDArray[np.integer], *, smoothing: float | None = None
) -> float:
    """Find the scale by which softmax of the scores is most likely to have made the labels.

    Parameters
    ----------
    scores : float64 (N, K)
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
    true = scores[np.arange(n_images), labels]  # (N,)
    # The smoothed target's expectation of the scores is all that the loss needs of the labels.
    target = ((1.0 - share) * true + share * scores.mean(axis=1)).mean()
    top = scores.max(axis=1, keepdims=True)
    below, top_mean = scores - top, float(top.mean())  # (N, K) at most 0

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return float(np.log(np.exp(scale * below).sum(axis=1)).mean() + scale * (top_mean - target))

    # The scores' own size sets where to look: a nearest-mean score is thousands, a margin about 1.
    spread = float(np.std(scores - scores.mean(axis=1, keepdims=True)))
    if not spread > 0.0:
        return 1.0
    low, high = (bound - np.log(spread) for bound in LOG_SCALE_BOUNDS)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), options={"xatol": 1e-9}).x))


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
    scaled = scores.copy()  # (N, K)
    for part in np.unique(parts):
        held = parts == part
        if not held.all():
            scaled[held] *= fit_scale(scores[~held], labels[~held])
    before, after = _figures(scores, labels), _figures(scaled, labels)
    if optional and after["log_loss"] >= before["log_loss"]:
        return Calibration(1.0, before, before)
    return Calibration(fit_scale(scores, labels), before, after)


def _figures(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> dict[str, float]:
    found = measure(labels, softmax(scores, axis=1))
    return {key: found[key] for key in ("log_loss", "brier", "ece")}
