"""From scores to what a model says: calibrated probabilities, a class, a prediction set.

The last step of every model, head or fine-tuned network; numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HeadError
from .decide import decide, prediction_sets


@dataclass(frozen=True, eq=False)
class Output:
    """What is done with scores; everything in it was set on held-out scores.

    Attributes
    ----------
    temperature_scale : float
        Probabilities are ``softmax(temperature_scale * scores + shift)``.
    shift : float64 (K,) or None
        Correction from the classes' weights in training to their shares in the data; None: 0.
    offsets : float64 (K,) or None
        The predicted class is the one of the largest ``log(probability) + offset``; None: 0.
    decision : mapping
        How the offsets were chosen, and what they reached out of fold; empty: they were not.
    sets : mapping
        Thresholds of prediction sets (:func:`cnn_codes.heads.decide.conformal`); empty: none.
    """

    temperature_scale: float = 1.0
    shift: NDArray[np.float64] | None = None
    offsets: NDArray[np.float64] | None = None
    decision: Mapping[str, Any] = field(default_factory=dict)
    sets: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (N, K) of scores (N, K); rows sum to 1."""
        logits = self.temperature_scale * scores
        if self.shift is not None:
            logits += self.shift
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        found: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return found

    def decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Class of each row of probabilities (N, K): the most probable, unless offsets are set."""
        return decide(probabilities, self.offsets)

    def inside(
        self, probabilities: NDArray[np.float64], *, conditional: bool = False
    ) -> NDArray[np.bool_]:
        """Classes in the prediction set of each row of probabilities, (N, K).

        Parameters
        ----------
        probabilities : float64 (N, K)
        conditional : bool
            Hold the level for each true class by itself, not only over all images.

        Raises
        ------
        HeadError
            The model was trained without prediction sets.
        """
        if not self.sets:
            raise HeadError(
                "This model has no prediction sets.",
                expected="a model that was trained with SET",
                todo="train it again with SET=0.9",
            )
        return prediction_sets(probabilities, self.sets, conditional=conditional)

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values for JSON."""
        return {
            "temperature_scale": self.temperature_scale,
            "shift": None if self.shift is None else self.shift.tolist(),
            "offsets": None if self.offsets is None else self.offsets.tolist(),
            "decision": dict(self.decision),
            "sets": dict(self.sets),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], n_classes: int) -> Output:
        """Read what :meth:`as_dict` gave; all but the temperature may be missing.

        Raises
        ------
        ValueError
            A value that prediction cannot use: the text says which.
        """
        temperature = found["temperature_scale"]
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(f"its temperature_scale is {temperature!r}")
        return cls(
            float(temperature),
            _vector(found, "shift", n_classes),
            _vector(found, "offsets", n_classes),
            dict(found.get("decision") or {}),
            _sets(found.get("sets") or {}, n_classes),
        )


def _vector(found: Mapping[str, Any], name: str, n_classes: int) -> NDArray[np.float64] | None:
    """One finite number per class, or None; files of before have none."""
    values = found.get(name)
    if values is None:
        return None
    if not _numbers(values, n_classes):
        raise ValueError(f"its {name} is {str(values)[:60]!r}")
    return np.array(values, dtype=np.float64)


def _numbers(found: Any, count: int) -> bool:
    return (
        isinstance(found, list)
        and len(found) == count
        and all(type(one) in (int, float) and math.isfinite(one) for one in found)
    )


def _sets(found: Any, n_classes: int) -> dict[str, Any]:
    """Thresholds of prediction sets, checked; empty: none."""
    if not isinstance(found, dict) or (
        found
        and not (
            _numbers([found.get("level"), found.get("threshold")], 2)
            and _numbers(found.get("class_thresholds"), n_classes)
        )
    ):
        raise ValueError(f"its sets are {str(found)[:60]!r}")
    return dict(found)
