"""Runs as they are kept: one JSON record a run, with the predictions and the model it rests on.

The end of the flow: heads and fine-tuning hand their predictions here; reports, comparisons and
lists of runs read from here. ``<run>.json`` takes its name last, so that its
presence means that the predictions and the model with it are complete and belong to it; it holds
their digests. Imports neither scikit-learn nor torch, for listing runs must take no time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ResultError
from ..files import explained, make_folder, sha256_file, sync_folder
from .frame import provenance, read_framed, write_framed
from .predictions import Predictions, write_predictions
from .provenance import versions
from .records import SCHEMA, check_record, plain


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
