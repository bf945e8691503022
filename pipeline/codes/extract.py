"""Stage one: images through the frozen network, into the cache.

What is not in the cache is read and run in order (:mod:`.stream`); finished rows go to disk
in parts of some 500. Memory does not grow with the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..backbones import Card, load_card
from ..backbones.engine import Engine, open_engine, pick_device
from ..backbones.graph import graph_path
from ..backbones.preprocess import Views
from ..backbones.quantise import Calibration, agreement_of, quantised_path
from ..context import Context
from ..datasets import Manifest
from ..datasets.images import limit_pixels
from ..datasets.ranges import reading_of
from ..datasets.remaining import check_remaining, classes_without
from ..errors import BackboneError, ImageError
from ..files import need_space
from ..notation import number, scientific
from ..progress import Progress
from .agreement import TOLERANCE, disagreement, probe_codes
from .cache import CacheFile, Known
from .calibration import calibration_of
from .joined import join_codes
from .keys import codes_key
from .reader import Codes
from .stream import Batch, Stream
from .work import Work, as_stored, refused, row_bytes, write_batches

if TYPE_CHECKING:
    from .spread import Crew

__all__ = ["Extraction", "as_stored", "extract"]

_FEW = 32  # images that are not worth starting Ray for


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
    parts : dict of str to Extraction
        Of several networks, what was done for each.
    """

    codes: Codes
    n_new: int
    n_kept: int
    rejects: dict[str, str]
    engine: str = ""
    start_s: float = 0.0
    run_s: float = 0.0
    notes: tuple[str, ...] = ()
    parts: dict[str, Extraction] = field(default_factory=dict)


