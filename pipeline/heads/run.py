"""Stage two as a whole: codes of a manifest, heads fitted on them, results written.

Joins what stands to its left: manifest (who is in which split), codes (arrays), heads (fits),
results (records). A run whose fingerprint agrees with what is there already is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..context import Context
from ..errors import HeadError
from ..files import digest_of, digest_of_arrays, sha256_file
from ..notation import share, size
from ..progress import Messages
from ..results.frame import without_leaks, write_framed
from ..results.names import name_for, run_name, subject_of
from ..results.runs import build_record, known_run, write_run
from ..results.summary import summarise
from ..settings import HeadSettings, as_dict
from .examples import Codes as Array
from .file_rows import FileRows
from .measured import Measured, Task, measured
from .room import available_bytes
from .rows import redrawn, rows_of

if TYPE_CHECKING:
    from ..codes.reader import Codes

MOST_MEMORY = 0.4  # of the free memory that codes may take: they are there twice while heads fit
ON_DISK = ("svm", "softmax", "ridge")  # methods that read codes in blocks
VERSION = 6  # of what stage two makes of codes; part of every run's fingerprint


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
    by_method = [
        [
            _Run(context, codes, settings, Task(method, drawn, seed + s, tag))
            for drawn, tag in all_drawn
            for s in range(settings.seeds)
        ]
        for method in settings.methods
    ]
    found = _spread(context, codes, settings, [run for runs in by_method for run in runs])
    records = []
    for runs in by_method:
        made = [run.taken_or_made(found.get(run)) for run in runs]
        if len(made) == 1:
            records.append(made[0])
            continue
        tag = f"{settings.splits}splits-{settings.seeds}seeds"
        every = _Run(context, codes, settings, Task(runs[0].task.method, rows, seed, tag))
        name = every.name_for(str(made[0]["fingerprint"]))
        summary = summarise(made, run=name) | {"subject": every.subject}
        write_framed(context.folder / f"{name}.json", summary)
        records.append(summary | {"reused": all(run.get("reused") for run in made)})
    return records


@dataclass(frozen=True, eq=False)
class _Run:
    """One run: what it is called, what changes its numbers, and its record."""

    context: Context
    codes: Codes
    settings: HeadSettings
    task: Task

    @cached_property
    def usual(self) -> str:
        """Its name where no other run has it; whatever differs from the defaults adds a digest."""
        context, codes, settings, task = self.context, self.codes, self.settings, self.task
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

    @cached_property
    def subject(self) -> str:
        """Digest of its classes, images, labels and split."""
        rows = self.task.rows
        return subject_of(self.context.manifest.class_names, rows.sha256, rows.labels, rows.split)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that changes one of its numbers."""
        context, codes, task = self.context, self.codes, self.task
        one = replace(self.settings, methods=(task.method,), splits=1, seeds=1)
        rows = task.rows
        return digest_of(
            {
                "version": VERSION,
                "codes": codes.fingerprint,
                "rows": digest_of_arrays(codes.sha256, rows.labels, rows.split, rows.weight),
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

    def name_for(self, fingerprint: str) -> str:
        """Give the name under which it replaces no run of other images, labels or classes."""
        return name_for(
            self.context.folder, self.usual, subject=self.subject, fingerprint=fingerprint
        )

    @property
    def there(self) -> dict[str, Any] | None:
        """The record that is there, if it is intact and current."""
        name = self.name_for(self.fingerprint)
        return known_run(self.context.folder / f"{name}.json", self.fingerprint)

    def taken_or_made(self, found: Measured | None = None) -> dict[str, Any]:
        """Take the record that is there; else fit and measure the head, and write the run.

        `found` is what a cluster has measured already.
        """
        there = self.there
        if there is not None:
            return there
        name = self.name_for(self.fingerprint)
        if name != self.usual:
            self.context.say(
                f"{self.usual} is of other images, labels or classes and is kept; this is {name}."
            )
        from .storage import save_head

        began = time.perf_counter()
        if found is None:
            matrix = _matrix(self.context, self.codes, self.task.method)  # (N, V, D)
            found = measured(self.context, matrix, self.settings, self.task)
        head = found.head
        record = self._record(name, found, time.perf_counter() - began)
        meta = {
            "codes": self.codes.config,
            "codes_fingerprint": self.codes.fingerprint,
            "run": name,
        }
        write_run(
            self.context.folder,
            record,
            found.predictions,
            save_model=lambda stem: save_head(stem, head, meta),
        )
        return record

    def _record(self, name: str, found: Measured, seconds: float) -> dict[str, Any]:
        context, codes, head = self.context, self.codes, found.head
        config, manifest = codes.config, context.manifest
        return build_record(
            run=name,
            data=manifest.name,
            method=self.task.method,
            model=str(config["model"]),
            layers=config["asked"]["layers"],
            views=str(config["asked"]["views"]),
            size=int(config["size"]),
            seed=self.task.seed,
            class_names=manifest.class_names,
            splits={
                split: {
                    manifest.class_names[k]: int(np.sum(self.task.rows.labels[mask] == k))
                    for k in range(manifest.n_classes)
                }
                for split, mask in found.used.items()
                if mask.any()
            },
            chosen=dict(head.chosen),
            metrics=found.metrics,
            times_s={
                "codes": codes.extraction_s,
                "fit": found.fit_s,
                "predict": found.predict_s,
                "total": codes.extraction_s + max(found.fit_s + found.predict_s, seconds),
            },
            fingerprint=self.fingerprint,
            warnings=[
                *found.warnings,
                *without_leaks(context.warnings, found.warnings),
                *head.warnings,
            ],
            settings=as_dict(context.codes) | as_dict(self.settings) | as_dict(context.data),
            command=context.command,
            extra={
                "subject": self.subject,
                "codes_fingerprint": codes.fingerprint,
                "code_dim": head.code_dim,
                "n_parameters": head.n_parameters,
                "calibration": dict(head.calibration),
                "decision": dict(head.output.decision),
                "sets": dict(head.output.sets),
                **_networks(config),
                **found.extra,
            },
        )


def _digest(path: str) -> str:
    """SHA-256 of a file's bytes; empty where there is none (what reads it says so)."""
    file = Path(path)
    return sha256_file(file) if path and file.is_file() else ""


def _spread(
    context: Context, codes: Codes, settings: HeadSettings, runs: list[_Run]
) -> dict[_Run, Measured]:
    """Fit the heads of all runs that are not there on the cluster that CLUSTER names."""
    if not context.cluster.cluster:
        return {}
    runs = [run for run in runs if run.there is None]
    if not runs:
        return {}
    from ..cluster import connected, spread_tasks

    manifest = replace(context.manifest, extra=dict(context.manifest.extra))
    bare = replace(context, manifest=manifest, messages=Messages())
    cost = str(Path(settings.cost).absolute()) if settings.cost else ""
    found = {}
    with (
        connected(context.cluster.cluster) as connection,
        context.progress("heads", len(runs), "fits") as meter,
    ):
        cores = max(1, min(connection.most_cores, connection.n_cores // len(runs)))
        one = replace(settings, jobs=cores, cost=cost)
        shared, calls = (bare, codes.matrix(), one), [(run.task,) for run in runs]
        for at, result in spread_tasks(measured, shared, calls, cores=cores):
            found[runs[at]] = result
            meter.advance()
    return found


def _networks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name each of several networks side by side in a record; nothing where there is one."""
    keys = ("model", "weights", "weights_digest", "layers", "size")
    networks = [{key: one[key] for key in keys} for one in config.get("networks", ())]
    return {"networks": networks} if networks else {}


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
