"""A training in progress on disk: one file, replaced as a whole after each epoch.

Tensors (weights, optimiser, average, best weights) and the curve stand in one safetensors file,
so that they can never be of different epochs, and nothing in it can run when it is read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ClusterError, TrainingError
from ..files import digest_of, write_atomic
from ..notation import duration, number
from .prepare import Setup
from .train import Best, Training, fit

_SCHEMA = "1"


def write_state(path: Path, training: Training, fingerprint: str) -> None:
    """Write where a training stands, completely or not at all.

    Parameters
    ----------
    path : Path
        The file.
    training : Training
        After an epoch.
    fingerprint : str
        Of everything that decides how it goes on.
    """
    assert training.best is not None
    tensors = {f"now/{n}": t.detach() for n, t in training.moving.items()}
    tensors |= {f"best/{n}": t for n, t in training.best.tensors.items()}
    tensors["scores"] = training.best.scores
    for index, values in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    if training.average:
        tensors |= {f"average/{i}": t for i, t in enumerate(training.average.values)}
    meta = {
        "epoch": training.epoch,
        "curve": training.curve,
        "best_epoch": training.best.epoch,
        "best_key": training.best.key,
        "average_steps": training.average.n_steps if training.average else 0,
        "scaler": training.scaler.state_dict(),
    }
    plain = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    header = {
        "schema": _SCHEMA,
        "fingerprint": fingerprint,
        "digest": _digest(plain),
        "state": json.dumps(meta, allow_nan=False),
    }
    write_atomic(path, save(plain, header))


def read_state(path: Path, training: Training, fingerprint: str) -> bool:
    """Bring a fresh training to where the file says; False where there is no such file.

    Raises
    ------
    TrainingError
        The file is damaged, or of another training.
    """
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        if header.get("schema") != _SCHEMA or header.get("fingerprint") != fingerprint:
            raise ValueError("it is of another training")
        if header.get("digest") != _digest(tensors):
            raise ValueError("its tensors are not those that were written")
        _restore(training, tensors, json.loads(header["state"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(
            f"{path} cannot be continued from: {error}.",
            expected="what this same command wrote after an epoch",
            todo="remove it; the training then starts from the beginning",
        ) from error
    return True


@torch.no_grad()
def _restore(training: Training, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    def part(kind: str) -> dict[str, Tensor]:
        prefix = f"{kind}/"
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    now, best = part("now"), part("best")
    for name, tensor in training.moving.items():
        if now[name].shape != tensor.shape or best[name].shape != tensor.shape:
            raise ValueError(f"{name} has another shape")
        tensor.copy_(now[name])
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer").items():
        index, _, key = name.partition("/")
        like = parameters[int(index)]
        if tensor.shape == like.shape:  # in the parameter's own layout, as it was
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    if training.average:
        kept = part("average")
        for i, value in enumerate(training.average.values):
            value.copy_(kept[str(i)])
        training.average.n_steps = int(meta["average_steps"])
    if meta["scaler"]:
        training.scaler.load_state_dict(meta["scaler"])
    training.epoch, training.curve = int(meta["epoch"]), list(meta["curve"])
    training.best = Best(int(meta["best_epoch"]), tuple(meta["best_key"]), best, tensors["scores"])


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def fit_kept(
    training: Training,
    path: Path,
    fingerprint: str,
    setup: Setup,
    *,
    until: int | None = None,
) -> None:
    """Train with a checkpoint after each epoch, from the one that is there."""
    world = setup.world
    mark = digest_of([fingerprint, path.name])
    there = read_state(path, training, mark)
    if differ := world.agree(training.epoch):
        raise ClusterError(
            f"The processes do not see the same {path.name}: they stand after epochs {differ}.",
            expected="a folder RESULTS that all machines share, under the same path",
            todo="RESULTS=/a/shared/folder",
        )
    if there:
        setup.context.say(f"continued after epoch {training.epoch}")

    def kept(now: Training) -> None:
        if world.first:
            write_state(path, now, mark)
            setup.context.say(_line(now.curve[-1]))

    fit(training, until=until, on_epoch=kept, progress=setup.context.progress)


def _line(row: dict[str, Any]) -> str:
    parts = [f"epoch {row['epoch']}"]
    for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        if row.get(key) is not None:
            parts.append(f"{key.replace('_', ' ')} {number(row[key], 4)}")
    if "seconds" in row:
        parts.append(duration(row["seconds"]))
    return ", ".join(parts)
