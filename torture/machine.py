"""Runs commands of the pipeline: forks of one process that has loaded its libraries."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MODES", "Machine", "Process"]

HERE = Path(__file__).parent
MODES = {"count": 0, "kill": 1, "torn": 2, "full": 3, "eio": 4, "short": 5,
         "count of new": 6, "no new for space": 7, "no new for eio": 8}  # fmt: skip


@dataclass
class Process:
    """A command that was started; `rc` is None while it runs."""

    arguments: list[str]
    log: Path
    pid: int = 0
    rc: int | None = None
    rss_kb: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def text(self) -> str:
        """Give what it has said so far."""
        return self.log.read_text(errors="backslashreplace") if self.log.exists() else ""

    def send(self, number: int) -> None:
        """Send a signal to the command and to what it started (it leads a group of its own)."""
        if self.started.wait(30) and not self.ended.is_set():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.send(signal.SIGKILL)
        self.ended.wait(30)


class Machine:
    """The process that commands are forked from, with the shim where there is a C compiler."""

    def __init__(self, python: str, work: Path, *, nice: int = 10) -> None:
        self.work = work
        self.tmp = work / "tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)
        self.shim = self._compiled()
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"COLUMNS": "200", "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1"}
        if self.shim:
            env["LD_PRELOAD"] = str(self.shim)
        line = [python, str(HERE / "zygote.py"), str(self.shim or "")]
        self._jobs: dict[int, Process] = {}
        self._lock = threading.Lock()
        self._number = 0
        with (work / "zygote.log").open("wb") as log:
            self._zygote = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                cwd=work,
                preexec_fn=lambda: os.nice(nice) and None,
            )
        ready: queue.Queue[bool] = queue.Queue()
        threading.Thread(target=self._listen, args=(ready,), daemon=True).start()
        if not ready.get(timeout=300):
            raise SystemExit(f"the pipeline could not be loaded: see {work / 'zygote.log'}")
        self._oracle = subprocess.Popen(
            [python, str(HERE / "oracle.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _compiled(self) -> Path | None:
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        target = self.work / "shim.so"
        line = [
            compiler,
            "-shared",
            "-fPIC",
            "-O1",
            "-o",
            str(target),
            str(HERE / "shim.c"),
            "-ldl",
        ]
        return target if subprocess.run(line, check=False).returncode == 0 else None

    def _listen(self, ready: queue.Queue[bool]) -> None:
        assert self._zygote.stdout is not None
        for line in self._zygote.stdout:
            said = json.loads(line)
            if "ready" in said:
                ready.put(True)
                continue
            one = self._jobs[said["id"]]
            if "pid" in said:
                one.pid = said["pid"]
                one.started.set()
            else:
                one.rc, one.rss_kb = said["rc"], said["rss_kb"]
                one.ended.set()
        ready.put(False)

    def start(self, arguments: list[str], **how: Any) -> Process:
        """Start a command.

        Parameters
        ----------
        arguments : list of str
            The stage and its settings.
        how
            ``script``: a file to run in place of the command line; ``root``, ``mode``,
            ``call``, ``journal``: what the shim does; ``fsize``, ``more``: limits
            of a file and of further address space, in bytes.
        """
        handle, name = tempfile.mkstemp(prefix="log-", dir=self.tmp)
        os.close(handle)
        one = Process(arguments, Path(name))
        with self._lock:
            self._number += 1
            self._jobs[self._number] = one
            job = {"id": self._number, "arguments": arguments, "log": name, "cwd": str(self.work)}
            assert self._zygote.stdin is not None
            self._zygote.stdin.write(json.dumps(job | how).encode() + b"\n")
            self._zygote.stdin.flush()
        return one

    def read(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Read every file of codes and part below `folder`, by its relative name."""
        paths = [p for p in (*folder.rglob("*.h5"), *folder.rglob("*.part")) if p.is_file()]
        return {str(Path(name).relative_to(folder)): one for name, one in self._read(paths).items()}

    def arrays(self, path: Path) -> str:
        """Say why NumPy does not read a file of arrays; empty where it does."""
        found: str = self._read([path])[str(path)].get("error", "")
        return found

    def _read(self, paths: list[Path]) -> dict[str, dict[str, Any]]:
        assert self._oracle.stdin is not None
        assert self._oracle.stdout is not None
        self._oracle.stdin.write(json.dumps([str(p) for p in paths]).encode() + b"\n")
        self._oracle.stdin.flush()
        found: dict[str, dict[str, Any]] = json.loads(self._oracle.stdout.readline())
        return found

    def close(self) -> None:
        """End both processes."""
        for one in (self._zygote, self._oracle):
            assert one.stdin is not None
            one.stdin.close()
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()

    @staticmethod
    def pause(seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
