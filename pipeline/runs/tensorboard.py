"""Runs written for TensorBoard: one event file per run, with scalars, parameters and a text.

Written record by record with the package's own messages into one file that appears complete;
neither TensorFlow nor PyTorch is imported.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomic
from .content import Content, Exported, content_of, needs
from .listing import Run

_SUFFIX = ".cnn-codes"
_WHERE = "tensorboard"


def write_tensorboard(runs: Sequence[Run], out: Path) -> Exported:
    """Write each run to ``<out>/<data>/<run>/``, in place of what an earlier export left there.

    Raises
    ------
    SettingsError
        TensorBoard is not installed.
    CacheError, NoSpaceError
        The folder cannot be written.
    """
    records = needs("tensorboard.summary.writer.record_writer", "tensorboard", _WHERE)
    events = needs("tensorboard.compat.proto.event_pb2", "tensorboard", _WHERE)
    for run in runs:
        content = content_of(run)
        stream = io.BytesIO()
        writer = records.RecordWriter(stream)
        when = content.time_s
        writer.write(events.Event(wall_time=when, file_version="brain.Event:2").SerializeToString())
        for step, summary in _summaries(run, content):
            event = events.Event(wall_time=when, step=step, summary=summary)
            writer.write(event.SerializeToString())
        folder = out / str(run.record["data"]) / run.name
        path = folder / f"events.out.tfevents.{int(when):010d}{_SUFFIX}"
        write_atomic(path, stream.getvalue())
        for left in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
            if left != path:  # of an earlier date
                left.unlink()
    return Exported(len(runs), 0, f"tensorboard --logdir {out}")


def _summaries(run: Run, content: Content) -> list[tuple[int, Any]]:
    """Give every summary with its step."""
    proto = needs("tensorboard.compat.proto.summary_pb2", "tensorboard", _WHERE)

    def scalar(tag: str, value: float) -> Any:
        return proto.Summary(value=[proto.Summary.Value(tag=tag, simple_value=value)])

    found = [(0, one) for one in _parameters(proto, content)]
    found.append((0, _text(proto, "run", _described(run, content))))
    found += [(0, scalar(tag, value)) for tag, value in content.figures.items()]
    for step, row in content.curve:
        found += [(step, scalar(f"epoch/{key}", value)) for key, value in row.items()]
    return found


def _text(proto: Any, tag: str, text: str) -> Any:
    tensors = needs("tensorboard.compat.proto.tensor_pb2", "tensorboard", _WHERE)
    kind = proto.SummaryMetadata(
        plugin_data=proto.SummaryMetadata.PluginData(plugin_name="text"),
        data_class=proto.DATA_CLASS_TENSOR,
    )
    tensor = tensors.TensorProto(dtype="DT_STRING", string_val=[text.encode()])
    return proto.Summary(value=[proto.Summary.Value(tag=tag, metadata=kind, tensor=tensor)])


def _described(run: Run, content: Content) -> str:
    """Say in Markdown what the run was, and where its files lie."""
    record = run.record
    lines = [f"**{run.name}**", f"fingerprint `{record['fingerprint']}`"]
    command = record.get("provenance", {}).get("command")
    lines += [f"`{command}`"] if command else []
    lines += [f"warning: {text}" for text in record["warnings"]]
    for suffix, uri in content.files.items():
        digest = content.digests.get(suffix)
        lines.append(f"{uri}" + (f" (SHA-256 {digest})" if digest else ""))
    lines.append(f"```\n{json.dumps(content.parameters, indent=1, ensure_ascii=False)}\n```")
    return "\n\n".join(lines)


def _parameters(proto: Any, content: Content) -> list[Any]:
    """Give the three summaries of TensorBoard's table of parameters."""
    api = needs("tensorboard.plugins.hparams.api_pb2", "tensorboard", _WHERE)
    plugin = needs("tensorboard.plugins.hparams.plugin_data_pb2", "tensorboard", _WHERE)
    names = needs("tensorboard.plugins.hparams.metadata", "tensorboard", _WHERE)

    def summary(tag: str, **content: Any) -> Any:
        data = plugin.HParamsPluginData(version=names.PLUGIN_DATA_VERSION, **content)
        kind = proto.SummaryMetadata(
            plugin_data=proto.SummaryMetadata.PluginData(
                plugin_name=names.PLUGIN_NAME, content=data.SerializeToString()
            )
        )
        return proto.Summary(
            value=[proto.Summary.Value(tag=tag, metadata=kind, tensor=names.NULL_TENSOR)]
        )

    start = plugin.SessionStartInfo(start_time_secs=content.time_s - content.took_s)
    infos = []
    for name, value in content.parameters.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value, kind = value, api.DATA_TYPE_BOOL
        elif isinstance(value, str):
            start.hparams[name].string_value, kind = value, api.DATA_TYPE_STRING
        else:
            start.hparams[name].number_value, kind = value, api.DATA_TYPE_FLOAT64
        infos.append(api.HParamInfo(name=name, type=kind))
    metrics = [api.MetricInfo(name=api.MetricName(tag=tag)) for tag in content.figures]
    end = plugin.SessionEndInfo(status=api.STATUS_SUCCESS, end_time_secs=content.time_s)
    return [
        summary(
            names.EXPERIMENT_TAG,
            experiment=api.Experiment(hparam_infos=infos, metric_infos=metrics),
        ),
        summary(names.SESSION_START_INFO_TAG, session_start_info=start),
        summary(names.SESSION_END_INFO_TAG, session_end_info=end),
    ]
