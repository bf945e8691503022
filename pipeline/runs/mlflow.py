"""Runs written into an MLflow store: one experiment a data set, one MLflow run a run.

The store is an SQLite file in the folder: MLflow's own store of files is no longer maintained.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import explained
from .content import Content, Exported, content_of, needs
from .listing import Run

_BATCH = 500  # MLflow takes 1,000 metrics and 100 parameters or tags at once
_FEW = 100
_LONGEST = 5000  # characters of a tag or parameter; MLflow takes 6,000 and more


def write_mlflow(runs: Sequence[Run], out: Path) -> Exported:
    """Add the runs to ``<out>/mlflow.db``; those that are there with their fingerprint stay.

    Raises
    ------
    SettingsError
        MLflow, or the database packages it needs for a store on disk, are not installed.
    CacheError, NoSpaceError
        The folder cannot be written.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing here calls home
    tracking = needs("mlflow.tracking", "mlflow or mlflow-skinny", "mlflow")
    for module in ("sqlalchemy", "alembic"):
        needs(module, module, "mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # that it made the tables
    logging.getLogger("alembic").setLevel(logging.WARNING)
    folder = out.resolve()
    with explained(folder / "mlflow.db"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mlflow.db").touch()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = tracking.MlflowClient(tracking_uri=uri)
    experiments = {
        data: _experiment(client, data, folder)
        for data in dict.fromkeys(str(run.record["data"]) for run in runs)
    }
    n_written = 0
    for run in runs:
        experiment = experiments[str(run.record["data"])]
        if not _is_there(client, experiment, run):
            _write(client, experiment, run)
            n_written += 1
    return Exported(n_written, len(runs) - n_written, f"mlflow ui --backend-store-uri {uri}")


def _experiment(client: Any, data: str, folder: Path) -> str:
    found = client.get_experiment_by_name(data)
    if found is None:
        place = (folder / "artifacts").as_uri()
        return str(client.create_experiment(data, artifact_location=place))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _is_there(client: Any, experiment: str, run: Run) -> bool:
    """Whether a complete copy is there; one that was cut off is removed."""
    asked = (
        f"tags.`cnn_codes.fingerprint` = '{run.record['fingerprint']}' "
        f"AND attributes.run_name = '{run.name}'"
    )
    found = client.search_runs([experiment], filter_string=asked)
    for one in found:
        if one.info.status != "FINISHED":
            client.delete_run(one.info.run_id)
    return any(one.info.status == "FINISHED" for one in found)


def _write(client: Any, experiment: str, run: Run) -> None:
    entities = needs("mlflow.entities", "mlflow or mlflow-skinny", "mlflow")
    content = content_of(run)
    ended = int(1000 * content.time_s)  # ms
    began = ended - int(1000 * content.took_s)
    made = client.create_run(experiment, start_time=began, run_name=run.name).info.run_id
    parameters = [
        entities.Param(_key(key), str(value)[:_LONGEST])
        for key, value in content.parameters.items()
    ]
    metrics = [
        entities.Metric(_key(key), value, ended, 0) for key, value in content.figures.items()
    ]
    metrics += [
        entities.Metric(f"epoch/{_key(key)}", value, ended, step)
        for step, row in content.curve
        for key, value in row.items()
    ]
    tags = [entities.RunTag(key, text[:_LONGEST]) for key, text in _tags(run, content).items()]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(made, metrics=metrics[start : start + _BATCH])
    for start in range(0, max(len(parameters), len(tags)), _FEW):
        some = slice(start, start + _FEW)
        client.log_batch(made, params=parameters[some], tags=tags[some])
    client.set_terminated(made, status="FINISHED", end_time=ended)


def _tags(run: Run, content: Content) -> dict[str, str]:
    record = run.record
    tags = {
        "cnn_codes.fingerprint": str(record["fingerprint"]),
        "cnn_codes.command": str(record.get("provenance", {}).get("command", "")),
        "mlflow.note.content": "\n".join(f"- {text}" for text in record["warnings"]),
    }
    for suffix, uri in content.files.items():
        tags[_key(f"artifact{suffix}")] = uri
    for suffix, digest in content.digests.items():
        tags[_key(f"sha256{suffix}")] = digest
    return {key: text for key, text in tags.items() if text}


def _key(name: str) -> str:
    """Keep what MLflow allows in a key."""
    return "".join(one if one.isalnum() or one in "_-. /" else "_" for one in name)
