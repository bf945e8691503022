"""Commands that answer which method to use: compare, curve, advise."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.stage import STAGE_ONE, Stage, command, extracted, note, waiting
from pipeline.options import settings_from
from pipeline.progress import terminal
from pipeline.settings import (
    CodesSettings,
    CompareSettings,
    DataSettings,
    FitSettings,
    MachineSettings,
    PlaceSettings,
)

__all__ = ["STAGES"]

_MOST_WARNINGS = 12


def _job(
    options: argparse.Namespace, fit: FitSettings, models: tuple[str, ...], *, splits: int = 1
) -> tuple[Any, list[Any]]:
    """Bring the codes of every network up to date, and gather what the runs share."""
    from pipeline.comparison.runs import Job, Network

    networks: list[Network] = []
    seen: list[str] = []
    for model in dict.fromkeys(models or (options.model,)):
        asked = argparse.Namespace(**vars(options) | {"model": model})
        manifest, codes, warnings = extracted(asked)
        networks.append(Network(settings_from(asked, CodesSettings), codes))
        seen += warnings
    job = Job(
        manifest=manifest,
        data=settings_from(options, DataSettings),
        machine=settings_from(options, MachineSettings),
        places=settings_from(options, PlaceSettings),
        fit=fit,
        splits=splits,
        warnings=tuple(dict.fromkeys(seen)),
        command=command(),
        on_wait=waiting,
        progress=terminal,
        say=note,
    )
    return job, networks


def _warn(warnings: list[str]) -> None:
    for warning in warnings[:_MOST_WARNINGS]:
        note(f"warning: {warning}")
    if len(warnings) > _MOST_WARNINGS:
        note(f"warning: and {len(warnings) - _MOST_WARNINGS} more, in the record")


def _compare(options: argparse.Namespace) -> None:
    from pipeline.comparison.compare import compare
    from pipeline.comparison.words import LEGEND, comparison_table

    settings = settings_from(options, CompareSettings)
    job, networks = _job(options, settings, settings.models, splits=settings.splits)
    record = compare(job, networks, settings)
    print(comparison_table(record))
    print(f"{LEGEND}\n")
    for sentence in record["sentences"]:
        print(sentence)
    for one in record["left_out"]:
        print(f"Left out: {one['method']} on {one['model']}: {one['why']}")
    n_reused = sum(one["reused"] for one in record["entries"])
    print(
        f"\n{job.folder / record['name']}.json ({n_reused} of {len(record['entries'])} runs reused)"
    )
    _warn(record["warnings"])


STAGES = {
    "compare": Stage(
        _compare,
        "every method on the same splits, and what can be said of them",
        (*STAGE_ONE, CompareSettings),
    ),
}
