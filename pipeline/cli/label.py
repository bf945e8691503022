"""Commands around labels that people give: label, next."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from ..files import write_atomic
from ..progress import terminal
from ..results.tables import aligned
from ..settings import (
    CodesSettings,
    DataSettings,
    LabelSettings,
    MachineSettings,
    NextSettings,
    PlaceSettings,
)
from .options import settings_from
from .serve import need_extra, show_log
from .stage import STAGE_ONE, Stage, note

__all__ = ["STAGES"]


def _label(options: argparse.Namespace) -> None:
    need_extra()
    from ..label.running import label

    show_log()
    label(
        settings_from(options, LabelSettings),
        settings_from(options, DataSettings),
        settings_from(options, CodesSettings),
        settings_from(options, MachineSettings),
        settings_from(options, PlaceSettings),
        say=note,
        progress=terminal,
    )


def _next(options: argparse.Namespace) -> None:
    from ..next.stage import find_next

    settings: NextSettings = settings_from(options, NextSettings)
    found = find_next(
        settings,
        settings_from(options, DataSettings),
        settings_from(options, CodesSettings),
        settings_from(options, MachineSettings),
        settings_from(options, PlaceSettings),
        say=note,
        progress=terminal,
    )
    for reject in found.rejects:
        note(f"left out: {reject}")
    rows = list(zip(found.paths, found.predicted, found.margin, strict=True))
    if settings.out:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow(["path", "predicted", "margin"])
        writer.writerows([path, called, f"{margin:.4f}"] for path, called, margin in rows)
        write_atomic(Path(settings.out), stream.getvalue().encode("utf-8", "surrogateescape"))
        print(settings.out)
    else:
        lines = [["path", "predicted", "margin"]]
        lines += [[path, called, f"{margin:.3f}"] for path, called, margin in rows]
        print(aligned(lines, text_columns=2))
    why = (
        "typical images of regions without a label, since a class has fewer than ten labels"
        if found.how == "typicality"
        else "images that the head is least sure of, spread over the space of codes"
    )
    note(
        f"{len(rows)} of {found.n_unlabelled:,} unlabelled images; {found.n_labelled:,} are "
        f"labelled. Order: {why}."
    )


STAGES = {
    "next": Stage(
        _next,
        "which unlabelled images to label next",
        (NextSettings, *STAGE_ONE),
    ),
    "label": Stage(
        _label,
        "correct labels on a page; the head follows each correction at once",
        (LabelSettings, *STAGE_ONE),
    ),
}