def extract(
    context: Context,
    rows: NDArray[np.int64] | None = None,
    *,
    calibrated_on: Manifest | None = None,
) -> Extraction:
    """Bring the cached codes of the images up to date; run only what is not there.

    Several networks have a file each, under its own key; their codes are then read side by side.

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
    if len(context.codes.models) == 1:
        return _extracted(context, rows, calibrated_on)
    each = [replace(context, codes=codes) for codes in context.codes.of_each()]
    _check_networks(each)
    parts = {one.codes.model: _extracted(one, rows, calibrated_on) for one in each}
    codes = join_codes(context.codes, [part.codes for part in parts.values()])
    rejects = {path: why for part in parts.values() for path, why in part.rejects.items()}
    notes = [
        note if all(note in other.notes for other in parts.values()) else f"{model}: {note}"
        for model, part in parts.items()
        for note in part.notes
    ]
    if rows is None and context.manifest.n_classes > 1:  # each network may refuse other images
        check_remaining(context.manifest, codes.rejects, command=context.command)
        notes += classes_without(context.manifest, codes.rejects)
    return Extraction(
        codes,
        n_new=sum(part.n_new for part in parts.values()),
        n_kept=sum(part.n_kept for part in parts.values()),
        rejects=rejects,
        notes=tuple(dict.fromkeys(notes)),
        parts=parts,
    )


def _check_networks(contexts: Sequence[Context]) -> None:
    """Look every network and its layers up, before any of them runs.

    Raises
    ------
    BackboneError
        There is no such network or layer, or two names mean one network.
    """
    names: dict[tuple[str, str], str] = {}
    for context in contexts:
        card = load_card(context.codes, **context.source)
        card.resolve(context.codes.layers)
        card.pooling(context.codes.pool)
        same = names.setdefault((card.arch, card.weights_digest), card.model)
        if same != card.model:
            raise BackboneError(
                f"{same} and {card.model} are the same network with the same weights.",
                expected="different networks, joined by '+'",
                todo=f"MODEL={same}",
            )


def _extracted(
    context: Context, rows: NDArray[np.int64] | None, calibrated_on: Manifest | None
) -> Extraction:
    """Bring the cached codes of one network up to date; see :func:`extract`."""
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
        work = Work(manifest.root, preprocessing, views, codes.dtype)
        job = _Job(manifest, work, context.data.strict)
        start_s = 0.0
        if len(missing):
            with ExitStack() as stack:
                digest = calibration.digest if calibration else ""
                crew = _crew(stack, context, card, layers, work, file, len(missing), digest)
                if crew is None or not crew.connection.n_gpus:
                    engine = open_engine(  # for a crew: exports the network once, for all
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
                else:
                    file.probe = crew.probe()
                differs = _differs(known, file, job, codes.precision)
                if differs:
                    notes.append(_begun_anew(file, differs, known))
                    known = file.known()
                    missing = known.missing(manifest)
                start_s = time.perf_counter() - began
                if crew is None:
                    _run(file, job, missing, context.progress)
                else:
                    _spread(crew, file, job, missing, context)
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


def _crew(
    stack: ExitStack,
    context: Context,
    card: Card,
    layers: tuple[str, ...],
    work: Work,
    file: CacheFile,
    n_missing: int,
    calibration: str,
) -> Crew | None:
    """Connect to the cluster that CLUSTER names; None: the work is done in this process."""
    address = context.cluster.cluster
    if not address or (address == "local" and n_missing < _FEW):
        return None
    from ..cluster import connected  # with Ray, which takes a second
    from .spread import Crew, Plan

    connection = stack.enter_context(connected(address, cores=context.machine.workers))
    key = replace(file.key, path=file.key.path.resolve())
    plan = Plan(
        card, layers, context.codes, context.machine, work, key, context.cache.resolve(),
        context.seed, context.data.offline, context.data.strict, calibration,
    )  # fmt: skip
    return Crew(connection, plan, context.machine.workers)


def _spread(
    crew: Crew, file: CacheFile, job: _Job, missing: NDArray[np.int64], context: Context
) -> None:
    """Make the missing codes on a cluster."""
    began = time.perf_counter()
    try:
        crew.run(file, job.manifest, missing, context.progress)
    finally:
        job.run_s, job.name = time.perf_counter() - began, crew.name
        if crew.n_deaths:
            context.say(
                f"{crew.n_deaths} worker processes ended before their work was done; others did it."
            )


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
    if job.engine is None:  # it is on the workers
        return 0.0
    at = np.flatnonzero(np.isin(job.manifest.sha256, known.sha256()))
    worst, n_run = 0.0, 0
    for row in at[:: max(1, len(at) // 8)].tolist():
        try:
            views = job.read(row)
        except ImageError:
            continue
        step = job.engine.batch
        chunks = [job.engine.run(views[i : i + step]) for i in range(0, len(views), step)]
        blocks = [job.work.stored(np.concatenate(some)[None]) for some in zip(*chunks, strict=True)]
        held = file.row(known, job.digest(row))
        here = {str(i): block for i, block in enumerate(blocks)}
        there = {str(i): block for i, block in enumerate(held)}
        worst, n_run = max(worst, disagreement(here, there)), n_run + 1
        if n_run == 2:
            break
    return worst if job.work.dtype == "float32" else max(0.0, worst - 1e-3)  # float16 rounds


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
        raise refused(*next(iter(rejects.items())))
    if manifest.n_images == context.manifest.n_images and manifest.n_classes > 1:
        check_remaining(manifest, codes.rejects, command=context.command)
        notes = [*notes, *classes_without(manifest, codes.rejects)]
    return Extraction(
        codes,
        n_new=n_new,
        n_kept=len(np.unique(manifest.sha256)) - n_new,
        rejects=rejects,
        engine=job.name if job else "",
        start_s=start_s,
        run_s=job.run_s if job else 0.0,
        notes=tuple(notes),
    )


@dataclass(eq=False)
class _Job:
    """What is to be made of each image; `read` is called from several threads."""

    manifest: Manifest
    work: Work
    strict: bool
    run_s: float = 0.0
    name: str = ""  # of what ran
    engine: Engine | None = None
    workers: int = 0

    def start(self, engine: Engine, workers: int) -> None:
        """Set the engine and the number of reading threads."""
        self.engine, self.name = engine, engine.name
        self.workers = workers

    def stream(self) -> Stream[int]:
        """Take rows of the manifest to their codes."""
        assert self.engine is not None
        return Stream(
            self.engine,
            self.read,
            n_views=self.work.views.count,
            workers=self.workers,
            store=self.work.stored,
        )

    def digest(self, row: int) -> str:
        """SHA-256 of a row's image, 64 hexadecimal digits."""
        digest: bytes = self.manifest.sha256[row]
        return digest.decode()

    def read(self, row: int) -> NDArray[np.uint8]:
        """Read the views (V, size, size, 3) of a row's image."""
        return self.work.read(self.manifest.paths[row], self.digest(row))


def _run(file: CacheFile, job: _Job, missing: NDArray[np.int64], progress: Progress) -> None:
    """Run the missing images and write them in parts; on any error, keep what was finished."""
    began = last = time.perf_counter()
    pending: list[Batch[int]] = []
    checked = False

    def write() -> None:
        nonlocal last
        now = time.perf_counter()
        batches = [*pending]
        pending.clear()  # also when the disk is full: the same rows must not be tried again
        write_batches(file, batches, job.digest, now - last)
        last = now

    with progress("codes", len(missing), "images") as meter:
        try:
            for batch in job.stream().batches(missing.tolist()):
                if job.strict and batch.rejects:
                    row, why = batch.rejects[0]
                    raise refused(job.manifest.paths[row], why)
                pending.append(batch)
                meter.advance(len(batch.items) + len(batch.rejects))
                n_row = row_bytes(batch)
                if n_row and not checked:
                    n_bytes = n_row * (len(missing) + job.manifest.n_images)
                    need_space(file.key.path.parent, n_bytes, "Extracting the codes")
                    checked = True
                n_rows = sum(len(one.items) + len(one.rejects) for one in pending)
                if file.fills_a_part(n_rows, n_rows * n_row):
                    write()
        finally:
            if pending:
                write()
            job.run_s = time.perf_counter() - began
