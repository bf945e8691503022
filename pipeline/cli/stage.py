"""What a stage of the command line is, and what its commands have in common."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..progress import terminal
from ..settings import CodesSettings, DataSettings, MachineSettings, PlaceSettings
from .options import settings_from

__all__ = [
    "STAGE_ONE",
    "Stage",
    "command",
    "extracted",
    "manifest_of",
    "note",
    "show_counts",
    "show_records",
    "waiting",
]

_USES = (("train", "images to train"), ("val", "to choose"), ("test", "to test"))
STAGE_ONE = (DataSettings, CodesSettings, MachineSettings, PlaceSettings)


@dataclass(frozen=True)
class Stage:
    """One stage: what it does, what it takes, and where its defaults differ."""

    run: Callable[[argparse.Namespace], None]
    help: str
    takes: tuple[type[Any], ...]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)

    def names(self) -> list[str]:
        """Names of the settings that it takes."""
        return [field.name for cls in self.takes for field in dataclasses.fields(cls)]


def note(text: str) -> None:
    """Say something beside the results: on standard error."""
    print(text, file=sys.stderr, flush=True)


def waiting(holder: str) -> None:
    """Say that another run holds the cache file."""
    note(f"The cache file is held by {holder}; waiting for it.")


def command() -> str:
    """Give the command that was given, for the record."""
    return shlex.join(["python", "-m", "pipeline", *sys.argv[1:]])


def manifest_of(options: argparse.Namespace, *, rehash: bool = False) -> Any:
    """Load the manifest of the data set that the options name."""
    from ..datasets import load_manifest

    manifest = load_manifest(
        settings_from(options, DataSettings),
        settings_from(options, PlaceSettings),
        workers=getattr(options, "workers", 0),
        rehash=rehash,
        progress=terminal,
    )
    return manifest


def show_counts(manifest: Any) -> None:
    """Print how many images each split and class has."""
    for split, counts in manifest.counts().items():
        total = sum(counts.values())
        some = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:8])
        more = f", ... ({len(counts)} classes)" if len(counts) > 8 else ""
        print(f"{split:5}  {total:6} images: {some}{more}")


def show_records(records: Sequence[dict[str, Any]], manifest: Any, results: Path) -> None:
    """Print runs as a table, what they are of, where they lie, and what to be wary of."""
    from ..results.runs import table

    print(table(records))
    counts = {split: sum(of.values()) for split, of in records[0]["splits"].items()}
    shown = ", ".join(f"{n} {use}" for split, use in _USES if (n := counts.get(split)))
    print(
        f"\n{manifest.name}: {shown}, {manifest.n_classes} classes; "
        f"codes {records[0]['times_s']['codes']:.1f} s."
    )
    for record in records:
        again = " (was there already)" if record.get("reused") else ""
        print(f"{results / manifest.name / record['run']}.json{again}")
    for warning in dict.fromkeys(w for record in records for w in record["warnings"]):
        note(f"warning: {warning}")


def extracted(options: argparse.Namespace) -> tuple[Any, Any, tuple[str, ...]]:
    """Bring the codes up to date, and say what that took."""
    from ..audit import header_findings
    from ..codes.extract import extract

    manifest = manifest_of(options)
    codes = settings_from(options, CodesSettings)
    done = extract(
        manifest,
        settings_from(options, DataSettings),
        codes,
        settings_from(options, MachineSettings),
        settings_from(options, PlaceSettings),
        on_wait=waiting,
        progress=terminal,
    )
    if done.n_new:
        rate = done.n_new / done.run_s
        note(
            f"{done.n_new} images in {done.run_s:.1f} s ({rate:.0f} images/s, {done.engine}); "
            f"{done.start_s:.1f} s to start; {done.n_kept} were there."
        )
    else:
        note(f"All {len(done.codes)} images were there; nothing to run.")
    warnings = [*manifest.warnings, *header_findings(manifest, cache=Path(options.cache))]
    rejects = [f"{reject.path}: {reject.reason}" for reject in manifest.rejects]
    rejects += [f"{path}: {reason}" for path, reason in done.rejects.items()]
    if rejects:
        shown = "; ".join(rejects[:5]) + ("; ..." if len(rejects) > 5 else "")
        warnings.append(f"{len(rejects)} images cannot be used and were left out: {shown}.")
    return manifest, done.codes, tuple(warnings)
