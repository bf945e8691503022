"""The evidence of a report: result records and predictions, found, checked, and nothing else.

A record that is missing is None, and the report says which command makes it. What is there but
damaged, or does not belong to the comparison, is an error: a report must not rest on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..context import Context
from ..errors import ResultError
from ..files import sha256_file
from ..results.predictions import Predictions, read_predictions
from ..results.records import SCHEMA
from ..results.runs import read_record
from ..settings import CompareSettings

# Of records other than the comparison.
KINDS = ("layers", "map", "mislabelled", "curve", "advise", "explained")
_STAGES = {"mislabelled": "labels", "explained": "report"}  # that write a kind of another name
_NEEDED = {
    "compare": ("entries", "pairs", "sentences", "class_names", "n_test", "n_splits", "models"),
    "curve": ("methods", "crossings"),
    "layers": ("layers", "best"),
    "map": ("projections", "images", "class_names"),
    "mislabelled": ("images", "n_listed"),
    "advise": ("sentences",),
    "explained": ("images", "method", "run_fingerprint"),
}


@dataclass(frozen=True, eq=False)
class Run:
    """An entry of the comparison with the run behind it.

    Attributes
    ----------
    entry : mapping
        Its line of the comparison.
    record : mapping
        Of the run; of the first split's where there are several.
    predictions : Predictions
        What that run said of its test images.
    path : Path
        The record's file.
    """

    entry: Mapping[str, Any]
    record: Mapping[str, Any]
    predictions: Predictions
    path: Path


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a report is written from.

    Attributes
    ----------
    comparison : mapping
        The record of kind ``compare``.
    runs : tuple of Run
        One an entry of the comparison, in its order.
    found : mapping
        From kind (`KINDS`) to record, None where there is none.
    audit : mapping or None
        What ``make audit`` wrote.
    context : Context
        The images, for their pictures, and the settings, for the commands.
    """

    comparison: Mapping[str, Any]
    runs: tuple[Run, ...]
    found: Mapping[str, Mapping[str, Any] | None]
    audit: Mapping[str, Any] | None
    context: Context

    @property
    def best(self) -> Run:
        """The most accurate entry, as the comparison marked it."""
        return next(run for run in self.runs if run.entry["best"])


