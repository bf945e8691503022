"""Training tried before it is advised: late layers on a part of train, measured on the rest.

What training adds cannot be foretold from a few figures of other sets; from a cached trunk it is
cheap enough to be tried. Train is cut into quarters, groups never on two sides. Every option is
trained on three of them and measured on the fourth, beside the linear baseline on the same images.
While the budget lasts, the most promising one is tried again on the next quarter, which its test
then counts too. Where an option would take more than its share of the budget it is tried on fewer
training images, and says so; what has no room for that either carries no figure.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..compare.flips import accuracy_difference
from ..compare.paired import holm
from ..compare.runs import Network, train, training_of
from ..context import Context
from ..datasets import SPLITS, resplit
from ..errors import DataError, HeadError, TrainingError
from ..files import digest_of
from ..finetune.recipe import recipe_names
from ..heads.rows import Rows, rows_of
from ..notation import duration
from ..results.predictions import read_predictions
from ..settings import AdviseSettings, FinetuneSettings, as_dict
from .costs import training_rate, training_seconds
from .options import Option, command_of
from .sample import Sample

QUARTERS = 4
LEAST_IMAGES = 100  # to train on in a trial, and this many of each class on average:
LEAST_A_CLASS = 10
TEST = SPLITS.index("test")


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
        The training images that advice rests on.
    baseline : Option
        The linear head that the options are compared with; it is fitted again on the images of
        each trial.
    settings : AdviseSettings
        ``budget`` in seconds for all trials.

    Returns
    -------
    list of Option
        In the order of the trials. `p` is Holm-adjusted over those that were tried; `accuracy`
        is that of the baseline, cross-validated, and the gain.
    """
    ends = time.monotonic() + settings.seconds
    cuts = _Cuts(context, network, sample, baseline.method, settings)
    tried = [_Tried(name, training) for name, training in trials()]
    with context.progress("trials of training", len(tried), "trainings") as meter:
        for at, one in enumerate(tried):
            one.run(cuts, 0, (ends - time.monotonic()) / (len(tried) - at))
            meter.advance()
        for quarter in range(1, cuts.n_quarters):
            best = max((one for one in tried if one.hits), key=lambda one: one.gain, default=None)
            if best is None or best.gain <= 0 or best.seconds > ends - time.monotonic():
                break
            best.run(cuts, quarter, ends - time.monotonic())
    options = [one.option(cuts, baseline, settings) for one in tried]
    adjusted = iter(holm([one.p for one in options if one.p is not None]))
    return [one if one.p is None else replace(one, p=next(adjusted)) for one in options]


def trials() -> list[tuple[str, FinetuneSettings]]:
    """Give the late layers, deeper ones, and those with statistics that follow the data."""
    trials = [
        ("fine-tune last stage", FinetuneSettings(deepen=False)),
        ("fine-tune three stages", FinetuneSettings(unfreeze="3")),
    ]
    if "late-adapted" in recipe_names():
        trials.append(("fine-tune adapted late layers", training_of("late-adapted")))
    return trials


