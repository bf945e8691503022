"""Servers that are killed as they answer: what was acknowledged is on the disk, and in effect."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .machine import MODES, Process
from .power import LOST, Disk, entries, written
from .world import TORCH, World

__all__ = ["corrections", "label_calls", "label_power", "servers"]

_TOKEN = "torture"
_WRONG = (OSError, http.client.HTTPException, ValueError)
_STATE = ("path", "label", "checked", "excluded", "group")


def servers(world: World, count: int) -> None:
    """Kill the labelling page and the server of predictions, half of the time each."""
    wanted = _predicted(world)
    for number in range(count):
        if not world.left():
            return
        cache, results = world.fresh(of="svm")
        about = f"seed {world.seed}, server {number + 1}"
        if number % 2:
            _serve(world, cache, wanted, about)
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


def _asked(url: str, body: bytes | None = None, kind: str = "application/json") -> Any:
    headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _acted(url: str, rows: list[int], what: str, value: str = "") -> list[dict[str, Any]]:
    action = {"rows": rows, "what": what, "value": value, "who": "torture"}
    changed: list[dict[str, Any]] = _asked(f"{url}/api/act", json.dumps(action).encode())["changed"]
    return changed


def _ended(world: World, one: Process, about: str) -> None:
    one.kill()
    if "Traceback (most recent call last)" in one.text():
        world.note("tracebacks", f"{about}\n{one.text()[-3000:]}")
    one.log.unlink(missing_ok=True)


# ---- predictions


def _predicted(world: World) -> dict[str, dict[str, float]]:
    """Give the probabilities of the test images by the command, by name."""
    cache, results = world.fresh(of="svm")
    line = world.line("predict", cache, results)
    line = [one for one in line if not one.startswith("OUT=")]
    out = world.work / "wanted.jsonl"
    world.run([*line, f"OUT={out}"], "predict, to compare serve with")
    rows = [json.loads(one) for one in out.read_text().splitlines()]
    return {Path(row["path"]).name: row["probabilities"] for row in rows}


def _serve(world: World, cache: Path, wanted: dict[str, dict[str, float]], about: str) -> None:
    """Predict over HTTP until the kill; answers equal those of the command; it starts again."""
    line = ["serve", f"RUN={world.run_of('svm')}", "PORT=0", f"CACHE={cache}", "OFFLINE=1",
            f"TOKEN={_TOKEN}"]  # fmt: skip
    images = sorted(p for p in (world.data / "test").rglob("*.*") if p.is_file())
    for round_ in range(2):
        one = world.machine.start(line)
        url = _address(one, world.timeout)
        ready = bool(url)
        limit = time.monotonic() + world.timeout
        while ready and not one.ended.is_set() and time.monotonic() < limit:
            try:
                _asked(f"{url}/readyz")
                break
            except urllib.error.HTTPError as error:  # 503 while it loads
                error.close()
                ready = error.code == 503
            except _WRONG:
                pass
            if round_ and world.random.random() < 0.02:
                break  # the kill comes while it starts
            time.sleep(0.05)
        if not ready or one.ended.is_set():
            text = one.text()
            _ended(world, one, about)
            world.note("odd_exits", f"{about}: serve does not start\n{text[-2000:]}")
            return
        until = time.monotonic() + world.random.uniform(0.2, 1.5)
        while time.monotonic() < until:
            image = world.random.choice(images)
            try:
                said = _asked(f"{url}/predict", image.read_bytes(), "application/octet-stream")
            except _WRONG as error:
                code = getattr(error, "code", "")
                world.tick(f"serve answered {type(error).__name__} {code}".strip())
                if code != 503:
                    world.note("odd_exits", f"{about}: {image.name}: {error!r}")
                time.sleep(0.1)
                continue
            found = said["predictions"][0]["probabilities"]
            world.tick("answers of serve that were compared")
            off = max(abs(found.get(k, -1) - p) for k, p in wanted[image.name].items())
            if not off < 1e-6:
                world.note("wrong_numbers", f"{about}: {image.name}: {found}, by the command "
                           f"{wanted[image.name]}")  # fmt: skip
        _ended(world, one, about)
        world.tick("kills")
        world.tick("kills of serve")


# ---- corrections


def _label_line(world: World, cache: Path, results: Path) -> list[str]:
    log = world.work / "live" / "labels.jsonl"
    return ["label", *TORCH, f"DATA={world.data}", f"CACHE={cache}", f"RESULTS={results}",
            f"LABELS={log}", "PORT=0", f"TOKEN={_TOKEN}", "OFFLINE=1"]  # fmt: skip


def _some_action(world: World, url: str, row: int) -> list[dict[str, Any]]:
    what = world.random.choice(("confirm", "exclude", "label", "label", "group"))
    value = {"label": world.random.choice(("bright", "dark", "grey")), "group": f"g{row % 5}"}
    return _acted(url, [row], what, value.get(what, ""))


def _held(world: World, line: list[str], known: dict[int, dict[str, Any]], about: str) -> None:
    """Start the page once more; every image is as the last acknowledged answer said."""
    one = world.machine.start(line)
    url = _address(one, world.timeout)
    if not url:
        world.note("odd_exits", f"{about}: label does not start again\n{one.text()[-2000:]}")
    elif known:
        rows = ",".join(map(str, known))
        now = {row["row"]: row for row in _asked(f"{url}/api/images?rows={rows}")["images"]}
        lost = [
            (row, {k: (known[row][k], now[row][k]) for k in _STATE if known[row][k] != now[row][k]})
            for row in known
        ]
        lost = [(row, off) for row, off in lost if off]
        if lost:
            world.note("lost_rows", f"{about}: acknowledged, and another now: {lost}", len(lost))
    _ended(world, one, about)


def _label(world: World, cache: Path, results: Path, about: str) -> None:
    """Label until the kill; every correction that was acknowledged is in effect afterwards."""
    line = _label_line(world, cache, results)
    known: dict[int, dict[str, Any]] = {}
    for _ in range(2):
        one = world.machine.start(line)
        url = _address(one, world.timeout)
        if not url:
            text = one.text()
            _ended(world, one, about)
            world.note("odd_exits", f"{about}: label does not start\n{text[-2000:]}")
            return
        until = time.monotonic() + world.random.uniform(0.2, 1.5)
        rows = list(range(28))
        world.random.shuffle(rows)
        pending: set[int] = set()
        for row in rows:
            if time.monotonic() > until:
                break
            pending = {row}
            try:
                changed = _some_action(world, url, row)
            except _WRONG as error:
                world.tick(f"label answered {type(error).__name__}")
                break
            known |= {seen["row"]: seen for seen in changed}
            world.tick("labels acknowledged", len(changed))
            pending = set()
        _ended(world, one, about)
        for row in pending:  # asked, not acknowledged: either is right
            known.pop(row, None)
        world.tick("kills")
        world.tick("kills of label")
    _held(world, line, known, about)


def corrections(world: World) -> bytes:
    """Give a file of corrections of some images, made by the page."""
    cache, results = world.fresh(of="svm")
    one = world.machine.start(_label_line(world, cache, results))
    url = _address(one, world.timeout)
    if url:
        for row, what, value in (
            (0, "label", "dark"), (1, "confirm", ""), (2, "label", "dark"), (3, "exclude", ""),
            (9, "label", "bright"), (12, "exclude", ""), (20, "confirm", ""), (25, "group", "g1"),
        ):  # fmt: skip
            _acted(url, [row], what, value)
    _ended(world, one, "the corrections")
    log = world.work / "live" / "labels.jsonl"
    return log.read_bytes() if log.exists() else b""


def label_calls(world: World, modes: list[str], step: int) -> None:
    """Let every call of the page that changes the corrections kill it or fail, one by one."""
    if world.machine.shim is None:
        world.tick("calls skipped")
        return
    live = world.work / "live"
    place = str(live / "labels.jsonl")
    actions = [(row, what) for row in range(2) for what in ("exclude", "confirm")]
    for mode in modes:
        call = 1 + world.seed % step
        while True:
            if not world.left():
                world.tick("calls not reached")
                return
            cache, results = world.fresh(of="svm")
            line = _label_line(world, cache, results)
            about = f"label, call {call}: {mode}"
            how: dict[str, Any] = {"root": place, "mode": MODES[mode], "call": call}
            one = world.machine.start(line, **how)
            url = _address(one, world.timeout)
            known: dict[int, dict[str, Any]] = {}
            refused = False
            for row, what in actions if url else ():
                try:
                    known |= {seen["row"]: seen for seen in _acted(url, [row], what)}
                except urllib.error.HTTPError as error:  # refused, and said so
                    refused = True
                    if error.code != 503:
                        world.note("odd_exits", f"{about}: HTTP {error.code} {error.read()!r}")
                    error.close()
                except _WRONG:
                    known.pop(row, None)
                    refused = True
                    break
            _ended(world, one, about)
            world.tick(f"calls: {mode}")
            world.tick("calls of label")
            _held(world, line, known, about)
            if not refused and mode != "short":  # further than the last call
                break
            call += step
            if call > 10:
                break


def label_power(world: World) -> None:
    """Cut the power after each acknowledgement: it is kept whatever was not flushed."""
    if world.machine.shim is None:
        world.tick("losses of power skipped (no C compiler)")
        return
    cache, results = world.fresh(of="svm")
    live, journal = world.work / "live", world.work / "journal"
    journal.unlink(missing_ok=True)
    line = _label_line(world, cache, results)
    disk = Disk(live)
    one = world.machine.start(line, root=str(live), journal=str(journal))
    url = _address(one, world.timeout)
    known: dict[int, dict[str, Any]] = {}
    points: list[tuple[int, dict[int, dict[str, Any]]]] = []
    for row in range(8):
        known = known | {seen["row"]: seen for seen in _some_action(world, url, row)}
        points.append((journal.stat().st_size, known))
    _ended(world, one, "label, written down")
    data = journal.read_bytes()
    done = 0
    for size, known in points:
        for call in entries(data[done:size]):
            disk.do(*call)
        done = size
        for lost in LOST:
            if not world.left():
                world.tick("losses of power not reached")
                continue
            shutil.rmtree(live)
            written(disk.tree(lost), live)
            world.tick("losses of power")
            _held(world, line, known, f"label, {len(known)} acknowledged: {lost} lost")
