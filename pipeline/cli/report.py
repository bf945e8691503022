"""The command that writes the report, and brings what it rests on up to date first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError, HeadError
from ..progress import terminal
from ..settings import CodesSettings, CompareSettings, DataSettings, ReportSettings
from .compare import advised, job_of
from .options import settings_from
from .stage import STAGE_ONE, Stage, command, extracted, note

__all__ = ["STAGES"]


def _report(options: argparse.Namespace) -> None:
    from ..report import write_report

    settings = settings_from(options, ReportSettings)
    asked = settings_from(options, CompareSettings)
    usual: CodesSettings = settings_from(options, CodesSettings)
    models = dict.fromkeys(asked.models or (usual.model,))
    codes = [replace(usual, model=model) for model in models]
    job, networks = job_of(options, asked, codes, splits=asked.splits)
    name = _compared(job, networks, asked)
    known = {}
    for kind, make in _makers(options, job, networks).items():
        if kind in settings.evidence:
            try:
                record = make()
            except (DataError, HeadError) as error:  # too few images for it: the rest still counts
                note(f"{kind} is left out: {error.found}")
                continue
            if record is not None:
                known[record["kind"]] = record
    paths = write_report(
        job.manifest,
        name,
        settings,
        results=Path(options.results),
        cache=Path(options.cache),
        known=known,
        workers=options.workers,
        progress=terminal,
    )
    for path in paths:
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _compared(job: Any, networks: list[Any], asked: CompareSettings) -> str:
    """Bring the comparison up to date, with the methods it has unless others are asked for."""
    from ..compare.compare import compare, comparison_name

    path = job.folder / f"{comparison_name(job, networks)}.json"
    if asked.methods == CompareSettings().methods:
        try:
            origin = json.loads(path.read_text(encoding="utf-8"))["provenance"]
            asked = replace(asked, methods=tuple(origin["settings"]["methods"]))
            job = replace(job, command=str(origin["command"]))  # the one that names the methods
        except (OSError, ValueError, KeyError, TypeError):
            note("There is no comparison yet: it is made first, and takes as long as its methods.")
    return str(compare(job, networks, asked)["name"])


def _makers(
    options: argparse.Namespace, job: Any, networks: list[Any]
) -> dict[str, Callable[[], dict[str, Any] | None]]:
    """Give, for each kind of evidence, what makes its record or takes the one that is there."""
    codes = networks[0].codes
    shared: dict[str, Any] = {
        "results": Path(options.results), "command": command(), "progress": terminal,
    }  # fmt: skip
    data = settings_from(options, DataSettings)

    def audit() -> None:
        from ..audit import audit as look
        from ..report.gather import find_audit

        found = find_audit(job.folder)
        if found is None or found.get("n_images") != job.manifest.n_images:
            look(
                job.manifest, cache=Path(options.cache), results=Path(options.results),
                workers=options.workers, progress=terminal,
            )  # fmt: skip

    def labels() -> dict[str, Any]:
        from ..evidence.labels import find_mislabelled
        from ..settings import LabelsSettings

        return find_mislabelled(job.manifest, codes, data, LabelsSettings(), **shared)

    def layers() -> dict[str, Any]:
        from ..evidence.layers import probe_layers
        from ..settings import LayersSettings

        every = argparse.Namespace(**vars(options) | {"layers": ("all",)})
        manifest, all_codes, _ = extracted(every)
        return probe_layers(manifest, all_codes, data, LayersSettings(), **shared)

    def map_() -> dict[str, Any]:
        from ..evidence.map import map_codes
        from ..settings import MapSettings

        return map_codes(job.manifest, codes, data, MapSettings(), **shared)

    def curve() -> dict[str, Any]:
        from ..curve.curve import curve as measure
        from ..settings import CurveSettings

        return measure(job, networks[0], CurveSettings())

    def advise() -> dict[str, Any]:
        _, record = advised(argparse.Namespace(**vars(options) | {"layers": ("all",)}))
        return record

    return {
        "audit": audit, "labels": labels, "layers": layers, "map": map_, "curve": curve,
        "advise": advise,
    }  # fmt: skip


STAGES = {
    "report": Stage(
        _report,
        "one HTML file with all that is known of a data set, and the same in Markdown",
        (*STAGE_ONE, CompareSettings, ReportSettings),
    ),
}
