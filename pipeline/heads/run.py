"""Stage two as a whole: codes of a manifest, heads fitted on them, results written.

Joins what stands to its left: manifest (who is in which split), codes (arrays), heads (fits),
results (records). A run whose fingerprint agrees with what is there already is not repeated.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..datasets import SPLITS, Manifest, resplit
from ..errors import DataError, HeadError
from ..files import digest_of
from ..notation import share, size
from ..progress import Messages
from ..results.figures import figures_of
from ..results.frame import without_leaks, write_framed
from ..results.runs import (
    Predictions,
    build_record,
    known_run,
    name_for,
    run_name,
    subject_of,
    summarise,
    write_run,
)
from ..settings import HeadSettings, as_dict
from .costs import read_costs
from .examples import Codes as Array
from .examples import take
from .file_rows import FileRows
from .room import available_bytes

if TYPE_CHECKING:
    from ..codes.reader import Codes
    from .model import Head

__all__ = ["Rows", "fit_heads", "redrawn", "rows_of"]

MOST_MEMORY = 0.4  # of the free memory that codes may take: they are there twice while heads fit
ON_DISK = ("svm", "softmax", "ridge")  # methods that read codes in blocks
VERSION = 6  # of what stage two makes of codes; part of every run's fingerprint
TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of each row of a file of codes, N rows.

    Attributes
    ----------
    at : int64 (N,)
        Rows of the manifest.
    paths : tuple of str
        Relative to the data root.
    sha256 : S64 (N,)
        Digests of the images' bytes.
    labels : int32 (N,)
        Indices into the class names.
    groups : int64 (N,)
        Equal for images of one group: of equal bytes, or of one thing.
    keys : S64 (N,)
        Keys of the groups, which random splits are cut by.
    split : int8 (N,)
        Index into ``SPLITS``.
    strata : int32 (N,) or None
        What random splits are stratified by besides the class.
    weight : float64 (N,) or None
        Of each image in weighted metrics, where the data set brings it.
    """

    at: NDArray[np.int64]
    paths: tuple[str, ...]
    sha256: NDArray[np.bytes_]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    keys: NDArray[np.bytes_]
    split: NDArray[np.int8]
    strata: NDArray[np.int32] | None
    weight: NDArray[np.float64] | None

    def leaks(self) -> NDArray[np.bool_]:
        """Test rows (N,) whose group is in train or val too."""
        test = self.split == TEST
        leaks: NDArray[np.bool_] = test & np.isin(self.groups, self.groups[~test])
        return leaks


def rows_of(manifest: Manifest, codes: Codes) -> Rows:
    """Take the rows of the manifest that have codes, in the order of the codes.

    Raises
    ------
    DataError
        After bad images were left out, a class has none, or there is no test image.
    """
    kept = np.flatnonzero(~np.isin(manifest.sha256, np.array(list(codes.rejects), "S64")))
    weight = manifest.extra.get("weight")
    rows = Rows(
        at=kept,
        paths=codes.paths,
        sha256=codes.sha256,
        labels=manifest.labels[kept],
        groups=manifest.groups[kept],
        keys=manifest.keys[kept],
        split=manifest.split[kept],
        strata=None if manifest.strata is None else manifest.strata[kept],
        weight=None if weight is None else np.asarray(weight[kept], np.float64),
    )
    for split, name in ((TRAIN, "train"), (TEST, "test")):
        have = np.unique(rows.labels[rows.split == split])
        lost = [manifest.class_names[k] for k in range(manifest.n_classes) if k not in have]
        if not len(have) or (lost and name == "train"):
            raise DataError(
                f"No readable image is left in {name} of {', '.join(lost)}.",
                expected="at least one image of every class that can be read",
                todo="make audit names the images that cannot be read",
            )
    return rows


