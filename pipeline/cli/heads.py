"""Commands of stage two: svm, softmax, heads, demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.stage import STAGE_ONE, Stage, command, extracted, note
from pipeline.options import settings_from
from pipeline.progress import terminal
from pipeline.settings import METHODS, CodesSettings, DataSettings, HeadSettings, as_dict

__all__ = ["STAGES"]

STAGE_TWO = (*STAGE_ONE, HeadSettings)


def _heads(options: argparse.Namespace) -> None:
    from pipeline.probe import probe
    from pipeline.results import table

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
    print(table(records))
    splits = records[0]["splits"]
    n_test = sum(splits["test"].values()) if "test" in splits else 0
    print(
        f"\n{manifest.name}: {sum(splits['train'].values())} images to train, {n_test} to test, "
        f"{manifest.n_classes} classes; codes {records[0]['times_s']['codes']:.1f} s."
    )
    folder = Path(options.results) / manifest.name
    for record in records:
        again = " (was there already)" if record.get("reused") else ""
        print(f"{folder / record['run']}.json{again}")
    for warning in dict.fromkeys(w for record in records for w in record["warnings"]):
        note(f"warning: {warning}")


STAGES = {
    "svm": Stage(_heads, "stage two: a linear SVM on the codes", STAGE_TWO),
    "softmax": Stage(
        _heads, "stage two: softmax regression on the codes", STAGE_TWO, {"methods": ("softmax",)}
    ),
    "heads": Stage(
        _heads, "stage two: every classical head on the codes", STAGE_TWO, {"methods": METHODS}
    ),
    "demo": Stage(
        _heads,
        "codes, SVM and softmax on the solar cells that a package brings",
        STAGE_TWO,
        {"data": "elpv", "methods": ("svm", "softmax")},
    ),
}
