"""The training loop: epochs over a source of batches, the best one kept by val.

Everything random (order, views, augmentations, mixup, dropout) follows from seed, phase and
epoch alone, so a run that continues at an epoch is the run that was never stopped.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DeviceError, TrainingError
from ..progress import Progress, silent
from .batches import Draw
from .freeze import Plan, freeze, training_mode
from .judging import calibrated, few_in_val, improves
from .norms import global_norms
from .optim import Average, factor, optimizer_of, set_rates
from .scores import score
from .task import Task, norms_of


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far.

    Attributes
    ----------
    epoch : int
        0: the start.
    key : tuple of float
        The larger, the better.
    tensors : dict of str to Tensor
        What training changes, by its name in the network, on the CPU.
    scores : float64 (n, K)
        Of the rows of val; empty without a val.
    """

    epoch: int
    key: tuple[float, ...]
    tensors: dict[str, Tensor]
    scores: Tensor


class Training:
    """The state of a training: weights, optimiser, average, curve, best epoch.

    A row of the curve has ``seconds``, of the epoch's steps, and ``val_seconds``, of its look at
    val; of a training that was continued, those of the run that made it.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        freeze(task.network, task.plan)
        self.optimizer = optimizer_of(task.network, task.plan, task.settings)
        self.moving = _moving(task.network, task.plan)
        floats = [t for t in self.moving.values() if t.is_floating_point()]
        self.average = Average(floats, task.settings.ema) if task.settings.ema else None
        self.scaler = torch.amp.GradScaler(task.device, enabled=task.mixed)
        self.epoch = -1  # -1: the start has not been looked at yet
        self.curve: list[dict[str, Any]] = []
        self.best: Best | None = None
        self.draws = False  # whether the network draws, as dropout does; of several processes only
        self._replica: nn.Module = task.model
        if task.world.size > 1:
            global_norms(task.network)
            ids = [task.device] if task.device.startswith("cuda") else None
            self._replica = nn.parallel.DistributedDataParallel(
                task.model, device_ids=ids, broadcast_buffers=False
            )

    @property
    def seconds(self) -> float:
        """What it took so far."""
        return float(sum(row.get("seconds", 0) + row.get("val_seconds", 0) for row in self.curve))

    def close(self) -> None:
        """Let go of the gradient hooks of several processes; another training may follow."""
        if self.task.world.size > 1:
            self._replica = self.task.model
            gc.collect()

    def tensors(self) -> dict[str, Tensor]:
        """Copy what training changes, to the CPU; of the average where there is one."""
        with self._averaged():
            return {n: t.detach().to("cpu", copy=True) for n, t in self.moving.items()}

    @contextlib.contextmanager
    def _averaged(self) -> Any:
        if self.average:
            self.average.swap()
        try:
            yield
        finally:
            if self.average:
                self.average.swap()

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the best epoch's weights into the network."""
        assert self.best is not None
        for name, tensor in self.moving.items():
            tensor.copy_(self.best.tensors[name])

    def judge(self, row: dict[str, Any]) -> None:
        """Look at val, note the epoch in the curve, and keep its weights if it is the best."""
        task = self.task
        key: tuple[float, ...] = (float(self.epoch),)
        scores = torch.empty(0, task.n_classes, dtype=torch.float64)
        if len(task.val):
            began = time.perf_counter()
            with self._averaged():
                scores = score(task, task.val)
            row |= {"val_seconds": time.perf_counter() - began}
            truth = torch.from_numpy(task.labels[task.val])
            loss = float(F.cross_entropy(scores, truth))
            accuracy = float((scores.argmax(1) == truth).double().mean())
            row |= {"val_loss": loss if math.isfinite(loss) else None, "val_accuracy": accuracy}
            if task.settings.choose in ("loss", "one_se") and math.isfinite(loss):
                # As it will be used, with a temperature: one that is sure too early is not worse.
                loss = float(calibrated(scores, truth, task.settings.balanced)[1].mean())
                row |= {"val_calibrated_loss": loss}
            by = {"accuracy": (accuracy, -loss), "loss": (-loss,), "one_se": (-loss,), "last": key}
            key = by[task.settings.choose]
        self.curve.append(row)
        if self.best is None or (all(map(math.isfinite, key)) and self._is_better(key, scores)):
            self.best = Best(self.epoch, key, self.tensors(), scores)

    def _is_better(self, key: tuple[float, ...], scores: Tensor) -> bool:
        """Whether this epoch replaces the best one so far.

        With ``one_se`` it must be better on val by more than one standard error (:func:`improves`):
        small gains of many looks are noise. With fewer than 20 images in val nothing can be shown,
        and the probe stays.
        """
        assert self.best is not None
        if self.task.settings.choose != "one_se" or not len(self.task.val):
            return key > self.best.key
        if few_in_val(self.task.settings, len(self.task.val)):
            return False
        return improves(self.task, scores, self.best.scores)


