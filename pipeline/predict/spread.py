"""Prediction on a cluster: each worker loads the run once, and classifies chunks of images."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cluster import GIVEN_UP, Chunk, Pool, connected
from ..errors import ClusterError, PipelineError
from ..settings import MachineSettings, PlaceSettings, PredictSettings
from .classifier import Classifier, Outcome

_CHUNK = 256  # images; a multiple of 16, as BLAS has it

Item = tuple[int, str, str]  # place, path, name


@dataclass(frozen=True)
class _Plan:
    settings: PredictSettings
    machine: MachineSettings
    places: PlaceSettings
    neighbours: bool
    first: str  # path of an image, which every worker must see


class _Worker:
    """One worker process; lives on a node of the cluster."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def greet(self) -> PipelineError | None:
        """Load the run."""
        import socket

        plan, settings = self._plan, self._plan.settings
        try:
            if not Path(plan.first).exists():
                return ClusterError(
                    f"The worker on {socket.gethostname()} does not see {plan.first}.",
                    expected="images in a folder that all machines of the cluster share; an "
                    "archive is unpacked on one machine only",
                    todo="unpack it into a shared folder, and IMAGES= that folder",
                )
            self._classifier = Classifier.load(
                settings.run,
                results=plan.places.results,
                cache=plan.places.cache,
                machine=plan.machine,
                weights=settings.weights,
                offline=settings.offline,
            )
            self._neighbours = (
                self._classifier.neighbours(settings.unlike or 0.99) if plan.neighbours else None
            )
        except PipelineError as error:
            return error
        return None

    def work(self, number: int, items: list[Item]) -> list[tuple[int, Outcome]] | PipelineError:
        """Classify some images."""
        try:
            outcomes = self._classifier.classify(
                [path for _, path, _ in items],
                names=[name for _, _, name in items],
                neighbours=self._neighbours,
                n_nearest=max(1, self._plan.settings.nearest),
            )
            return [(at, one) for (at, _, _), one in zip(items, outcomes, strict=True)]
        except PipelineError as error:
            return error


def classify_spread(
    address: str,
    settings: PredictSettings,
    machine: MachineSettings,
    places: PlaceSettings,
    paths: Sequence[str],
    names: Sequence[str],
    *,
    neighbours: bool,
) -> Iterator[Outcome]:
    """Give an outcome for each image, in order.

    Parameters
    ----------
    address : str
        As the setting CLUSTER has it.
    settings, machine, places
        As :func:`cnn_codes.predict.run.predict`; WORKERS is the number of worker processes.
    paths, names : sequence of str
        Where the images lie, and what they are called.
    neighbours : bool
        Whether the nearest training images are looked up.

    Raises
    ------
    ClusterError
        There is no such cluster, or a worker does not see the images.
    """
    paths = [str(Path(path).absolute()) for path in paths]
    whole = replace(
        places,
        cache=str(Path(places.cache).absolute()),
        results=str(Path(places.results).absolute()),
        data_root=str(Path(places.data_root).absolute()),
    )
    run = Path(settings.run)
    named = replace(settings, run=str(run.absolute())) if run.exists() else settings
    found: list[tuple[int, Outcome]] = []  # a heap by place: chunks come back in any order
    following = 0
    with connected(address, cores=machine.workers) as connection:
        gpus = connection.n_gpus if machine.device != "cpu" else 0
        n = machine.workers or gpus or connection.n_cores
        plan = _Plan(named, replace(machine, workers=1), whole, neighbours, paths[0])
        pool: Pool[Item] = Pool(
            _Worker,
            (plan,),
            n=min(n, -(-len(paths) // _CHUNK)),
            gpus=min(1.0, gpus / n) if gpus else 0.0,
            given_up=lambda item: heapq.heappush(found, (item[0], _error(item))),
        )
        for _, outcomes in pool.run(_chunks(paths, names)):
            for one in outcomes:
                heapq.heappush(found, one)
            while found and found[0][0] == following:
                yield heapq.heappop(found)[1]
                following += 1


def _error(item: Item) -> Outcome:
    return Outcome(item[2], None, GIVEN_UP)


def _chunks(paths: Sequence[str], names: Sequence[str]) -> Iterator[Chunk[Any]]:
    for number, at in enumerate(range(0, len(paths), _CHUNK)):
        some = range(at, min(at + _CHUNK, len(paths)))
        yield Chunk(number, [(i, paths[i], names[i]) for i in some])
