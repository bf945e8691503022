"""Stage one on a cluster: workers read images, run the network, and write parts of the cache.

The driver cuts what is missing into chunks of neighbouring rows and hands out paths and digests.
Each worker opens the engine once, and writes the parts of a chunk into the cache's folder, which
all machines share, in the format that a single process uses. The driver holds the lock and
publishes. So what survives a death is what survives one of a single process: the parts. A worker
that died over a chunk may have written parts of it: those are found, and only the rest is run
again.

Every worker runs the fixed batch (:mod:`.agreement`) before anything else; one whose codes, or
whose decoders, are not those of the first is refused, so that no file mixes two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import Engine
from ..backbones.resize import resizer_name
from ..cluster import GIVEN_UP, Chunk, Connection, Pool
from ..datasets import Manifest
from ..datasets.images import decoder_version, limit_pixels
from ..errors import ClusterError, PipelineError
from ..files import need_space
from ..notation import scientific
from ..progress import Progress
from ..settings import MachineSettings
from .agreement import TOLERANCE, disagreement, probe_codes
from .cache import PART_ROWS, CacheFile
from .calibration import known_calibration
from .engine import engine_of
from .keys import Key
from .stream import Batch, Stream
from .work import Work, refused, row_bytes, write_batches

_CHUNKS = 8  # at least, for each worker: so much of its work is lost with it, at most
_LEAST = 16  # images in a chunk

Item = tuple[str, str]  # path, digest


@dataclass(frozen=True)
class Plan:
    """What a worker needs to make codes.

    Attributes
    ----------
    work : Work
        What the codes are, and where the images lie.
    machine : MachineSettings
        What runs the network.
    key : Key
        The file; its path absolute.
    cache : Path
        Where networks and graphs are; absolute.
    seed : int
        Of random weights.
    offline, strict : bool
    """

    work: Work
    machine: MachineSettings
    key: Key
    cache: Path
    seed: int
    offline: bool
    strict: bool

    def engine(self) -> Engine:
        """Open the engine; of a network in int8, the driver left the graph in the cache."""
        digest = self.work.spec.calibration
        calibration = known_calibration(digest, "make features") if digest else None
        source = {"cache": self.cache, "seed": self.seed, "offline": self.offline}
        return engine_of(self.work.spec, self.machine, source, calibration)

    def probe(self, engine: Engine) -> dict[str, NDArray[Any]]:
        """Run the fixed batch."""
        return probe_codes(engine, self.work.spec.preprocessing.size, self.work.spec.layers)


@dataclass
class _Greeting:
    """What a worker says of itself."""

    host: str
    versions: dict[str, str]
    engine: str
    probe: dict[str, NDArray[Any]]
    sees: bool  # what the driver left in the folder of the parts


@dataclass
class _Done:
    """What a worker did of a chunk."""

    n_images: int
    rejects: list[tuple[str, str]]  # path, reason
    parts: list[str]
    row_bytes: int


class _Worker:
    """One worker process; lives on a node of the cluster."""

    def __init__(self, plan: Plan, mark: str) -> None:
        self._plan, self._mark = plan, mark

    def greet(self) -> _Greeting | PipelineError:
        """Open the engine and run the fixed batch."""
        import socket

        plan = self._plan
        try:
            limit_pixels(plan.machine.max_pixels)
            self._file = CacheFile(plan.key)
            sees = (self._file.parts / self._mark).is_file()
            self._engine = plan.engine()
            probe = plan.probe(self._engine)
            self._file.probe = probe
            self._stream: Stream[Item] = Stream(
                self._engine,
                lambda item: plan.work.read(*item),
                n_views=plan.work.spec.views.count,
                workers=plan.machine.workers,
                store=plan.work.stored,
            )
        except PipelineError as error:
            return error
        return _Greeting(socket.gethostname(), _versions(), self._engine.name, probe, sees)

    def work(self, number: int, items: list[Item]) -> _Done | PipelineError:
        """Make the codes of some images, and write them in parts."""
        done = _Done(0, [], [], 0)
        pending: list[Batch[Item]] = []
        last = time.perf_counter()
        try:
            for batch in self._stream.batches(items):
                pending.append(batch)
                if self._plan.strict and batch.rejects:
                    break
                done.row_bytes = done.row_bytes or row_bytes(batch)
                n_rows = sum(len(one.items) + len(one.rejects) for one in pending)
                if self._file.fills_a_part(n_rows, n_rows * done.row_bytes):
                    last = self._write(pending, done, last)
        except PipelineError as error:
            return error
        finally:
            if pending:
                self._write(pending, done, last)
        return done

    def _write(self, pending: list[Batch[Item]], done: _Done, last: float) -> float:
        batches = [*pending]
        pending.clear()
        now = time.perf_counter()
        done.parts.append(write_batches(self._file, batches, lambda item: item[1], now - last))
        done.n_images += sum(len(one.items) + len(one.rejects) for one in batches)
        done.rejects += [(item[0], why) for one in batches for item, why in one.rejects]
        return now


def _versions() -> dict[str, str]:
    """Give the versions that have to be the same on every machine."""
    from importlib.metadata import version

    from .. import __version__

    return {
        "cnn-codes": __version__,
        "decoders": decoder_version(),
        "resizer": resizer_name(),
        "numpy": version("numpy"),
    }


@dataclass(eq=False)
class Crew:
    """The workers of one extraction.

    Attributes
    ----------
    connection : Connection
        The cluster.
    plan : Plan
        What they do.
    n : int
        Their number; 0: one for each GPU, or for each core.
    n_deaths : int
        Workers that died.
    """

    connection: Connection
    plan: Plan
    n: int = 0
    n_deaths: int = 0
    _hosts: set[str] = field(default_factory=set)
    _engine: str = ""

    def __post_init__(self) -> None:
        """Decide how many workers there are, and what each takes."""
        gpus = self.connection.n_gpus if self.plan.machine.device != "cpu" else 0
        self.n = self.n or gpus or self.connection.n_cores
        self._gpus = min(1.0, gpus / self.n) if gpus else 0.0
        # A worker with a GPU takes its share of the cores, to decode; without, one core.
        self._cores = max(1, self.connection.n_cores // self.n) if gpus else 1
        self.n = min(self.n, max(1, self.connection.n_cores // self._cores))
        machine = replace(self.plan.machine, workers=int(self._cores))
        self.plan = replace(self.plan, machine=machine)

    @property
    def name(self) -> str:
        """What ran, for people."""
        machines = f" on {len(self._hosts)} machines" if len(self._hosts) > 1 else ""
        return f"{self._engine}, {self.n} Ray workers{machines}"

    def probe(self) -> dict[str, NDArray[Any]]:
        """Run the fixed batch on a worker; for a driver that has not the workers' device."""
        import ray

        remote = ray.remote(num_cpus=self._cores, num_gpus=self._gpus)(_probe)
        found = ray.get(remote.remote(self.plan))
        if isinstance(found, PipelineError):
            raise found
        return dict(found)

    def run(
        self, file: CacheFile, manifest: Manifest, missing: NDArray[np.int64], progress: Progress
    ) -> None:
        """Make the codes of the missing rows, in parts; on any error, what was finished is kept.

        Raises
        ------
        ClusterError
            A worker sees another folder, has other packages, or gives other codes.
        ImageError
            ``strict``, and an image cannot be used.
        """
        n_missing = len(missing)
        size = min(PART_ROWS, max(_LEAST, -(-n_missing // (self.n * _CHUNKS))))
        n_chunks = -(-n_missing // size)
        self.n = min(self.n, n_chunks)
        seen = file.part_names()
        mark = file.parts / f"cluster-{uuid4().hex}"
        mark.touch()
        checked = False

        def items(number: int) -> list[Item]:
            rows = missing[number * size : (number + 1) * size].tolist()
            return [(manifest.paths[row], manifest.sha256[row].decode()) for row in rows]

        def died(chunk: Chunk[Item]) -> list[Item]:
            new = file.part_names() - seen
            seen.update(new)
            found.update(file.done_in(new))
            left = [item for item in chunk.items if item[1].encode() not in found]
            meter.advance(len(chunk.items) - len(left))
            return left

        def given_up(item: Item) -> None:
            seen.add(file.add_part([], self._empty(), {item[1]: GIVEN_UP}, 0.0))
            meter.advance()

        found: set[bytes] = set()  # what workers that died had written
        pool = Pool(
            _Worker,
            (self.plan, mark.name),
            n=self.n,
            cores=self._cores,
            gpus=self._gpus,
            greeted=lambda greeting: self._check(greeting, file),
            died=died,
            given_up=given_up,
        )
        chunks: Iterator[Chunk[Item]] = (Chunk(at, items(at)) for at in range(n_chunks))
        try:
            with progress("codes", n_missing, "images") as meter:
                for _, done in pool.run(chunks):
                    seen.update(done.parts)
                    meter.advance(done.n_images)
                    if self.plan.strict and done.rejects:
                        path, why = done.rejects[0]
                        raise refused(path, why)
                    if done.row_bytes and not checked:
                        n_bytes = done.row_bytes * (n_missing + manifest.n_images)
                        need_space(file.key.path.parent, n_bytes, "Extracting the codes")
                        checked = True
        finally:
            self.n_deaths = pool.n_deaths
            mark.unlink(missing_ok=True)

    def _empty(self) -> list[NDArray[Any]]:
        spec = self.plan.work.spec
        return [np.empty((0, 0), spec.asked.dtype) for _ in spec.layers]

    def _check(self, greeting: _Greeting, file: CacheFile) -> None:
        """Refuse a worker whose rows must not stand next to the others'."""
        host = greeting.host
        if not greeting.sees:
            raise ClusterError(
                f"The worker on {host} does not see {file.parts}.",
                expected="a folder that all machines of the cluster share, under the same path",
                todo="CACHE=/a/shared/folder, and DATA_ROOT= on it too",
            )
        ours = _versions()
        differs = [key for key, one in ours.items() if greeting.versions.get(key) != one]
        if differs:
            key = differs[0]
            raise ClusterError(
                f"The worker on {host} has {key} {greeting.versions.get(key)}; here it is "
                f"{ours[key]}.",
                expected="the same versions on every machine",
                todo="install the same packages there, as with a container image",
            )
        apart = disagreement(greeting.probe, file.probe)
        if apart > TOLERANCE[self.plan.work.spec.asked.precision]:
            raise ClusterError(
                f"The network gives other codes on {host}, by up to {scientific(apart)} of the "
                "largest: other hardware, or other libraries.",
                expected="machines of one kind",
                todo="leave that machine out, or PRECISION=float32 and DEVICE=cpu",
            )
        self._hosts.add(host)
        self._engine = greeting.engine


def _probe(plan: Plan) -> dict[str, NDArray[Any]] | PipelineError:
    try:
        return plan.probe(plan.engine())
    except PipelineError as error:
        return error
