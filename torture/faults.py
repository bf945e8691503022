"""Commands that are killed, that find the disk full, or that get no memory."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from .machine import MODES, Process
from .world import World

__all__ = ["calls", "disks", "kills", "memory"]

_KINDS = (".part", ".tmp", ".h5", ".json", ".safetensors", ".state", ".npz", ".csv", ".svg",
          ".jsonl", ".onnx", ".lock")  # fmt: skip


def kills(world: World, commands: list[str], count: int) -> None:
    """Kill commands at random moments and as files appear, then let them through."""
    done = tries = 0
    while done < count and tries < 3 * count and world.left():
        what = commands[tries % len(commands)]
        cache, results = world.fresh()
        line = world.line(what, cache, results)
        held: dict[str, dict[str, str]] = {}
        about = f"seed {world.seed}, kill {done + 1}, {what}"
        for _ in range(world.random.randint(1, 3)):
            one = world.machine.start(line)
            one.started.wait(30)
            appearing = world.random.random() < 0.5
            landed = _moment(world, one, cache, results, what, appearing=appearing)
            one.kill()
            tries += 1
            if landed:
                done += 1
                world.tick("kills")
                world.tick("kills as files appear" if appearing else "kills at random")
            text = one.text()
            if "Traceback (most recent call last)" in text:
                world.note("tracebacks", f"{about}\n{text[-3000:]}")
            one.log.unlink(missing_ok=True)
            world.torn(results, about)
            held = world.kept(held, cache, about)
        world.let_through(what, line, cache, results, held, f"{about}, then let through")


def _moment(
    world: World, one: Process, cache: Path, results: Path, what: str, *, appearing: bool
) -> bool:
    """Wait for a random moment, or for a new file of a kind; False where it ended before."""
    began = time.monotonic()
    limit = world.took[what] * 1.1
    moment = world.random.uniform(0, limit)
    kind = world.random.choice(_KINDS)
    known = {p for f in (cache, results) for p in f.rglob("*")}
    while not one.ended.wait(0.001):
        passed = time.monotonic() - began
        if passed >= limit or (not appearing and passed >= moment):
            return True
        if appearing:
            try:
                new = [p for f in (cache, results) for p in f.rglob("*") if p not in known]
            except FileNotFoundError:  # gone while it was listed
                continue
            if any(p.name.endswith(kind) for p in new):
                world.machine.pause(world.random.choice((0, 0.001, 0.005, 0.02)))
                return not one.ended.is_set()
    return False


def calls(world: World, commands: list[str], modes: list[str], step: int) -> None:
    """Let every call that changes files kill the command, or fail, one after the other."""
    if world.machine.shim is None:
        print("  no C compiler (cc): the calls are skipped", flush=True)
        world.tick("calls skipped")
        return
    live = world.work / "live"
    todo: list[tuple[str, str, int, int]] = []
    for what in commands:
        totals: dict[bool, int] = {}
        for new in (False, True):  # all calls, and those that make a file or a folder
            line = world.line(what, *world.fresh())
            mode = MODES["count of new"] if new else 0
            _, text = world.run(
                line, f"{what}, its calls counted", root=str(live), mode=mode, call=0
            )
            totals[new] = int(text.rpartition("CALLS ")[2].split()[0]) if "CALLS " in text else 0
            world.count[f"calls of {what}{' that make files' * new}"] = totals[new]
        for name in modes:
            total = totals[MODES[name] > MODES["count of new"]]
            some = range(1 + world.seed % step, total + 1, step)
            todo += [(what, name, call, total) for call in some]
    random.Random(world.seed).shuffle(todo)  # so that a run that is cut has seen of everything
    for done, (what, name, call, total) in enumerate(todo):
        if not world.left():
            world.tick("calls not reached", len(todo) - done)
            return
        _call(world, what, name, call, f"{what}, call {call} of {total}: {name}")


def _call(world: World, what: str, mode: str, call: int, about: str) -> None:
    """Let one call kill the command, or fail; then let the command through."""
    cache, results = world.fresh()
    line = world.line(what, cache, results)
    how: dict[str, Any] = {"root": str(world.work / "live"), "mode": MODES[mode], "call": call}
    allow = (0, 2, -9) if mode in ("kill", "torn") else (0, 2)
    rc, text = world.run(line, about, allow, **how)
    world.tick(f"calls: {mode}")
    if mode in ("full", "no new for space") and rc == 2 and not _of_space(text):
        world.note("odd_exits", f"{about}: exit 2, but not of space\n{text[-2000:]}")
    world.torn(results, about)
    held = world.kept({}, cache, about)
    if rc == 0:
        world.same(what, cache, results, f"{about}, exit 0")
    world.let_through(what, line, cache, results, held, f"{about}, then let through")


def _of_space(text: str) -> bool:
    return any(word in text for word in ("No space", "needs", "free"))


def disks(world: World, commands: list[str], count: int) -> None:
    """Run on small tmpfs of many sizes; where mounting is not allowed, under RLIMIT_FSIZE."""
    mount = world.work / "mount"
    mount.mkdir(exist_ok=True)
    can = _mounted(mount, 4 << 20)
    if can:
        _unmounted(mount)
    else:
        print("  mount is refused: RLIMIT_FSIZE in place of small disks", flush=True)
    for number in range(count):
        if not world.left():
            return
        what = commands[number % len(commands)]
        base = world.work / "base" / what
        need = sum(p.stat().st_size for p in base.rglob("*") if p.is_file())
        need -= sum(p.stat().st_size for p in (base / "cache" / "backbones").rglob("*"))
        size = int(need * (0.02 + 1.6 * number / count)) + 16_384
        ballast = number % 3 == 2
        about = f"disk {number + 1}, {what}, {size:,} of {need:,} bytes, ballast {ballast}"
        if can and _mounted(mount, size + (need if ballast else 0)):
            try:
                cache, results = mount / "cache", mount / "results"
                try:
                    cache.mkdir()
                    results.mkdir()
                    if (world.warm / "backbones").exists():
                        (cache / "backbones").symlink_to(world.warm / "backbones")
                except OSError:  # too small for folders
                    continue
                line = world.line(what, cache, results)
                thread = _ballast(world, mount / "ballast", need, what) if ballast else None
                _full(world, line, about)
                if thread is not None:
                    thread.join()
                world.torn(results, about)
                held = world.kept({}, cache, about)
                room = f"remount,size={4 * need + (64 << 20)}"
                subprocess.run(["mount", "-o", room, str(mount)], check=True)
                world.let_through(what, line, cache, results, held, f"{about}, with room again")
            finally:
                _unmounted(mount)
            world.tick("full disks (tmpfs)")
        else:
            cache, results = world.fresh()
            line = world.line(what, cache, results)
            _full(world, line, about, fsize=max(4096, size // 4))
            world.torn(results, about)
            held = world.kept({}, cache, about)
            world.let_through(what, line, cache, results, held, f"{about}, with room again")
            world.tick("full disks (RLIMIT_FSIZE)")


def _full(world: World, line: list[str], about: str, **how: Any) -> None:
    rc, text = world.run(line, about, **how)
    if rc == 2 and not _of_space(text):
        world.note("odd_exits", f"{about}: exit 2, but not of space\n{text[-2000:]}")


def _ballast(world: World, file: Path, n_bytes: int, what: str) -> threading.Thread:
    """Fill the disk with a file that goes away at a random moment."""
    try:
        file.write_bytes(b"\1" * n_bytes)
    except OSError:
        pass
    delay = world.random.uniform(0, world.took[what])

    def free() -> None:
        time.sleep(delay)
        file.unlink(missing_ok=True)

    thread = threading.Thread(target=free, daemon=True)
    thread.start()
    return thread


def _mounted(where: Path, size: int) -> bool:
    line = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 1 << 16)}", "torture", str(where)]
    try:
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unmounted(where: Path) -> None:
    for _ in range(20):
        if subprocess.run(["umount", str(where)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)


def memory(world: World, commands: list[str], count: int) -> None:
    """Run within limits of address space: an answer or the very same result."""
    for number in range(count):
        if not world.left():
            return
        what = commands[number % len(commands)]
        cache, results = world.fresh()
        line = world.line(what, cache, results)
        round_ = number // len(commands)  # 8 MB to 1 GB, spread evenly whatever the count
        limit = int((8 << 20) * 2 ** (7 * (round_ * 0.618034 % 1)))
        about = f"memory {number + 1}, {what}, {limit >> 20} MB beyond the libraries"
        how: dict[str, Any] = {"more": limit}
        rc, _ = world.run(line, about, **how)
        world.tick("memory limits")
        world.torn(results, about)
        held = world.kept({}, cache, about)
        if rc == 0:
            world.same(what, cache, results, about)
        world.let_through(what, line, cache, results, held, f"{about}, with room again")
