"""Results: one JSON record a run, the predictions it rests on, and tables of them.

The end of the flow: heads and fine-tuning hand their predictions here; reports, comparisons and
lists of runs read from here. ``<run>.json`` takes its name last, so that its
presence means that the predictions and the model with it are complete and belong to it; it holds
their digests. Imports neither scikit-learn nor torch, for listing runs must take no time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..errors import ResultError
from ..files import explained, make_folder, sha256_file, sync_folder
from .frame import provenance, read_framed, write_framed
from .predictions import Predictions, read_predictions, write_predictions
from .provenance import machine, versions
from .records import FIGURES, MORE_FIGURES, SCHEMA, check_record, plain
from .tables import table

__all__ = [
    "SCHEMA",
    "Predictions",
    "build_record",
    "check_record",
    "known_run",
    "list_records",
    "machine",
    "name_for",
    "named",
    "read_predictions",
    "read_record",
    "result_files",
    "run_name",
    "settle",
    "subject_of",
    "summarise",
    "table",
    "versions",
    "write_predictions",
    "write_run",
]


def run_name(
    *,
    method: str,
    model: str,
    layers: Sequence[str],
    views: str,
    size: int,
    seed: int,
    extra: str = "",
) -> str:
    """Name a run by what was asked for, fit to be a file's name.

    `extra` tells apart runs that differ otherwise: a split's number, a digest of the settings.
    """
    parts = [method, model, "+".join(layers), views, str(size), f"seed{seed}", extra]
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "_", part) for part in parts if part)


def subject_of(
    class_names: Sequence[str], sha256: NDArray[np.bytes_], *columns: NDArray[Any]
) -> str:
    """Digest of what a run is about: its classes, its images, their labels and their split.

    Parameters
    ----------
    class_names : sequence of str
        In the order of the labels.
    sha256 : array of shape (N,), S64
        Digests of the images' bytes.
    columns : arrays of shape (N,)
        Labels and split.

    Returns
    -------
    str
        16 hexadecimal digits; the order of the images is immaterial.
    """
    order = np.lexsort((*columns, sha256))
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for column in (sha256, *columns):
        digest.update(np.ascontiguousarray(column[order]).tobytes())
    return digest.hexdigest()[:16]


def name_for(folder: Path, name: str, *, subject: str, fingerprint: str) -> str:
    """Give the name under which a run can be written without replacing one of other data.

    Parameters
    ----------
    folder : Path
        Where it is to be written.
    name : str
        From :func:`run_name`: what it is called if no other run has that name.
    subject : str
        From :func:`subject_of`.
    fingerprint : str
        Of the run. A record of an earlier version, which holds no subject, is of the same data
        only if its fingerprint is the same.

    Returns
    -------
    str
        `name`; if a run of other images, labels or classes has it, followed by the first digits
        of the subject.
    """
    names = (name, f"{name}-{subject[:6]}", f"{name}-{subject}")
    found = [_about(folder, one, subject, fingerprint) for one in names]
    for state in ("same", "free"):
        if state in found:
            return names[found.index(state)]
    return names[-1]


def named(context: Context, usual: str, *, fingerprint: str = "") -> tuple[str, str]:
    """Give the name of a record that replaces none of other data, and what it is about.

    For what is made of all images of a context: comparisons, curves, advice, evidence.

    Parameters
    ----------
    context : Context
        The images, and the folder of their results.
    usual : str
        What it is called if no record of other data has that name.
    fingerprint : str
        Of the record, see :func:`name_for`.

    Returns
    -------
    name : str
    subject : str
        Goes into the record as ``subject``.
    """
    of = context.manifest
    subject = subject_of(of.class_names, of.sha256, of.labels, of.split)
    return name_for(context.folder, usual, subject=subject, fingerprint=fingerprint), subject


def _about(folder: Path, name: str, subject: str, fingerprint: str) -> str:
    """Tell whether a name is ``free``, or taken by a run of the ``same`` or of ``other`` data.

    A run that was interrupted takes the name too; a damaged record does not.
    """
    states = set()
    for path in (folder / f"{name}.json", folder / f"{name}.interrupted.json"):
        with suppress(OSError):
            settle(path)
        try:
            record = read_framed(path)
        except ResultError:
            continue
        if record.get("schema") != SCHEMA:
            continue  # as damaged: it is made again
        own = record.get("subject")
        same = record.get("fingerprint") == fingerprint if own is None else own == subject
        states.add("same" if same else "other")
    return next((state for state in ("other", "same") if state in states), "free")


def build_record(
    *,
    run: str,
    data: str,
    method: str,
    model: str,
    layers: Sequence[str],
    views: str,
    size: int,
    seed: int,
    class_names: Sequence[str],
    splits: Mapping[str, Any],
    chosen: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    times_s: Mapping[str, float],
    fingerprint: str,
    warnings: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the record of one run: what was done, what came out, and where it came from.

    Parameters
    ----------
    run, data, method, model, layers, views, size, seed
        What was run; `size` in pixels.
    class_names : sequence of str
        In the order of the labels.
    splits : mapping
        Split name to images per class: ``{"train": {"ants": 124, ...}, ...}``.
    chosen : mapping
        What was selected, how, and on which split.
    metrics : mapping
        Split name to what :func:`cnn_codes.results.metrics.measure` gives.
    times_s : mapping
        Seconds: ``codes``, ``fit``, ``predict``, ``total``.
    fingerprint : str
        Digest of everything that changes a number of this run.
    settings, command, extra
        All settings as plain values; the command that repeats the run; further fields.

    Returns
    -------
    dict
        Plain values that JSON can hold; numpy's numbers and arrays are turned into them.
    """
    record = {
        "schema": SCHEMA,
        "kind": "run",
        "run": run,
        "data": data,
        "method": method,
        "model": model,
        "layers": list(layers),
        "views": views,
        "size": int(size),
        "seed": int(seed),
        "class_names": list(class_names),
        "splits": splits,
        "chosen": chosen,
        "metrics": metrics,
        "times_s": times_s,
        "fingerprint": fingerprint,
        "versions": versions(),
        "warnings": list(warnings),
        **(extra or {}),
        "provenance": provenance(settings or {}, command),
    }
    whole: dict[str, Any] = plain(record)
    check_record(whole, name=f"The record of {run}")
    return whole


