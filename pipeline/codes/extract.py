"""Stage one: images through the frozen network, into the cache.

What is not in the cache is read and run in order (:mod:`.stream`); finished rows go to disk
in parts of some 500. Memory does not grow with the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import load_card
from ..backbones.engine import Engine, open_engine, pick_device
from ..backbones.graph import graph_path
from ..backbones.preprocess import Preprocessing, Views, read_views
from ..backbones.quantise import Calibration, agreement_of, quantised_path
from ..context import Context
from ..datasets import Manifest
from ..datasets.images import limit_pixels, read_as
from ..datasets.ranges import reading_of
from ..datasets.remaining import check_remaining, classes_without
from ..errors import BackboneError, ImageError
from ..files import need_space
from ..notation import number, scientific
from ..progress import Progress
from .agreement import TOLERANCE, disagreement, probe_codes
from .cache import CacheFile, Known
from .calibration import calibration_of
from .keys import codes_key
from .reader import Codes
from .stream import Batch, Stream

__all__ = ["Extraction", "as_stored", "extract"]


@dataclass(frozen=True)
class Extraction:
    """What stage one did.

    Attributes
    ----------
    codes : Codes
        The published file.
    n_new : int
        Images that went through the network now.
    n_kept : int
        Images whose codes were there.
    rejects : dict of str to str
        Path of each image that cannot be used, to the reason.
    engine : str
        What ran; empty where nothing had to.
    start_s, run_s : float
        Seconds until the engine stood ready, and for the new images from then on.
    notes : tuple of str
        How images of more than 8 bits were read, and other things that a user should know.
    """

    codes: Codes
    n_new: int
    n_kept: int
    rejects: dict[str, str]
    engine: str = ""
    start_s: float = 0.0
    run_s: float = 0.0
    notes: tuple[str, ...] = ()


def extract(
    context: Context,
    rows: NDArray[np.int64] | None = None,
    *,
    calibrated_on: Manifest | None = None,
) -> Extraction:
    """Bring the cached codes of the images up to date; run only what is not there.

    Parameters
    ----------
    context : Context
        The images, what the codes are, what runs the network, where the cache is.
    rows : int64 (n,) or None
        None: all images, published under the name that ``make features`` gives them. Else codes
        of these rows of the manifest, to be found by digest: from the published file where it
        holds them, else from a file of their own in ``trunk/``, which keeps what it had.
    calibrated_on : Manifest, optional
        The data set whose training images calibrate a network in int8; default: the context's.

    Raises
    ------
    ImageError
        ``data.strict`` is set and an image cannot be used.
    CacheError, NoSpaceError, CacheBusyError
        The cache cannot be used; what was finished is kept.
    BackboneError, DeviceError, DownloadError
        The network or the machine cannot do what was asked.
    """
    began = time.perf_counter()
    manifest, codes = context.manifest, context.codes
    pick_device(context.machine.device)
    card = load_card(codes, **context.source)
    layers = card.resolve(codes.layers)
    limit_pixels(context.machine.max_pixels)
    found = reading_of(
        manifest,
        codes.range,
        codes.bands,
        cache=context.cache,
        workers=context.machine.workers,
        progress=context.progress,
    )
    if rows is None and manifest.n_classes > 1:  # unlabelled files are refused one by one
        check_remaining(manifest, found.rejects, command=context.command)
    stale, notes = manifest.sha256[list(found.converts)], list(found.notes)
    preprocessing = card.preprocessing.adapted(size=codes.size, resize=codes.resize).read_as(found)
    views = Views.parse(codes.views, context.seed)
    calibration = None
    if codes.precision == "int8":
        calibration = calibration_of(calibrated_on or manifest, preprocessing)
    key = codes_key(
        manifest.name,
        card,
        layers,
        preprocessing,
        views,
        codes,
        cache=context.cache,
        calibration=calibration.digest if calibration else "",
    )
    file = CacheFile(key)

    def near() -> list[str]:
        if calibration is None:
            return []
        pool = card.pooling(codes.pool)
        return _near(
            graph_path(card, layers, pool, preprocessing, cache=context.cache), calibration
        )

    if rows is not None:
        current = file.holding(manifest.sha256[rows])
        if current is not None:
            return _outcome(context, manifest.take(rows), current, [*notes, *near()])
        manifest = manifest.take(rows)
        file = CacheFile(key.apart("trunk"))
    current = _current(file, manifest, partial=rows is not None)
    if current is not None:
        file.tidy(current)
        return _outcome(context, manifest, current, [*notes, *near()])
    with file.locked(context.messages.waiting):
        current = _current(file, manifest, partial=rows is not None)  # made meanwhile by another
        if current is not None:
            return _outcome(context, manifest, current, [*notes, *near()])
        known = file.known(stale)
        missing = known.missing(manifest)
        notes += known.notes
        job = _Job(manifest, preprocessing, views, context.data.strict, codes.dtype)
        start_s = 0.0
        if len(missing):
            engine = open_engine(
                card,
                layers,
                preprocessing,
                codes,
                context.machine,
                **context.source,
                calibration=calibration,
            )
            job.start(engine, context.machine.workers)
            file.probe = probe_codes(engine, preprocessing.size, layers)
            differs = _differs(known, file, job, codes.precision)
            if differs:
                notes.append(_begun_anew(file, differs, known))
                known = file.known()
                missing = known.missing(manifest)
            start_s = time.perf_counter() - began
            _run(file, job, missing, context.progress)
            known = file.known(None if differs else stale)
        published = file.publish(known.manifest() if rows is not None else manifest, known)
    made = job if len(missing) else None
    notes += near()
    return _outcome(context, manifest, published, notes, made, start_s=start_s, n_new=len(missing))


def _near(graph: Path, calibration: Calibration) -> list[str]:
    """Say how near the codes in int8 are to float32, where it was measured."""
    found = agreement_of(quantised_path(graph, calibration.digest))
    if found is None:
        return []
    return [
        "PRECISION=int8: the cosine between codes in int8 and in float32 is "
        f"{number(found.mean, 4)} on average (lowest {number(found.least, 4)}; {found.n} training "
        "images that were not used for calibration)."
    ]


def _current(file: CacheFile, manifest: Manifest, *, partial: bool) -> Codes | None:
    return file.holding(manifest.sha256) if partial else file.current(manifest)


def _differs(known: Known, file: CacheFile, job: _Job, precision: str) -> float:
    """How far the engine is from the one that made the rows that are there; 0: within tolerance.

    By the fixed batch where the rows have one; else, for rows of earlier versions, by running two
    of their images again.
    """
    probes = [source.probe for source in known.sources if source.probe]
    worst = max((disagreement(file.probe, probe) for probe in probes), default=0.0)
    if not probes and known.sources:
        worst = _rerun(known, file, job)
    return worst if worst > TOLERANCE[precision] else 0.0


def _rerun(known: Known, file: CacheFile, job: _Job) -> float:
    """Run two images again whose rows are there, and compare."""
    at = np.flatnonzero(np.isin(job.manifest.sha256, known.sha256()))
    worst, n_run = 0.0, 0
    for row in at[:: max(1, len(at) // 8)].tolist():
        try:
            views = job.read(row)
        except ImageError:
            continue
        step = job.engine.batch
        chunks = [job.engine.run(views[i : i + step]) for i in range(0, len(views), step)]
        blocks = [job.stored(np.concatenate(some)[None]) for some in zip(*chunks, strict=True)]
        held = file.row(known, job.digest(row))
        here = {str(i): block for i, block in enumerate(blocks)}
        there = {str(i): block for i, block in enumerate(held)}
        worst, n_run = max(worst, disagreement(here, there)), n_run + 1
        if n_run == 2:
            break
    return worst if job.dtype == "float32" else max(0.0, worst - 1e-3)  # float16 rounds


def _begun_anew(file: CacheFile, differs: float, known: Known) -> str:
    n_rows = len(known.sha256())
    kept = file.set_aside()
    where = f"; the old file is kept as {kept}" if kept else ""
    return (
        f"The network gives other codes here than in the {n_rows} cached rows, by up to "
        f"{scientific(differs)} of the largest: a library or the hardware changed. A new file was "
        f"begun with all images, so that no file mixes the two{where}. Results made with the old "
        "codes are not comparable: make them again."
    )


def _outcome(
    context: Context,
    manifest: Manifest,
    codes: Codes,
    notes: Sequence[str],
    job: _Job | None = None,
    *,
    start_s: float = 0.0,
    n_new: int = 0,
) -> Extraction:
    bad = np.isin(manifest.sha256, np.array(list(codes.rejects), "S64"))
    rejects = {  # every path, also where several have the same bytes
        manifest.paths[i]: codes.rejects[manifest.sha256[i].decode()]
        for i in np.flatnonzero(bad).tolist()
    }
    if rejects and context.data.strict:
        raise _refused(*next(iter(rejects.items())))
    if manifest.n_images == context.manifest.n_images and manifest.n_classes > 1:
        check_remaining(manifest, codes.rejects, command=context.command)
        notes = [*notes, *classes_without(manifest, codes.rejects)]
    return Extraction(
        codes,
        n_new=n_new,
        n_kept=len(np.unique(manifest.sha256)) - n_new,
        rejects=rejects,
        engine=job.engine.name if job else "",
        start_s=start_s,
        run_s=job.run_s if job else 0.0,
        notes=tuple(notes),
    )


def _refused(path: str, reason: str) -> ImageError:
    return ImageError(
        f"{path}: {reason}.",
        expected="readable images only, since STRICT=1",
        todo="repair or remove it, or leave STRICT out: bad images are then skipped and named",
    )


@dataclass(eq=False)
class _Job:
    """What is to be made of each image; `read` is called from several threads."""

    manifest: Manifest
    preprocessing: Preprocessing
    views: Views
    strict: bool
    dtype: str
    run_s: float = 0.0
    engine: Engine = field(init=False)
    workers: int = field(init=False, default=0)

    def start(self, engine: Engine, workers: int) -> None:
        """Set the engine and the number of reading threads."""
        self.engine = engine
        self.workers = workers

    def stream(self) -> Stream[int]:
        """Take rows of the manifest to their codes."""
        return Stream(
            self.engine,
            self.read,
            n_views=self.views.count,
            workers=self.workers,
            store=self.stored,
        )

    def digest(self, row: int) -> str:
        """SHA-256 of a row's image, 64 hexadecimal digits."""
        digest: bytes = self.manifest.sha256[row]
        return digest.decode()

    def read(self, row: int) -> NDArray[np.uint8]:
        """Read the views (V, size, size, 3) of a row's image."""
        digest = self.digest(row)
        data = read_as(self.manifest.root / self.manifest.paths[row], digest)
        return read_views(data, self.preprocessing, self.views, digest)

    def stored(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Bring codes (n, V, ...) to how they are stored, refusing what that would spoil."""
        stored = as_stored(block, self.dtype)
        return stored[:, 0] if self.views.count == 1 else stored


def as_stored(block: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Bring codes to the type that they are stored in.

    Raises
    ------
    BackboneError
        That would spoil them: they are not finite, or too large.
    """
    with np.errstate(over="ignore"):
        stored = block.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        raise BackboneError(
            f"The network gave codes that are not finite as {dtype}.",
            todo="DTYPE=float32 and PRECISION=float32, or other weights",
        )
    return stored


def _run(file: CacheFile, job: _Job, missing: NDArray[np.int64], progress: Progress) -> None:
    """Run the missing images and write them in parts; on any error, keep what was finished."""
    began = last = time.perf_counter()
    pending: list[Batch[int]] = []
    checked = False

    def write() -> None:
        nonlocal last
        now = time.perf_counter()
        shas = [job.digest(row) for batch in pending for row in batch.items]
        columns = zip(*(batch.blocks for batch in pending if batch.items), strict=True)
        blocks = [np.concatenate(column) for column in columns]
        rejects = {job.digest(row): why for batch in pending for row, why in batch.rejects}
        pending.clear()  # also when the disk is full: the same rows must not be tried again
        file.add_part(shas, blocks, rejects, now - last)
        last = now

    with progress("codes", len(missing), "images") as meter:
        try:
            for batch in job.stream().batches(missing.tolist()):
                if job.strict and batch.rejects:
                    row, why = batch.rejects[0]
                    raise _refused(job.manifest.paths[row], why)
                pending.append(batch)
                meter.advance(len(batch.items) + len(batch.rejects))
                row_bytes = _row_bytes(batch)
                if row_bytes and not checked:
                    n_bytes = row_bytes * (len(missing) + job.manifest.n_images)
                    need_space(file.key.path.parent, n_bytes, "Extracting the codes")
                    checked = True
                n_rows = sum(len(one.items) + len(one.rejects) for one in pending)
                if file.fills_a_part(n_rows, n_rows * row_bytes):
                    write()
        finally:
            if pending:
                write()
            job.run_s = time.perf_counter() - began


def _row_bytes(batch: Batch[int]) -> int:
    return sum(block.nbytes // len(block) for block in batch.blocks)