def fit_heads(context: Context, codes: Codes, settings: HeadSettings) -> list[dict[str, Any]]:
    """Fit every head asked for, on every split and seed asked for, and write the results.

    Parameters
    ----------
    context : Context
        Its ``data.seed`` is the first seed; ``data.leaks`` says whether leaked test images count.
    codes : Codes
        Current for the images of the context.
    settings : HeadSettings
        Methods, folds, splits, seeds and so on.

    Returns
    -------
    list of dict
        One record a method: of its run or, with several splits or seeds, of their summary.
        ``reused`` is set in those that were there already.
    """
    manifest, seed = context.manifest, context.seed
    rows = rows_of(manifest, codes)
    all_drawn = [
        (rows, "")
        if settings.splits == 1
        else (redrawn(rows, manifest, seed + r), f"split{r + 1}of{settings.splits}")
        for r in range(settings.splits)
    ]
    tasks = [
        [
            _Task(method, drawn, seed + s, tag)
            for drawn, tag in all_drawn
            for s in range(settings.seeds)
        ]
        for method in settings.methods
    ]
    measured = _spread(context, codes, settings, [task for some in tasks for task in some])
    records = []
    for some in tasks:
        method = some[0].method
        runs = [_run(context, codes, settings, task, measured.get(task)) for task in some]
        if len(runs) == 1:
            records.append(runs[0])
            continue
        task = _Task(method, rows, seed, f"{settings.splits}splits-{settings.seeds}seeds")
        subject = _subject(context, rows)
        name = name_for(
            context.folder,
            _name(context, codes, settings, task),
            subject=subject,
            fingerprint=str(runs[0]["fingerprint"]),
        )
        summary = summarise(runs, run=name) | {"subject": subject}
        write_framed(context.folder / f"{name}.json", summary)
        records.append(summary | {"reused": all(run.get("reused") for run in runs)})
    return records


@dataclass(frozen=True, eq=False)
class _Task:
    """One fit: the method, the rows with their splits, the seed, and what its name adds."""

    method: str
    rows: Rows
    seed: int
    tag: str = ""


def _name(context: Context, codes: Codes, settings: HeadSettings, task: _Task) -> str:
    """Name a run; whatever differs from the defaults adds a digest."""
    digest = codes.name.rpartition("-")[2]
    other = as_dict(settings, affects="bytes") | {"leaks": context.data.leaks}
    other |= {"group": context.data.group} if context.data.group else {}
    usual = as_dict(HeadSettings(), affects="bytes") | {"leaks": "drop"}
    for free in ("methods", "splits", "seeds"):
        other.pop(free), usual.pop(free)
    other.pop("test", None)
    folds, repeats = settings.outer
    marks = [task.tag or (f"cv{folds}x{repeats}" if folds else "")]
    if digest == codes.fingerprint[:8]:
        marks.append(digest)
    if other != usual:
        marks.append(digest_of(other)[:6])
    return run_name(
        method=task.method,
        model=str(codes.config["model"]),
        layers=codes.config["asked"]["layers"],
        views=str(codes.config["asked"]["views"]).replace(":", ""),
        size=int(codes.config["size"]),
        seed=task.seed,
        extra="-".join(mark for mark in marks if mark),
    )


def _subject(context: Context, rows: Rows) -> str:
    """Digest of the classes, images, labels and split of a run."""
    return subject_of(context.manifest.class_names, rows.sha256, rows.labels, rows.split)


def _fingerprint(context: Context, codes: Codes, settings: HeadSettings, task: _Task) -> str:
    """Digest of everything that changes a number of a run."""
    one = replace(settings, methods=(task.method,), splits=1, seeds=1)
    drawn = hashlib.sha256(codes.sha256.tobytes())
    for column in (task.rows.labels, task.rows.split, task.rows.weight):
        drawn.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    return digest_of(
        {
            "version": VERSION,
            "codes": codes.fingerprint,
            "rows": drawn.hexdigest(),
            "classes": context.manifest.class_names,
            "val_from": context.manifest.val_from,
            "settings": as_dict(one, affects="bytes"),
            "cost": _digest(one.cost),
            "leaks": context.data.leaks,
            "seed": task.seed,
        }
        | context.manifest.group_fields
        | ({"intervals": "over groups"} if context.manifest.grouping else {})
    )


