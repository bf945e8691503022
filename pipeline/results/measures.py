"""The figures that methods can be compared by: names, direction, and how values are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..notation import interval, number, percent, share, signed, signed_points

ALPHA = 0.05  # level of every test of a difference, held by Holm's procedure


@dataclass(frozen=True)
class Measure:
    """One figure of a record.

    Attributes
    ----------
    key : str
        Its name in records, which is that of ``METRIC``; ``cost`` with ``COST``.
    word : str
        Its name in a sentence.
    title, hint : str
        Of its column in a table.
    lower : bool
        Lower values are better.
    percent : bool
        A share that is written in percent, differences in points.
    bound : float
        Largest difference of two values.
    """

    key: str
    word: str
    title: str
    hint: str = ""
    lower: bool = False
    percent: bool = False
    bound: float = 1.0

    @property
    def heading(self) -> str:
        """Its name at the beginning of a sentence or as a heading."""
        return self.word[0].upper() + self.word[1:]

    @property
    def sign(self) -> int:
        """1 where higher values are better, else -1."""
        return -1 if self.lower else 1

    @property
    def extreme(self) -> str:
        """``highest`` or ``lowest``: the best value."""
        return "lowest" if self.lower else "highest"

    def cell(self, value: float | None) -> str:
        """Write a value as its column has it."""
        return percent(value) if self.percent else number(value)

    def text(self, value: float) -> str:
        """Write a value as a sentence has it: ``83.7 %``, ``0.842``."""
        return share(value) if self.percent else number(value)

    def gap(self, value: float) -> str:
        """Write the size of a difference: ``2.1 points``, ``0.021``."""
        return f"{percent(value)} points" if self.percent else number(value)

    def interval(self, low: float, high: float) -> str:
        """Write an interval of values or of differences, without the unit."""
        return interval(low, high) if self.percent else interval(low / 100, high / 100, 3)

    def signed(self, value: float) -> str:
        """Write a difference with its sign, without the unit."""
        return signed_points(value) if self.percent else signed(value, 3)

    def signed_interval(self, low: float, high: float) -> str:
        """Write an interval of differences with signs, without the unit."""
        return f"{self.signed(low)} to {self.signed(high)}"


MEASURES = {
    one.key: one
    for one in (
        Measure("accuracy", "accuracy", "Accuracy, %", percent=True),
        Measure(
            "balanced_accuracy", "balanced accuracy", "Balanced accuracy, %",
            "mean of the classes' recall", percent=True,
        ),
        Measure("macro_f1", "macro-F1", "Macro-F1", "mean of the classes' F1"),
        Measure("auroc", "AUROC", "AUROC", "area under the ROC curve; 0.5 is chance"),
        Measure(
            "average_precision", "average precision", "Average precision",
            "area under the precision-recall curve; the share of the class is chance",
        ),
        Measure(
            "log_loss", "log-loss", "Log-loss",
            "of the calibrated probabilities, in nats; lower is better",
            lower=True, bound=float("inf"),
        ),
        Measure(
            "cost", "mean cost", "Mean cost", "per image, by COST; lower is better",
            lower=True, bound=float("inf"),
        ),
    )
}  # fmt: skip


_OTHERS = ("accuracy", "macro_f1", "auroc", "log_loss")


def other_measures(metric: str) -> tuple[Measure, ...]:
    """Give the figures that a difference is looked for in besides the one that is compared."""
    return tuple(MEASURES[key] for key in _OTHERS if key != metric)


def measure_named(metric: str, cost: str = "") -> Measure:
    """Give the figure that METRIC and COST ask for; COST decides where it is given."""
    return MEASURES["cost" if cost else metric]


def measure_of(record: Mapping[str, Any]) -> Measure:
    """Give the figure that a comparison or a curve was made by; the accuracy of older ones."""
    return MEASURES[record.get("metric", "accuracy")]
