"""Commands that answer which method to use: compare, curve, advise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BackboneError, CacheError, DownloadError
from ..progress import terminal
from ..settings import (
    AdviseSettings,
    CodesSettings,
    CompareSettings,
    CurveSettings,
    DataSettings,
    FitSettings,
    MachineSettings,
    PlaceSettings,
)
from .options import settings_from
from .stage import STAGE_ONE, Stage, command, extracted, manifest_of, note, waiting

__all__ = ["STAGES", "advised", "job_of"]

_MOST_WARNINGS = 12


def job_of(
    options: argparse.Namespace,
    fit: FitSettings,
    asked: Sequence[CodesSettings],
    *,
    optional: Sequence[CodesSettings] = (),
    splits: int = 1,
) -> tuple[Any, list[Any]]:
    """Bring the codes of every network up to date, and gather what the runs share.

    One of the `optional` networks that cannot be had is left out, and said so.
    """
    from ..compare.runs import Job, Network

    networks: list[Network] = []
    seen: list[str] = []
    for one in [*asked, *optional]:
        try:
            manifest, codes, warnings = extracted(argparse.Namespace(**vars(options) | vars(one)))
        except (BackboneError, DownloadError, CacheError) as error:
            if one in asked:
                raise
            note(f"{one.model} is left out: {error.found}")
            continue
        networks.append(Network(one, codes))
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
    from ..compare.compare import compare
    from ..compare.words import LEGEND, comparison_table

    settings = settings_from(options, CompareSettings)
    usual: CodesSettings = settings_from(options, CodesSettings)
    asked = [replace(usual, model=one) for one in dict.fromkeys(settings.models or (usual.model,))]
    job, networks = job_of(options, settings, asked, splits=settings.splits)
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


def _curve(options: argparse.Namespace) -> None:
    from ..curve.curve import curve
    from ..curve.words import curve_table

    settings = settings_from(options, CurveSettings)
    job, (network,) = job_of(options, settings, [settings_from(options, CodesSettings)])
    record = curve(job, network, settings)
    print(f"{curve_table(record)}\n")
    for sentence in record["sentences"]:
        print(sentence)
    stem = job.folder / record["name"]
    new = f"{record['n_new']} fits made now" if record["n_new"] else "was there already"
    print(f"\n{stem}.json ({new})\n{stem}.svg")
    _warn(record["warnings"])


def advised(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Make the advice on a data set, or take what is there; give the job and the record."""
    from ..advise.advise import advise
    from ..advise.cached import cached_networks, named_networks

    settings = settings_from(options, AdviseSettings)
    usual: CodesSettings = settings_from(options, CodesSettings)
    asked, others = named_networks(settings.models, usual), []
    if not asked:
        folder = Path(options.cache) / manifest_of(options).name
        asked, others = [usual], cached_networks(folder, usual)
    job, networks = job_of(options, settings, asked, optional=others)
    return job, advise(job, networks, settings)


def _advise(options: argparse.Namespace) -> None:
    from ..advise.words import options_table, ranking_table

    job, record = advised(options)
    for sentence in record["sentences"]:
        print(sentence)
    print(f"\n{options_table(record)}\n\n{ranking_table(record)}")
    again = " (was there already)" if record.get("reused") else ""
    print(f"\n{job.folder / record['name']}.json{again}")
    _warn(record["warnings"])


STAGES = {
    "compare": Stage(
        _compare,
        "every method on the same splits, and what can be said of them",
        (*STAGE_ONE, CompareSettings),
    ),
    "curve": Stage(
        _curve,
        "accuracy against labelled images a class, and where one method overtakes another",
        (*STAGE_ONE, CurveSettings),
    ),
    "advise": Stage(
        _advise,
        "which strategy, layers and network suit a data set, and why; nothing is fine-tuned",
        (*STAGE_ONE, AdviseSettings),
        {"layers": ("all",)},
    ),
}