def _digest(path: str) -> str:
    """SHA-256 of a file's bytes; empty where there is none (what reads it says so)."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if path and file.is_file() else ""


def redrawn(rows: Rows, manifest: Manifest, seed: int) -> Rows:
    """Split all images again into train and test, as many to test as the set itself has.

    Split r (from 0) of several has the seed of the data plus r, with every method.
    """
    fraction = float(np.mean(rows.split == TEST))
    split = resplit(
        rows.labels,
        rows.keys,
        fraction,
        seed,
        strata=rows.strata,
        class_names=manifest.class_names,
    )
    return replace(rows, split=split)


def _spread(
    context: Context, codes: Codes, settings: HeadSettings, tasks: list[_Task]
) -> dict[_Task, _Measured]:
    """Fit the heads of all tasks without a run on the cluster that CLUSTER names."""
    if not context.cluster.cluster:
        return {}
    tasks = [task for task in tasks if _known(context, codes, settings, task)[-1] is None]
    if not tasks:
        return {}
    from ..cluster import connected, spread_tasks

    manifest = replace(context.manifest, extra=dict(context.manifest.extra))
    bare = replace(context, manifest=manifest, messages=Messages())
    cost = str(Path(settings.cost).absolute()) if settings.cost else ""
    found = {}
    with (
        connected(context.cluster.cluster) as connection,
        context.progress("heads", len(tasks), "fits") as meter,
    ):
        cores = max(1, min(connection.most_cores, connection.n_cores // len(tasks)))
        one = replace(settings, jobs=cores, cost=cost)
        shared, calls = (bare, codes.matrix(), one), [(task,) for task in tasks]
        for at, result in spread_tasks(_measured, shared, calls, cores=cores):
            found[tasks[at]] = result
            meter.advance()
    return found


def _known(
    context: Context, codes: Codes, settings: HeadSettings, task: _Task
) -> tuple[str, str, str, str, dict[str, Any] | None]:
    """Give fingerprint, subject, usual name and name of a run, and the run if it is there."""
    fingerprint = _fingerprint(context, codes, settings, task)
    subject = _subject(context, task.rows)
    usual = _name(context, codes, settings, task)
    name = name_for(context.folder, usual, subject=subject, fingerprint=fingerprint)
    there = known_run(context.folder / f"{name}.json", fingerprint)
    return fingerprint, subject, usual, name, there


def _run(
    context: Context,
    codes: Codes,
    settings: HeadSettings,
    task: _Task,
    measured: _Measured | None = None,
) -> dict[str, Any]:
    """Fit one head and write its run, or take the one that is there."""
    fingerprint, subject, usual, name, there = _known(context, codes, settings, task)
    if there is not None:
        return there
    if name != usual:
        context.say(f"{usual} is of other images, labels or classes and is kept; this is {name}.")
    from . import save_head

    began = time.perf_counter()
    if measured is None:
        matrix = _matrix(context, codes, task.method)  # (N, V, D)
        measured = _measured(context, matrix, settings, task)
    head, rows, manifest = measured.head, task.rows, context.manifest
    config = codes.config
    record = build_record(
        run=name,
        data=manifest.name,
        method=task.method,
        model=str(config["model"]),
        layers=config["asked"]["layers"],
        views=str(config["asked"]["views"]),
        size=int(config["size"]),
        seed=task.seed,
        class_names=manifest.class_names,
        splits={
            split: {
                manifest.class_names[k]: int(np.sum(rows.labels[mask] == k))
                for k in range(manifest.n_classes)
            }
            for split, mask in measured.used.items()
            if mask.any()
        },
        chosen=dict(head.chosen),
        metrics=measured.metrics,
        times_s={
            "codes": codes.extraction_s,
            "fit": measured.fit_s,
            "predict": measured.predict_s,
            "total": codes.extraction_s
            + max(measured.fit_s + measured.predict_s, time.perf_counter() - began),
        },
        fingerprint=fingerprint,
        warnings=[
            *measured.warnings,
            *without_leaks(context.warnings, measured.warnings),
            *head.warnings,
        ],
        settings=as_dict(context.codes) | as_dict(settings) | as_dict(context.data),
        command=context.command,
        extra={
            "subject": subject,
            "codes_fingerprint": codes.fingerprint,
            "code_dim": head.code_dim,
            "n_parameters": head.n_parameters,
            "calibration": dict(head.calibration),
            "decision": dict(head.output.decision),
            "sets": dict(head.output.sets),
            **_networks(config),
            **measured.extra,
        },
    )
    meta = {"codes": config, "codes_fingerprint": codes.fingerprint, "run": name}
    write_run(
        context.folder,
        record,
        measured.predictions,
        save_model=lambda stem: save_head(stem, head, meta),
    )
    return record


def _networks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name each of several networks side by side in a record; nothing where there is one."""
    keys = ("model", "weights", "weights_digest", "layers", "size")
    networks = [{key: one[key] for key in keys} for one in config.get("networks", ())]
    return {"networks": networks} if networks else {}


