"""The command of prediction: predict."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.cli.stage import Stage, note
from pipeline.errors import CacheError, ImageError, SettingsError
from pipeline.files import replacing
from pipeline.options import settings_from
from pipeline.progress import silent, terminal
from pipeline.settings import MachineSettings, PlaceSettings, PredictSettings

if TYPE_CHECKING:
    from pipeline.predict import Classifier, Neighbours

__all__ = ["STAGES"]


def _predict(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    from pipeline.predict import Classifier
    from pipeline.predict.inputs import gathered
    from pipeline.predict.output import Table

    settings: PredictSettings = settings_from(options, PredictSettings)
    with gathered(settings.images, progress=terminal) as inputs:
        classifier = Classifier.load(
            settings.run,
            results=options.results,
            cache=options.cache,
            machine=settings_from(options, MachineSettings),
            weights=settings.weights,
            offline=settings.offline,
            progress=terminal,
        )
        for text in (*inputs.remarks, *classifier.notes):
            note(f"note: {text}")
        neighbours = _neighbours(classifier, settings)
        table = Table(
            classifier.classes,
            format=_format(settings),
            top=settings.top,
            abstain=settings.abstain,
            limit=neighbours.limit if neighbours and settings.unlike else None,
            n_nearest=settings.nearest if neighbours else 0,
        )
        start_s = time.perf_counter() - began
        counts = dict.fromkeys(("ok", "abstain", "error", "unlike"), 0)
        first_error = ""
        # Rows on a terminal are progress enough.
        progress = silent if not settings.out and sys.stdout.isatty() else terminal
        with (
            _opened(settings.out) as stream,
            progress("images", len(inputs.paths), "images") as meter,
        ):
            stream.write(table.header())
            for outcome in classifier.classify(
                inputs.paths,
                names=inputs.names,
                neighbours=neighbours,
                n_nearest=max(1, settings.nearest),
            ):
                row = table.row(outcome)
                counts[row["status"]] += 1
                counts["unlike"] += bool(row.get("unlike"))
                first_error = first_error or (
                    f"{outcome.name}: {outcome.error}" if outcome.error else ""
                )
                stream.write(table.line(row))
                meter.advance()
        run_s = time.perf_counter() - began - start_s
    _sum_up(classifier, settings, counts, first_error, start_s, run_s)


def _format(settings: PredictSettings) -> str:
    if settings.format != "auto":
        return settings.format
    lines = Path(settings.out).suffix.lower() in (".jsonl", ".ndjson", ".json")
    return "jsonl" if lines else "csv"


def _neighbours(classifier: Classifier, settings: PredictSettings) -> Neighbours | None:
    """Take the training images, or say why there will be no distances."""
    if not settings.unlike and not settings.nearest:
        return None
    try:
        neighbours = classifier.neighbours(settings.unlike or 0.99)
    except CacheError as error:
        if settings.nearest:
            raise CacheError(
                f"NEAREST={settings.nearest} needs the cached codes of the run's training images. "
                + error.found,
                expected="the cache that the run was made with",
                todo=error.todo or "leave NEAREST out",
            ) from error
        note(f"note: no distances to the training images: {error.found}")
        return None
    if neighbours.remark:
        note(f"note: {neighbours.remark}")
    return neighbours


@contextmanager
def _opened(out: str) -> Iterator[IO[bytes]]:
    """Open a file, which appears whole or not at all, or standard output."""
    if not out:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(out).is_dir():
        raise SettingsError(f"OUT={out} is a folder.", expected="a file's name")
    try:
        with replacing(Path(out)) as stream:
            yield stream
    except CacheError as error:  # of writing: nothing else in the block raises it
        raise SettingsError(
            error.found, expected="room, and a folder this user may write to", todo="another OUT="
        ) from error


def _sum_up(
    classifier: Classifier,
    settings: PredictSettings,
    counts: dict[str, Any],
    first_error: str,
    start_s: float,
    run_s: float,
) -> None:
    n_images = counts["ok"] + counts["abstain"] + counts["error"]
    rate = n_images / max(run_s, 1e-9)
    note(
        f"{n_images} images by {classifier.run} in {run_s:.1f} s ({rate:.0f} images/s, "
        f"{classifier.engine}); {start_s:.1f} s to start."
    )
    if settings.out:
        note(settings.out)
    if counts["abstain"]:
        note(f"{counts['abstain']} are left open: no class reaches {settings.abstain:g}.")
    if counts["unlike"]:
        note(
            f"warning: {counts['unlike']} are unlike every training image; what is predicted of "
            "them means little."
        )
    if counts["error"] == n_images:
        raise ImageError(
            f"None of the {n_images} images can be used; the first: {first_error}.",
            expected="at least one image that can be read",
        )
    if counts["error"]:
        note(
            f"warning: {counts['error']} cannot be used, their rows say why; the first: "
            f"{first_error}."
        )


STAGES = {
    "predict": Stage(
        _predict,
        "classify new images with a trained run",
        (PredictSettings, MachineSettings, PlaceSettings),
    )
}
