"""Fine-tuning as a whole: start, phases, choice of the epoch, one look at test, the result.

Killed at any moment, the same command goes on at the last complete epoch. Ctrl-C leaves the best
epoch so far as a usable network, under a name that says it was interrupted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..backbones.card import load_network
from ..backbones.engine import n_cores, pick_device
from ..codes.extract import Extraction
from ..context import Context
from ..datasets.images import limit_pixels
from ..datasets.ranges import reading_of
from ..datasets.remaining import check_remaining
from ..errors import ImageError, NoSpaceError, SettingsError, TrainingError
from ..files import digest_of, sha256_file
from ..heads import Examples, fit_head
from ..heads.decide import Rule, parse_rule
from ..heads.output import Output
from ..heads.rules import Ruled, output_of
from ..progress import Messages
from ..results.names import name_for
from ..results.runs import known_run, read_record
from ..settings import FinetuneSettings, HeadSettings, as_dict
from .batches import unreadable
from .judging import improves
from .prepare import Prepared, Setup, extracted, prepare, preprocessing_of
from .recipe import deeper_of, phases_of
from .record import History, Outcome, name_of, subject_of_run, write_result
from .rows import rows_of
from .scores import codes_of, score
from .spread import World, joined
from .start import new_head, put_head, renew
from .state import fit_kept
from .train import Best, Training
from .training_codes import TrainingCodes
from .tune import tuned

VERSION = 4  # of what this stage makes of its settings; part of every run's fingerprint


def finetune(
    context: Context, settings: FinetuneSettings, split: NDArray[np.int8] | None = None
) -> dict[str, Any]:
    """Fine-tune a network on the images of a context and write the result.

    Parameters
    ----------
    context : Context
        Of its codes, ``model``, ``weights``, ``size``, ``resize``, ``views`` (those of evaluation)
        and ``precision`` matter here; ``layers`` does not.
    settings : FinetuneSettings
        What is trained, and how.
    split : int8 (N,) or None
        Index into ``SPLITS`` of each image, -1 for one that is not used; None: as the data set
        has it.

    Returns
    -------
    dict
        The record, as written; ``reused`` is set where it was there already.

    Raises
    ------
    TrainingError
        Nothing to train, a loss that is not finite, a checkpoint that does not fit.
    BackboneError, DataError, DeviceError, NoSpaceError, SettingsError
        As named there.
    """
    first = context.codes.models[0]
    context.codes.need_one("fine-tuning", context.command_for("finetune", {"model": first}))
    device = pick_device(context.machine.device)
    if context.codes.precision == "mixed" and not device.startswith("cuda"):
        raise SettingsError("PRECISION=mixed needs a CUDA GPU.", todo="leave PRECISION out")
    if context.codes.precision == "int8":
        raise SettingsError(
            "PRECISION=int8 is not available for fine-tuning.",
            expected="float32, or mixed on a CUDA GPU",
            todo="leave PRECISION out",
        )
    if settings.tune and settings.phases:
        raise SettingsError("TUNE and PHASES do not go together.", todo="leave one of them out")
    phases = phases_of(settings)
    if settings.init == "random":
        context = replace(context, codes=replace(context.codes, weights="none"))
    began = time.perf_counter()
    with joined(device) as world:
        if device.startswith("cuda") and world.size > 1:
            device = f"cuda:{world.local}"
        torch.set_num_threads(max(1, n_cores() // world.local_size))
        if not world.first:
            context = replace(context, messages=Messages(waiting=context.messages.waiting))
        setup, network, probed = _setup(context, settings, split, device, world)
        history = History(phases=phases, codes_s=probed.codes.extraction_s if probed else 0.0)
        run = _Run(setup, settings, probed, began, history)
        there = world.same(lambda: known_run(context.folder / f"{run.name}.json", run.fingerprint))
        if there is not None:
            return there
        try:
            return run.train(network)
        except KeyboardInterrupt:
            run.interrupted()
            raise


def _setup(
    context: Context,
    settings: FinetuneSettings,
    split: NDArray[np.int8] | None,
    device: str,
    world: World,
) -> tuple[Setup, nn.Module, Extraction | None]:
    """Build the network, take the probe's codes where the start needs them, divide the rows."""
    with world.in_turn():
        card, network = load_network(context.codes, **context.source)
    limit_pixels(context.machine.max_pixels)
    found = reading_of(
        context.manifest, context.codes.range, context.codes.bands, cache=context.cache,
        workers=context.machine.workers, progress=context.progress,
    )  # fmt: skip
    bare = Setup(
        context=context, card=card, device=device, world=world,
        preprocessing=preprocessing_of(card, context.codes, settings).read_as(found),
        rows=rows_of(context, (), settings, split),
    )  # fmt: skip
    manifest, probed = context.manifest, None
    if settings.init == "probe":
        if settings.normalise:
            raise SettingsError(
                "NORMALISE and INIT=probe do not go together: the probe's codes are made with the "
                "weights' own normalisation.",
                todo="INIT=pretrained",
            )
        final = replace(context.codes, layers=("final",), pool="default", dtype="float32")
        probed = extracted(bare, final)
        rejects = dict(probed.codes.rejects)
    else:
        workers = context.machine.workers or n_cores()
        rejects = unreadable(manifest, bare.preprocessing.reading, workers, context.progress)
    if rejects and context.data.strict:
        digest, reason = next(iter(rejects.items()))
        path = manifest.paths[manifest.sha256.tolist().index(digest.encode())]
        raise ImageError(f"{path}: {reason}.", expected="readable images only, since STRICT=1")
    check_remaining(manifest, rejects, command=context.command)
    return replace(bare, rows=rows_of(context, rejects, settings, split)), network, probed