@dataclass(frozen=True, eq=False)
class _Cuts:
    """What trials are trained and measured on, and the baseline on the same images."""

    context: Context
    network: Network
    sample: Sample
    method: str  # of the baseline
    settings: AdviseSettings
    trunks: set[str] = field(default_factory=set)  # depths whose trunk an earlier trial has cached

    @cached_property
    def rows(self) -> Rows:
        return rows_of(self.context.manifest, self.network.codes)

    @cached_property
    def quarters(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows to train on and rows held out."""
        from ..heads.folds import cut_folds

        sample = self.sample
        folds, _ = cut_folds(
            sample.labels, sample.groups, folds=QUARTERS, seed=self.context.seed,
            class_names=sample.names,
        )  # fmt: skip
        return [(sample.rows[fitted], sample.rows[held]) for fitted, held in folds]

    @property
    def n_quarters(self) -> int:
        return len(self.quarters)

    def cost(self, training: FinetuneSettings) -> dict[str, float]:
        """Estimate the seconds of a training on all of train."""
        rate = training_rate(self.context, self.network, training.unfreeze)
        return training_seconds(
            self.network, rate, training,
            n_train=self.sample.n_train, n_images=self.context.manifest.n_images,
        )  # fmt: skip

    def thinned(self, fitted: NDArray[np.int64], share: float) -> NDArray[np.int64]:
        """Take a share of the training rows, stratified, whole groups; none where too few stay."""
        least = max(LEAST_IMAGES, LEAST_A_CLASS * self.sample.n_classes)
        if share >= 1:
            return fitted
        if share * len(fitted) < least:
            return fitted[:0]
        rows = self.rows
        try:
            cut = resplit(
                rows.labels[fitted], rows.keys[fitted], share, self.context.seed,
                class_names=self.sample.names,
            )  # fmt: skip
        except DataError:  # classes of too few groups
            return fitted[:0]
        some: NDArray[np.int64] = fitted[cut == TEST]
        return some

    def baseline(self, fitted: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which held-out images (n,) the linear head on the last layer predicts correctly."""
        from ..heads import Examples, fit_head
        from ..settings import HeadSettings, from_mapping

        codes, rows, context = self.network.codes, self.rows, self.context
        matrix = codes.matrix(["final" if "final" in codes.layers else codes.layers[-1]])
        head = fit_head(
            self.method,
            Examples(matrix[fitted], rows.labels[fitted], rows.groups[fitted]),
            None,
            from_mapping(HeadSettings, {**vars(self.settings), "methods": (self.method,)}),
            n_classes=context.manifest.n_classes,
            seed=context.seed,
            class_names=context.manifest.class_names,
        )
        right: NDArray[np.bool_] = head.predict(matrix[held]) == rows.labels[held]
        return right


@dataclass(eq=False)
class _Tried:
    """One training: how often it was right on the quarters that it was measured on."""

    name: str
    training: FinetuneSettings
    hits: list[NDArray[np.bool_]] = field(default_factory=list)  # a quarter each, in their order
    base: list[NDArray[np.bool_]] = field(default_factory=list)  # the baseline, the same images
    held: list[NDArray[np.int64]] = field(default_factory=list)  # rows
    n_fitted: int = 0
    seconds: float = 0.0  # of the last trial
    why_not: str = "not tried"

    @property
    def gain(self) -> float:
        """Points over the baseline."""
        return 100 * float(np.concatenate(self.hits).mean() - np.concatenate(self.base).mean())

    def run(self, cuts: _Cuts, quarter: int, room: float) -> None:
        """Try it on one quarter, within some seconds."""
        cost = cuts.cost(self.training)
        whole, held = cuts.quarters[quarter]
        needed = cost["fit"] if self.training.unfreeze in cuts.trunks else cost["total"]
        needed *= len(whole) / max(1, cuts.sample.n_train)
        fitted = cuts.thinned(whole, self.share(room, needed, len(whole)))
        if not len(fitted):
            self.why_not = (
                f"not tried: it would take about {duration(needed)}, and its share of "
                f"BUDGET={cuts.settings.budget} is {duration(max(0.0, room))}"
            )
            return
        cuts.context.say(f"trial: {self.name}, on {len(fitted):,} training images")
        began = time.monotonic()
        try:
            hits = _trained(cuts, self, fitted, held)
        except (HeadError, TrainingError) as error:
            self.why_not = f"not tried: {error.found}"
            return
        self.seconds = time.monotonic() - began
        cuts.trunks.add(self.training.unfreeze)
        self.n_fitted = len(fitted)
        self.hits.append(hits)
        self.base.append(cuts.baseline(fitted, held))
        self.held.append(held)

    def share(self, room: float, needed: float, n_images: int) -> float:
        """Give the share of the images to train on: as in its first trial, or what fits."""
        if self.n_fitted:
            return self.n_fitted / n_images
        return room / needed if needed > 0 else 1.0

    def option(self, cuts: _Cuts, baseline: Option, settings: AdviseSettings) -> Option:
        """Sum up the trials."""
        context, network = cuts.context, cuts.network
        rate = training_rate(context, network, self.training.unfreeze)
        blank = Option(
            strategy=self.name, method="finetune", model=network.model, layers=[],
            unfreeze=self.training.unfreeze,
            command=command_of(context, network, "finetune", training=self.training),
            accuracy=None, gain_points=None, interval=None, error_points=0.0,
            gain_from=self.why_not, cost_s=cuts.cost(self.training)["total"],
            cost_from=f"the rate of {rate.n_runs} runs here" if rate.n_runs else "estimated",
        )  # fmt: skip
        if not self.hits:
            return blank
        right, base = np.concatenate(self.hits), np.concatenate(self.base)
        held = np.concatenate(self.held)
        groups = context.manifest.groups_at(cuts.rows.at[held])
        p, (low, high) = accuracy_difference(right, base, groups, seed=context.seed)
        assert baseline.accuracy is not None
        return replace(
            blank,
            accuracy=min(1.0, max(0.0, baseline.accuracy + self.gain / 100)),
            gain_points=self.gain,
            interval=[100 * low, 100 * high],
            error_points=100 * (high - low) / (2 * 1.96),
            gain_from=f"tried on {self.n_fitted:,} training images, "
            f"measured on {len(right):,} others",
            p=p,
        )


def _trained(
    cuts: _Cuts, tried: _Tried, fitted: NDArray[np.int64], held: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Train on some rows and say which of the others (n,) are predicted correctly."""
    rows, manifest = cuts.rows, cuts.context.manifest
    split = rows.split_of(fitted, held, manifest.n_images)
    below = f"advise/{digest_of([as_dict(tried.training), tried.name])[:12]}"
    context = replace(cuts.context, codes=replace(cuts.network.asked, layers=("final",)))
    record = train(context, tried.training, split, below=below)
    place = context.folder / below
    found = read_predictions(place / manifest.name / f"{record['run']}.predictions.csv")
    hits = dict(zip(found.paths, found.predicted == found.labels, strict=True))
    shutil.rmtree(place)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()
    return np.array([hits[rows.paths[row]] for row in held.tolist()], bool)
