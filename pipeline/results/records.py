"""The form of a result record: what it must hold, and the check of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ResultError

SCHEMA = 1
KINDS = ("run", "summary")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int, "kind": str, "run": str, "data": str, "method": str, "model": str,
    "layers": list, "views": str, "size": int, "seed": int, "class_names": list,
    "splits": dict, "chosen": dict, "metrics": dict, "times_s": dict, "fingerprint": str,
    "versions": dict, "warnings": list,
}  # fmt: skip
_UNDEFINED = ("auroc", "average_precision")  # where one class alone occurs
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "brier", "ece")
MORE_FIGURES = ("average_precision", "cost")  # of records that have them


def check_record(record: Any, *, name: str) -> None:
    """Raise ResultError, calling the record `name`, unless it is one of this schema."""
    wrong = ""
    if not isinstance(record, Mapping):
        wrong = "it is no JSON object"
    elif record.get("schema") != SCHEMA:
        wrong = f"its schema is {record.get('schema')!r}"
    elif record.get("kind") not in KINDS:
        wrong = f"its kind is {record.get('kind')!r}"
    elif missing := [key for key in FIELDS if key not in record]:
        wrong = f"it lacks {', '.join(missing)}"
    elif off := [key for key, kind in FIELDS.items() if not isinstance(record[key], kind)]:
        wrong = f"it has another type at {', '.join(off)}"
    elif not record["metrics"]:
        wrong = "it has no metrics"
    else:
        wrong = _wrong_figures(record["metrics"])
    if wrong:
        raise ResultError(
            f"{name} is no result of this version: {wrong}.",
            expected=f"a record of schema {SCHEMA}",
            todo="run the method again, or move the file away",
        )


def _wrong_figures(metrics: Mapping[str, Any]) -> str:
    """Say what is wrong with the figures of the splits; nothing where nothing is."""
    for split, figures in metrics.items():
        known = figures if isinstance(figures, Mapping) else {}
        for key in (*FIGURES, *(key for key in MORE_FIGURES if key in known)):
            value = known.get(key, math.nan)
            if value is None and key in _UNDEFINED:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                return f"metrics/{split}/{key} is no finite number"
    return ""


def plain(value: Any) -> Any:
    """Give `value` with plain numbers, lists and dicts for JSON in place of numpy's and tuples."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
