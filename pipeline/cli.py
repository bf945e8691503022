"""The command line: the only place that prints, parses arguments, and ends the process."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import CacheError, PipelineError
from pipeline.options import add_options, assigned, settings_from
from pipeline.progress import terminal
from pipeline.settings import (
    METHODS,
    CodesSettings,
    DataSettings,
    HeadSettings,
    MachineSettings,
    PlaceSettings,
    as_dict,
)

__all__ = ["main"]

_STAGE_ONE = (DataSettings, CodesSettings, MachineSettings, PlaceSettings)
_STAGE_TWO = (*_STAGE_ONE, HeadSettings)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code: 0, 1, 2 (the user can mend it) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = _parser()
        known = {name for stage in STAGES.values() for name in stage.names()}
        if arguments and arguments[0] in STAGES:
            stage = STAGES[arguments[0]]
            arguments[1:] = assigned(arguments[1:], stage.names(), known)
        options = parser.parse_args(arguments)
        if options.stage is None:
            parser.print_help()
            return 0
        STAGES[options.stage].run(options)
        sys.stdout.flush()
        return 0
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What was finished is kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="How good is a linear classifier on a frozen network's features?",
        epilog="Settings may also be written as make has them: DATA=hotdog for --data hotdog.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(dest="stage", metavar="stage")
    for name, stage in STAGES.items():
        one = stages.add_parser(name, help=stage.help, description=stage.help)
        add_options(one, stage.takes, **stage.defaults)
    return parser


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _waiting(holder: str) -> None:
    _note(f"The cache file is held by {holder}; waiting for it.")


def _manifest(options: argparse.Namespace, *, rehash: bool = False) -> Any:
    from pipeline.datasets import load_manifest

    manifest = load_manifest(
        settings_from(options, DataSettings),
        settings_from(options, PlaceSettings),
        workers=getattr(options, "workers", 0),
        rehash=rehash,
        progress=terminal,
    )
    return manifest


def _show_counts(manifest: Any) -> None:
    for split, counts in manifest.counts().items():
        total = sum(counts.values())
        some = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:8])
        more = f", ... ({len(counts)} classes)" if len(counts) > 8 else ""
        print(f"{split:5}  {total:6} images: {some}{more}")


def _data(options: argparse.Namespace) -> None:
    manifest = _manifest(options)
    print(f"{manifest.name}: {manifest.n_images} images of {manifest.n_classes} classes")
    _show_counts(manifest)
    for warning in manifest.warnings:
        _note(f"warning: {warning}")
    for reject in manifest.rejects:
        _note(f"left out: {reject.path}: {reject.reason}")


def _extracted(options: argparse.Namespace) -> tuple[Any, Any, tuple[str, ...]]:
    """Bring the codes up to date, and say what that took."""
    from pipeline.audit import header_findings
    from pipeline.extract import extract

    manifest = _manifest(options)
    codes = settings_from(options, CodesSettings)
    done = extract(
        manifest,
        settings_from(options, DataSettings),
        codes,
        settings_from(options, MachineSettings),
        settings_from(options, PlaceSettings),
        on_wait=_waiting,
        progress=terminal,
    )
    if done.n_new:
        rate = done.n_new / done.run_s
        _note(
            f"{done.n_new} images in {done.run_s:.1f} s ({rate:.0f} images/s, {done.engine}); "
            f"{done.start_s:.1f} s to start; {done.n_kept} were there."
        )
    else:
        _note(f"All {done.n_kept} images were there; nothing to run.")
    warnings = [*manifest.warnings, *header_findings(manifest, cache=Path(options.cache))]
    rejects = [f"{reject.path}: {reject.reason}" for reject in manifest.rejects]
    rejects += [f"{path}: {reason}" for path, reason in done.rejects.items()]
    if rejects:
        shown = "; ".join(rejects[:5]) + ("; ..." if len(rejects) > 5 else "")
        warnings.append(f"{len(rejects)} images cannot be used and were left out: {shown}.")
    return manifest, done.codes, tuple(warnings)


def _features(options: argparse.Namespace) -> None:
    manifest, codes, warnings = _extracted(options)
    shapes = ", ".join(f"{layer} {codes[layer].shape}" for layer in codes.layers)
    print(f"{codes.path}")
    print(f"codes: {shapes}")
    _show_counts(manifest)
    for warning in warnings:
        _note(f"warning: {warning}")


def _heads(options: argparse.Namespace) -> None:
    from pipeline.probe import probe
    from pipeline.results import table

    manifest, codes, warnings = _extracted(options)
    command = shlex.join(["python", "-m", "pipeline", *sys.argv[1:]])
    records = probe(
        manifest,
        codes,
        settings_from(options, DataSettings),
        settings_from(options, HeadSettings),
        results=Path(options.results),
        asked=as_dict(settings_from(options, CodesSettings)),
        warnings=warnings,
        command=command,
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
        _note(f"warning: {warning}")


def _audit(options: argparse.Namespace) -> None:
    from pipeline.audit import audit

    manifest = _manifest(options)
    report = audit(
        manifest,
        cache=Path(options.cache),
        results=Path(options.results),
        workers=options.workers,
        progress=terminal,
    )
    _show_counts(manifest)
    for line in report.lines():
        print(line)


def _verify(options: argparse.Namespace) -> None:
    from pipeline.verify import verify

    manifest = _manifest(options, rehash=True)
    verdicts = verify(manifest, cache=Path(options.cache), progress=terminal)
    if not any(verdict.n_rows for verdict in verdicts):
        _note(f"There are no codes of {manifest.name} in {options.cache}.")
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


STAGES = {
    "data": Stage(_data, "fetch a data set and count it", (DataSettings, PlaceSettings)),
    "audit": Stage(
        _audit, "find what is wrong with the images", (DataSettings, MachineSettings, PlaceSettings)
    ),
    "features": Stage(_features, "stage one: cache the codes of every image", _STAGE_ONE),
    "svm": Stage(_heads, "stage two: a linear SVM on the codes", _STAGE_TWO),
    "softmax": Stage(
        _heads, "stage two: softmax regression on the codes", _STAGE_TWO, {"methods": ("softmax",)}
    ),
    "heads": Stage(
        _heads, "stage two: every classical head on the codes", _STAGE_TWO, {"methods": METHODS}
    ),
    "demo": Stage(
        _heads,
        "codes, SVM and softmax on the solar cells that a package brings",
        _STAGE_TWO,
        {"data": "elpv", "methods": ("svm", "softmax")},
    ),
    "verify": Stage(
        _verify, "check the cache against the images and its digests", (DataSettings, PlaceSettings)
    ),
}