def _moving(network: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Gather what training may change: trained parameters and all buffers."""
    trained = set(plan.trained)
    found: dict[str, Tensor] = {n: p for n, p in network.named_parameters() if n in trained}
    kept = network.state_dict().keys()
    return found | {n: b for n, b in network.named_buffers() if n in kept}


def fit(
    training: Training,
    *,
    until: int | None = None,
    on_epoch: Callable[[Training], None] = lambda training: None,
    progress: Progress = silent,
) -> None:
    """Train from where `training` stands to the end, or to epoch `until`.

    Parameters
    ----------
    on_epoch : callable
        Called after each epoch, in every process: keeps a checkpoint.
    progress : Progress
        Counts the images of each epoch.

    Raises
    ------
    TrainingError
        The loss is not finite any more; the best epoch so far is in `training`.
    DeviceError
        The device has no memory for a batch; says which fits.
    """
    task = training.task
    n_epochs = task.settings.epochs
    last = n_epochs if until is None else min(until, n_epochs)
    if training.epoch < 0:
        training.epoch = 0
        training.judge({"phase": task.phase, "epoch": 0})
        on_epoch(training)
    while training.epoch < last:
        best = training.best.epoch if training.best else 0
        patience = task.settings.patience
        if len(task.val) and patience and training.epoch - best >= patience:
            break
        began = time.perf_counter()
        row = _epoch(training, progress)
        training.epoch += 1
        row |= {"seconds": time.perf_counter() - began}
        training.judge(row)
        on_epoch(training)


def _epoch(training: Training, progress: Progress) -> dict[str, Any]:
    task, settings, world = training.task, training.task.settings, training.task.world
    number = training.epoch
    draws = _draws(task, number)
    mine = [(rows[world.rank :: world.size], n[world.rank :: world.size]) for rows, n in draws]
    weight = _class_weights(task)
    totals = torch.zeros(3, dtype=torch.float64)  # loss, its denominator, right answers
    label = f"epoch {number + 1} of {settings.epochs}"
    rate = settings.lr * factor(settings, number + 0.5, settings.epochs)
    training_mode(task.network, task.plan, norms_of(settings))
    devices = [task.device] if task.device.startswith("cuda") else []
    with (
        torch.random.fork_rng(devices=devices),
        progress(label, len(task.train), "images") as meter,
    ):
        torch.manual_seed(_seed(task, number, world.rank))
        batches = zip(draws, task.source.training(mine), strict=True)
        for i, (draw, x) in enumerate(batches):
            moment = number + i / len(draws)
            set_rates(training.optimizer, settings.lr * factor(settings, moment, settings.epochs))
            try:
                loss, right = _step(training, x, draw, weight)
            except torch.OutOfMemoryError as error:
                raise _too_large(training, x, draw, weight) from error
            totals += torch.tensor([loss, 0.0, right], dtype=torch.float64)
            totals[1] += _denominator(task, draw, weight) if world.first else 0.0
            if world.size == 1 and not math.isfinite(loss):
                break
            meter.advance(len(draw[0]))
    if world.size > 1:
        totals = world.sum(totals.to(task.device)).cpu()
    if not torch.isfinite(totals).all():
        raise _diverged(training, number)
    return {
        "phase": task.phase,
        "epoch": number + 1,
        "train_loss": float(totals[0] / totals[1]),
        "train_accuracy": float(totals[2] / sum(len(rows) for rows, _ in draws)),
        "lr": rate,
    } | ({"drawn_by": world.size} if training.draws and world.size > 1 else {})


def _denominator(task: Task, draw: Draw, weight: NDArray[np.float32]) -> float:
    """Sum the weights of a batch's images: what its loss is divided by."""
    return float(weight[task.labels[draw[0]]].sum())


def _step(
    training: Training, x: Tensor, draw: Draw, weight: NDArray[np.float32]
) -> tuple[float, int]:
    """Take one step; give the summed loss and the number of right answers of this process.

    Parameters
    ----------
    x : Tensor
        What this process's share of `draw` was read as.
    draw : Draw
        The batch of all processes.
    weight : float32 (K,)
        Of each class in the loss.
    """
    task, settings, world = training.task, training.task.settings, training.task.world
    rows, numbers = draw
    own = slice(world.rank, None, world.size)
    x = task.source.prepare(x.to(task.device, non_blocking=True))
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(task.labels[rows[own]]).to(task.device)
    options: dict[str, Any] = {
        "weight": torch.from_numpy(weight).to(task.device),
        "label_smoothing": settings.label_smoothing,
        "reduction": "none",
    }
    training.optimizer.zero_grad(set_to_none=True)
    share, other = 1.0, None
    if settings.mixup:
        random = np.random.default_rng(int(numbers[0]))
        share = float(random.beta(settings.mixup, settings.mixup))
        order = random.permutation(len(rows))[own]
        # The partner may be in another process's share.
        x = share * x + (1 - share) * world.whole(x, len(rows))[torch.from_numpy(order)]
        other = torch.from_numpy(task.labels[rows[order]]).to(task.device)
    # Of several processes, until one step is seen to draw.
    before = _random_state(task) if world.size > 1 and not training.draws else None
    with task.autocast():
        scores = training._replica(x)
        if before is not None:
            training.draws = not torch.equal(before, _random_state(task))
        losses = F.cross_entropy(scores.float(), y, **options)
        if other is not None:
            mixed = F.cross_entropy(scores.float(), other, **options)
            losses = share * losses + (1 - share) * mixed
    total = losses.sum()
    # DDP averages gradients over the processes: so the sum of their shares needs this factor.
    scaled = training.scaler.scale(total / _denominator(task, draw, weight) * world.size)
    torch.autograd.backward(scaled)
    if settings.clip:
        training.scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_([p for p in task.network.parameters()], settings.clip)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.average:
        training.average.update()
    return float(total.detach()), int((scores.detach().argmax(1) == y).sum())


def _random_state(task: Task) -> Tensor:
    """Give the state of the generator that the network's dropout draws from."""
    on_gpu = task.device.startswith("cuda")
    return torch.cuda.get_rng_state(task.device) if on_gpu else torch.get_rng_state()


def _seed(task: Task, epoch: int, extra: int) -> int:
    sequence = np.random.SeedSequence([task.seed, task.phase, epoch, extra])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _draws(task: Task, epoch: int) -> list[Draw]:
    """Draw an epoch's batches: rows, and a number for each. The last batch is no smaller."""
    random = np.random.default_rng([task.seed, task.phase, epoch])
    rows = random.permutation(task.train)
    if task.settings.balance == "sampling":
        counts = np.bincount(task.labels[task.train], minlength=task.n_classes)
        p = 1.0 / counts[task.labels[task.train]]
        rows = random.choice(task.train, len(task.train), p=p / p.sum())
    numbers = random.integers(1 << 62, size=len(rows))
    n_batches = math.ceil(len(rows) / task.settings.batch_size)
    return list(
        zip(np.array_split(rows, n_batches), np.array_split(numbers, n_batches), strict=True)
    )


def _class_weights(task: Task) -> NDArray[np.float32]:
    """Give the weight of each class in the loss, (K,); of mean 1 over the training images."""
    if not task.settings.weighted:
        return np.ones(task.n_classes, np.float32)
    counts = np.bincount(task.labels[task.train], minlength=task.n_classes)
    weights: NDArray[np.float32] = (counts.sum() / (task.n_classes * counts)).astype(np.float32)
    return weights


def _diverged(training: Training, epoch: int) -> TrainingError:
    settings = training.task.settings
    kept = training.best.epoch if training.best else 0
    return TrainingError(
        f"The loss is not finite in epoch {epoch + 1}, at a rate of {settings.lr:g}.",
        expected="a loss that falls",
        todo=f"LR={settings.lr / 10:g}, or CLIP=1; the best epoch so far ({kept}) is kept",
    )


def _too_large(
    training: Training, x: Tensor, draw: Draw, weight: NDArray[np.float32]
) -> DeviceError:
    task, (rows, numbers) = training.task, draw

    def attempt(n: int) -> None:
        # The rate is set to 0, so that finding out changes no weight.
        set_rates(training.optimizer, 0.0)
        _step(training, x[:n], (rows[:n], numbers[:n]), weight)

    training.optimizer.zero_grad(set_to_none=True)
    # Of several processes one may be out of memory, and a step takes all of them.
    fits = largest_fitting(len(rows), attempt) if task.world.size == 1 else len(rows) // 2
    return DeviceError(
        f"{task.device} has no memory for a training batch of {len(rows)} images.",
        expected=f"at most {fits} images a step" if fits else "a GPU with more memory",
        todo=f"BATCH_SIZE={fits}; what was finished is kept" if fits else "UNFREEZE less",
    )


def largest_fitting(batch: int, attempt: Callable[[int], None]) -> int:
    """Halve `batch` until `attempt` succeeds without running out of memory; 0: never."""
    while batch > 1:
        batch //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        with contextlib.suppress(torch.OutOfMemoryError):
            attempt(batch)
            return batch
    return 0
