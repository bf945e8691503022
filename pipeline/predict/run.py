"""Prediction of many images by a run: gathered, classified, and written a row at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..answers import Answer
from ..datasets.file_kinds import is_archive, is_image
from ..errors import CacheError, ImageError, SettingsError
from ..files import replacing
from ..notation import duration, number
from ..progress import Messages, Meter, silent
from ..results.tables import Table as Aligned
from ..results.tables import aligned
from ..settings import MachineSettings, PlaceSettings, PredictSettings
from .classifier import Classifier, Outcome
from .inputs import gathered
from .neighbours import Neighbours
from .output import Table
from .spread import classify_spread


@dataclass(frozen=True, eq=False, repr=False)
class Predicted(Answer):
    """Predictions.

    Attributes
    ----------
    classes : tuple of str
        K class names.
    rows : list of dict
        One per image: ``path``, ``status`` (``ok``, ``abstain``, ``error``), ``class``, the
        probabilities; empty where the rows went to a stream.
    counts : dict of str to int
        Images by status, and those flagged ``unlike``.
    warnings : tuple of str
        What a reader of the rows has to know.
    """

    classes: tuple[str, ...]
    rows: list[dict[str, Any]]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()

    def table(self) -> Aligned:
        """Path, status, class and its probability, one line per image."""
        lines = [["path", "status", "class", "probability"]]
        for row in self.rows:
            best = row.get("probability")
            shown = number(best)
            lines.append([row["path"], row["status"], str(row.get("class") or "-"), shown])
        return aligned(lines, text_columns=3)

    def lines(self) -> list[str]:
        """Give the table where the rows were kept."""
        return [self.table()] if self.rows else []


def predict(
    settings: PredictSettings,
    machine: MachineSettings,
    places: PlaceSettings,
    *,
    messages: Messages,
    cluster: str = "",
    stream: IO[bytes] | None = None,
) -> Predicted:
    """Classify images with a run, and write a row for each.

    Parameters
    ----------
    settings, machine, places
        Which images and run, what runs the network, where results and cache lie.
    messages : Messages
        Progress, notes, and what was counted.
    cluster : str
        As the setting CLUSTER has it; empty: this process does it.
    stream : binary stream, optional
        Where rows go if OUT is empty; without it they are kept in the answer.

    Raises
    ------
    SettingsError
        OUT would replace something that is read.
    ImageError
        No image could be used.
    """
    began = time.perf_counter()
    _check_out(settings)
    with gathered(settings.images, progress=messages.progress) as inputs:
        classifier = Classifier.load(
            settings.run,
            results=places.results,
            cache=places.cache,
            machine=machine,
            weights=settings.weights,
            offline=settings.offline,
            progress=messages.progress,
        )
        for text in (*inputs.remarks, *classifier.notes):
            messages.say(f"note: {text}")
        neighbours = _neighbours(classifier, settings, messages)
        table = Table(
            classifier.classes,
            format=_format(settings),
            top=settings.top,
            abstain=settings.abstain,
            limit=neighbours.limit if neighbours and settings.unlike else None,
            n_nearest=settings.nearest if neighbours else 0,
            sets=bool(classifier.model.output.sets),
        )
        if cluster:
            outcomes = classify_spread(
                cluster, settings, machine, places, inputs.paths, inputs.names,
                neighbours=neighbours is not None,
            )  # fmt: skip
        else:
            outcomes = classifier.classify(
                inputs.paths,
                names=inputs.names,
                neighbours=neighbours,
                n_nearest=max(1, settings.nearest),
            )
        start_s = time.perf_counter() - began
        # Rows on a terminal are progress enough.
        drawn = not settings.out and stream is not None and stream.isatty()
        progress = silent if drawn else messages.progress
        with (
            _opened(settings.out, stream) as output,
            progress("images", len(inputs.paths), "images") as meter,
        ):
            counted = _written(outcomes, table, output, meter)
        run_s = time.perf_counter() - began - start_s
    messages.say(
        f"{counted.n_images} images by {classifier.run} in {duration(run_s)} "
        f"({number(counted.n_images / max(run_s, 1e-9), 0)} images/s, {classifier.engine}); "
        f"{duration(start_s)} to start."
    )
    if settings.out:
        messages.say(settings.out)
    warnings = _warnings(settings, counted, messages)
    return Predicted(classifier.classes, counted.rows, counted.by_status, warnings)


@dataclass(eq=False)
class _Counted:
    """What was predicted.

    Attributes
    ----------
    rows : list of dict
        Those that went to no stream.
    by_status : dict of str to int
        Images ``ok``, ``abstain`` and ``error``, and those ``unlike`` all training images.
    first_error : str
        Why the first image that cannot be used cannot be.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    by_status: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("ok", "abstain", "error", "unlike"), 0)
    )
    first_error: str = ""

    @property
    def n_images(self) -> int:
        """Number of images."""
        return sum(self.by_status[key] for key in ("ok", "abstain", "error"))


