"""Commands of stage two: svm, softmax, heads, demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..progress import terminal
from ..settings import (
    METHODS,
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    HeadSettings,
    as_dict,
)
from .finetune import tuned
from .options import settings_from
from .stage import STAGE_ONE, Stage, command, extracted, show_records

__all__ = ["STAGES"]

STAGE_TWO = (*STAGE_ONE, HeadSettings)
DEMO = {"data": "elpv", "methods": ("svm", "softmax"), "trunk_views": "random:3", "epochs": 6}


def _heads(options: argparse.Namespace) -> None:
    manifest, records = _fitted(options)
    show_records(records, manifest, Path(options.results))


def _demo(options: argparse.Namespace) -> None:
    manifest, records = _fitted(options)
    records.append(tuned(options, manifest))
    show_records(records, manifest, Path(options.results))


def _fitted(options: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Bring the codes up to date and fit the heads; give the manifest and the records."""
    from ..heads.run import probe

    manifest, codes, warnings = extracted(options)
    records = probe(
        manifest,
        codes,
        settings_from(options, DataSettings),
        settings_from(options, HeadSettings),
        results=Path(options.results),
        asked=as_dict(settings_from(options, CodesSettings)),
        warnings=warnings,
        command=command(),
        progress=terminal,
    )
    return manifest, records


STAGES = {
    "svm": Stage(_heads, "stage two: a linear SVM on the codes", STAGE_TWO),
    "softmax": Stage(
        _heads, "stage two: softmax regression on the codes", STAGE_TWO, {"methods": ("softmax",)}
    ),
    "heads": Stage(
        _heads, "stage two: every classical head on the codes", STAGE_TWO, {"methods": METHODS}
    ),
    "demo": Stage(
        _demo,
        "codes, SVM, softmax and fine-tuning on the solar cells that a package brings",
        (*STAGE_TWO, FinetuneSettings),
        DEMO,
    ),
}
