"""The runs that a server predicts with: loaded, warmed, loaded again when their files change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import n_cores
from ..datasets import locate
from ..datasets.layout import read_layout
from ..datasets.names import safe_name
from ..datasets.phrases import few
from ..errors import CacheError, PipelineError, ResultError, SettingsError
from ..predict import Classifier, Neighbours, Outcome
from ..predict.runs import Run, find_run
from ..settings import MachineSettings
from .batching import Batcher
from .metrics import Metrics

log = logging.getLogger("cnn_codes.serve")
_SUFFIXES = (".json", ".model.json", ".safetensors", ".train.safetensors")
_UNLIKE = 0.99
_N_NEAREST = 20  # most that are looked up
# Of the network in a batch: head and search cost about as much for 16 images as for 4.
_ROUNDS = 4


@dataclass(eq=False)
class Served:
    """One run, ready to predict.

    Attributes
    ----------
    name : str
        What requests call it.
    classifier : Classifier
        The run.
    neighbours : Neighbours or None
        Its training images; None where their codes are not here.
    notes : tuple of str
        What its user should know.
    folder : Path or None
        Root of the data set that it was trained on; None where that is not here.
    pictures : frozenset of str
        Paths in `folder` that may be shown.
    batcher : Batcher
        Takes views (V, size, size, 3) and gives outcomes.
    """

    name: str
    classifier: Classifier
    neighbours: Neighbours | None
    notes: tuple[str, ...]
    folder: Path | None
    pictures: frozenset[str]
    batcher: Batcher[NDArray[np.uint8], Outcome]
    _explainer: Any = None
    _n_users: int = 0
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the run from being closed while the block lasts."""
        self._n_users += 1
        try:
            yield
        finally:
            self._n_users -= 1
            if not self._n_users:
                self._free.set()

    def explained(self, pixels: NDArray[np.uint8], target: str) -> tuple[bytes, str]:
        """Give a PNG of where a class is seen in an image (H, W, 3), and the method's name.

        For one thread at a time. The first call may export the network once more.
        """
        if self._explainer is None:
            from ..explain import Explainer

            self._explainer = Explainer(self.classifier)
        found = self._explainer.explain(pixels, target=target)
        return found.png(), found.method

    async def close(self) -> None:
        """Wait for the requests that use it, and end its threads."""
        while self._n_users:
            self._free.clear()
            await self._free.wait()
        await self.batcher.close()


@dataclass(frozen=True)
class _Loaded:
    classifier: Classifier
    neighbours: Neighbours | None
    notes: tuple[str, ...]
    folder: Path | None
    pictures: frozenset[str]


def named_runs(runs: Sequence[str], results: Path) -> dict[str, str]:
    """Give each run a name: ``lunch=results/...json`` names one, else it is called as its file is.

    What an address cannot hold as it is becomes "-" in the file's name.

    Raises
    ------
    SettingsError
        No run, a name twice, or one that no address can hold.
    ResultError
        There is no such run.
    """
    found: dict[str, str] = {}
    for one in runs or ("",):
        name, found_run = _named(one, results)
        name = name or safe_name(found_run.name)  # of several layers or networks it has a "+"
        if name in found or safe_name(name) != name:
            raise SettingsError(
                f"RUN={','.join(runs)}: the name {name} "
                f"{'is there twice' if name in found else 'is not allowed'}.",
                expected="runs with commas, each RUN or NAME=RUN, with names of letters, digits, "
                "'-', '_' and '.'",
                todo="RUN=lunch=results/hotdog/svm-...json,other=...",
            )  # fmt: skip
        found[name] = str(found_run.file(".model.json"))
    return found


def _named(one: str, results: Path) -> tuple[str, Run]:
    """Split NAME=RUN; a path or a run's name may itself hold a "="."""
    name, equals, run = one.partition("=")
    if not equals:
        return "", find_run(one, results)
    with suppress(ResultError):
        return "", find_run(one, results)
    return name, find_run(run, results)