def write_run(
    folder: Path,
    record: Mapping[str, Any],
    predictions: Predictions,
    *,
    save_model: Callable[[Path], Iterable[Path]] | None = None,
) -> Path:
    """Write the model, the predictions and the record of a run, and put them in place together.

    All files are made in a folder of their own first, the record last; then they take their names.
    Until then the earlier result of that name stays as it was, and a swap that is cut short is
    completed by the next reader (:func:`settle`).

    Parameters
    ----------
    folder : Path
        ``$(RESULTS)/<data>``; made where missing.
    record : mapping
        From :func:`build_record`; its ``run`` names the files. Filled in here: ``files``, and
        where there are groups ``test_groups``, the group of each row of the predictions.
    predictions : Predictions
        Of the test split.
    save_model : callable, optional
        Called with the files' common stem; writes the model and returns the paths of its files.

    Returns
    -------
    Path
        The record, ``folder/<run>.json``.
    """
    path = _with_suffix(folder / str(record["run"]), ".json")
    settle(path)
    staged = _staged(path)
    stem = staged / str(record["run"])
    with explained(path):
        shutil.rmtree(staged, ignore_errors=True)
        make_folder(staged)
        try:
            model_files = list(save_model(stem)) if save_model else []
            table_path = _with_suffix(stem, ".predictions.csv")
            write_predictions(table_path, predictions)
            files = {file.name: sha256_file(file) for file in [*model_files, table_path]}
            whole = {**record, "files": files}
            if predictions.groups is not None:
                whole["test_groups"] = predictions.groups.tolist()
            check_record(whole, name=str(path))
            write_framed(staged / path.name, whole)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        settle(path)
    return path


def settle(path: Path) -> None:
    """Complete the swap of a run's files where one was cut short; mostly, nothing is to be done.

    Parameters
    ----------
    path : Path
        The record of the run.
    """
    staged = _staged(path)
    if not staged.is_dir() or not (staged / path.name).is_file():
        return  # none, or not finished: what is in place counts
    for file in sorted(staged.iterdir(), key=lambda file: file.name == path.name):  # record last
        file.replace(path.parent / file.name)
    sync_folder(path.parent)
    staged.rmdir()


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.stem}.new")


def _with_suffix(stem: Path, suffix: str) -> Path:
    """Append: `with_suffix` would cut a dot in a network's name."""
    return stem.with_name(stem.name + suffix)


