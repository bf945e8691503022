"""A small search over rate and weight decay on val, bad pairs given up early.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all pairs train for a few
epochs, the better half for twice as many, and so on. All start from the same network and read
the same cache; each goes on where it stopped, its schedule that of the whole training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..errors import TrainingError
from ..settings import FinetuneSettings
from .prepare import Setup, prepare
from .state import fit_kept
from .task import Task
from .train import Training

_DECADES = 1.0  # how far a pair may lie from the given one, to either side


@dataclass(eq=False)
class _Trial:
    """One pair and how it did."""

    number: int
    settings: FinetuneSettings
    epochs: int = 0
    loss: float = math.inf
    accuracy: float = 0.0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "lr": self.settings.lr,
            "weight_decay": self.settings.weight_decay,
            "epochs": self.epochs,
            "val_loss": self.loss if math.isfinite(self.loss) else None,
            "val_accuracy": self.accuracy,
            "seconds": self.seconds,
        }


def candidates(settings: FinetuneSettings, seed: int) -> list[FinetuneSettings]:
    """Draw ``settings.tune`` pairs within a decade of the given one, which is the first."""
    random = np.random.default_rng([seed, settings.tune])
    found = [settings]
    for _ in range(settings.tune - 1):
        lr, decay = 10.0 ** random.uniform(-_DECADES, _DECADES, 2)
        base = settings.weight_decay or 1e-4
        found.append(
            replace(settings, lr=settings.lr * float(lr), weight_decay=base * float(decay))
        )
    return found


def tuned(
    setup: Setup,
    network: nn.Module,
    settings: FinetuneSettings,
    path_of: Callable[[str], Path],
    fingerprint: str,
) -> tuple[list[dict[str, Any]], FinetuneSettings]:
    """Find the pair with the lowest loss on val; the network ends as it began.

    Parameters
    ----------
    path_of : callable
        Gives the file that keeps the state of a training of some name.

    Returns
    -------
    trials : list of dict
        Every pair: lr, weight_decay, epochs it was given, val_loss, val_accuracy, seconds.
    settings : FinetuneSettings
        With the best pair.

    Raises
    ------
    TrainingError
        The loss of every pair became infinite.
    """
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prepared = prepare(
        setup, network, settings, phase=0, train=setup.rows.train, val=setup.rows.val,
        touched=frozenset(),
    )  # fmt: skip
    trials = [_Trial(i, one) for i, one in enumerate(candidates(settings, setup.context.seed))]
    alive = list(trials)
    budget = max(1, settings.epochs >> math.ceil(math.log2(max(1, len(alive)))))
    try:
        while True:
            for trial in alive:
                network.load_state_dict(start)
                _advance(trial, replace(prepared.task, settings=trial.settings), budget,
                         path_of(f"trial{trial.number}"), fingerprint, setup)  # fmt: skip
            alive = sorted((t for t in alive if math.isfinite(t.loss)), key=lambda t: t.loss)
            if not alive:
                raise TrainingError(
                    "The loss became infinite with every pair of rate and weight decay.",
                    todo=f"LR={settings.lr / 100:g}",
                )
            if len(alive) == 1 or budget >= settings.epochs:
                break
            alive = alive[: math.ceil(len(alive) / 2)]
            budget = min(2 * budget, settings.epochs)
    finally:
        prepared.task.model.release()
        network.load_state_dict(start)
    best = alive[0].settings
    setup.context.say(
        f"of {len(trials)} pairs: LR={best.lr:.3g}, WEIGHT_DECAY={best.weight_decay:.3g}"
    )
    return [trial.as_dict() for trial in trials], best


def _advance(
    trial: _Trial, task: Task, budget: int, path: Path, fingerprint: str, setup: Setup
) -> None:
    """Train a pair until it has had `budget` epochs."""
    training = Training(task)
    try:
        fit_kept(training, path, fingerprint, setup, until=budget)
        losses = [row["val_loss"] for row in training.curve if row["val_loss"] is not None]
        trial.loss = min(losses, default=math.inf)
        trial.accuracy = max(row["val_accuracy"] for row in training.curve)
    except TrainingError as error:
        setup.context.say(f"given up: {error.found}")
        trial.loss = math.inf
    trial.epochs, trial.seconds = training.epoch, training.seconds
    training.close()
