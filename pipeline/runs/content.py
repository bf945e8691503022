"""What a run has to say to another tool, and the import of tools that need not be installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from .columns import flattened
from .listing import Run

_EPOCH_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_DRAWN = ("phase", "epoch")  # of a row of the curve: where it stands, not what it says
_OWN_TIMES = ("fit", "predict")  # the codes may have been there for days
_LONG = ("curve", "trials", "each")


@dataclass(frozen=True)
class Exported:
    """What an export did: runs written, runs that were there, and how to look at them."""

    n_written: int
    n_there: int
    look: str


@dataclass(frozen=True, eq=False)
class Content:
    """What of a run both tools take.

    Attributes
    ----------
    parameters : dict of str to str, int, float or bool
        Settings (``chosen.*`` for what was chosen).
    figures : dict of str to float
        ``test/accuracy``, ``val/...``, ``time/fit_s``, ...
    curve : list of (step, dict of str to float)
        By epoch, over all phases; empty for what is not trained by epochs.
    files : dict of str to str
        Suffix of a file of the run (``.json``, ``.predictions.csv``, ...) to its URI.
    digests : dict of str to str
        Suffix to SHA-256.
    time_s : float
        When its record was written, seconds since 1970.
    took_s : float
        Seconds of fit and prediction.
    """

    parameters: dict[str, str | int | float | bool]
    figures: dict[str, float]
    curve: list[tuple[int, dict[str, float]]]
    files: dict[str, str]
    digests: dict[str, str]
    time_s: float
    took_s: float


def needs(module: str, package: str, tool: str) -> Any:
    """Import a module of an optional package.

    Raises
    ------
    SettingsError
        It is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"EXPORT={tool} needs {package}, which is not installed here ({error}).",
            expected="the optional packages of 'track'",
            todo=".venv/bin/pip install -e '.[track]'",
        ) from error


def content_of(run: Run) -> Content:
    """Gather what both tools take of a run."""
    record = run.record
    provenance = record.get("provenance", {})
    identity = {key: run.columns[key] for key in ("run", "kind", "data", "method", "model")}
    identity |= {key: run.columns[key] for key in ("layers", "views", "size", "seed")}
    chosen = {k: v for k, v in record["chosen"].items() if k not in _LONG}
    parameters = flattened(provenance.get("settings", {})) | flattened(chosen, "chosen.")
    parameters |= identity
    files = {f"{run.name}.json": "", **record.get("files", {})}
    return Content(
        parameters={
            key: value
            for key, value in parameters.items()
            if isinstance(value, str | int | float | bool)
        },
        figures=dict(_figures(record)),
        curve=[
            (step, {key: value for key, value in _numbers(row) if key not in _NOT_DRAWN})
            for step, row in enumerate(record.get("curve", ()))
        ],
        files={
            name.removeprefix(run.name): run.path.with_name(Path(name).name).resolve().as_uri()
            for name in files
        },
        digests={name.removeprefix(run.name): digest for name, digest in files.items() if digest},
        time_s=_seconds(str(run.columns["date"])),
        took_s=sum(value for key, value in _numbers(record["times_s"]) if key in _OWN_TIMES),
    )


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for split, figures in record["metrics"].items():
        for key, value in _numbers(figures):
            yield f"{split}/{key}", value
        for key, value in zip(("low", "high"), figures.get("accuracy_ci95") or (), strict=False):
            yield f"{split}/accuracy_{key}", float(value)
    for split, spread in record.get("spread", {}).items():
        for key, one in spread.items():
            if one["sd"] is not None:
                yield f"{split}/{key}_sd", float(one["sd"])
    for key, value in _numbers(record["times_s"]):
        yield f"time/{key}_s", value
    for key in ("n_parameters", "code_dim", "peak_memory_bytes"):
        if isinstance(record.get(key), int | float):
            yield f"cost/{key}", float(record[key])


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def _seconds(date: str) -> float:
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        return 0.0
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH_OF_TIME).total_seconds()
