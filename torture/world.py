"""The data, the commands, what undisturbed runs leave, and whether a disturbed one leaves it."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .machine import HERE, Machine, Process

__all__ = ["BAD", "World", "tensors"]

# What must be 0.
BAD = ("lost_rows", "lost_results", "torn_results", "wrong_numbers", "unnoticed_damage",
       "tracebacks", "hangs", "odd_exits", "left_temporaries")  # fmt: skip
SMALL = ["MODEL=test_resnet", "WEIGHTS=none", "SIZE=32", "DEVICE=cpu"]
TORCH = [*SMALL, "ENGINE=torch"]
COMMANDS = {
    "features": ["features", *TORCH],
    "graph": ["features", *SMALL],
    "svm": ["svm", *TORCH],
    "finetune": ["finetune", *TORCH, "UNFREEZE=layer4", "EPOCHS=2", "TRUNK_VIEWS=center",
                 "BATCH_SIZE=8", "CHOOSE=last"],
    "compare": ["compare", *TORCH, "METHODS=svm,centroid"],
    "curve": ["curve", *TORCH, "SIZES=2,4", "DRAWS=2", "METHODS=centroid,ridge"],
    "predict": ["predict", "UNLIKE=0"],
    "export": ["export", "FORMAT=onnx"],
    "archive": ["features", *TORCH],
    "arrays": ["features", *TORCH],
}  # fmt: skip
OF_A_RUN = ("predict", "export")
GIVEN = {"archive": "set.zip", "arrays": "set.npz"}


LEAST = 2  # rounds of a stage, however late it is


class World:
    """One folder in which everything happens, and the counts of what was found."""

    def __init__(self, machine: Machine, work: Path, seed: int, timeout: float) -> None:
        self.machine, self.work, self.timeout = machine, work, timeout
        self.random = random.Random(seed)
        self.seed = seed
        self.count: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.data = work / "data" / "set28"
        self.kinds = work / "kinds"
        self.warm = work / "warm"
        self.base: dict[str, dict[str, Any]] = {}
        self.volatile: set[tuple[str, str]] = set()
        self.took: dict[str, float] = {}
        self.until = float("inf")
        self.last = 0.0
        self.rounds = 0
        self.saved: Callable[[], None] = lambda: None

    # ---- what happened

    def tick(self, what: str, n: int = 1) -> None:
        """Count something that is no fault."""
        self.count[what] += n

    def note(self, kind: str, text: str, n: int = 1) -> None:
        """Count a fault, and keep a text about it."""
        self.count[kind] += n
        number = sum(self.count[one] for one in BAD)
        if number <= 300:
            place = self.work / "findings"
            place.mkdir(exist_ok=True)
            (place / f"{self.count[kind]:04}-{kind}.txt").write_text(text, errors="replace")
        print(f"  ! {kind}: {' '.join(text.split())[:180]}", flush=True)

    def left(self) -> bool:
        """Tell whether there is time for another round; what was reached is written down."""
        self.saved()
        self.rounds += 1
        if self.rounds <= LEAST:  # a stage that did nothing has shown nothing
            return True
        return time.monotonic() < self.until

    # ---- running

    def line(self, what: str, cache: Path, results: Path, data: Path | None = None) -> list[str]:
        """Spell a command in its folders."""
        line = [*COMMANDS.get(what, [what]), f"CACHE={cache}", f"RESULTS={results}", "OFFLINE=1"]
        if what in OF_A_RUN:
            line.append(f"RUN={self.run_of('svm')}")
        if what == "predict":
            line += [f"IMAGES={self.data / 'test'}", f"OUT={results / 'predicted.csv'}"]
        elif what == "export":
            line.append(f"OUT={results / 'exported'}")
        elif what in GIVEN:  # unpacked into a folder of the cache, so that it is disturbed too
            given = self.work / "inputs" / GIVEN[what]
            line += [f"DATA={given}", f"DATA_ROOT={cache / 'root'}"]
        elif what != "runs":
            line.append(f"DATA={data or self.data}")
        return line

    def run_of(self, what: str) -> Path:
        """Give the record of the undisturbed run."""
        folder = self.work / "base" / what / "results"
        return next(
            p for p in sorted(folder.rglob(f"{what}-*.json")) if not p.name.endswith(".model.json")
        )

    def judge(self, one: Process, about: str, allow: tuple[int, ...] = (0, 2, 130)) -> int | None:
        """Wait for a command's end; hold its exit code and what it said."""
        if not one.ended.wait(self.timeout):
            one.kill()
            self.note("hangs", f"{about}\n{one.arguments}\n{one.text()[-3000:]}")
            return None
        text, rc = one.text(), one.rc
        whole = f"{about}\n{' '.join(one.arguments)}\nexit {rc}\n{text[-5000:]}"
        self.exits[str(rc)] += 1
        if "Traceback (most recent call last)" in text:
            self.note("tracebacks", whole)
        elif rc not in allow:
            self.note("odd_exits", whole)
        elif "did not foresee" in text:
            self.note("unforeseen", whole)
        return rc

    def run(
        self, line: list[str], about: str, allow: tuple[int, ...] = (0, 2, 130), **how: Any
    ) -> tuple[int | None, str]:
        """Run a command to its end."""
        began = time.monotonic()
        one = self.machine.start(line, **how)
        rc = self.judge(one, about, allow)
        self.last = time.monotonic() - began
        self.count["commands"] += 1
        text = one.text()
        one.log.unlink(missing_ok=True)
        return rc, text

    # ---- undisturbed

    def prepare(self, commands: list[str]) -> None:
        """Make the images, and run every command twice without disturbance."""
        places = [str(self.data), str(self.kinds), str(self.work / "inputs")]
        rc, text = self.run(places, "the images", script=str(HERE / "pictures.py"))
        if rc != 0:
            raise SystemExit(f"the images cannot be made:\n{text[-3000:]}")
        time.sleep(2.2)  # digests of younger files are taken again each time
        for what in commands:
            found = []
            for part in ("base", "again"):
                cache, results = (self.work / part / what / name for name in ("cache", "results"))
                if (self.warm / "backbones").exists():
                    shutil.copytree(self.warm / "backbones", cache / "backbones")
                results.mkdir(parents=True)
                rc, text = self.run(self.line(what, cache, results), f"undisturbed {what}")
                if rc != 0:
                    raise SystemExit(f"the undisturbed {what} ends with {rc}:\n{text[-3000:]}")
                if (cache / "backbones").exists():
                    shutil.copytree(
                        cache / "backbones", self.warm / "backbones", dirs_exist_ok=True
                    )
                found.append(self.results(results))
            self.took[what] = self.last
            self.run(self.line(what, cache, results), f"undisturbed {what}, once more")
            found.append(self.results(results))  # "reused", for one, is another then
            first = found[0]
            self.volatile |= {
                (name, key)
                for other in found[1:]
                for name in first
                for key in {*first[name], *other.get(name, {})}
                if first[name].get(key) != other.get(name, {}).get(key)
            }
            self.base[what] = {
                "read": self.machine.read(self.work / "base" / what / "cache"),
                "results": first,
            }
            shutil.rmtree(self.work / "again")

    def fresh(self, of: str = "") -> tuple[Path, Path]:
        """Give empty folders with the exported networks; or those that a command left."""
        live = self.work / "live"
        shutil.rmtree(live, ignore_errors=True)
        if of:
            shutil.copytree(self.work / "base" / of, live)
        else:
            (live / "results").mkdir(parents=True)
            shutil.copytree(self.warm, live / "cache")
        return live / "cache", live / "results"

    # ---- what is on the disk

    @staticmethod
    def rows(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
        """Rows by the published file's name, those of parts with it."""
        by: dict[str, dict[str, str]] = {}
        for name, one in found.items():
            by.setdefault(name.split(".h5")[0], {}).update(one.get("rows", {}))
        return by

    @staticmethod
    def results(folder: Path) -> dict[str, dict[str, str]]:
        """Everything that counts of results, as texts by file and by key."""
        found: dict[str, dict[str, str]] = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix == ".safetensors":
                found[name] = {"tensors": tensors(path.read_bytes())}
            elif path.suffix in (".csv", ".onnx", ".jsonl"):
                found[name] = {"bytes": hashlib.sha256(path.read_bytes()).hexdigest()}
            elif path.suffix == ".json":
                try:
                    leaves = dict(_leaves(json.loads(path.read_bytes())))
                    found[name] = {
                        k: v for k, v in leaves.items() if not k.startswith(("/files", "/digest"))
                    }
                except ValueError:
                    found[name] = {"": "unreadable"}
        return found

    def same(self, what: str, cache: Path, results: Path, about: str) -> None:
        """Hold what is there to what the undisturbed run of the command left."""
        base, here = self.base[what], self.machine.read(cache)
        for name, one in base["read"].items():
            if not name.endswith(".h5"):
                continue
            mine = here.get(name, {"error": "missing"})
            if "error" in mine:
                self.note("lost_rows", f"{about}\n{name}: {mine['error']}", len(one["rows"]))
                continue
            lost = one["rows"].keys() - mine["rows"].keys()
            if lost:
                self.note("lost_rows", f"{about}\n{name}: {len(lost)}", len(lost))
            wrong = [k for k, v in one["rows"].items() if mine["rows"].get(k, v) != v]
            if wrong or (not lost and one["data"].keys() != mine["data"].keys()):
                self.note(
                    "wrong_numbers", f"{about}\n{name}: {len(wrong)} rows", max(1, len(wrong))
                )
        now = self.results(results)
        for name, wanted in base["results"].items():
            mine = now.get(name, {})
            off = [
                key
                for key, value in wanted.items()
                if mine.get(key) != value
                and (name, key) not in self.volatile
                and not key.endswith("/disk_bytes")  # times in a file have more digits or fewer
            ]
            if off:
                kind = "wrong_numbers" if mine else "lost_results"
                pairs = [f"{k}: {wanted[k][:80]} / {mine.get(k, '')[:80]}" for k in off[:8]]
                self.note(kind, f"{about}\n{name}: {pairs}")
        self.torn(results, about)

    def torn(self, folder: Path, about: str) -> None:
        """Hold that a record that is there is complete, and its files there with its digests."""
        for path in folder.rglob("*.json"):
            if path.name.startswith(".") or path.name.endswith(".model.json"):
                continue
            try:
                record = json.loads(path.read_bytes())
            except ValueError as error:
                self.note("torn_results", f"{about}\n{path.name}: {error}")
                continue
            files = record.get("files") if isinstance(record, dict) else None
            for name, digest in (files if isinstance(files, dict) else {}).items():
                file = path.with_name(name)
                if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                    self.note("torn_results", f"{about}\n{path.name}: {name} is missing or another")

    def kept(self, held: dict[str, dict[str, str]], cache: Path, about: str) -> dict[str, Any]:
        """Hold that rows which were on the disk still are, unchanged; give those there now."""
        here = self.rows(self.machine.read(cache))
        for stem, rows in held.items():
            mine = here.get(stem, {})
            gone = rows.keys() - mine.keys()
            if gone:
                self.note("lost_rows", f"{about}\n{stem}: {len(gone)} that were there", len(gone))
            off = [k for k in rows.keys() & mine.keys() if mine[k] != rows[k]]
            if off:
                self.note("wrong_numbers", f"{about}\n{stem}: {len(off)} rows changed", len(off))
        return here

    def let_through(
        self, what: str, line: list[str], cache: Path, results: Path,
        held: dict[str, dict[str, str]], about: str,
    ) -> None:  # fmt: skip
        """Run the command undisturbed, and hold what it leaves to the undisturbed run."""
        rc, text = self.run(line, about)
        if rc != 0:
            self.note("odd_exits", f"{about}: it ends with {rc}\n{text[-2000:]}")
            return
        self.kept(held, cache, about)
        self.same(what, cache, results, about)
        self.temporaries(cache, results, about=about)

    def temporaries(self, *folders: Path, about: str) -> None:
        """Hold that nothing hidden is left once a command was let through."""
        left = [p for f in folders for kind in (".*.tmp", ".*.state") for p in f.rglob(kind)]
        if left:
            self.note("left_temporaries", f"{about}\n{left}", len(left))


def tensors(data: bytes) -> str:
    """Digest of a safetensors file that the order of its metadata does not change."""
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        header.pop("__metadata__", None)
        return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + data[end:]).hexdigest()
    except (ValueError, OverflowError):
        return "unreadable"


def _leaves(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{key}/{k}")]
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [leaf for k, v in enumerate(value) for leaf in _leaves(v, f"{key}/{k}")]
    return [(key, json.dumps(value))]