def _written(
    outcomes: Iterable[Outcome], table: Table, output: IO[bytes] | None, meter: Meter
) -> _Counted:
    """Write a row for each outcome as it comes; without an output, keep the rows."""
    counted = _Counted()
    if output is not None:
        output.write(table.header())
    for outcome in outcomes:
        row = table.row(outcome)
        counted.by_status[row["status"]] += 1
        counted.by_status["unlike"] += bool(row.get("unlike"))
        if outcome.error and not counted.first_error:
            counted.first_error = f"{outcome.name}: {outcome.error}"
        if output is None:
            counted.rows.append(row)
        else:
            output.write(table.line(row))
        meter.advance()
    return counted


def _format(settings: PredictSettings) -> str:
    if settings.format != "auto":
        return settings.format
    lines = Path(settings.out).suffix.lower() in (".jsonl", ".ndjson", ".json")
    return "jsonl" if lines else "csv"


def _neighbours(
    classifier: Classifier, settings: PredictSettings, messages: Messages
) -> Neighbours | None:
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
        messages.say(f"note: no distances to the training images: {error.found}")
        return None
    if neighbours.remark:
        messages.say(f"note: {neighbours.remark}")
    return neighbours


def _check_out(settings: PredictSettings) -> None:
    """Refuse an OUT that would replace what is read: images, a list of them, a run's files."""
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
def _opened(out: str, stream: IO[bytes] | None) -> Iterator[IO[bytes] | None]:
    """Open a file, which appears complete or not at all; or the stream, a pipe, a device."""
    path = Path(out).resolve()  # of a link, what it points to
    if not out:
        yield stream
        if stream is not None:
            stream.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
    else:
        try:
            with replacing(path) as file:
                yield file
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Interrupted. {out} was not written.") from None
        except CacheError as error:  # of writing: nothing else in the block raises it
            raise SettingsError(
                error.found, expected="room, and a folder that can be written", todo="another OUT="
            ) from error


def _warnings(settings: PredictSettings, counted: _Counted, messages: Messages) -> tuple[str, ...]:
    """Say what was counted besides sound predictions.

    Raises
    ------
    ImageError
        No image could be used.
    """
    counts, n_images = counted.by_status, counted.n_images
    warnings = []
    if counts["abstain"]:
        messages.say(
            f"{counts['abstain']} images have no class: no probability reaches "
            f"ABSTAIN={settings.abstain:g}."
        )
    if counts["unlike"]:
        warnings.append(
            f"{counts['unlike']} images are unlike every training image; their predictions mean "
            "little."
        )
    if counts["error"] == n_images:
        raise ImageError(
            f"None of the {n_images} images can be used; the first: {counted.first_error}.",
            expected="at least one image that can be read",
        )
    if counts["error"]:
        warnings.append(
            f"{counts['error']} images cannot be used, their rows say why; the first: "
            f"{counted.first_error}."
        )
    return tuple(warnings)
