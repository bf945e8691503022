"""From held-out scores to a model's output: temperature, prior correction, thresholds, sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..notation import number
from .calibrate import Calibration, calibrate, calibrate_balanced, uncalibrated
from .decide import Rule, choose_offsets, conformal
from .output import Output


class _Wanted(Protocol):
    @property
    def threshold(self) -> str: ...

    @property
    def set(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Ruled:
    """An output, what calibration was worth, and what its user should know."""

    output: Output
    calibration: Calibration
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """What calibrated it."""
        return "temperature" + (" and prior correction" if self.output.shift is not None else "")


def output_of(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer[Any]],
    parts: NDArray[np.integer[Any]],
    settings: _Wanted,
    *,
    rule: Rule | None = None,
    costs: NDArray[np.float64] | None = None,
    balanced: bool = False,
    optional: bool = False,
    given: Output | None = None,
) -> Ruled:
    """Set everything that stands between scores and predictions.

    Parameters
    ----------
    scores : float64 (N, K)
        Of images that the scorer was not trained on.
    labels : integer (N,)
    parts : integer (N,)
        The fold of each image.
    settings
        ``threshold`` and ``set``.
    rule, costs
        THRESHOLD and COST, as they were read.
    balanced : bool
        The scorer was trained with all classes weighing alike. That is for the decisions:
        probabilities are corrected to the data's shares of the classes, decisions are not.
    optional : bool
        As :func:`cnn_codes.heads.calibrate.calibrate`.
    given : Output, optional
        Of a head whose temperature is in the scores already: it and its shift are kept.
    """
    shift, notes = None, []
    if given is not None:
        calibration, shift = uncalibrated(scores, labels), given.shift
    elif balanced:
        calibration, shift = calibrate_balanced(scores, labels, parts)
    else:
        calibration = calibrate(scores, labels, parts, optional=optional)
    logits = calibration.scale * scores + (0.0 if shift is None else shift)
    p = softmax(logits, axis=1)
    offsets = None if shift is None else -shift
    decision: dict[str, Any] = {}
    if rule is not None:
        offsets, reached = choose_offsets(rule, p, labels, costs)
        decision = {"rule": settings.threshold, "out_of_fold": reached}
        if rule.kind != "cost" and reached[rule.kind] < rule.value:
            notes.append(
                f"THRESHOLD={settings.threshold} was not reached out of fold: "
                f"{rule.kind} {number(reached[rule.kind])}."
            )
    sets: dict[str, Any] = conformal(p, labels, settings.set) if settings.set else {}
    output = Output(calibration.scale, shift, offsets, decision, sets)
    return Ruled(output, calibration, tuple(notes))
