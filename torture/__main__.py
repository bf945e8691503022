"""``python3 -m torture PYTHON``: see ``make torture``.

Exit code 0 where every count of faults is 0. The record goes to a JSON file, each finding to a
text in the folder of work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import crowds, damage, faults, power, servers
from .machine import Machine
from .record import Record
from .world import BAD, COMMANDS, World

# Counts of the short form and of the long one.
COUNTS = {
    "kills": (8, 200), "servers": (2, 20), "step": (29, 1), "flushes": (11, 1), "disks": (4, 50),
    "memory": (2, 24), "crowds": (2, 24), "swaps": (2, 24), "images": (60, 5000),
    "files": (21, 2000),
}  # fmt: skip
STAGES = "kills,servers,calls,power,disks,memory,crowds,swaps,images,files"
SHORT_S = 140.0
SHORT = ["features", "graph", "svm"]
SWAPS = ["features", "finetune"]
FILES = ["svm", "finetune", "curve", "compare", "graph"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("python", help="interpreter that has the pipeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--stages", default=STAGES)
    parser.add_argument("--seconds", type=float, default=0, help="in all; 0: as the form has it")
    parser.add_argument("--timeout", type=float, default=120, help="of a command; more is a hang")
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--work", default="", help="folder of work; empty: a temporary one")
    parser.add_argument("--out", default="results/torture.json")
    parser.add_argument("--more", action="store_true", help="add to the counts in --out")
    parser.add_argument("--commands", default="", help="of kills, power, disks; empty: the form's")
    for name, (few, many) in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{few}; long: {many}")
    return parser.parse_args()


def main() -> int:
    """Run the stages; write the record."""
    args = _options()
    n = {
        name: getattr(args, name) if getattr(args, name) is not None else both[args.long]
        for name, both in COUNTS.items()
    }
    began = time.monotonic()
    work = Path(args.work or tempfile.mkdtemp(prefix="torture-")).absolute()
    if args.work:
        if work.exists() and any(work.iterdir()) and not (work / ".torture").exists():
            sys.exit(f"{work} is not empty, and not of an earlier torture")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    (work / ".torture").touch()
    machine = Machine(os.path.abspath(args.python), work, nice=args.nice)  # noqa: PTH100
    world = World(machine, work, args.seed, args.timeout)
    form = list(COMMANDS) if args.long else SHORT
    chosen = [one for one in args.commands.split(",") if one] or form
    every = sorted({*SHORT, *chosen}, key=[*SHORT, *COMMANDS].index)
    plain = [one for one in chosen if one != "export"]
    # "graph" runs another engine on the same file of codes, equal to it within 1e-4 alone.
    alike = [one for one in plain if one not in ("predict", "graph")]
    modes = ["kill", "torn", "full", "eio", "short"]
    more = ["no new for space", "no new for eio"] if args.long else []
    record = Record(Path(args.out), args.seed, n, more=args.more)

    def calls() -> None:
        faults.calls(world, ["features", "svm"], modes + more, n["step"])
        if args.long:
            servers.label_calls(world, modes, n["step"])

    def powers() -> None:
        power.power(world, chosen, n["flushes"])
        if args.long:
            servers.label_power(world)

    stages: dict[str, Callable[[], None]] = {
        "kills": lambda: faults.kills(world, chosen, n["kills"]),
        "servers": lambda: servers.servers(world, n["servers"]),
        "calls": calls,
        "power": powers,
        "disks": lambda: faults.disks(world, plain, n["disks"]),
        "memory": lambda: faults.memory(world, plain, n["memory"]),
        "crowds": lambda: crowds.crowds(world, alike,
                                        n["crowds"]),
        "swaps": lambda: crowds.swaps(world, [w for w in SWAPS if w in every], n["swaps"]),
        "images": lambda: damage.images(world, n["images"]),
        "files": lambda: damage.files(world, [w for w in FILES if w in every], n["files"]),
    }  # fmt: skip
    try:
        first = time.monotonic()
        world.prepare(every)
        took = ", ".join(f"{name} {s:.1f} s" for name, s in world.took.items())
        print(f"undisturbed: {took}", flush=True)
        record.seconds["undisturbed"] = round(time.monotonic() - first)
        world.saved = lambda: record.save(world, within_s=20)
        limit = args.seconds or (0 if args.long else SHORT_S)
        names = args.stages.split(",")
        for number, name in enumerate(names):
            first = time.monotonic()
            if limit:  # what is left is shared out, so that every stage has its turn
                world.until = first + (began + limit - first) / (len(names) - number)
            world.rounds = 0
            stages[name]()
            record.seconds[name] = round(time.monotonic() - first)
            faults_so_far = {kind: world.count[kind] for kind in BAD if world.count[kind]}
            said = faults_so_far or 0
            print(f"{name}: {record.seconds[name]} s; faults so far: {said}", flush=True)
    finally:
        machine.close()
        record.save(world)
    print(record.text())
    failed = any(world.count[kind] for kind in BAD)
    if not failed and not args.work:
        shutil.rmtree(work, ignore_errors=True)
    elif failed:
        print(f"each finding is a text in {work / 'findings'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