def read_record(path: Path, *, verify: bool = False) -> dict[str, Any]:
    """Read one record.

    Parameters
    ----------
    path : Path
        ``<run>.json``.
    verify : bool
        Re-hash the files that belong to it.

    Raises
    ------
    ResultError
        It is missing, damaged or of another schema, or a file of it is not the one it was
        written with.
    """
    with suppress(OSError):  # a folder that cannot be written is read as it is
        settle(path)
    record = read_framed(path)
    check_record(record, name=str(path))
    for name, digest in record.get("files", {}).items() if verify else ():
        file = path.parent / Path(name).name
        if not file.is_file() or sha256_file(file) != digest:
            raise ResultError(
                f"{file} is {'not the one the run wrote' if file.is_file() else 'missing'}.",
                expected=f"the file that {path.name} was written with (SHA-256 {digest[:12]}…)",
                todo="run the method again",
            )
    return record


def known_run(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Give the run at `path` if it is intact with all its files, and current; else None.

    Marked ``reused``. What is missing, damaged or of another version is made again.
    """
    try:
        record = read_record(path, verify=True)
    except ResultError:
        return None
    return record | {"reused": True} if record["fingerprint"] == fingerprint else None


def result_files(folder: Path, pattern: str) -> list[Path]:
    """List the files under `folder` that fit, by path; not what a run has not put in place yet."""
    return sorted(
        path
        for path in folder.rglob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def list_records(
    folder: Path, *, on_error: Callable[[ResultError], None] | None = None
) -> list[dict[str, Any]]:
    """Read all records under `folder`, by path; none where there is no such folder.

    Model descriptions and other JSON files without ``schema`` and ``metrics`` are passed over.
    What claims to be a record and cannot be read raises, or, with `on_error`, is reported there
    and left out.
    """
    records = []
    for path in result_files(folder, "*.json"):
        if path.name.endswith(".model.json"):
            continue
        try:
            records.append(read_record(path))
        except ResultError as error:
            if _is_foreign(path):
                continue
            if on_error is None:
                raise
            on_error(error)
    return records


def _is_foreign(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(found, dict) and {"schema", "metrics"} <= found.keys())


def summarise(
    records: Sequence[Mapping[str, Any]], *, run: str, split: str = "test"
) -> dict[str, Any]:
    """Sum up one method over random splits or seeds: mean, spread, and every single value.

    Parameters
    ----------
    records : sequence of mapping
        Runs of one method, network, layers and views on one data set; at least one.
    run : str
        The summary's own name.
    split : str
        Whose metrics.

    Returns
    -------
    dict
        A record of kind ``summary``. ``metrics[split][figure]`` is the mean, so that a table
        can show it with single runs; ``spread[split][figure]`` has mean, sd (of a sample;
        None for a single run), min, max and ``values`` in the order of ``runs``. The interval
        is left out: runs on overlapping images are not independent.
    """
    if not records:
        raise ResultError("There are no runs to sum up.", expected="at least one record")
    first = records[0]
    same = ("data", "method", "model", "layers", "views", "size", "class_names")
    for record in records:
        if off := [key for key in same if record[key] != first[key]]:
            raise ResultError(
                f"{record['run']} differs from {first['run']} in {', '.join(off)}.",
                expected="runs that differ in seed or split only",
            )
    spread: dict[str, Any] = {}
    more = [key for key in MORE_FIGURES if all(key in one["metrics"][split] for one in records)]
    for key in (*FIGURES, *more):
        values = [record["metrics"][split][key] for record in records]
        known = [value for value in values if value is not None]
        spread[key] = {**_spread(known), "values": values}
    times = {
        key: statistics.fmean(record["times_s"][key] for record in records)
        for key in first["times_s"]
        if all(isinstance(record["times_s"].get(key), int | float) for record in records)
    }
    summary = {
        **{key: first[key] for key in ("schema", *same, "seed", "splits", "versions")},
        "kind": "summary",
        "run": run,
        "runs": [record["run"] for record in records],
        "seeds": [record["seed"] for record in records],
        "chosen": {"each": [record["chosen"] for record in records]},
        "metrics": {split: {key: spread[key]["mean"] for key in spread}},
        "spread": {split: spread},
        "times_s": times,
        "fingerprint": first["fingerprint"],
        "fingerprints": [record["fingerprint"] for record in records],
        "warnings": sorted({str(text) for record in records for text in record["warnings"]}),
    }
    whole: dict[str, Any] = plain(summary)
    check_record(whole, name=f"The summary {run}")
    return whole


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"mean": None, "sd": None, "min": None, "max": None}
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }
