"""Commands of the evidence on a data set: labels, layers, map."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..progress import terminal
from ..results.tables import aligned
from ..settings import DataSettings, LabelsSettings, LayersSettings, MapSettings
from .options import settings_from
from .stage import STAGE_ONE, Stage, command, extracted, note

__all__ = ["STAGES"]


def _record(options: argparse.Namespace, build: Any, cls: type[Any]) -> dict[str, Any]:
    """Bring the codes up to date and have the record made, or taken."""
    manifest, codes, _ = extracted(options)
    record: dict[str, Any] = build(
        manifest,
        codes,
        settings_from(options, DataSettings),
        settings_from(options, cls),
        results=Path(options.results),
        command=command(),
        progress=terminal,
    )
    return record


def _close(options: argparse.Namespace, record: dict[str, Any]) -> None:
    """Say in sentences what was found, and where the record lies."""
    for sentence in record["sentences"]:
        print(sentence)
    again = " (was there already)" if record.get("reused") else ""
    print(f"{Path(options.results) / record['data'] / record['name']}.json{again}")
    for warning in record["warnings"]:
        note(f"warning: {warning}")


def _labels(options: argparse.Namespace) -> None:
    from ..evidence.labels import find_mislabelled

    record = _record(options, find_mislabelled, LabelsSettings)
    images = record["images"][: options.top or None]
    lines = [["", "path", "split", "label", "suggested", "p(label)", "p(suggested)"]]
    for one in images:
        mark = "!" if one["certain"] else "?" if one["suspect"] else ""
        words = [one[key] for key in ("path", "split", "label", "suggested")]
        lines.append([mark, *words, f"{one['p_label']:.3f}", f"{one['p_suggested']:.3f}"])
    print(aligned(lines, text_columns=5))
    more = record["n_listed"] - len(images)
    print(
        "! has copies under another label; ? contradicted with confidence"
        + (f"; {more:,} more in the record (TOP=0 prints all)" if more else "")
        + "\n"
    )
    _close(options, record)


def _layers(options: argparse.Namespace) -> None:
    from ..evidence.layers import probe_layers

    record = _record(options, probe_layers, LayersSettings)
    lines = [["", "layer", "numbers", "accuracy", "sd of folds", "log-loss", "C"]]
    for one in record["layers"]:
        lines.append(
            [
                "*" if one["layer"] == record["best"] else "",
                one["layer"],
                f"{one['code_dim']:,}",
                f"{one['accuracy']:.4f}",
                f"{one['sd']:.4f}",
                f"{one['log_loss']:.3f}",
                f"{one['C']:.1e}",
            ]
        )
    print(aligned(lines, text_columns=2) + "\n")
    _close(options, record)


def _map(options: argparse.Namespace) -> None:
    from ..evidence.map import map_codes

    _close(options, _record(options, map_codes, MapSettings))


STAGES = {
    "labels": Stage(
        _labels,
        "the images whose label is likely to be wrong",
        (*STAGE_ONE, LabelsSettings),
    ),
    "layers": Stage(
        _layers,
        "how good a linear probe of each layer is",
        (*STAGE_ONE, LayersSettings),
        {"layers": ("all",)},
    ),
    "map": Stage(
        _map, "place the images in two dimensions by their codes", (*STAGE_ONE, MapSettings)
    ),
}
