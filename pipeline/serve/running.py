"""A server bound to its port, until it is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..backbones.engine import n_cores
from ..errors import SettingsError
from ..settings import MachineSettings, PlaceSettings, ServeSettings
from .app import Hall, build_app, guarded
from .limits import Limits
from .metrics import Metrics
from .models import Shelf, named_runs
from .protocol import limited

log = logging.getLogger("cnn_codes.serve")
_GRACE_S = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TOKEN_CHARACTERS = 16


def token_of(given: str) -> str:
    """Read TOKEN: as it is, or ``@file``.

    Raises
    ------
    SettingsError
        The file cannot be read.
    """
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"TOKEN={given}: the file cannot be read.", expected="a text file with the token"
        ) from error


def check_access(host: str, token: str) -> None:
    """Refuse to open a server to a network without a token.

    Raises
    ------
    SettingsError
        No token, or one that can be guessed.
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    todo = "TOKEN=$(openssl rand -hex 16), or TOKEN=@file"
    if not local and not token:
        raise SettingsError(
            f"HOST={host} opens the server to others, and there is no TOKEN.",
            expected="a token of at least 16 characters, or HOST=127.0.0.1",
            todo=todo,
        )
    if token and ((not local and len(token) < _TOKEN_CHARACTERS) or not token.isascii()):
        raise SettingsError(
            "The TOKEN is too short, or not ASCII.",
            expected=f"at least {_TOKEN_CHARACTERS} ASCII characters",
            todo=todo,
        )


def bound(host: str, port: int) -> socket.socket:
    """Bind a port; 0 takes a free one.

    Raises
    ------
    SettingsError
        It is taken, or not to be had.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = infos[0]
        one = socket.socket(family, kind, protocol)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
            one.listen(1024)
        except OSError:
            one.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"HOST={host} PORT={port} cannot be bound ({error.strerror}).",
            expected="an address of this machine and a free port",
            todo=f"PORT={port + 1 if 0 < port < 65535 else 0}",
        ) from error
    one.setblocking(False)
    return one


class _Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM without raising them again; what was accepted is answered."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def server_of(app: Any, limits: Limits) -> uvicorn.Server:
    """Make the server of an application; it runs until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        http=limited(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=1024,
    )
    return _Server(config)


def run_server(server: uvicorn.Server, one: socket.socket) -> None:
    """Answer on a bound socket until the server is told to end; finish what was accepted.

    BLAS gets one thread: its others would spin between the searches for neighbours, on the cores
    that the network needs (seen: half of all processor time).
    """
    with threadpool_limits(1, user_api="blas"):
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[one]))


def serve(
    settings: ServeSettings,
    places: PlaceSettings,
    machine: MachineSettings,
    *,
    limits: Limits | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve predictions until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : ServeSettings
        Which runs, address, token.
    places, machine : settings
        Folders; what runs the networks.
    limits : Limits, optional
        What is taken from strangers.
    say : callable
        Told the address, once the port is bound.

    Raises
    ------
    SettingsError
        An address that cannot be bound, or one open to others without a token.
    PipelineError
        A run that cannot be loaded.
    """
    limits = limits or Limits()
    token = token_of(settings.token)
    check_access(settings.host, token)
    metrics = Metrics()
    shelf = Shelf(
        named_runs(settings.run, Path(places.results)),
        results=Path(places.results),
        cache=Path(places.cache),
        data_root=Path(places.data_root),
        machine=machine,
        offline=settings.offline,
        metrics=metrics,
    )
    one = bound(settings.host, settings.port)
    hall = Hall(shelf, limits, metrics, n_decoders=machine.workers or n_cores())
    app = guarded(build_app(hall), metrics, host=settings.host, token=token)
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"http://{name}:{one.getsockname()[1]}/  runs: {', '.join(shelf.names)}")
    server = server_of(app, limits)
    hall.give_up = lambda: setattr(server, "should_exit", True)
    run_server(server, one)
    if hall.failure is not None:
        raise hall.failure
