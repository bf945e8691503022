"""Rows that are not in the cache yet: images read, run through the network, written in parts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import Engine, run_all
from ..context import Context
from ..datasets import Manifest
from ..errors import ImageError
from ..files import need_space
from ..notation import scientific
from ..progress import Progress
from .agreement import TOLERANCE, disagreement, probe_codes
from .cache import CacheFile
from .engine import engine_of
from .known import Known
from .stream import Batch, Stream
from .wanted import Wanted
from .work import Work, refused, row_bytes, write_batches

if TYPE_CHECKING:
    from .spread import Crew

_FEW = 32  # images that are not worth starting Ray for


@dataclass(eq=False)
class Job:
    """What is to be made of each image; `read` is called from several threads."""

    manifest: Manifest
    work: Work
    strict: bool
    n_new: int = 0  # images that had to be run
    start_s: float = 0.0  # until the engine stood ready
    run_s: float = 0.0
    notes: list[str] = field(default_factory=list)
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
            n_views=self.work.spec.views.count,
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


def _run(file: CacheFile, job: Job, missing: NDArray[np.int64], progress: Progress) -> None:
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


def completed(asked: Wanted, file: CacheFile, job: Job, began: float) -> Known:
    """Make the rows that are missing, here or on a cluster; give all.

    Parameters
    ----------
    asked : Wanted
        What the codes are.
    file : CacheFile
        Locked; the new rows go into it, in parts.
    job : Job
        The images; filled in here with what it took.
    began : float
        When the command began, of ``time.perf_counter``.
    """
    context, spec = asked.context, asked.spec
    known = file.known(asked.stale)
    job.notes += known.notes
    missing = known.missing(job.manifest)
    if not len(missing):
        return known
    with ExitStack() as stack:
        crew = _crew(stack, context, file, job.work, len(missing))
        if crew is None or not crew.connection.n_gpus:
            # For a crew: exports the network once, for all.
            engine = engine_of(spec, context.machine, context.source, asked.calibration)
            job.start(engine, context.machine.workers)
            file.probe = probe_codes(engine, spec.preprocessing.size, spec.layers)
        else:
            file.probe = crew.probe()
        differs = _differs(known, file, job)
        if differs:
            job.notes.append(_begun_anew(file, differs, known))
            known = file.known()
            missing = known.missing(job.manifest)
        job.n_new, job.start_s = len(missing), time.perf_counter() - began
        if crew is None:
            _run(file, job, missing, context.progress)
        else:
            _spread(crew, file, job, missing, context)
    return file.known(None if differs else asked.stale)


def _crew(
    stack: ExitStack, context: Context, file: CacheFile, work: Work, n_missing: int
) -> Crew | None:
    """Connect to the cluster that CLUSTER names; None: the work is done in this process."""
    address = context.cluster.cluster
    if not address or (address == "local" and n_missing < _FEW):
        return None
    from ..cluster import connected  # with Ray, which takes a second
    from .spread import Crew, Plan

    connection = stack.enter_context(connected(address, cores=context.machine.workers))
    plan = Plan(
        work=work,
        machine=context.machine,
        key=replace(file.key, path=file.key.path.resolve()),
        cache=context.cache.resolve(),
        seed=context.seed,
        offline=context.data.offline,
        strict=context.data.strict,
    )
    return Crew(connection, plan, context.machine.workers)


def _spread(
    crew: Crew, file: CacheFile, job: Job, missing: NDArray[np.int64], context: Context
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


def _differs(known: Known, file: CacheFile, job: Job) -> float:
    """How far the engine is from the one that made the rows that are there; 0: within tolerance.

    By the fixed batch where the rows have one; else, for rows of earlier versions, by running two
    of their images again.
    """
    probes = [source.probe for source in known.sources if source.probe]
    worst = max((disagreement(file.probe, probe) for probe in probes), default=0.0)
    if not probes and known.sources:
        worst = _rerun(known, job)
    return worst if worst > TOLERANCE[job.work.spec.asked.precision] else 0.0


def _rerun(known: Known, job: Job) -> float:
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
        blocks = [job.work.stored(block[None]) for block in run_all(job.engine, views)]
        held = known.row(job.digest(row), job.work.spec.layers)
        here = {str(i): block for i, block in enumerate(blocks)}
        there = {str(i): block for i, block in enumerate(held)}
        worst, n_run = max(worst, disagreement(here, there)), n_run + 1
        if n_run == 2:
            break
    is_exact = job.work.spec.asked.dtype == "float32"
    return worst if is_exact else max(0.0, worst - 1e-3)  # float16 rounds


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
