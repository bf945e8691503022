"""The server under load, against the engine alone.

Hypothesis: with 32 clients, each sending one photograph at a time over a kept connection, the
server answers at least 80 % of the images a second that the engine runs on its own threads with
nothing else to do; memory does not grow by more than 5 % in half an hour; and a decoding worker
killed every few seconds loses no request but its own.

    python -m benchmarks.serve RUN=<run> IMAGES=<folder> [SECONDS=30] [CLIENTS=32] [KILL=0]
        [CACHE=cache] [RESULTS=results]

Engine and server are measured in turn, three times each; the ratio is of the medians. Client and
server share the machine: the client's own cost counts against the server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3


def settings() -> dict[str, str]:
    """Read NAME=value arguments over the defaults."""
    found = {
        "RUN": "", "IMAGES": "", "SECONDS": "30", "CLIENTS": "32", "KILL": "0", "CACHE": "cache",
        "RESULTS": "results", "DATA_ROOT": "data",
    }  # fmt: skip
    found.update(one.split("=", 1) for one in sys.argv[1:])
    return found


def bare(run: str, asked: dict[str, str], seconds: float) -> float:
    """Images a second of the engine alone: as many threads as cores, batches of its own size."""
    from cnn_codes.backbones.engine import n_cores
    from cnn_codes.predict import Classifier

    classifier = Classifier.load(run, results=asked["RESULTS"], cache=asked["CACHE"], offline=True)
    engine = classifier.model.engine
    size = classifier.preprocessing.size
    batch = np.random.default_rng(0).integers(0, 256, (engine.batch, size, size, 3), np.uint8)
    ends = time.perf_counter() + seconds
    counts = [0] * (n_cores() if engine.concurrent else 1)

    def work(at: int) -> None:
        while time.perf_counter() < ends:
            engine.run(batch)
            counts[at] += len(batch)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(counts))]
    began = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(counts) / (time.perf_counter() - began)


async def client(
    port: int, bodies: list[bytes], ends: float, took: list[float], statuses: dict[str, int]
) -> None:
    """Send one image after another over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = id(writer) % len(bodies)
    while time.perf_counter() < ends:
        body = bodies[at % len(bodies)]
        at += 1
        began = time.perf_counter()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        status = head[9:12].decode()
        statuses[status] = statuses.get(status, 0) + 1
    writer.close()


async def load(port: int, bodies: list[bytes], seconds: float, n: int) -> tuple[Any, Any]:
    """Run `n` clients at once."""
    took: list[float] = []
    statuses: dict[str, int] = {}
    ends = time.perf_counter() + seconds
    await asyncio.gather(*(client(port, bodies, ends, took, statuses) for _ in range(n)))
    return took, statuses


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    pages = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if int(path.name) == pid or parent == pid:
                pages += int((path / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.name))
        except (OSError, IndexError):
            continue
    return found


def main() -> None:
    """Measure, and print a table."""
    asked = settings()
    seconds, n_clients, kill = float(asked["SECONDS"]), int(asked["CLIENTS"]), float(asked["KILL"])
    files = sorted(p for p in Path(asked["IMAGES"]).rglob("*") if p.suffix in (".jpg", ".jpeg"))
    bodies = [path.read_bytes() for path in files[:200]]
    print(f"{len(bodies)} images, {sum(map(len, bodies)) / len(bodies) / 1000:.0f} kB each")
    line = [sys.executable, "-m", "pipeline", "serve", "PORT=0"]
    line += [f"{name}={asked[name]}" for name in ("RUN", "CACHE", "RESULTS", "DATA_ROOT")]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port = int(server.stderr.readline().split("127.0.0.1:")[1].split("/")[0])
        threading.Thread(target=server.stderr.read, daemon=True).start()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                break
            except OSError:
                time.sleep(0.1)
        asyncio.run(load(port, bodies, 3, n_clients))
        before = memory_mb(server.pid)
        ending = threading.Event()
        n_killed = [0]

        def killer() -> None:
            while kill and not ending.wait(kill):
                for pid in children(server.pid)[:1]:
                    with suppress(ProcessLookupError):  # it ended by itself meanwhile
                        os.kill(pid, signal.SIGKILL)
                        n_killed[0] += 1

        alone, served, took, statuses = [], [], [], {}
        for _ in range(ROUNDS):
            alone.append(bare(asked["RUN"], asked, min(10.0, seconds)))
            ending.clear()
            thread = threading.Thread(target=killer)
            thread.start()
            began = time.perf_counter()
            some, found = asyncio.run(load(port, bodies, seconds, n_clients))
            served.append(len(some) / (time.perf_counter() - began))
            ending.set()
            thread.join()
            took += some
            for status, n in found.items():
                statuses[status] = statuses.get(status, 0) + n
        after = memory_mb(server.pid)
        p50, p99 = np.percentile(took, [50, 99])
        ratio = np.median(served) / np.median(alone)
        print("engine alone, images/s:", ", ".join(f"{one:.0f}" for one in alone))
        print("server, images/s:      ", ", ".join(f"{one:.0f}" for one in served))
        print(f"ratio {ratio:.2f}; p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms")
        print(f"answers: {statuses}; workers killed: {n_killed[0]}")
        print(f"memory: {before:.0f} MB, after {len(took):,} images {after:.0f} MB "
              f"({100 * (after / before - 1):+.1f} %)")  # fmt: skip
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