@dataclass(eq=False)
class _Run:
    """One run: what it was given, and how far it is."""

    setup: Setup
    settings: FinetuneSettings
    probed: Extraction | None
    began: float
    history: History
    name: str = ""
    fingerprint: str = ""
    costs: NDArray[np.float64] | None = None  # of the last phase, as its THRESHOLD
    rule: Rule | None = None
    training: Training | None = None
    noted: Training | None = None  # the last one that is in curve, epochs and fit_s
    # Kept while it is trained again: the choice, its weights, how it was trained.
    chosen: tuple[Best, dict[str, torch.Tensor], list[Prepared]] | None = None

    def __post_init__(self) -> None:
        """Name the run and take its fingerprint; refuse COST and THRESHOLD that cannot be used."""
        for phase in self.history.phases:  # read now: a file may be gone after hours of training
            self.costs, self.rule = self._costs_and_rule(phase)
        setup = self.setup
        manifest, rows = setup.context.manifest, setup.rows
        self.fingerprint = digest_of(
            {
                "version": VERSION,
                "weights": setup.card.weights_digest,
                "preprocessing": setup.preprocessing.as_dict(),
                "views": setup.context.codes.views,
                "precision": setup.context.codes.precision,
                "settings": as_dict(self.settings, affects="bytes"),
                "data": as_dict(setup.context.data, affects="bytes"),
                "classes": manifest.class_names,
                "images": [digest.decode() for digest in manifest.sha256.tolist()],
                "labels": manifest.labels.tolist(),
                "rows": [rows.train.tolist(), rows.val.tolist(), rows.test.tolist()],
            }
            | manifest.group_fields
            | ({"intervals": "over groups"} if manifest.grouping else {})
            | ({"prior": "corrected"} if self.settings.balanced else {})
            | ({"cost": sha256_file(Path(self.settings.cost))} if self.settings.cost else {})
        )
        usual = name_of(setup, self.settings)
        self.name = name_for(
            setup.context.folder,
            usual,
            subject=subject_of_run(setup),
            fingerprint=self.fingerprint,
        )

    def train(self, network: nn.Module) -> dict[str, Any]:
        """Train, choose, refit where asked for, look at test once, and write the result."""
        setup, rows = self.setup, self.setup.rows
        self._start(network, rows.train)
        start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if self.settings.tune:
            self.history.trials, tuned_settings = tuned(
                setup, network, self.history.phases[0], self._state_path, self.fingerprint
            )
            self.history.phases = [tuned_settings]
            self.history.fit_s += sum(trial["seconds"] for trial in self.history.trials)
        best = self._deepened(network, self._phases(network, rows.train, rows.val, "phase"))
        refit = self.settings.refit and rows.val_from == "cut"
        if refit:
            setup.context.say(
                f"training again on train and val, to epoch {self.history.epochs[-1]}"
            )
            self._release()
            network.to("cpu")
            weights = {n: t.clone() for n, t in network.state_dict().items()}
            self.chosen = best, weights, self.history.prepared
            network.load_state_dict(start)
            both = rows.to_train
            self._start(network, both)
            self._phases(
                network, both, np.empty(0, np.int64), "refit", until=list(self.history.epochs)
            )
        ruled = self._ruled(best)
        assert self.training is not None
        began = time.perf_counter()
        test_scores = score(self.training.task, rows.test).numpy()  # (n, K)
        predict_s = time.perf_counter() - began
        training_codes = self._training_codes()
        self._release()
        if setup.world.first:
            outcome = self._outcome(
                best, ruled, test_scores,
                training_codes=training_codes, predict_s=predict_s, refit=refit,
            )  # fmt: skip
            write_result(outcome, network)
            for path in self.setup.context.folder.glob(f".{self.name}.*.state"):
                path.unlink()
        return setup.world.same(lambda: read_record(setup.context.folder / f"{self.name}.json"))

    def _start(self, network: nn.Module, train: NDArray[np.int64]) -> None:
        """Bring the network to its start: new last layer, fresh layers, the probe."""
        setup, seed = self.setup, self.setup.context.seed
        own = seed + self.settings.repeat
        new_head(network, setup.card.final, setup.context.manifest.n_classes, seed=own)
        renew(network, self.settings.fresh, seed=own)
        if self.probed is None:
            return
        codes, manifest = self.probed.codes, setup.context.manifest
        order = np.argsort(codes.sha256, kind="stable")
        matrix = codes.matrix()  # (n, V, D)

        def examples(rows: NDArray[np.int64]) -> Examples:
            at = order[np.searchsorted(codes.sha256, manifest.sha256[rows], sorter=order)]
            return Examples(matrix[at], manifest.labels[rows], manifest.groups[rows])

        settings = HeadSettings(
            jobs=setup.context.machine.workers,
            class_weight=self.settings.class_weight,
            metric=self.settings.metric,
            cost=self.settings.cost,
        )
        given = examples(setup.rows.val) if setup.rows.val_from == "data" else None
        self.history.head = setup.world.same(
            lambda: fit_head(
                self.settings.probe, examples(train), given, settings,
                n_classes=manifest.n_classes, seed=seed, class_names=manifest.class_names,
                progress=setup.context.progress,
            )
        )  # fmt: skip
        self.history.fit_s += self.history.head.times_s["fit"]
        put_head(network, str(setup.card.final), self.history.head)

    def _phases(
        self,
        network: nn.Module,
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        what: str,
        until: list[int] | None = None,
    ) -> Best:
        """Train the phases in turn, each from the best epoch of the one before.

        `until` gives the epoch to stop at, a phase; the curve is then that of the choice.
        """
        best: Best | None = None
        self.history.prepared = []
        for number, settings in enumerate(self.history.phases):
            best = self._phase(
                network, settings, train, val, f"{what}{number}",
                until=until[number] if until else None,
            )  # fmt: skip
            if until is None:
                self._note(best)
        assert best is not None
        return best

    def _phase(
        self,
        network: nn.Module,
        settings: FinetuneSettings,
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        what: str,
        *,
        until: int | None = None,
    ) -> Best:
        """Train the next phase; the network ends at its best epoch."""
        self._release()
        network.to("cpu")
        number = len(self.history.prepared)
        prepared = prepare(
            self.setup, network, settings,
            phase=number, train=train, val=val, touched=self._touched(network),
        )  # fmt: skip
        if settings.init != self.settings.init:  # a new last layer
            own = self.setup.context.seed + settings.repeat
            renew(network, (str(self.setup.card.final),), seed=own)
        self.history.prepared.append(prepared)
        training = self.training = Training(prepared.task)
        fit_kept(training, self._state_path(what), self.fingerprint, self.setup, until=until)
        training.restore_best()
        training.close()
        self.history.fit_s += training.seconds
        assert training.best is not None
        return training.best

    def _note(self, best: Best) -> None:
        """Put the phase that has just ended into the curve and the epochs."""
        assert self.training is not None
        self.history.curve += self.training.curve
        self.history.epochs.append(best.epoch)
        self.noted = self.training

    def _touched(self, network: nn.Module) -> set[str]:
        """Name what is not that of the published weights any more."""
        touched = {n for n, _ in network.named_parameters() if _in(n, self.settings.fresh)}
        for one in self.history.prepared:
            plan, settings = one.task.plan, one.task.settings
            touched |= set(plan.trained) | (set(plan.frozen) if settings.bn == "update" else set())
        return touched

    def _deepened(self, network: nn.Module, best: Best) -> Best:
        """Try deeper layers where the first training has helped; keep what is better on val."""
        deeper, val = deeper_of(self.settings), self.setup.rows.val
        enough = len(self.setup.card.stages) > int(deeper.unfreeze) if deeper else False
        if deeper is None or not (enough and best.epoch and len(val)):
            return best
        weights = {n: t.clone() for n, t in network.to("cpu").state_dict().items()}
        self.chosen = best, weights, list(self.history.prepared)  # what an interruption leaves
        self.setup.context.say(
            f"training has helped: the last {deeper.unfreeze} stages are tried too (DEEPEN=0: not)"
        )
        tried: dict[str, Any] = {"unfreeze": deeper.unfreeze, "recipe": "late-adapted"}
        try:
            found = self._phase(network, deeper, self.setup.rows.train, val, "deeper")
        except (NoSpaceError, TrainingError) as error:
            self.setup.context.say(f"not deeper: {error.found}")
            self.history.deeper = tried | {"kept": False, "why": error.found}
        else:
            assert self.training is not None
            kept = improves(self.training.task, found.scores, best.scores)
            row = next(one for one in self.training.curve if one["epoch"] == found.epoch)
            figures = {k: row[k] for k in ("val_accuracy", "val_calibrated_loss") if k in row}
            self.history.deeper = tried | {"kept": kept, "epoch": found.epoch} | figures
            self.setup.context.say(
                f"the last {deeper.unfreeze} stages, epoch {found.epoch}: "
                + ("kept" if kept else "no better on val, not kept")
            )
            if kept:
                self.history.phases.append(deeper)
                self._note(found)
                self.chosen = None
                return found
        self._return_to(network, best, weights)
        return best

    def _return_to(self, network: nn.Module, best: Best, weights: dict[str, torch.Tensor]) -> None:
        """Undo a deeper training: weights and task are those of the first again."""
        self._release()
        network.to("cpu").load_state_dict(weights)
        self.history.prepared = []
        rows, context = self.setup.rows, self.setup.context
        quiet = replace(self.setup, context=replace(context, messages=Messages()))
        prepared = prepare(
            quiet, network, self.history.phases[0],
            phase=0, train=rows.train, val=rows.val, touched=self._touched(network),
        )  # fmt: skip
        self.history.prepared = [prepared]
        self.training = self.noted = Training(prepared.task)
        self.training.best = best
        self.chosen = None

    def _training_codes(self) -> TrainingCodes:
        """Take the codes of what was trained on last, one row for each image's bytes."""
        assert self.training is not None
        task, manifest = self.training.task, self.setup.context.manifest
        _, first = np.unique(manifest.sha256[task.train], return_index=True)
        rows = task.train[np.sort(first)]
        codes = codes_of(task, rows, str(self.setup.card.final)).numpy()  # (M, D)
        paths = tuple(manifest.paths[i] for i in rows.tolist())
        return TrainingCodes(codes, paths, manifest.labels[rows])

    def _outcome(
        self,
        best: Best,
        ruled: Ruled,
        test_scores: NDArray[np.float64] | None,
        *,
        training_codes: TrainingCodes | None = None,
        predict_s: float = 0.0,
        refit: bool = False,
    ) -> Outcome:
        return Outcome(
            setup=self.setup,
            settings=self.settings,
            history=self.history,
            name=self.name if test_scores is not None else f"{self.name}.interrupted",
            fingerprint=self.fingerprint,
            val_scores=best.scores.numpy(),
            test_scores=test_scores,
            training_codes=training_codes,
            ruled=ruled,
            costs=self.costs,
            refit=refit,
            times_s={"predict": predict_s, "total": time.perf_counter() - self.began},
        )

    def _ruled(self, best: Best) -> Ruled:
        """Set the output on val, which chose the epoch and trained nothing.

        A network that is still the probe keeps the probe's calibration, which rests on all of
        train, out of fold: val may have a handful of images.
        """
        val, settings = self.setup.rows.val, self.history.phases[-1]
        return output_of(
            best.scores.numpy(), self.setup.context.manifest.labels[val].astype(np.int64),
            np.zeros(len(val), np.int64), settings,
            rule=self.rule, costs=self.costs, balanced=settings.balanced,
            given=self._probe_output(),
        )  # fmt: skip

    def _probe_output(self) -> Output | None:
        """Give the probe's output where the network that is kept is the probe it started from."""
        head = self.history.head
        if head is None or self.settings.fresh or any(self.history.epochs):
            return None
        return head.output

    def _costs_and_rule(
        self, settings: FinetuneSettings
    ) -> tuple[NDArray[np.float64] | None, Rule | None]:
        """Read COST and THRESHOLD."""
        costs = self.setup.costs(settings)
        names = self.setup.context.manifest.class_names
        return costs, parse_rule(settings.threshold, names, has_costs=costs is not None)

    def _state_path(self, what: str) -> Path:
        return self.setup.context.folder / f".{self.name}.{what}.{self.fingerprint[:12]}.state"

    def _release(self) -> None:
        if self.training is not None:
            self.training.task.model.release()

    def interrupted(self) -> None:
        """Leave the best network so far, with its figures on val, under a name of its own."""
        training = self.training
        if training is None or not self.setup.world.first:
            return
        network = training.task.network
        if self.chosen is not None:
            best, weights, self.history.prepared = self.chosen
            self._release()
            network.to("cpu").load_state_dict(weights)
        elif training.best is None:
            return
        elif training is self.noted:  # between phases, or at the look at test: all is in place
            best = training.best
            self._release()
        else:
            best = training.best
            training.restore_best()
            self._release()
            self.history.fit_s += training.seconds
            self.history.curve, self.history.epochs = (
                self.history.curve + training.curve,
                [*self.history.epochs, best.epoch],
            )
        write_result(self._outcome(best, self._ruled(best), None), network)
        self.setup.context.say(
            f"interrupted: the best epoch so far ({best.epoch}) is kept as "
            f"{self.name}.interrupted; the same command goes on from the last complete epoch"
        )


def _in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in modules)
