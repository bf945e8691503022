"""The result of a fine-tuning: record, predictions, network, and the curve as a picture."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..files import digest_of
from ..heads import Head
from ..heads.examples import LEAST_VAL
from ..heads.rules import Ruled
from ..notation import share
from ..results.drawing import drawing, write_svg
from ..results.figures import figures_of
from ..results.frame import without_leaks
from ..results.measures import measure_named
from ..results.names import run_name, subject_of
from ..results.predictions import Predictions
from ..results.runs import build_record, write_run
from ..settings import FinetuneSettings, as_dict
from .checkpoint import save_checkpoint
from .judging import few_in_val
from .prepare import Prepared, Setup
from .recipe import load_recipe, recipe_names
from .rows import Rows
from .training_codes import TrainingCodes, save_training_codes


@dataclass(eq=False)
class History:
    """What a training has done so far.

    Attributes
    ----------
    phases : list of FinetuneSettings
        One each.
    codes_s : float
        Seconds that stage one took for the probe.
    prepared : list of Prepared
        The task of each phase.
    curve : list of dict
        One row per epoch.
    epochs : list of int
        The epoch kept, a phase.
    head : Head or None
        The probe it started from.
    trials : list of dict
        Of the search over learning rate and weight decay.
    fit_s : float
        Seconds of all training: the probe, trials, every phase with its looks at val, the refit.
    deeper : dict
        What came of DEEPEN; empty where it was not tried.
    """

    phases: list[FinetuneSettings]
    codes_s: float = 0.0
    prepared: list[Prepared] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    head: Head | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    fit_s: float = 0.0
    deeper: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """All that a result is made of.

    Attributes
    ----------
    val_scores, test_scores : float64 (n, K)
        Before softmax; `test_scores` is None for an interrupted run.
    training_codes : TrainingCodes or None
        Of the images that were trained on; None for an interrupted run.
    ruled : Ruled
        From scores to predictions, as it was set on val.
    costs : float64 (K, K) or None
        From COST.
    times_s : mapping
        ``predict`` and ``total``.
    """

    setup: Setup
    settings: FinetuneSettings
    history: History
    name: str
    fingerprint: str
    val_scores: NDArray[np.float64]
    test_scores: NDArray[np.float64] | None
    training_codes: TrainingCodes | None
    ruled: Ruled
    costs: NDArray[np.float64] | None
    refit: bool
    times_s: Mapping[str, float]


def name_of(setup: Setup, settings: FinetuneSettings) -> str:
    """Name a run; the digest tells apart runs that differ in any setting."""
    codes = {
        "weights": setup.context.codes.weights,
        "fit": setup.context.codes.resize,  # its name in the digests of all versions
        "precision": setup.context.codes.precision,
    }
    everything = [as_dict(settings, affects="bytes"), codes, setup.context.data.leaks]
    return run_name(
        method=_method(settings),
        model=setup.card.model,
        layers=[settings.recipe or settings.unfreeze],
        views=setup.context.codes.views.replace(":", ""),
        size=setup.preprocessing.size,
        seed=setup.context.seed,
        extra=digest_of(everything)[:8],
    )


def _method(settings: FinetuneSettings) -> str:
    return "scratch" if settings.init == "random" else "finetune"


def subject_of_run(setup: Setup) -> str:
    """Digest of the classes, images, labels and split of a run."""
    manifest, rows = setup.context.manifest, setup.rows
    parts = (rows.train, rows.val, rows.test)
    used = np.concatenate(parts)
    split = np.repeat(np.arange(len(parts), dtype=np.int8), [len(part) for part in parts])
    return subject_of(manifest.class_names, manifest.sha256[used], manifest.labels[used], split)


def write_result(outcome: Outcome, network: nn.Module) -> Path:
    """Write network, training codes, curve, predictions, and the record last; give its path."""
    setup, rows = outcome.setup, outcome.setup.rows
    folder = setup.context.folder
    used = rows.val if outcome.test_scores is None else rows.test
    scores = outcome.val_scores if outcome.test_scores is None else outcome.test_scores
    output = outcome.ruled.output
    probabilities = output.probabilities(scores)
    predictions = Predictions(
        tuple(setup.context.manifest.paths[i] for i in used.tolist()),
        setup.context.manifest.labels[used],
        probabilities,
        setup.context.manifest.class_names,
        None if output.offsets is None else output.decide(probabilities),
        setup.context.manifest.groups_at(used),
    )
    record = _record(outcome)

    def save_model(stem: Path) -> list[Path]:
        weights, description = save_checkpoint(stem, network, _meta(outcome, network))
        files = [weights, description]
        if outcome.training_codes is not None:
            files.append(save_training_codes(stem, outcome.training_codes, weights))
        picture = stem.with_name(stem.name + ".curve.svg")
        draw_curve(picture, outcome.history.curve, title=f"{record['data']}: {record['run']}")
        return [*files, picture]

    path = write_run(folder, record, predictions, save_model=save_model)
    if outcome.test_scores is not None:
        for left in folder.glob(f"{outcome.name}.interrupted.*"):
            left.unlink()
    return path


def _meta(outcome: Outcome, network: nn.Module) -> dict[str, Any]:
    """Gather what prediction needs besides the weights."""
    setup = outcome.setup
    return {
        "run": outcome.name,
        "model": setup.card.model,
        "origin": setup.card.origin,
        "final": setup.card.final,
        "classes": list(setup.context.manifest.class_names),
        "preprocessing": setup.preprocessing.as_dict(),
        "views": setup.context.codes.views,
        "seed": setup.context.seed,
        **outcome.ruled.output.as_dict(),
        "fingerprint": outcome.fingerprint,
    }


def _record(outcome: Outcome) -> dict[str, Any]:
    setup, settings = outcome.setup, outcome.settings
    manifest, rows = setup.context.manifest, setup.rows
    metrics = {}
    if not outcome.refit:  # else val has been trained on
        metrics["val"] = _measured(outcome, rows.val, outcome.val_scores)
    if outcome.test_scores is not None:
        metrics["test"] = _measured(outcome, rows.test, outcome.test_scores)
    last = outcome.history.prepared[-1].task.plan
    deeper = outcome.history.deeper
    unfreeze = deeper["unfreeze"] if deeper.get("kept") else settings.unfreeze
    codes_s = outcome.history.codes_s + sum(one.codes_s for one in outcome.history.prepared)
    known = setup.context.warnings or manifest.warnings
    warnings = [*rows.warnings, *without_leaks(known, rows.warnings), *_notes(outcome)]
    warnings += outcome.ruled.notes
    return build_record(
        run=outcome.name,
        data=manifest.name,
        method=_method(settings),
        model=setup.card.model,
        layers=["final"],
        views=setup.context.codes.views,
        size=setup.preprocessing.size,
        seed=setup.context.seed,
        class_names=manifest.class_names,
        splits=rows.counts(manifest),
        chosen=_chosen(outcome),
        metrics=metrics,
        times_s={
            "codes": codes_s,
            "fit": outcome.history.fit_s,
            "predict": outcome.times_s["predict"],
            "total": max(outcome.times_s["total"], codes_s + outcome.history.fit_s),
        },
        fingerprint=outcome.fingerprint,
        warnings=list(dict.fromkeys(warnings)),
        settings=as_dict(setup.context.data) | as_dict(setup.context.codes) | as_dict(settings),
        command=setup.context.command,
        extra={
            "subject": subject_of_run(setup),
            "unfreeze": unfreeze,
            "n_parameters": max(one.task.plan.n_trained for one in outcome.history.prepared),
            "n_network_parameters": last.n_parameters,
            "curve": outcome.history.curve,
            "peak_memory_bytes": _peak_memory(setup.device),
            "device": setup.device,
            "processes": setup.world.size,
            "interrupted": outcome.test_scores is None,
            "phases": [_phase(one) for one in outcome.history.prepared],
            "calibration": {
                "method": outcome.ruled.method,
                "scale": outcome.ruled.calibration.scale,
                "on": "val",
            },
            "decision": dict(outcome.ruled.output.decision),
            "sets": dict(outcome.ruled.output.sets),
        },
    )


def _measured(
    outcome: Outcome, used: NDArray[np.int64], scores: NDArray[np.float64]
) -> dict[str, Any]:
    manifest = outcome.setup.context.manifest
    output = outcome.ruled.output
    probabilities = output.probabilities(scores)
    decided = output.decide(probabilities)
    weight = manifest.extra.get("weight")
    return figures_of(
        manifest.labels[used],
        probabilities,
        predicted=decided,
        costs=outcome.costs,
        weight=None if weight is None else np.asarray(weight[used], np.float64),
        groups=manifest.groups_at(used),
        seed=outcome.setup.context.seed,
    )


def _chosen(outcome: Outcome) -> dict[str, Any]:
    """Say what was selected and how."""
    history = outcome.history
    last, epoch = history.phases[-1], history.epochs[-1]
    kept = [row for row in history.curve if row["phase"] == len(history.epochs) - 1]
    best = next(row for row in kept if row["epoch"] == epoch)
    by = {
        "accuracy": "accuracy, of equals the lower loss",
        "loss": "least calibrated log-loss",
        "one_se": _one_se(last),
        "last": "being the last",
    }
    figures = ("val_accuracy", "val_loss", "val_calibrated_loss")
    chosen: dict[str, Any] = {
        "epoch": epoch,
        "epochs": list(history.epochs),
        "by": by[last.choose],
        "on": "val of the data set"
        if outcome.setup.rows.val_from == "data"
        else f"val cut from train ({share(_share(outcome.setup.rows), 0)})",
        "score": {k: best[k] for k in figures if k in best},
        "refit": outcome.refit,
        "lr": last.lr,
        "weight_decay": last.weight_decay,
    }
    if history.deeper:
        chosen["deeper"] = dict(history.deeper)
    if outcome.history.trials:
        chosen["trials"] = list(outcome.history.trials)
    if outcome.history.head is not None:
        start = next(
            row for row in outcome.history.curve if row["epoch"] == 0 and row["phase"] == 0
        )
        chosen["probe"] = {
            **{k: v for k, v in outcome.history.head.chosen.items() if k != "curve"},
            "method": outcome.history.head.method,
            "val_accuracy": start["val_accuracy"] if not outcome.refit else None,
        }
    return chosen


def _one_se(settings: FinetuneSettings) -> str:
    plain = settings.metric == "accuracy" and not settings.cost
    word = "calibrated log-loss" if plain else measure_named(settings.metric, settings.cost).word
    return f"{word} better by more than one standard error"


def _share(rows: Rows) -> float:
    return len(rows.val) / len(rows.to_train)


def _phase(prepared: Prepared) -> dict[str, Any]:
    plan = prepared.task.plan
    return {
        "unfreeze": plan.unfreeze,
        "boundary": plan.boundary,
        "n_trained": plan.n_trained,
        "trained": list(plan.trained),
        "frozen": list(plan.frozen),
        "trunk": prepared.trunk,
        "why": prepared.why,
        "way": prepared.way,
        "trunk_views": prepared.trunk_views,
        "codes_fingerprints": list(prepared.fingerprints),
    }


def _notes(outcome: Outcome) -> list[str]:
    notes = []
    if outcome.test_scores is None:
        notes.append("Interrupted: the best epoch so far, and no look at test.")
    if outcome.settings.recipe in recipe_names():
        note = load_recipe(outcome.settings.recipe)["about"].get("note", "")
        notes.append(f"{outcome.settings.recipe}: {note}")
    val = outcome.setup.rows.val
    if few_in_val(outcome.history.phases[-1], len(val)):
        notes.append(
            f"val has {len(val)} images, too few to show that training improves on the probe (at "
            f"least {LEAST_VAL}): the probe is kept. CHOOSE=last keeps the last "
            "epoch."
        )
    drawn_by = max((row.get("drawn_by", 1) for row in outcome.history.curve), default=1)
    if drawn_by > 1:
        notes.append(
            f"Each of {drawn_by} processes drew its own dropout: another number of processes gives "
            "other figures, as another seed does."
        )
    asked = outcome.settings.augment != ("auto",)
    for one in outcome.history.prepared:
        if one.trunk == "cached" and asked:
            notes.append(f"TRUNK=cached: {one.trunk_views} views in place of AUGMENT.")
    return notes


def _peak_memory(device: str) -> int:
    """Most bytes in use so far: of the GPU where there is one, else of this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def draw_curve(path: Path, curve: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw loss and accuracy by epoch, train and val, as SVG."""
    from matplotlib.figure import Figure

    with drawing(**{"svg.hashsalt": title}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, what in zip(axes, ("loss", "accuracy"), strict=True):
            for split, style in (("train", "C0--"), ("val", "C1-")):
                points = [(i, row.get(f"{split}_{what}")) for i, row in enumerate(curve)]
                points = [(i, value) for i, value in points if value is not None]
                if points:
                    ax.plot(*zip(*points, strict=True), style, marker=".", label=split)
            for i, row in enumerate(curve):
                if i and row["epoch"] == 0:
                    ax.axvline(i - 0.5, color="0.8")  # the next phase
            ax.set_xlabel("epoch")
            ax.set_ylabel(what)
            ax.grid(alpha=0.3)
            ax.legend()
        figure.suptitle(title, fontsize=9)
        write_svg(path, figure)
