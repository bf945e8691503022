"""Predictions as rows of CSV, or as JSON, one object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cells import csv_bytes
from .classifier import Outcome


@dataclass(frozen=True)
class Table:
    r"""What is written of each image.

    In CSV, names that a spreadsheet would take for formulas are marked, as :mod:`..cells` has it:
    a path with ``./`` in front, which is the same file, a class name with ``'``. JSON has them as
    they are.

    Attributes
    ----------
    classes : tuple of str
        K class names.
    format : str
        ``csv`` or ``jsonl``.
    top : int
        List so many of the most probable classes, with their probabilities.
    abstain : float
        Name no class where the highest probability is below this.
    limit : float or None
        Flag images farther than this from every training image; None: no distances.
    n_nearest : int
        List so many of the nearest training images.
    sets : bool
        List the classes of the prediction set, in CSV joined by ``|`` (``\\|`` in a name).
    """

    classes: tuple[str, ...]
    format: str = "csv"
    top: int = 0
    abstain: float = 0.0
    limit: float | None = None
    n_nearest: int = 0
    sets: bool = False

    def header(self) -> bytes:
        """Give the first line, empty for JSON Lines."""
        return self._csv_line(self._columns()) if self.format == "csv" else b""

    def line(self, row: dict[str, Any]) -> bytes:
        """Spell what :meth:`row` gave as one line, UTF-8, its end included.

        In CSV, file names that are not UTF-8 keep their bytes; in JSON they are escaped.
        """
        if self.format == "csv":
            return self._csv_line(self._cells(row))
        try:
            return json.dumps(row, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:
            return json.dumps(row).encode() + b"\n"

    def row(self, outcome: Outcome) -> dict[str, Any]:
        """Give what is known of one image as plain values.

        ``status`` is ``ok``, ``abstain`` (``predicted`` is None, since the highest probability
        is below the threshold) or ``error`` (it cannot be used); ``reason`` says why.
        """
        row: dict[str, Any] = {"path": outcome.name, "predicted": None, "status": "error"}
        row["reason"] = outcome.error
        probabilities = outcome.probabilities
        if probabilities is None:
            return row
        best = outcome.best
        highest = float(probabilities[best])
        if highest < self.abstain:
            row |= {"status": "abstain", "reason": f"{highest:.4f} is below {self.abstain:g}"}
        else:
            row |= {"predicted": self.classes[best], "status": "ok"}
        if self.limit is not None and outcome.nearest:
            distance = outcome.nearest[0].distance
            row |= {"distance": distance, "unlike": distance > self.limit}
        if self.sets and outcome.inside is not None:
            row["set"] = [self.classes[k] for k in outcome.inside]
        row["probabilities"] = dict(zip(self.classes, probabilities.tolist(), strict=True))
        if self.top:
            order = np.argsort(-probabilities, kind="stable")[: self.top].tolist()
            row["top"] = [
                {"class": self.classes[k], "probability": float(probabilities[k])} for k in order
            ]
        if self.n_nearest:
            row["nearest"] = [
                {"path": one.path, "class": one.label, "distance": one.distance}
                for one in outcome.nearest[: self.n_nearest]
            ]
        return row

    def _columns(self) -> list[str]:
        names = ["path", "predicted", "status", "reason"]
        if self.sets:
            names += ["set"]
        if self.limit is not None:
            names += ["distance", "unlike"]
        for k in range(1, min(self.top, len(self.classes)) + 1):
            names += [f"top{k}", f"top{k}_probability"]
        for k in range(1, self.n_nearest + 1):
            names += [f"nearest{k}", f"nearest{k}_class", f"nearest{k}_distance"]
        return names + [f"class {one}" if one in names else one for one in self.classes]

    def _cells(self, row: dict[str, Any]) -> list[str]:
        cells = [row["path"], row["predicted"] or "", row["status"], row["reason"]]
        if self.sets:
            cells.append("|".join(one.replace("|", "\\|") for one in row.get("set", [])))
        if self.limit is not None:
            flag = row.get("unlike")
            cells += [_cell(row.get("distance")), "" if flag is None else str(int(flag))]
        for kind, keys, count in (
            ("top", ("class", "probability"), min(self.top, len(self.classes))),
            ("nearest", ("path", "class", "distance"), self.n_nearest),
        ):
            listed = row.get(kind, [])
            for one in [*listed, *[{}] * (count - len(listed))]:
                cells += [_cell(one.get(k)) for k in keys]
        probabilities = row.get("probabilities", {})
        return cells + [_cell(probabilities.get(name)) for name in self.classes]

    def _csv_line(self, cells: list[str]) -> bytes:
        named = {"path", *(f"nearest{k + 1}" for k in range(self.n_nearest))}
        columns = self._columns()[: len(cells) - len(self.classes)]
        paths = {at for at, name in enumerate(columns) if name in named}
        return csv_bytes([cells], paths=paths)


def _cell(value: Any) -> str:
    """Spell a value; a number with as many digits as bring it back."""
    return "" if value is None else value if isinstance(value, str) else repr(value)