class Shelf:
    """The runs by name; each is watched, and replaced when its files have changed.

    Parameters
    ----------
    runs : dict of str to str
        Name to the path of a run's file, from :func:`named_runs`.
    results, cache, data_root : Path
        Folders.
    machine : MachineSettings
        What runs the networks.
    offline : bool
        Fetch nothing.
    metrics : Metrics
        Told of loads and batches.
    """

    def __init__(
        self,
        runs: dict[str, str],
        *,
        results: Path,
        cache: Path,
        data_root: Path,
        machine: MachineSettings,
        offline: bool,
        metrics: Metrics,
    ) -> None:
        self._runs = runs
        self._places = (results, cache, data_root)
        self._machine = machine
        self._offline = offline
        self._metrics = metrics
        self._states: dict[str, tuple[Any, ...]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._served: dict[str, Served] = {}

    @property
    def ready(self) -> bool:
        """Whether every run is loaded and warmed."""
        return len(self._served) == len(self._runs)

    @property
    def names(self) -> list[str]:
        """Names of the runs, the default one first."""
        return list(self._runs)

    def get(self, name: str) -> Served | None:
        """Give a run by name, the first for an empty one; None where there is none yet."""
        return self._served.get(name or self.names[0])

    async def load(self) -> None:
        """Load every run.

        Raises
        ------
        PipelineError
            One cannot be loaded.
        """
        for name in self._runs:
            await self._load(name)

    async def watch(self, every_s: float) -> None:
        """Look at the runs' files for ever; a change that does not load leaves the old run."""
        while True:
            await asyncio.sleep(every_s)
            for name in self._runs:
                before = self._state(name)
                if before == self._states[name]:
                    continue
                await asyncio.sleep(min(1.0, every_s))
                if self._state(name) != before:  # still being written
                    continue
                try:
                    await self._load(name)
                    log.info("%s has changed and was loaded", name)
                except Exception as error:
                    self._states[name] = before  # tried again at the next change
                    self._metrics.loads.labels(name, "failed").inc()
                    log.warning("%s has changed and cannot be loaded: %s", name, error)

    async def close(self) -> None:
        """Finish what waits for a network, and end."""
        await asyncio.gather(*(one.close() for one in self._served.values()))
        await asyncio.gather(*self._closing)

    def _state(self, name: str) -> tuple[Any, ...]:
        stem = self._runs[name].removesuffix(".model.json")
        states: list[Any] = []
        for suffix in _SUFFIXES:
            try:
                status = os.stat(stem + suffix)  # noqa: PTH116
                states.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                states.append(None)
        return tuple(states)

    async def _load(self, name: str) -> None:
        state = self._state(name)
        loaded = await asyncio.to_thread(self._read, name)
        classifier, neighbours = loaded.classifier, loaded.neighbours

        def run(views: Sequence[NDArray[np.uint8]]) -> list[Outcome]:
            return classifier.score(np.stack(views), neighbours=neighbours, n_nearest=_N_NEAREST)

        n_threads = (self._machine.workers or n_cores()) if classifier.concurrent else 1
        served = Served(
            name=name,
            classifier=classifier,
            neighbours=neighbours,
            notes=loaded.notes,
            folder=loaded.folder,
            pictures=loaded.pictures,
            batcher=Batcher(
                run,
                n_threads=n_threads,
                most=_ROUNDS * classifier.batch_images,
                observe=self._observe,
            ),
        )
        old = self._served.get(name)
        self._served[name] = served
        self._states[name] = state
        self._metrics.loads.labels(name, "loaded").inc()
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _observe(self, n_images: int, seconds: float) -> None:
        self._metrics.batch_images.observe(n_images)
        self._metrics.batch_s.observe(seconds)

    def _read(self, name: str) -> _Loaded:
        """Load a run and run one image through it; in a thread."""
        results, cache, data_root = self._places
        classifier = Classifier.load(
            self._runs[name], results=results, cache=cache, machine=self._machine,
            offline=self._offline,
        )  # fmt: skip
        notes = list(classifier.notes)
        neighbours: Neighbours | None = None
        try:
            neighbours = classifier.neighbours(_UNLIKE)
            notes += [neighbours.remark] if neighbours.remark else []
        except CacheError as error:
            notes.append(f"No distances to the training images: {error.found}")
        black = np.zeros((1, *classifier.views_shape), np.uint8)
        classifier.score(black, neighbours=neighbours, n_nearest=1)
        folder, pictures = self._pictures(classifier, neighbours, data_root, notes)
        return _Loaded(classifier, neighbours, tuple(notes), folder, pictures)

    def _pictures(
        self,
        classifier: Classifier,
        neighbours: Neighbours | None,
        data_root: Path,
        notes: list[str],
    ) -> tuple[Path | None, frozenset[str]]:
        """Find the training images; only what the data set lists itself may be shown."""
        if neighbours is None:
            return None, frozenset()
        data = classifier.trained_data
        try:
            if data is None:
                raise SettingsError("the run does not say which data set it was trained on")
            source = locate(data, data_root, offline=True)
            if source.registered and source.name == "elpv":
                from ..datasets.elpv import read_elpv

                listing = read_elpv(source.path)
            else:
                listing = read_layout(source.path)
        except (PipelineError, OSError) as error:
            notes.append(f"No pictures of the training images: {error}".splitlines()[0])
            return None, frozenset()
        there = frozenset(neighbours.paths) & frozenset(listing.paths)
        absent = [path for path in neighbours.paths if path not in there]
        if absent:
            notes.append(f"{len(absent)} training images have no picture here: {few(absent, 2)}.")
        return Path(listing.root), there
