"""The fits of a learning curve: heads in processes side by side, networks one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..compare.runs import Network, train
from ..context import Context
from ..heads import Examples
from ..results.measures import Measure, measure_named
from ..results.predictions import read_predictions
from ..results.records import plain
from ..settings import HeadSettings
from .pieces import Piece, Pieces
from .plan import Plan, Task

_SMALL = 4_000_000  # numbers that all fits read: below, processes take longer to start than to fit


def fit_heads(
    context: Context,
    network: Network,
    plan: Plan,
    tasks: Sequence[Task],
    pieces: Pieces,
    *,
    jobs: int,
) -> None:
    """Fit heads, one process a fit at a time; the codes are mapped, not copied, into each."""
    if not tasks:
        return
    from joblib import Parallel, cpu_count, delayed

    matrix = network.codes.matrix()  # (N, V, D)
    n_numbers = sum(task.size for task in tasks) * context.manifest.n_classes * matrix[0].size
    jobs = 1 if n_numbers < _SMALL else min(jobs or cpu_count(), len(tasks))
    # The largest first: a long fit begun last would leave the other cores idle.
    order = sorted(tasks, key=lambda task: -task.size)
    shared = (Examples(matrix, plan.rows.labels, plan.rows.groups),)
    names = context.manifest.class_names
    calls = [
        (
            _Fit(
                task.key, task.method, plan.heads[task.method], plan.rows_of(task), plan.test,
                names, context.seed + task.draw,
            ),
        )
        for task in order
    ]  # fmt: skip
    with ExitStack() as stack:
        if context.cluster.cluster and jobs > 1:
            from ..cluster import connected, spread_tasks

            stack.enter_context(connected(context.cluster.cluster))
            found = (piece for _, piece in spread_tasks(_fit_one, shared, calls))
        else:
            parallel = Parallel(jobs, return_as="generator_unordered", max_nbytes="1M")
            found = parallel(delayed(_fit_one)(*shared, *call) for call in calls)
        meter = stack.enter_context(context.progress("learning curve", len(order), "fits"))
        for piece in found:
            pieces.add(piece)
            meter.advance()


@dataclass(frozen=True, eq=False)
class _Fit:
    """One head to be fitted in a process of its own: on `train`, and measured on `test`, rows."""

    key: str
    method: str
    settings: HeadSettings
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    class_names: tuple[str, ...]
    seed: int


def _fit_one(every: Examples, fit: _Fit) -> Piece:
    """Choose and fit one head on the rows of a draw, then measure it."""
    from ..heads import fit_head  # and with it scikit-learn

    head = fit_head(
        fit.method,
        Examples(every.codes[fit.train], every.labels[fit.train], every.groups[fit.train]),
        None,
        replace(fit.settings, jobs=1),
        n_classes=len(fit.class_names),
        seed=fit.seed,
        class_names=fit.class_names,
    )
    probabilities = head.predict_proba(every.codes[fit.test])
    called = head.decide(probabilities)
    kept = _kept(measure_named(fit.settings.metric, fit.settings.cost), called, probabilities)
    chosen = {key: head.chosen[key] for key in ("C", "gamma", "k", "metric") if key in head.chosen}
    return Piece(
        key=fit.key,
        hits=Piece.bits(called == every.labels[fit.test]),
        n_test=len(fit.test),
        n_train=len(fit.train),
        fit_s=float(head.times_s["fit"]),
        chosen=plain(chosen | {"folds": head.chosen["folds"]}),
        warnings=[text for text in head.warnings if "converge" in text],
        called=kept[0],
        probabilities=kept[1],
    )


def _kept(
    measure: Measure, called: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[str, str]:
    """Encode what a figure needs besides the hits: classes and probabilities."""
    scored = measure.key in ("auroc", "average_precision", "log_loss")
    return (
        "" if measure.key == "accuracy" else Piece.packed(called.astype(np.int32)),
        Piece.packed(probabilities.astype(np.float32)) if scored else "",
    )


def train_networks(
    context: Context, network: Network, plan: Plan, tasks: Sequence[Task], pieces: Pieces
) -> None:
    """Train the network on each draw, small sizes first; keep what counts of it.

    The runs lie in a folder of their own until they are done: a killed one goes on at its last
    epoch, and a finished one leaves its piece, not a network for each point of the curve. Nothing
    is published in the cache: training finds its rows by digest.
    """
    if not tasks:
        return
    asked = replace(network.asked, layers=("final",))
    context = replace(context, codes=asked)
    tested = [plan.rows.paths[row] for row in plan.test.tolist()]
    for task in sorted(tasks, key=lambda one: (one.method, one.draw, one.size)):
        context.say(f"{task.method}: draw {task.draw + 1}, {task.size} images per class")
        below = f"curve/{task.key[:16]}"
        split = plan.split_of(task, context.manifest.n_images)
        training = replace(plan.trainings[task.method], repeat=task.draw)
        record = train(context, training, split, below=below)
        place = context.folder / below
        found = read_predictions(place / context.manifest.name / f"{record['run']}.predictions.csv")
        at = {path: row for row, path in enumerate(found.paths)}
        order = np.array([at[path] for path in tested])
        own = _kept(plan.measure, found.predicted[order], found.probabilities[order])
        kept = record["splits"]["train"], record["splits"]["val"]
        pieces.add(
            Piece(
                key=task.key,
                hits=Piece.bits((found.predicted == found.labels)[order]),
                n_test=len(tested),
                n_train=sum(sum(counts.values()) for counts in kept),
                fit_s=float(record["times_s"]["fit"]),
                chosen={"epoch": record["chosen"]["epoch"]},
                called=own[0],
                probabilities=own[1],
            )
        )
        shutil.rmtree(place)
    folder = context.folder / "curve"
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