def gather(
    context: Context,
    name: str,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evidence:
    """Read what a report on a comparison needs.

    Parameters
    ----------
    context : Context
        The data set; its folder of results holds the records.
    name : str
        The comparison's.
    known : mapping, optional
        Records by kind that are known to be current; of the other kinds the newest fitting one is
        taken.

    Raises
    ------
    ResultError
        The comparison is missing or damaged, or a run of it is no longer the one compared.
    """
    folder = context.folder
    again = context.command_for("compare")
    comparison = read_comparison(folder / f"{name}.json", again)
    again = comparison_command(context, comparison)
    runs = tuple(_run(folder, entry, again) for entry in comparison["entries"])
    known = known or {}
    found = {
        kind: known[kind] if kind in known else find_record(context, kind, comparison)
        for kind in KINDS
    }
    return Evidence(comparison, runs, found, find_audit(folder), context)


def best_run(context: Context, name: str) -> Run:
    """Read the most accurate run of the comparison called `name`; errors as :func:`gather`."""
    again = context.command_for("compare")
    comparison = read_comparison(context.folder / f"{name}.json", again)
    entry = next(one for one in comparison["entries"] if one["best"])
    return _run(context.folder, entry, comparison_command(context, comparison))


def comparison_command(
    context: Context, comparison: Mapping[str, Any], methods: Sequence[str] = ()
) -> str:
    """Spell the command that makes a comparison again, with `methods` besides those it has."""
    used = comparison.get("provenance", {}).get("settings", {})
    more: dict[str, Any] = {}
    for one in fields(CompareSettings):
        value = used.get(one.name, one.default)
        value = tuple(value) if isinstance(value, list) else value
        if value != one.default and one.name != "jobs":
            more[one.name] = value
    if methods:
        has = used.get("methods") or [entry["method"] for entry in comparison["entries"]]
        more["methods"] = list(dict.fromkeys([*has, *methods]))
    return context.command_for("compare", more)


def read_comparison(path: Path, command: str) -> dict[str, Any]:
    """Read a comparison's record; `command` makes it.

    Raises
    ------
    ResultError
        It is missing, damaged, or of another schema.
    """
    record = _read(path)
    wrong = _wrong(record, "compare")
    if wrong or record is None:
        raise ResultError(
            f"{path} cannot be read as a comparison ({wrong}).",
            expected="the record that a comparison wrote",
            todo=command,
        )
    return record


def find_record(
    context: Context, kind: str, comparison: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Find the newest record of a kind that is of the comparison's data, seed and networks.

    Raises
    ------
    ResultError
        The newest one claims to be of the kind but lacks what belongs to it.
    """
    fitting = []
    for path in context.folder.glob(f"{kind}-*.json"):
        record = _read(path)
        if record is None or record.get("kind") != kind:
            continue
        model, networks = record.get("model"), comparison["models"]
        # Advice chooses among networks itself, so it may name one that was not compared.
        if kind != "advise" and model is not None and model not in networks:
            continue
        if record.get("seed", comparison["seed"]) != comparison["seed"]:
            continue
        about = comparison.get("subject")
        if record.get("subject", about) != about and about is not None:
            continue  # of other images, labels or classes
        date = str(record.get("provenance", {}).get("date", ""))
        fitting.append((model == networks[0], date, path.name, path, record))
    if not fitting:
        return None
    *_, path, record = max(fitting, key=lambda one: one[:3])
    if wrong := _wrong(record, kind):
        raise ResultError(
            f"{path} is not a record of this version ({wrong}).",
            expected="a record that this version wrote",
            todo=f"{context.command_for(_STAGES.get(kind, kind))} makes it again",
        )
    return record


def find_audit(folder: Path) -> dict[str, Any] | None:
    """Give what the audit wrote, None where it did not run."""
    found = _read(folder / "audit.json")
    return found if found and isinstance(found.get("findings"), list) else None


def _run(folder: Path, entry: Mapping[str, Any], again: str) -> Run:
    """Read the run behind an entry, and check that its predictions are those it wrote."""
    name = str(entry["runs"][0])
    places = [folder, *sorted(folder.glob(f"split1of{len(entry['runs'])}/{folder.name}"))]
    path = next((one / f"{name}.json" for one in places if (one / f"{name}.json").is_file()), None)
    if path is None:
        raise ResultError(f"The run {name} is missing from {folder}.", todo=again)
    record = read_record(path)
    table = path.with_name(f"{name}.predictions.csv")
    digest = record.get("files", {}).get(table.name)
    if len(entry["runs"]) == 1 and record["fingerprint"] != entry["fingerprint"]:
        raise ResultError(f"{path} is another run than the one compared.", todo=again)
    if not table.is_file() or sha256_file(table) != digest:
        raise ResultError(
            f"{table} is {'not the one the run wrote' if table.is_file() else 'missing'}.",
            expected="the predictions that the comparison rests on",
            todo=again,
        )
    return Run(entry, record, read_predictions(table), path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _wrong(record: Mapping[str, Any] | None, kind: str) -> str:
    """Say what is wrong with a record; nothing where nothing is."""
    if record is None:
        return "it is missing or no JSON object"
    if record.get("schema") != SCHEMA:
        return f"its schema is {record.get('schema')!r}"
    if record.get("kind") != kind:
        return f"its kind is {record.get('kind')!r}"
    lacking: Sequence[str] = [key for key in _NEEDED[kind] if key not in record]
    return f"it lacks {', '.join(lacking)}" if lacking else ""
