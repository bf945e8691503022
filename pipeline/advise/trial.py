"""Training tried before it is advised: late layers on a part of train, measured on the rest.

What training adds cannot be foretold from a few figures of other sets; from a cached trunk it is
cheap enough to be tried. Every option is trained on the same three quarters of the sample and
measured on the same held-out quarter as the linear baseline, groups never on both sides. What the
budget has no room for is left untried, and carries no figure.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..compare.flips import accuracy_difference
from ..compare.paired import holm
from ..compare.runs import Network, train, training_of
from ..context import Context
from ..datasets import SPLITS, resplit
from ..errors import HeadError, TrainingError
from ..files import digest_of
from ..finetune.recipe import recipe_names
from ..heads.rows import Rows, rows_of
from ..notation import duration
from ..results.predictions import read_predictions
from ..settings import AdviseSettings, FinetuneSettings, as_dict
from .costs import training_rate, training_seconds
from .options import Option, command_of
from .sample import Sample

HELD_OUT = 0.25
TRAIN, VAL, TEST = range(len(SPLITS))


def tried_options(
    context: Context,
    network: Network,
    sample: Sample,
    baseline: Option,
    settings: AdviseSettings,
) -> list[Option]:
    """Train what may be advised, one option after the other, while the budget lasts.

    Parameters
    ----------
    context, network
        The images and the network.
    sample : Sample
        The training images that advice rests on; a quarter of them is held out here.
    baseline : Option
        The linear head that the options are compared with; it is fitted again on the three
        quarters.
    settings : AdviseSettings
        ``budget`` in seconds for all trials.

    Returns
    -------
    list of Option
        In the order of the trials. `p` is Holm-adjusted over those that were tried.
    """
    rows = rows_of(context.manifest, network.codes)
    cut = resplit(
        sample.labels, rows.keys[sample.rows], HELD_OUT, context.seed, class_names=sample.names
    )
    cut_up = _Cut(context, network, rows, sample.rows[cut != TEST], sample.rows[cut == TEST])
    right = _baseline(cut_up, baseline.method, settings)
    options: list[Option] = []
    ends = time.monotonic() + settings.seconds
    with context.progress("trials of training", len(trials()), "trainings") as meter:
        for name, training in trials():
            rate = training_rate(context, network, training.unfreeze)
            full = training_seconds(
                network, rate, training,
                n_train=sample.n_train, n_images=context.manifest.n_images,
            )["total"]  # fmt: skip
            blank = Option(
                strategy=name, method="finetune", model=network.model, layers=[],
                unfreeze=training.unfreeze,
                command=command_of(context, network, "finetune", training=training),
                accuracy=None, gain_points=None, interval=None, error_points=0.0,
                gain_from="not tried", cost_s=full,
                cost_from=f"the rate of {rate.n_runs} runs here" if rate.n_runs else "estimated",
            )  # fmt: skip
            needed = full * len(cut_up.fitted) / max(1, sample.n_train)
            if time.monotonic() + needed > ends:
                why = (
                    f"not tried: it would take about {duration(needed)} of BUDGET={settings.budget}"
                )
                options.append(replace(blank, gain_from=why))
            else:
                options.append(_tried(cut_up, right, blank, training))
            meter.advance()
    tested = [one.p for one in options if one.p is not None]
    adjusted = iter(holm(tested))
    return [one if one.p is None else replace(one, p=next(adjusted)) for one in options]


@dataclass(frozen=True, eq=False)
class _Cut:
    """The images that every option is trained on (`fitted`) and measured on (`held`), as rows."""

    context: Context
    network: Network
    rows: Rows
    fitted: NDArray[np.int64]
    held: NDArray[np.int64]


def trials() -> list[tuple[str, FinetuneSettings]]:
    """Give the late layers, deeper ones, and those with statistics that follow the data."""
    trials = [
        ("fine-tune last stage", FinetuneSettings(deepen=False)),
        ("fine-tune three stages", FinetuneSettings(unfreeze="3")),
    ]
    if "late-adapted" in recipe_names():
        trials.append(("fine-tune adapted late layers", training_of("late-adapted")))
    return trials


def _baseline(cut: _Cut, method: str, settings: AdviseSettings) -> NDArray[np.bool_]:
    """Say which held-out images (n,) the linear head on the last layer predicts correctly."""
    from ..heads import Examples, fit_head
    from ..settings import HeadSettings, from_mapping

    codes, rows, context = cut.network.codes, cut.rows, cut.context
    matrix = codes.matrix(["final" if "final" in codes.layers else codes.layers[-1]])  # (N, V, D)
    head = fit_head(
        method,
        Examples(matrix[cut.fitted], rows.labels[cut.fitted], rows.groups[cut.fitted]),
        None,
        from_mapping(HeadSettings, {**vars(settings), "methods": (method,)}),
        n_classes=context.manifest.n_classes,
        seed=context.seed,
        class_names=context.manifest.class_names,
    )
    right: NDArray[np.bool_] = head.predict(matrix[cut.held]) == rows.labels[cut.held]
    return right


def _tried(
    cut: _Cut, baseline: NDArray[np.bool_], blank: Option, training: FinetuneSettings
) -> Option:
    """Train once and compare on the held-out images."""
    rows, manifest = cut.rows, cut.context.manifest
    split = rows.split_of(cut.fitted, cut.held, manifest.n_images)
    below = f"advise/{digest_of([as_dict(training), blank.strategy])[:12]}"
    context = replace(cut.context, codes=replace(cut.network.asked, layers=("final",)))
    context.say(f"trial: {blank.strategy}, on {len(cut.fitted):,} training images")
    began = time.monotonic()
    try:
        record = train(context, training, split, below=below)
    except (HeadError, TrainingError) as error:
        return replace(blank, gain_from=f"not tried: {error.found}")
    place = context.folder / below
    table = place / manifest.name / f"{record['run']}.predictions.csv"
    found = read_predictions(table)
    hits = dict(zip(found.paths, found.predicted == found.labels, strict=True))
    right = np.array([hits[rows.paths[row]] for row in cut.held.tolist()], bool)
    shutil.rmtree(place)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()
    groups = manifest.groups_at(rows.at[cut.held])
    p, (low, high) = accuracy_difference(right, baseline, groups, seed=context.seed)
    gain = 100 * float(right.mean() - baseline.mean())
    return replace(
        blank,
        accuracy=float(right.mean()),
        gain_points=gain,
        interval=[100 * low, 100 * high],
        error_points=100 * (high - low) / (2 * 1.96),
        gain_from=f"tried on {len(cut.fitted):,} training images, "
        f"measured on {len(right):,} others",
        cost_s=max(blank.cost_s, time.monotonic() - began),
        p=p,
    )
