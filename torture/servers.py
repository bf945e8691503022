"""Servers that are killed as they answer: what was acknowledged is on the disk."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from pathlib import Path

from .machine import Process
from .world import TORCH, World

__all__ = ["servers"]

_TOKEN = "torture"


def servers(world: World, count: int) -> None:
    """Kill the labelling page and the server of predictions, half of the time each."""
    for number in range(count):
        if not world.left():
            return
        cache, results = world.fresh(of="svm")
        about = f"seed {world.seed}, server {number + 1}"
        if number % 2:
            _serve(world, cache, about)
        else:
            _label(world, cache, results, about)


def _address(one: Process, seconds: float) -> str:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not one.ended.is_set():
        found = re.search(r"http://[0-9.a-z]+:(\d+)", one.text())
        if found:
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(0.02)
    return ""


def _asked(url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        data: bytes = answer.read()
        return data


def _serve(world: World, cache: Path, about: str) -> None:
    """Predict over HTTP until the kill; answers equal each other; it starts again."""
    line = ["serve", f"RUN={world.run_of('svm')}", "PORT=0", f"CACHE={cache}", "OFFLINE=1"]
    image = next(p for p in sorted((world.data / "test").rglob("*.jpg"))).read_bytes()
    answers = set()
    for _ in range(2):
        one = world.machine.start(line)
        url = _address(one, world.timeout)
        if not url:
            one.kill()
            world.note("odd_exits", f"{about}: serve does not start\n{one.text()[-2000:]}")
            return
        until = time.monotonic() + world.random.uniform(0.2, 1.5)
        while time.monotonic() < until:
            try:
                said = json.loads(_asked(f"{url}/predict", image, "image/jpeg"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                world.tick(f"serve answered {type(error).__name__}")
                break
            answers.add(json.dumps(said["predictions"], sort_keys=True))
        one.kill()
        world.tick("kills")
        world.tick("kills of serve")
        if "Traceback (most recent call last)" in one.text():
            world.note("tracebacks", f"{about}\n{one.text()[-3000:]}")
        one.log.unlink(missing_ok=True)
    world.tick("answers of serve that were compared", len(answers) > 0)
    if len(answers) > 1:
        world.note("wrong_numbers", f"{about}: one image, {len(answers)} answers: {answers}")


def _label(world: World, cache: Path, results: Path, about: str) -> None:
    """Label until the kill; every label that was acknowledged is in the file afterwards."""
    log = world.work / "live" / "labels.jsonl"
    line = ["label", *TORCH, f"DATA={world.data}", f"CACHE={cache}", f"RESULTS={results}",
            f"LABELS={log}", "PORT=0", f"TOKEN={_TOKEN}", "OFFLINE=1"]  # fmt: skip
    acknowledged: list[str] = []
    for _ in range(2):
        one = world.machine.start(line)
        url = _address(one, world.timeout)
        if not url:
            one.kill()
            world.note("odd_exits", f"{about}: label does not start\n{one.text()[-2000:]}")
            return
        until = time.monotonic() + world.random.uniform(0.2, 1.5)
        rows = list(range(28))
        world.random.shuffle(rows)
        for row in rows:
            if time.monotonic() > until:
                break
            what = world.random.choice(("confirm", "exclude"))  # "include" alone changes nothing
            try:
                said = json.loads(
                    _asked(f"{url}/api/act", json.dumps({"rows": [row], "what": what}).encode())
                )
            except (OSError, http.client.HTTPException, ValueError) as error:
                world.tick(f"label answered {type(error).__name__}")
                break
            acknowledged += [str(changed.get("path")) for changed in said["changed"]]
        one.kill()
        world.tick("kills")
        world.tick("kills of label")
        text = log.read_text() if log.exists() else ""
        lost = [path for path in acknowledged if json.dumps(path) not in text]
        if lost:
            world.note(
                "lost_rows", f"{about}: acknowledged, and not in the file: {lost}", len(lost)
            )
        if "Traceback (most recent call last)" in one.text():
            world.note("tracebacks", f"{about}\n{one.text()[-3000:]}")
        one.log.unlink(missing_ok=True)
    world.tick("labels acknowledged", len(acknowledged))