@dataclass(frozen=True, eq=False)
class _Measured:
    """A head, and what it was measured on.

    Attributes
    ----------
    used : dict of str to bool (N,)
        Rows of each split.
    fit_s, predict_s : float
        Seconds of the fit, and of the predictions of test.
    """

    head: Head
    used: dict[str, NDArray[np.bool_]]
    metrics: dict[str, Any]
    predictions: Predictions
    fit_s: float
    predict_s: float
    warnings: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def _matrix(context: Context, codes: Codes, method: str) -> Array:
    """Read the codes (N, V, D) into memory; where they take too much of it, leave them on disk.

    Raises
    ------
    HeadError
        They do not fit into memory, and the method needs them there.
    """
    n_bytes, there = codes.matrix_bytes, available_bytes()
    if n_bytes <= MOST_MEMORY * there:
        return codes.matrix()
    much = (
        f"The codes take {size(n_bytes)} as float32, more than {share(MOST_MEMORY, 0)} of the "
        f"{size(there)} of memory that are free"
    )
    if method not in ON_DISK:
        raise HeadError(
            f"{much}; {method} needs them in memory.",
            expected=f"{', '.join(ON_DISK)}, which read them from disk in blocks",
            todo=context.command_for("heads", {"methods": ON_DISK}),
        )
    context.say(f"{much}: they are read from disk in blocks.")
    codes.check()
    n_views = int(codes.config["n_views"])
    parts = [
        block if at is None else FileRows([block], n_views, at) for block, at in codes.blocks()
    ]
    return FileRows(parts, n_views)


def _measured(context: Context, matrix: Array, settings: HeadSettings, task: _Task) -> _Measured:
    """Fit a head, and measure it as TEST says."""
    return (_by_folds if settings.outer[0] else _on_split)(context, matrix, settings, task)


