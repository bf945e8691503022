"""Processes that work together, all of them or none: what torchrun starts, on a cluster.

Each is an actor with its place in a placement group, so that two jobs never hold half of a cluster
each. When one dies, or fails in a way that nobody foresaw, all are ended and started again, in the
number for which the cluster then has room: what they do goes on from what they wrote. That is for
work whose result depends neither on their number nor on where it was interrupted.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ClusterError, NoMemoryError, PipelineError, first_line
from .connection import Node, nodes

_DEATHS = 5  # in turn without progress in between, after which it is given up
_POLL_S = 1.0  # for what the first process says
_WAIT_S = 30.0  # for room on the cluster, before it is said that it is waited for


@dataclass(frozen=True)
class Gang:
    """How many processes work together, and what each takes.

    Attributes
    ----------
    n : int
        Processes.
    cores, gpus : int
        Of each.
    """

    n: int
    cores: int
    gpus: int

    @classmethod
    def on(cls, there: list[Node], n: int, *, gpu: bool, most: int) -> Gang:
        """Fit processes onto machines.

        Parameters
        ----------
        there : list of Node
            The machines.
        n : int
            Processes asked for; 0: one for each GPU, or for each core, but not more than `most`.
            Where there is no room for that many, there are fewer.
        gpu : bool
            Whether each takes a GPU.
        most : int
            Processes that are of use, where `n` is 0.
        """
        if gpu:
            holding = [one for one in there if one.gpus]
            total = sum(one.gpus for one in holding)
            cores = min((one.cores // one.gpus for one in holding), default=1)
            return cls(max(1, min(n or min(total, most), total)), max(1, cores), 1)
        total = sum(one.cores for one in there)
        n = max(1, min(n or most, total))
        widest = max([1, *(one.cores for one in there)])
        fits = (c for c in range(widest, 0, -1) if sum(one.cores // c for one in there) >= n)
        return cls(n, next(fits, 1), 0)

    @property
    def bundle(self) -> dict[str, float]:
        """What one process takes, as Ray has it."""
        cores, gpus = float(self.cores), float(self.gpus)
        return {"CPU": cores, "GPU": gpus} if gpus else {"CPU": cores}


@dataclass(frozen=True)
class _Location:
    """Where a process is."""

    node: str
    address: str
    port: int  # a free one
    gpus: tuple[str, ...]


class _Member:
    """One process; its second thread hands on what the first one says."""

    def __init__(self) -> None:
        self._said: deque[Any] = deque()

    def greet(self) -> _Location:
        import socket

        import ray

        context = ray.get_runtime_context()
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        gpus = tuple(str(one) for one in context.get_accelerator_ids().get("GPU", []))
        return _Location(context.get_node_id(), ray.util.get_node_ip_address(), port, gpus)

    def run(
        self, env: dict[str, str], folder: str, function: Callable[..., Any], arguments: list[Any]
    ) -> Any:
        import ray

        os.environ.update(env)
        if Path(folder).is_dir():  # relative paths then mean what they mean to the driver
            os.chdir(folder)
        try:
            return function(self._said.append, *ray.get(arguments))
        except PipelineError as error:
            return error

    def messages(self) -> list[Any]:
        """Give what was said since the last call."""
        return [self._said.popleft() for _ in range(len(self._said))]


class _Lost(Exception):
    """A process ended before its work was done; the cause is why."""


def run_together(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    n: int,
    gpu: bool,
    most: int,
    on_message: Callable[[Any], None],
    say: Callable[[str], None],
    progress: Callable[[], Any],
) -> Any:
    """Call a function in several processes at once, each with the environment of torchrun.

    Within a :func:`connected` block.

    Parameters
    ----------
    function : callable
        Found by its name on every machine. Called as ``function(tell, *arguments)``; what is given
        to ``tell`` in the first process comes to `on_message`, in order.
    arguments : tuple
        Put into Ray's store once.
    n, gpu, most
        As :meth:`Gang.on` has them.
    on_message : callable
        Told what the first process tells.
    say : callable
        Told, in a line, who works, and what happened to them.
    progress : callable
        Gives something that is another whenever work was done that is not lost.

    Returns
    -------
    object
        What the function gave in the first process.

    Raises
    ------
    PipelineError
        That the function raised in any process.
    ClusterError
        Processes died time after time without progress, or the cluster has no room for one.
    """
    import ray

    kept = [ray.put(one) for one in arguments]
    deaths, reached = 0, progress()
    while True:
        there = nodes()
        gang = Gang.on(there, n, gpu=gpu, most=most)
        say(
            f"{gang.n} Ray workers on {len(there)} machine{'s' * (len(there) > 1)}, each with "
            + ("a GPU" if gang.gpus else f"{gang.cores} core{'s' * (gang.cores > 1)}")
        )
        try:
            return _once(gang, function, kept, on_message=on_message, say=say)
        except _Lost as lost:
            now = progress()
            deaths = deaths + 1 if now == reached else 1
            reached = now
            cause = lost.__cause__
            if deaths >= _DEATHS:
                if isinstance(cause, ray.exceptions.RayTaskError):
                    raise cause.as_instanceof_cause() from cause
                raise ClusterError(
                    f"{_DEATHS} times in turn a worker died before anything was finished: "
                    f"{first_line(cause)[:200] if cause else ''}",
                    expected="memory for the network, a batch and its gradients in each worker",
                    todo="WORKERS= fewer, or look at Ray's log (ray logs); what was finished is "
                    "kept",
                ) from cause
            say("a worker ended before its work was done: all start again from what is written")


def _once(
    gang: Gang,
    function: Callable[..., Any],
    arguments: list[Any],
    *,
    on_message: Callable[[Any], None],
    say: Callable[[str], None],
) -> Any:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.placement_group([gang.bundle] * gang.n, strategy="PACK")
    members: list[Any] = []
    try:
        _wait_for_room(group, gang, say)
        actor: Any = ray.remote(_Member)
        takes = {"num_cpus": gang.cores, "num_gpus": gang.gpus, "max_concurrency": 2}
        for at in range(gang.n):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=at)
            members.append(actor.options(scheduling_strategy=place, **takes).remote())
        locations = ray.get([one.greet.remote() for one in members])
        order = sorted(range(gang.n), key=lambda i: locations[i].node)  # machine by machine
        members = [members[i] for i in order]
        calls = zip(members, _environments([locations[i] for i in order]), strict=True)
        here = str(Path.cwd())
        refs = [one.run.remote(env, here, function, arguments) for one, env in calls]
        waiting, result = list(refs), None
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=_POLL_S)
            for told in ray.get(members[0].messages.remote()):
                on_message(told)
            for ref in ready:
                value = ray.get(ref)
                if isinstance(value, PipelineError):
                    raise value
                result = value if ref == refs[0] else result  # a Ray Client gives copies
        for told in ray.get(members[0].messages.remote()):
            on_message(told)
        return result
    except ray.exceptions.OutOfMemoryError as error:
        raise NoMemoryError(
            "Ray ended a worker because its machine had no memory left.",
            expected="memory for the network, a batch and its gradients in each worker",
            todo="WORKERS= fewer, a smaller BATCH_SIZE, or machines with more memory; what was "
            "finished is kept",
        ) from error
    except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
        raise _Lost from error
    finally:
        for one in members:
            ray.kill(one)
        ray.util.remove_placement_group(group)


def _wait_for_room(group: Any, gang: Gang, say: Callable[[str], None]) -> None:
    """Wait until there is room for all processes at once.

    Raises
    ------
    ClusterError
        There would not be, even if nobody else worked on the cluster.
    """
    import ray

    ready = group.ready()
    if ray.wait([ready], timeout=_WAIT_S)[0]:
        return
    room = f"{gang.n} x {gang.cores} cores" + (f" and {gang.n} GPUs" if gang.gpus else "")
    said = False
    while not ray.wait([ready], timeout=_WAIT_S)[0]:
        there = nodes()
        places = [
            min(one.cores // gang.cores, one.gpus if gang.gpus else one.cores) for one in there
        ]
        if sum(places) < gang.n:
            raise ClusterError(
                f"The cluster has no room for {room}: it has "
                f"{', '.join(f'{one.cores} cores, {one.gpus} GPUs' for one in there)}.",
                expected="room for all workers at once",
                todo=f"WORKERS={max(1, sum(places))}, or start the machines that are missing",
            )
        if not said:
            say(f"waiting for room on the cluster: {room}")
            said = True


def _environments(locations: list[_Location]) -> list[dict[str, str]]:
    """Give each process what torchrun would set; `locations` are in order, machine by machine.

    The processes of a machine see all of its GPUs that are theirs, as under torchrun, so that
    NCCL can copy between them directly.
    """
    found = []
    for rank, location in enumerate(locations):
        same = [one for one in locations if one.node == location.node]
        local = rank - locations.index(same[0])
        env = {
            "RANK": rank,
            "WORLD_SIZE": len(locations),
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": len(same),
            "MASTER_ADDR": locations[0].address,
            "MASTER_PORT": locations[0].port,
        }
        if location.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for one in same for gpu in one.gpus)
        found.append({key: str(value) for key, value in env.items()})
    return found
