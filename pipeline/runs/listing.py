"""Every run under the results folder, found and read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ..datasets.phrases import few
from ..errors import ResultError, setting
from ..files import sha256_file
from ..results.predictions import Predictions, read_predictions
from ..results.records import check_record
from ..results.runs import result_files
from .columns import Value, columns_of, conditions, ordered

_MOST_DAMAGED = 20


@dataclass(frozen=True, eq=False)
class Run:
    """One run: its record, and where that lies."""

    path: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record["run"])

    @cached_property
    def columns(self) -> dict[str, Value]:
        """See :func:`cnn_codes.runs.columns.columns_of`."""
        date = ""
        if "date" not in self.record.get("provenance", {}):  # a summary
            date = datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat(
                timespec="seconds"
            )
        return columns_of(self.record, date=date)

    def predictions(self) -> Predictions:
        """Read its predictions.

        Raises
        ------
        ResultError
            A summary, which has none, or a file that is missing or not the one the run wrote.
        """
        if self.record["kind"] == "summary":
            raise ResultError(
                f"{self.name} sums up {len(self.record['runs'])} runs and has no predictions.",
                expected="one of them",
                todo=setting("RUN", self.record["runs"][0]),
            )
        path = self.path.with_name(f"{self.name}.predictions.csv")
        digest = self.record.get("files", {}).get(path.name)
        if digest is not None and path.is_file() and sha256_file(path) != digest:
            raise ResultError(
                f"{path} is not the one that {self.path.name} was written with.",
                expected=f"SHA-256 {digest[:12]}…",
                todo="run the method again",
            )
        return read_predictions(path)


@dataclass(frozen=True, eq=False)
class Listing:
    """What was found.

    Attributes
    ----------
    runs : tuple of Run
        Those that fulfil the conditions, in the order asked for.
    n_found : int
        Runs there are, whether they fulfil them or not.
    damaged : tuple of str
        What could not be read, in a sentence each.
    """

    runs: tuple[Run, ...]
    n_found: int
    damaged: tuple[str, ...]

    def told(self) -> list[str]:
        """Say what is damaged; many are counted."""
        lines = [f"damaged: {text}" for text in self.damaged[:_MOST_DAMAGED]]
        more = len(self.damaged) - len(lines)
        return [*lines, *([f"damaged: and {more} more"] if more else [])]


def list_runs(results: Path, *, data: str = "", where: str = "", sort: str = "-date") -> Listing:
    """Find the runs under a results folder; damaged records are named and passed over.

    Parameters
    ----------
    results : Path
        The results folder, with all below it.
    data : str
        Only runs of this data set: its name, or a path that ends in it.
    where : str
        Conditions, see :func:`cnn_codes.runs.columns.conditions`.
    sort : str
        Columns, see :func:`cnn_codes.runs.columns.ordered`.

    Raises
    ------
    SettingsError
        A condition or a column that makes no sense; before anything is read.
    """
    tests = conditions(where)
    ordered([], sort, look=lambda run: ({}, {}))
    wanted = Path(data).name if os.sep in data else data
    runs, damaged, n_found = [], [], 0
    for path in result_files(results, "*.json"):
        if path.name.endswith(".model.json"):
            continue
        try:
            record = _read(path)
        except ResultError as error:
            damaged.append(error.found)
            continue
        if record is None:
            continue
        n_found += 1
        run = Run(path, record)
        if wanted and record["data"] != wanted:
            continue
        if all(test(record, run.columns) for test in tests):
            runs.append(run)
    in_order = ordered(runs, sort, look=lambda run: (run.record, run.columns))
    return Listing(tuple(in_order), n_found, tuple(damaged))


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record once; None for JSON that is none: models, audits, comparisons, maps."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(
            f"{path} cannot be read ({error}).",
            todo="run the method again, or move the file away",
        ) from error
    if not isinstance(found, dict) or not {"schema", "metrics"} <= found.keys():
        return None
    check_record(found, name=str(path))
    return found


def find(name: str, listing: Listing) -> Run:
    """Find a run by the path of its record, its name, or so much of it as only one begins with.

    Parameters
    ----------
    name : str
        ``results/hotdog/<run>.json``, ``<run>``, ``hotdog/<run>`` or the beginning of these.
    listing : Listing
        Of all runs.

    Raises
    ------
    ResultError
        No such run, or several.
    """
    path = Path(name)
    if path.is_file():
        return _at(path)
    wanted = name.removesuffix(".json")
    names = {id(run): (run.name, f"{run.record['data']}/{run.name}") for run in listing.runs}
    for fits in (lambda one: one == wanted, lambda one: one.startswith(wanted)):
        found = [run for run in listing.runs if any(map(fits, names[id(run)]))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ResultError(
                f"{len(found)} runs are called {name}, or begin so: "
                f"{few([str(run.path) for run in found])}.",
                expected="a name that only one has, or the path of its .json",
                todo=setting("RUN", str(found[0].path)),
            )
    raise ResultError(
        f"There is no run called {name}.",
        expected="a name, the beginning of one, or the path of a run's .json",
        todo="make runs lists them",
    )


def _at(path: Path) -> Run:
    record = _read(path)
    if record is None:
        raise ResultError(f"{path} is no record of a run.", expected="<run>.json")
    return Run(path, record)
