"""What a learning curve measures: which methods, on which draws of which sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compare.runs import Network, head_settings, is_head, training_of
from ..context import Context
from ..datasets.remaining import check_test
from ..files import digest_of, digest_of_arrays, sha256_file
from ..heads.costs import asked_costs
from ..heads.rows import TEST, Rows, rows_of
from ..results.measures import Measure, measure_named
from ..settings import CurveSettings, FinetuneSettings, HeadSettings, as_dict
from .draws import Draw, Pool, drawn, pool_of, sizes_of

VERSION = 1  # of what a fit makes of a draw; part of every piece's key


@dataclass(frozen=True, eq=False)
class Task:
    """One method on one draw of one size."""

    key: str
    method: str
    draw: int
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is to be measured.

    Attributes
    ----------
    rows : Rows
        All rows of the codes.
    pool : Pool
        The images that can be drawn.
    test : int64 (n,)
        Rows of the codes that are measured on.
    sizes : list of int
        Images per class, rising.
    draws, n_draws : list of Draw, dict of str to int
        The draws, and how many of them each method takes.
    tasks : list of Task
        What is to be measured.
    heads, trainings : dict
        Settings of each method.
    measure, costs
        The figure, and the costs that it may need.
    """

    rows: Rows
    pool: Pool
    test: NDArray[np.int64]
    sizes: list[int]
    draws: list[Draw]
    n_draws: dict[str, int]
    tasks: list[Task]
    heads: dict[str, HeadSettings]
    trainings: dict[str, FinetuneSettings]
    measure: Measure
    costs: NDArray[np.float64] | None

    def rows_of(self, task: Task) -> NDArray[np.int64]:
        """Give the rows of the codes that a task trains on."""
        return self.draws[task.draw].rows(self.pool, task.size)

    def split_of(self, task: Task, n_images: int) -> NDArray[np.int8]:
        """Split (N,) of a draw: its images train, those measured on test, -1 all others."""
        return self.rows.split_of(self.rows_of(task), self.test, n_images)


def plan_of(context: Context, network: Network, settings: CurveSettings) -> Plan:
    """Decide what is drawn, and give each fit a key of all that changes it.

    Raises
    ------
    SettingsError
        An unknown method, or sizes that are none.
    DataError
        A class with fewer than two different training images, or no test image.
    """
    manifest = context.manifest
    rows = rows_of(manifest, network.codes)
    test = rows.split == TEST
    if context.data.leaks == "drop":
        test &= ~rows.leaks()
    check_test(test, command=context.command)
    labelled = np.flatnonzero(rows.split != TEST)
    pool = pool_of(labelled, rows.sha256, rows.labels, rows.strata, rows.groups)
    sizes = sizes_of(settings.sizes, pool.counts(manifest.n_classes), manifest.class_names)
    methods = tuple(dict.fromkeys(settings.methods))
    trainings = {m: training_of(m, settings) for m in methods if not is_head(m)}
    heads = {method: head_settings(settings, method) for method in methods if is_head(method)}
    n_draws = {m: settings.draws if is_head(m) else settings.trained_draws for m in methods}
    draws = [drawn(pool, r, seed=context.seed) for r in range(max(n_draws.values()))]
    shared = {
        "version": VERSION,
        "weights": network.codes.config["weights_digest"],
        "codes": network.codes.fingerprint,
        "classes": manifest.class_names,
        "test": _digest(rows, np.flatnonzero(test)),
    } | ({"cost": sha256_file(Path(settings.cost))} if settings.cost else {})
    tasks = []
    for draw in draws:
        for size in sizes:
            train_rows = _digest(rows, draw.rows(pool, size))
            for method in methods:
                if draw.number >= n_draws[method]:
                    continue
                asked = (
                    as_dict(heads[method], affects="bytes")
                    if is_head(method)
                    else as_dict(replace(trainings[method], repeat=draw.number), affects="bytes")
                    | as_dict(network.asked)
                )
                # The seed varies with the draw at every size, that of all images too: the folds of
                # heads; order, augmentation and new layers of what trains the network. The views
                # in the trunk's cache keep one seed, so that the trunk runs once.
                seed = context.seed + (draw.number if is_head(method) else 0)
                parts = {"method": method, "settings": asked, "train": train_rows, "seed": seed}
                tasks.append(Task(digest_of(shared | parts), method, draw.number, size))
    return Plan(
        rows=rows, pool=pool, test=np.flatnonzero(test), sizes=sizes, draws=draws,
        n_draws=n_draws, tasks=tasks, heads=heads, trainings=trainings,
        measure=measure_named(settings.metric, settings.cost),
        costs=asked_costs(settings.cost, manifest.class_names),
    )  # fmt: skip


def _digest(rows: Rows, some: NDArray[np.int64]) -> str:
    """Digest of which images these rows are, and of their labels."""
    return digest_of_arrays(rows.sha256[some], rows.labels[some])
