"""The command of stage three: finetune."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..progress import terminal
from ..settings import (
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    MachineSettings,
    PlaceSettings,
)
from .options import settings_from
from .stage import STAGE_ONE, Stage, command, manifest_of, note, show_records, waiting

__all__ = ["STAGES", "tuned"]


def tuned(options: argparse.Namespace, manifest: Any) -> dict[str, Any]:
    """Fine-tune as the options say; give the record."""
    from ..audit import header_findings
    from ..finetune import finetune

    record: dict[str, Any] = finetune(
        manifest,
        settings_from(options, DataSettings),
        settings_from(options, CodesSettings),
        settings_from(options, FinetuneSettings),
        settings_from(options, MachineSettings),
        settings_from(options, PlaceSettings),
        warnings=tuple(header_findings(manifest, cache=Path(options.cache))),
        command=command(),
        on_wait=waiting,
        progress=terminal,
        say=note,
    )
    return record


def _finetune(options: argparse.Namespace) -> None:
    manifest = manifest_of(options)
    record = tuned(options, manifest)
    show_records([record], manifest, Path(options.results))
    print(_what_it_added(record))


def _what_it_added(record: dict[str, Any]) -> str:
    """Say which epoch was kept, by what, and what it added to the start, all on val."""
    chosen, curve = record["chosen"], record["curve"]
    text = f"Epoch {chosen['epoch']} was kept, by {chosen['by']} on {chosen['on']}"
    values = [curve[0].get("val_accuracy"), chosen["score"].get("val_accuracy")]
    if None in values:
        return f"{text}."
    start = "the probe it began with" if "probe" in chosen else "the start"
    return f"{text}: accuracy {values[1]:.4f} there, against {values[0]:.4f} of {start}."


STAGES = {
    "finetune": Stage(
        _finetune,
        "stage three: train late layers, or all, from the fitted probe",
        (*STAGE_ONE, FinetuneSettings),
    ),
}
