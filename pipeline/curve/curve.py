"""Learning curves: a figure against labelled images per class, and where one method overtakes.

Heads are fitted on the codes that are there; methods that train the network go through stage
three on a manifest of the draw, whose trunk runs once for each image, whatever draws it is in.
Everything is chosen within the draw; test is looked at once for each fit. All images that are not
test can be drawn, those of a val of the set's own too: they are labels that somebody made.

Every fit is kept when it is done (:mod:`cnn_codes.curve.pieces`), so a curve that was killed
goes on where it was, and one of more sizes or draws adds to what is there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare.compare import comparison_name
from ..compare.runs import Network, head_settings, is_head, train, training_of
from ..context import Context
from ..datasets import SPLITS, Manifest
from ..datasets.remaining import check_test
from ..errors import SettingsError
from ..files import digest_of, sha256_file
from ..heads.costs import read_costs
from ..heads.rows import Rows, rows_of
from ..results.frame import framed, known, write_framed
from ..results.measures import Measure, measure_named
from ..results.names import named
from ..results.predictions import read_predictions
from ..results.records import plain
from ..results.resampling import resampled, resamples
from ..settings import CurveSettings, FinetuneSettings, HeadSettings, as_dict
from .crossing import Curve, covariance_of_means, crossing, interval_of_means
from .draws import Draw, Pool, drawn, pool_of, sizes_of
from .pieces import Piece, Pieces
from .power_law import FEWEST_SIZES, extrapolated
from .words import draw_picture, sentences

__all__ = ["curve", "curve_name"]

SCHEMA = 1
VERSION = 1  # of what a fit makes of a draw; part of every piece's key
TRAIN, VAL, TEST = range(len(SPLITS))
_SMALL = 4_000_000  # numbers that all fits read: below, processes take longer to start than to fit


def curve(context: Context, network: Network, settings: CurveSettings) -> dict[str, Any]:
    """Measure every method at every size on every draw, or take the fits that are there.

    Parameters
    ----------
    context : Context
        The images and the machine.
    network : Network
        With its codes, current for the data.
    settings : CurveSettings
        Methods, sizes, draws.

    Returns
    -------
    dict
        The record as written to ``results/<data>/curve-....json``: ``sizes``, ``n_train_total``,
        ``n_test``, ``draws``, ``metric``, ``methods`` (its value of each draw at each size, mean,
        sd, interval, seconds), ``crossings`` (:func:`cnn_codes.curve.crossing.crossing`),
        ``sentences`` and so on; next to it the picture, ``.svg``. ``reused`` is set where it was
        there already, and ``n_new`` is the number of fits that had to be made.

    Raises
    ------
    SettingsError
        An unknown method, or sizes that are none.
    DataError
        A class with fewer than two different training images.
    HeadError, TrainingError
        A fit that cannot be made; those made before are kept.
    """
    if not settings.methods:
        raise SettingsError("METHODS is empty.", expected="at least one method")
    plan = _plan(context, network, settings)
    fingerprint = digest_of(
        {"schema": SCHEMA, "keys": [task.key for task in plan.tasks], "sizes": plan.sizes}
    )
    name, subject = named(context, curve_name(context, network), fingerprint=fingerprint)
    path = context.folder / f"{name}.json"
    earlier = known(path, fingerprint, kind="curve")
    if earlier is not None and path.with_suffix(".svg").is_file():
        return earlier | {"n_new": 0}
    pieces = Pieces(context.folder / f"{name}.pieces.jsonl")
    missing = set(pieces.missing(task.key for task in plan.tasks))
    todo = [task for task in plan.tasks if task.key in missing]
    heads = [task for task in todo if is_head(task.method)]
    _fit_heads(context, network, plan, heads, pieces, jobs=settings.jobs)
    _train_networks(context, network, plan, [one for one in todo if one not in heads], pieces)
    record = framed(
        "curve", name, {"subject": subject} | _body(context, network, plan, pieces),
        data=context.manifest.name,
        fingerprint=fingerprint,
        settings=as_dict(settings) | as_dict(context.data) | as_dict(network.asked),
        command=context.command,
    )  # fmt: skip
    draw_picture(path.with_name(f"{name}.svg"), record)
    return write_framed(path, record) | {"n_new": len(todo)}


def curve_name(context: Context, network: Network) -> str:
    """Name a curve by what it is of; methods, sizes and draws are not in it."""
    return "curve" + comparison_name(context, [network]).removeprefix("compare")


@dataclass(frozen=True, eq=False)
class _Task:
    """One method on one draw of one size."""

    key: str
    method: str
    draw: int
    size: int


@dataclass(frozen=True, eq=False)
class _Plan:
    """All that is to be measured.

    Attributes
    ----------
    test : int64 (n,)
        Rows of the codes that are measured on.
    """

    rows: Rows
    pool: Pool
    test: NDArray[np.int64]
    sizes: list[int]
    draws: list[Draw]
    n_draws: dict[str, int]
    tasks: list[_Task]
    heads: dict[str, HeadSettings]
    trainings: dict[str, FinetuneSettings]
    measure: Measure
    costs: NDArray[np.float64] | None


def _plan(context: Context, network: Network, settings: CurveSettings) -> _Plan:
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
                tasks.append(_Task(digest_of(shared | parts), method, draw.number, size))
    return _Plan(
        rows=rows, pool=pool, test=np.flatnonzero(test), sizes=sizes, draws=draws,
        n_draws=n_draws, tasks=tasks, heads=heads, trainings=trainings,
        measure=measure_named(settings.metric, settings.cost),
        costs=read_costs(Path(settings.cost), manifest.class_names) if settings.cost else None,
    )  # fmt: skip


def _digest(rows: Rows, some: NDArray[np.int64]) -> str:
    """Digest of which images these rows are, and of their labels."""
    total = hashlib.sha256(np.ascontiguousarray(rows.sha256[some]).tobytes())
    total.update(np.ascontiguousarray(rows.labels[some]).tobytes())
    return total.hexdigest()


def _fit_heads(
    context: Context,
    network: Network,
    plan: _Plan,
    tasks: Sequence[_Task],
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
    shared = (matrix, plan.rows.labels, plan.rows.groups)
    calls = [
        (
            task, plan.heads[task.method], plan.draws[task.draw].rows(plan.pool, task.size),
            plan.test, context.manifest.class_names, context.seed + task.draw,
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


def _fit_one(
    matrix: NDArray[np.float32],
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    task: _Task,
    settings: HeadSettings,
    train_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
    class_names: tuple[str, ...],
    seed: int,
) -> Piece:
    """Choose and fit one head on the rows of a draw, then measure it."""
    from ..heads import Examples, fit_head

    head = fit_head(
        task.method,
        Examples(matrix[train_rows], labels[train_rows], groups[train_rows]),
        None,
        replace(settings, jobs=1),
        n_classes=len(class_names),
        seed=seed,
        class_names=class_names,
    )
    probabilities = head.predict_proba(matrix[test_rows])
    called = head.decide(probabilities)
    kept = _kept(measure_named(settings.metric, settings.cost), called, probabilities)
    chosen = {key: head.chosen[key] for key in ("C", "gamma", "k", "metric") if key in head.chosen}
    return Piece(
        key=task.key,
        hits=Piece.bits(called == labels[test_rows]),
        n_test=len(test_rows),
        n_train=len(train_rows),
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


def _train_networks(
    context: Context, network: Network, plan: _Plan, tasks: Sequence[_Task], pieces: Pieces
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
        split = _split(context.manifest, plan, task)
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


def _split(manifest: Manifest, plan: _Plan, task: _Task) -> NDArray[np.int8]:
    """Split (N,) of a draw: its images train, those that are measured on test, -1 the others."""
    split = np.full(manifest.n_images, -1, np.int8)
    split[plan.rows.at[plan.draws[task.draw].rows(plan.pool, task.size)]] = TRAIN
    split[plan.rows.at[plan.test]] = TEST
    return split


def _body(context: Context, network: Network, plan: _Plan, pieces: Pieces) -> dict[str, Any]:
    manifest, sizes = context.manifest, plan.sizes
    curves: dict[str, Curve] = {}
    methods: dict[str, Any] = {}
    warnings = dict.fromkeys(context.warnings)
    groups = manifest.groups_at(plan.rows.at[plan.test])
    counts = resamples(
        len(plan.test), groups=groups, n_classes=manifest.n_classes, seed=context.seed
    )
    for method, n_draws in plan.n_draws.items():
        found = list(_pieces_of(plan, pieces, method, n_draws))  # R lists of S
        one = curves[method] = _curve(plan, found, counts, manifest.n_classes)
        methods[method] = {
            "model": network.model,
            "sizes": sizes,
            "values": one.values.T,
            "mean": one.values.mean(axis=0),
            "sd": one.values.std(axis=0, ddof=1) if n_draws > 1 else None,
            "ci95": interval_of_means(one, seed=context.seed),
            "forecast": _forecast(one, plan),
            "fit_s": np.mean([[piece.fit_s for piece in draw] for draw in found], axis=0),
            "chosen": [[draw[at].chosen for draw in found] for at in range(len(sizes))],
        }
        told = [text for draw in found for piece in draw for text in piece.warnings]
        warnings |= dict.fromkeys(f"{method}: {text}" for text in told[:1])
    warnings |= dict.fromkeys(_remarks(manifest, plan))
    body: dict[str, Any] = {
        "model": network.model,
        "layers": list(network.asked.layers),
        "views": network.asked.views,
        "size": int(network.codes.config["size"]),
        "seed": context.seed,
        "class_names": list(manifest.class_names),
        "sizes": sizes,
        "n_train_total": [len(plan.draws[0].rows(plan.pool, size)) for size in sizes],
        "n_test": len(plan.test),
        "draws": max(plan.n_draws.values()),
        "metric": plan.measure.key,
        "methods": methods,
        "crossings": [
            crossing(
                curves[a],
                curves[b],
                sizes,
                names=(a, b),
                sign=plan.measure.sign,
                seed=context.seed,
            )
            for a, b in combinations(methods, 2)
        ],
        "warnings": list(warnings),
    }
    whole: dict[str, Any] = plain(body)
    whole["sentences"] = sentences(whole | {"data": manifest.name})
    return whole


def _curve(
    plan: _Plan, found: Sequence[Sequence[Piece]], counts: NDArray[np.int32], n_classes: int
) -> Curve:
    """Measure the pieces of one method, draws (outer) by sizes (inner)."""
    key = plan.measure.key
    if key == "accuracy":
        hits = np.stack([[piece.right() for piece in draw] for draw in found])
        return Curve.of_hits(hits, counts)
    labels = plan.rows.labels[plan.test]
    once = np.ones((1, len(labels)), np.int32)
    values, samples = (
        np.array(
            [
                [
                    resampled(
                        labels, piece.table(n_classes), some, predicted=piece.classes(),
                        costs=plan.costs,
                    )[key]
                    for piece in draw
                ]
                for draw in found
            ]
        )
        for some in (once, counts)
    )  # fmt: skip
    return Curve(values[:, :, 0], samples.astype(np.float32))


def _forecast(one: Curve, plan: _Plan) -> list[dict[str, float]] | None:
    """Extrapolate to twice and four times the largest size; None with few draws or sizes.

    Only figures from 0 to 1: the power law is one of the distance to 1.
    """
    covariance = covariance_of_means(one)
    if covariance is None or len(plan.sizes) < FEWEST_SIZES or plan.measure.lower:
        return None
    found = extrapolated(
        plan.sizes, one.values.mean(axis=0), covariance,
        [plan.sizes[-1] * factor for factor in (2, 4)],
        one_draw=float(one.values[:, -1].var(ddof=1)),
    )  # fmt: skip
    return [vars(point) for point in found]


def _pieces_of(plan: _Plan, pieces: Pieces, method: str, n_draws: int) -> Iterator[list[Piece]]:
    """Give the pieces of one method, draw by draw, in the order of the sizes."""
    keys = {(t.draw, t.size): t.key for t in plan.tasks if t.method == method}
    for draw in range(n_draws):
        yield [pieces[keys[draw, size]] for size in plan.sizes]


def _remarks(manifest: Manifest, plan: _Plan) -> list[str]:
    """Say where a size means less than it says."""
    counts = plan.pool.counts(manifest.n_classes)
    short = [
        f"{name} ({count:,})"
        for name, count in zip(manifest.class_names, counts.tolist(), strict=True)
        if count < plan.sizes[-1]
    ]
    remarks = []
    if short:
        shown = ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
        remarks.append(
            f"Some classes have fewer images than the largest size, {plan.sizes[-1]:,}; there they "
            f"give all they have: {shown}."
        )
    if plan.sizes[-1] >= counts.max() and max(plan.n_draws.values()) > 1:
        remarks.append(
            f"At {plan.sizes[-1]:,} images per class all draws contain the same images: the spread "
            "there is that of the seeds (folds of heads, training of networks) alone."
        )
    return remarks
