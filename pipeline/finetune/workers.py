"""Fine-tuning on a cluster: Ray workers run what the processes of torchrun run.

The driver has read the images; the workers do all the rest, the first of them writes. What is
written after each epoch, and the cache, are what they go on from when one of them dies.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..errors import ClusterError, SettingsError
from ..progress import Messages
from ..settings import ClusterSettings, FinetuneSettings
from .run import finetune

_LEAST = 4  # images of a batch for each worker, where their number is not given


def fine_tuned(
    context: Context, settings: FinetuneSettings, split: NDArray[np.int8] | None = None
) -> dict[str, Any]:
    """Fine-tune as :func:`cnn_codes.finetune.finetune`, on the cluster that CLUSTER names, if any.

    Raises
    ------
    ClusterError
        There is no such cluster, or a worker does not see the folder of the results.
    SettingsError
        This is one of several processes already.
    """
    address = context.cluster.cluster
    if not address:
        return finetune(context, settings, split)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(
            f"CLUSTER={address} starts processes of its own; torchrun has started some already.",
            expected="one of the two",
            todo=context.command,
        )
    from ..cluster import connected, run_together

    context.folder.mkdir(parents=True, exist_ok=True)
    mark = _marked(context.folder)
    manifest = replace(context.manifest, extra=dict(context.manifest.extra))
    machine, n = context.machine, context.machine.workers
    bare = replace(
        context,
        manifest=manifest,
        machine=replace(machine, workers=0),
        cluster=ClusterSettings(),
        messages=Messages(),
    )

    def on_message(told: tuple[str, str]) -> None:
        kind, text = told
        if kind == "say":
            context.say(text)
        elif context.messages.waiting:
            context.messages.waiting(text)

    try:
        with connected(address, cores=n) as connection:
            record: dict[str, Any] = run_together(
                _work,
                (_Plan(bare, settings, split, mark, context.messages.waiting is not None),),
                n=n,
                gpu=connection.n_gpus > 0 and machine.device != "cpu",
                most=max(1, settings.batch_size // _LEAST),
                on_message=on_message,
                say=context.say,
                progress=lambda: _written(context),
            )
    finally:
        mark.unlink(missing_ok=True)
    return record


def _marked(folder: Path) -> Path:
    """Leave a file that the workers must see; remove those of drivers here that were killed."""
    start = f".cluster-{socket.gethostname()}-"
    for old in folder.glob(f"{start}*"):
        try:
            os.kill(int(old.name.removeprefix(start)), 0)
        except ProcessLookupError:
            old.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue  # another's that runs
    mark = folder / f"{start}{os.getpid()}"
    mark.touch()
    return mark


@dataclass(frozen=True)
class _Plan:
    """What every worker is given."""

    context: Context
    settings: FinetuneSettings
    split: NDArray[np.int8] | None
    mark: Path  # a file that the driver left in the folder of the results
    waits: bool  # for a cache file that another run holds


def _work(tell: Callable[[tuple[str, str]], None], plan: _Plan) -> dict[str, Any]:
    """Be one of the processes that fine-tune."""
    if not plan.mark.is_file():
        raise ClusterError(
            f"The worker on {socket.gethostname()} does not see {plan.mark.parent}.",
            expected="a folder that all machines of the cluster share, under the same path",
            todo="RESULTS=/a/shared/folder, and CACHE= and DATA_ROOT= on it too",
        )
    messages = Messages(
        say=lambda text: tell(("say", text)),
        waiting=(lambda holder: tell(("waiting", holder))) if plan.waits else None,
    )
    return finetune(replace(plan.context, messages=messages), plan.settings, plan.split)


def _written(context: Context) -> frozenset[tuple[str, int]]:
    """Say what is on disk that a training goes on from."""
    found = [*context.folder.rglob("*.state"), *context.cache.glob("*/*.parts/*.part")]
    found += context.cache.glob("*/*.h5")
    times = set()
    for path in found:
        try:
            times.add((str(path), path.stat().st_mtime_ns))
        except OSError:
            continue  # it was replaced just now
    return frozenset(times)
