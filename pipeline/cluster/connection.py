"""A connection to Ray: one on this machine, one that runs here already, or one elsewhere.

Ray's telemetry is switched off, and a Ray that is started here has no dashboard. Whoever reaches a
Ray without a token can run programs on it. A Ray that is started here asks for the token in
``~/.ray/auth_token``, which it makes (so Ray has it from 2.60 on); of another cluster that is for
those who run it (``RAY_AUTH_MODE=token``, a private network).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblib import cpu_count

from ..errors import ClusterError, DeviceError, first_line

_CODE = Path(__file__).parents[1]  # the package's folder
_PORT = 10001  # of Ray Client
_REACH_S = 10.0
_STORE_BYTES = 512_000_000  # of a Ray that is started here: codes are put into it once


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its cores and its GPUs."""

    cores: int
    gpus: int


def nodes() -> list[Node]:
    """Look which machines the cluster has now."""
    import ray

    found = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return [Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in found]


@dataclass(frozen=True)
class Connection:
    """What a cluster has.

    Attributes
    ----------
    address : str
        ``local``, ``auto`` or ``ray://host:port``.
    n_cores, n_gpus : int
        Of all its nodes together.
    most_cores : int
        Of one node.
    """

    address: str
    n_cores: int
    n_gpus: int
    most_cores: int


@contextmanager
def connected(address: str, *, cores: int = 0) -> Iterator[Connection]:
    """Connect to Ray for the time of a block.

    A Ray that this process is connected to already is used, and left as it is.

    Parameters
    ----------
    address : str
        As the setting CLUSTER has it.
    cores : int
        Cores that a local Ray may use; 0: all of this process.

    Raises
    ------
    ClusterError
        Ray is not installed, or there is no cluster at that address.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(
            f"CLUSTER={address} needs the package ray.",
            expected="the extra cluster",
            todo="pip install 'cnn-codes[cluster]'; or leave CLUSTER out to run in this process",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S", "5")  # of three attempts
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", "5")
    if address.startswith("ray://") and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray itself does for 'auto'
    import ray

    ours = not ray.is_initialized()
    if ours:
        _start(address, cores)
    try:
        there = nodes()
        each = [one.cores for one in there]
        n_gpus = sum(one.gpus for one in there)
        yield Connection(address, max(1, sum(each)), n_gpus, max([1, *each]))
    finally:
        if ours:
            ray.shutdown()


def _has_token() -> bool:
    """Whether there is a token of Ray's, where Ray looks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


def _reach(address: str) -> None:
    """Open a connection and close it: where nobody answers, Ray itself waits for minutes.

    Raises
    ------
    OSError
        Nobody answers there, or ``auto`` finds no address.
    """
    if address == "auto":  # the address of a head node that is gone may still be noted
        from ray._private.services import get_ray_address_from_environment

        found = get_ray_address_from_environment("auto", None)
        address = found if "://" in found else f"//{found}"
    parts = urlsplit(address)
    place = parts.hostname or "", parts.port or _PORT
    try:
        socket.create_connection(place, timeout=_REACH_S).close()
    except OSError as error:
        raise ConnectionError(f"{place[0]}:{place[1]}: {error.strerror or error}") from error


def _start(address: str, cores: int) -> None:
    import ray

    # That a local Ray asks for a token is announced each time.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel("ERROR")
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": False,
    }
    try:
        if address == "local":
            ray.init(
                address="local",
                num_cpus=cores or cpu_count(),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        else:
            _reach(address)
            if address.startswith("ray://"):
                if __name__.partition(".")[0] == _CODE.name:
                    # A checkout: a Ray Client's workers do not look where the driver does.
                    found = [str(_CODE.parent), os.environ.get("PYTHONPATH", "")]
                    path = os.pathsep.join(filter(None, found))
                    quiet |= {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
            with warnings.catch_warnings():  # what Ray warns of is in the error that follows
                warnings.simplefilter("ignore")
                ray.init(address=address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        wanted = "a Ray cluster that this machine is part of"
        if address.startswith("ray://"):
            wanted = (
                "a Ray head node with its client port there, and its token in ~/.ray/auth_token "
                "or RAY_AUTH_TOKEN"
            )
        raise ClusterError(
            f"CLUSTER={address}: there is no Ray to connect to: {first_line(error)[:200]}",
            expected=wanted,
            todo="ray start --head, and the same command again; or CLUSTER=local, which starts one "
            "on this machine",
        ) from error
    except Exception as error:  # Ray's own: not enough shared memory, ports in use
        raise DeviceError(
            f"CLUSTER={address}: Ray does not start: {first_line(error)[:200]}",
            todo="leave CLUSTER out to run in this process",
        ) from error
