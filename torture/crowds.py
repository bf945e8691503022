"""Several commands at once, with a cache that is cleaned and images that are swapped meanwhile."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from pathlib import Path

from .machine import Process
from .world import World

__all__ = ["crowds", "swaps"]


def crowds(world: World, commands: list[str], count: int) -> None:
    """Run 2, 4 or 8 commands on one cache; every other time it is cleaned meanwhile."""
    for number in range(count):
        if not world.left():
            return
        size, clean = (2, 4, 8)[number % 3], bool(number % 2)
        cache, results = world.fresh()
        names = [commands[i % len(commands)] for i in range(size)]
        if number % 4 >= 2:
            names = [names[0]] * size
        about = f"seed {world.seed}, round {number + 1}: {size} at once{', cleaned' * clean}"
        started = [world.machine.start(world.line(name, cache, results)) for name in names]
        cleaners: list[Process] = []
        while clean and not all(one.ended.is_set() for one in started) and len(cleaners) < 5:
            time.sleep(world.random.uniform(0.05, 0.5))
            line = ["clean-cache", f"CACHE={cache}"]
            cleaners.append(world.machine.start(line))
        for one in (*started, *cleaners):
            world.judge(one, about)
            one.log.unlink(missing_ok=True)
        world.tick("crowds")
        world.tick("processes in crowds", size)
        world.torn(results, about)
        for name in dict.fromkeys(names):
            rc, text = world.run(world.line(name, cache, results), f"{about}, then alone")
            if rc != 0:
                world.note("odd_exits", f"{about}: alone it ends with {rc}\n{text[-2000:]}")
            else:
                world.same(name, cache, results, f"{about}, then alone")
        world.temporaries(cache, results, about=about)


def swaps(world: World, commands: list[str], count: int) -> None:
    """Swap images while they are read: rows are those of their bytes, or the command says so."""
    good = {
        sha: row
        for name, one in world.base["features"]["read"].items()
        for sha, row in one["rows"].items()
        if "trunk" not in name
    }
    for number in range(count):
        if not world.left():
            return
        what = commands[number % len(commands)]
        cache, results = world.fresh()
        data = world.work / "data" / "swapped"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(world.data, data)
        about = f"seed {world.seed}, swap {number + 1}, {what}"
        line = world.line(what, cache, results, data)
        if what == "finetune":
            line += ["TRUNK=loop", "EPOCHS=3"]
        one = world.machine.start(line)
        stop = threading.Event()
        own = random.Random(world.random.random())
        thread = threading.Thread(target=_swapping, args=(data, stop, own), daemon=True)
        thread.start()
        world.judge(one, about)
        stop.set()
        thread.join()
        one.log.unlink(missing_ok=True)
        world.tick("swaps")
        world.torn(results, about)
        _of_their_bytes(world, cache, good, about)
        time.sleep(2.1)  # files this young are hashed again each time
        rc, text = world.run(world.line("features", cache, results, data), f"{about}, settled")
        if rc != 0:
            world.note("odd_exits", f"{about}: settled, it ends with {rc}\n{text[-2000:]}")
            continue
        held = _of_their_bytes(world, cache, good, about)
        now = {hashlib.sha256(p.read_bytes()).hexdigest() for p in data.rglob("*.*")}
        lost = (now & good.keys()) - held
        if lost:
            world.note("lost_rows", f"{about}: {len(lost)} images have no row", len(lost))


def _of_their_bytes(world: World, cache: Path, good: dict[str, str], about: str) -> set[str]:
    held: set[str] = set()
    for name, one in world.machine.read(cache).items():
        if "trunk" in name or "rows" not in one:
            continue
        held |= one["rows"].keys()
        off = [sha for sha, row in one["rows"].items() if good.get(sha, row) != row]
        if off:
            world.note(
                "wrong_numbers", f"{about}\n{name}: {len(off)} rows of other bytes", len(off)
            )
    return held


def _swapping(data: Path, stop: threading.Event, own: random.Random) -> None:
    images = sorted(p for p in data.rglob("*.*") if p.is_file())
    while not stop.wait(own.uniform(0.001, 0.05)):
        a, b = own.sample(images, 2)
        first, second = a.read_bytes(), b.read_bytes()
        if own.random() < 0.5:  # in place, half of it at a time
            with a.open("r+b") as stream:
                stream.write(second[: len(second) // 2])
                stream.flush()
                time.sleep(0.005)
                stream.write(second[len(second) // 2 :])
                stream.truncate(len(second))
            b.write_bytes(first)
        else:
            spare = data.parent / ".spare"
            a.rename(spare)
            b.rename(a)
            spare.rename(b)
