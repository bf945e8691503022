"""What the tests of the servers share: a small run, and a server on a thread of the test's own."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_codes.cli import main
from cnn_codes.serve.app import Hall, build_app, guarded
from cnn_codes.serve.limits import Limits
from cnn_codes.serve.metrics import Metrics
from cnn_codes.serve.models import Shelf, named_runs
from cnn_codes.serve.running import bound, run_server, server_of
from cnn_codes.settings import MachineSettings
from conftest import SMALL
from pictures import write_set

BOUNDARY = "0123456789abcdef"


@dataclass
class Trained:
    """A data set, and a head trained on it."""

    data: Path
    cache: Path
    results: Path

    @classmethod
    def make(cls, folder: Path, backbones: Path, *, n: int = 40, **settings: Any) -> Trained:
        backbones.mkdir(exist_ok=True)
        (folder / "cache").mkdir(parents=True)
        (folder / "cache" / "backbones").symlink_to(backbones)
        made = cls(write_set(folder / "pets", n), folder / "cache", folder / "results")
        made.train(**settings)
        return made

    def settings(self, **more: Any) -> list[str]:
        values = {**SMALL, "data": self.data, "cache": self.cache, "results": self.results} | more
        return [f"{name.upper()}={value}" for name, value in values.items()]

    def train(self, method: str = "svm", **more: Any) -> None:
        assert main([method, *self.settings(folds=2, jobs=1), *self.settings(**more)]) == 0

    @property
    def runs(self) -> list[Path]:
        return sorted(self.results.rglob("*.model.json"))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks a server on this machine."""

    port: int
    hall: Any = None

    def __call__(
        self, method: str, path: str, body: Any = None, timeout: float = 60, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self("GET", path, **headers)

    def predict(self, *files: tuple[str, bytes], query: str = "", **headers: str) -> Answer:
        body = form(*files)
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self("POST", f"/predict{query}", body, Content_Type=kind, **headers)

    def raw(self, data: bytes, *, wait_s: float = 20.0, end: bool = False) -> bytes:
        """Send bytes as they are, and give all that comes back until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as one:
            one.sendall(data)
            if end:
                one.shutdown(socket.SHUT_WR)
            found = b""
            try:
                while more := one.recv(65536):
                    found += more
            except (TimeoutError, ConnectionResetError):
                pass
            return found

    def until_ready(self, most_s: float = 60.0) -> None:
        for _ in range(int(20 * most_s)):
            if self.get("/readyz").status == 200:
                return
            assert self.hall is None or self.hall.failure is None, self.hall.failure
            time.sleep(0.05)
        raise AssertionError("not ready")


def form(*files: tuple[str, bytes]) -> bytes:
    """Spell files as a multipart body."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def started(app: Any, hall: Any, limits: Limits) -> Iterator[Client]:
    """Run an application on a thread, as long as the block lasts."""
    one = bound("127.0.0.1", 0)
    server = server_of(app, limits)
    thread = threading.Thread(target=run_server, args=(server, one))
    thread.start()
    client = Client(one.getsockname()[1], hall)
    try:
        for _ in range(200):
            if server.started:
                break
            time.sleep(0.02)
        yield client
    finally:
        server.should_exit = True
        thread.join(60)
        one.close()
        assert not thread.is_alive()


@contextmanager
def serving(
    trained: Trained, *runs: str, token: str = "", host: str = "127.0.0.1", **limits: Any
) -> Iterator[Client]:
    """Serve some runs (default: the newest) on a thread, ready when the block begins."""
    metrics = Metrics()
    shelf = Shelf(
        named_runs(runs or (f"pets={trained.runs[0]}",), trained.results),
        results=trained.results,
        cache=trained.cache,
        data_root=trained.data.parent,
        machine=MachineSettings(workers=2),
        offline=True,
        metrics=metrics,
    )
    allowed = Limits(**limits)
    hall = Hall(shelf, allowed, metrics, n_decoders=2)
    app = guarded(build_app(hall), metrics, host=host, token=token)
    with started(app, hall, allowed) as client:
        client.until_ready()
        yield client
