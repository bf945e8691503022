"""The command of prediction: predict."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import CacheError, ImageError, SettingsError
from ..files import replacing
from ..progress import silent, terminal
from ..settings import MachineSettings, PlaceSettings, PredictSettings
from .options import settings_from
from .stage import Stage, note

if TYPE_CHECKING:
    from ..predict import Classifier, Neighbours

__all__ = ["STAGES"]


def _predict(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    from ..predict import Classifier
    from ..predict.inputs import gathered
    from ..predict.output import Table

    settings: PredictSettings = settings_from(options, PredictSettings)
    _check_out(settings)
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
                f"NEAREST={settings.nearest} needs the codes of the run's training images. "
                + error.found,
                expected=error.expected or "the cache that the run was made with",
                todo=error.todo or "leave NEAREST out",
            ) from error
        note(f"note: no distances to the training images: {error.found}")
        return None
    if neighbours.remark:
        note(f"note: {neighbours.remark}")
    return neighbours


def _check_out(settings: PredictSettings) -> None:
    """Refuse an OUT that would replace what is read: images, a list of them, a run's files."""
    from ..datasets.listing import is_archive, is_image

    if not settings.out:
        return
    out = Path(settings.out)
    if out.is_dir():
        raise SettingsError(f"OUT={out} is a folder.", expected="a file's name")
    read = [Path(given) for given in (settings.images, settings.run) if given]
    if (
        is_image(out.name)
        or is_archive(out.name)
        or out.name.endswith((".predictions.csv", ".model.json", ".safetensors"))
        or out.with_name(f"{out.stem}.model.json").exists()
        or (out.exists() and any(one.exists() and out.samefile(one) for one in read))
    ):
        raise SettingsError(
            f"OUT={out} is, or is called like, something that is read here.",
            expected="the name of a new .csv or .jsonl",
        )


@contextmanager
def _opened(out: str) -> Iterator[IO[bytes]]:
    """Open a file, which appears whole or not at all; or standard output, a pipe, a device."""
    path = Path(out).resolve()  # of a link, what it points to
    if not out:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
    else:
        try:
            with replacing(path) as stream:
                yield stream
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Interrupted. {out} was not written.") from None
        except CacheError as error:  # of writing: nothing else in the block raises it
            raise SettingsError(
                error.found, expected="room, and a folder that can be written", todo="another OUT="
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
