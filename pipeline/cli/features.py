"""Commands of the data and of stage one: data, audit, features, verify, clean-cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import CacheError
from ..progress import terminal
from ..settings import DataSettings, MachineSettings, PlaceSettings, TableSettings
from .options import settings_from
from .stage import STAGE_ONE, Stage, extracted, manifest_of, note, show_counts

__all__ = ["STAGES"]


def _data(options: argparse.Namespace) -> None:
    manifest = manifest_of(options)
    print(f"{manifest.name}: {manifest.n_images} images of {manifest.n_classes} classes")
    show_counts(manifest)
    for warning in manifest.warnings:
        note(f"warning: {warning}")
    for reject in manifest.rejects:
        note(f"left out: {reject.path}: {reject.reason}")
    settings = settings_from(options, TableSettings)
    if settings.out:
        from ..datasets.tables import write_table

        write_table(manifest, Path(settings.out))
        print(settings.out)


def _features(options: argparse.Namespace) -> None:
    manifest, codes, warnings = extracted(options)
    shapes = ", ".join(f"{layer} {codes[layer].shape}" for layer in codes.layers)
    print(f"{codes.path}")
    print(f"codes: {shapes}")
    show_counts(manifest)
    for warning in warnings:
        note(f"warning: {warning}")


def _audit(options: argparse.Namespace) -> None:
    from ..audit import audit

    manifest = manifest_of(options)
    report = audit(
        manifest,
        cache=Path(options.cache),
        results=Path(options.results),
        workers=options.workers,
        progress=terminal,
    )
    show_counts(manifest)
    for line in report.lines():
        print(line)


def _verify(options: argparse.Namespace) -> None:
    from ..codes.verify import verify

    manifest = manifest_of(options, rehash=True)
    verdicts = verify(manifest, cache=Path(options.cache), progress=terminal)
    if not any(verdict.n_rows for verdict in verdicts):
        note(f"There are no codes of {manifest.name} in {options.cache}.")
    damaged = []
    for verdict in verdicts:
        state = "DAMAGED" if verdict.faults else "sound"
        print(f"{state:8} {verdict.n_rows:7} rows  {verdict.path}")
        for fault in verdict.faults[:20]:
            print(f"         {fault}")
        for remark in verdict.remarks:
            print(f"         note: {remark}")
        if verdict.faults:
            damaged.append(verdict.path)
    if damaged:
        raise CacheError(
            f"{len(damaged)} of {len(verdicts)} files are damaged, the first {damaged[0]}.",
            todo="make features makes damaged rows again; a file that does not open: remove it",
        )


def _clean_cache(options: argparse.Namespace) -> None:
    from ..codes.clean import clear_cache

    removed = clear_cache(Path(options.cache))
    print(f"{options.cache}: removed {removed / 1e6:,.1f} MB")


STAGES = {
    "data": Stage(
        _data, "fetch a data set and count it", (DataSettings, TableSettings, PlaceSettings)
    ),
    "audit": Stage(
        _audit, "find what is wrong with the images", (DataSettings, MachineSettings, PlaceSettings)
    ),
    "features": Stage(_features, "stage one: cache the codes of every image", STAGE_ONE),
    "verify": Stage(
        _verify, "check the cache against the images and its digests", (DataSettings, PlaceSettings)
    ),
    "clean-cache": Stage(
        _clean_cache, "remove all of the cache: codes, graphs, weights", (PlaceSettings,)
    ),
}