def _on_split(context: Context, matrix: Array, settings: HeadSettings, task: _Task) -> _Measured:
    """Fit a head on train, and measure it on the other images."""
    from . import Examples, fit_head  # and with it scikit-learn

    began = time.perf_counter()
    manifest, rows = context.manifest, task.rows
    given_val = manifest.val_from == "data" and bool(np.any(rows.split == VAL))
    used = {
        "train": rows.split == TRAIN if given_val else (rows.split == TRAIN) | (rows.split == VAL),
        "val": (rows.split == VAL) & given_val,
        "test": rows.split == TEST,
    }
    leaks, warnings = rows.leaks(), []
    if leaks.any():
        if context.data.leaks == "drop":
            used["test"] &= ~leaks
        what = "left out of" if context.data.leaks == "drop" else "kept in"
        first = ", ".join(rows.paths[i] for i in np.flatnonzero(leaks)[:5].tolist())
        warnings.append(
            f"{leaks.sum()} test images share bytes or group with training images (leaks) and are "
            f"{what} the test figure: {first}{', ...' if leaks.sum() > 5 else ''}."
        )

    def examples(mask: NDArray[np.bool_]) -> Examples:
        return Examples(take(matrix, mask), rows.labels[mask], rows.groups[mask])

    head = fit_head(
        task.method,
        examples(used["train"]),
        examples(used["val"]) if given_val else None,
        settings,
        n_classes=manifest.n_classes,
        seed=task.seed,
        class_names=manifest.class_names,
        progress=context.progress,
    )
    fit_s = time.perf_counter() - began
    costs = _costs(context, settings)
    metrics, predict_s = {}, 0.0
    probabilities = np.empty((0, manifest.n_classes))
    decided = np.empty(0, np.int64)
    for split, mask in used.items():
        if not mask.any():
            continue
        start = time.perf_counter()
        probabilities = head.predict_proba(take(matrix, mask))  # (n, K)
        predict_s = time.perf_counter() - start
        decided = head.decide(probabilities)
        metrics[split] = _figures(context, costs, rows, mask, probabilities, decided)
    test = np.flatnonzero(used["test"])  # probabilities are those of the last split, test
    predictions = Predictions(
        tuple(rows.paths[i] for i in test.tolist()),
        rows.labels[test],
        probabilities,
        manifest.class_names,
        decided if head.output.offsets is not None else None,
        manifest.groups_at(rows.at[test]),
    )
    return _Measured(head, used, metrics, predictions, fit_s, predict_s, tuple(warnings))


def _by_folds(context: Context, matrix: Array, settings: HeadSettings, task: _Task) -> _Measured:
    """Fit a head on all images; measure heads that were fitted without the fold of each image."""
    from . import Examples, fit_head
    from .nested import nested

    manifest, rows = context.manifest, task.rows
    every = Examples(matrix, rows.labels, rows.groups)
    folds, repeats = settings.outer
    shared: dict[str, Any] = {
        "n_classes": manifest.n_classes, "seed": task.seed, "class_names": manifest.class_names,
        "progress": context.progress,
    }  # fmt: skip
    began = time.perf_counter()
    head = fit_head(task.method, every, None, settings, **shared)
    fit_s = time.perf_counter() - began
    costs = _costs(context, settings)
    found = nested(task.method, every, settings, folds=folds, repeats=repeats, **shared)
    each = [
        [
            _figures(context, costs, rows, part == fold, p[part == fold], called[part == fold])
            for fold in np.unique(part).tolist()
        ]
        for p, called, part in zip(found.probabilities, found.predicted, found.parts, strict=True)
    ]
    keys = [key for key, value in each[0][0].items() if isinstance(value, float)]
    whole = np.ones(len(rows.labels), np.bool_)
    predictions = Predictions(
        rows.paths,
        rows.labels,
        found.probabilities[0],
        manifest.class_names,
        found.predicted[0] if head.output.offsets is not None else None,
        manifest.groups_at(rows.at),
    )
    start = time.perf_counter()
    head.predict_proba(matrix)
    return _Measured(
        head,
        {"train": whole, "test": whole},
        {"test": _figures(context, costs, rows, whole, found.probabilities[0], found.predicted[0])},
        predictions,
        fit_s,
        time.perf_counter() - start,
        found.warnings,
        {
            "cv": {
                "folds": len(each[0]),
                "repeats": repeats,
                "values": {key: [[one[key] for one in of] for of in each] for key in keys},
                "chosen": [{k: v for k, v in one.items() if k != "curve"} for one in found.chosen],
            }
        },
    )


def _costs(context: Context, settings: HeadSettings) -> NDArray[np.float64] | None:
    if not settings.cost:
        return None
    return read_costs(Path(settings.cost), context.manifest.class_names)


def _figures(
    context: Context,
    costs: NDArray[np.float64] | None,
    rows: Rows,
    mask: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    decided: NDArray[np.int64],
) -> dict[str, Any]:
    """Measure predictions of the rows in a mask (N,)."""
    return figures_of(
        rows.labels[mask],
        probabilities,
        predicted=decided,
        costs=costs,
        weight=None if rows.weight is None else rows.weight[mask],
        groups=context.manifest.groups_at(rows.at[mask]),
        seed=context.seed,
    )
