"""What was reached, as JSON: written down while it goes on, and added up over several runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .machine import HERE
from .world import BAD, World

__all__ = ["Record"]

_MOST = ("calls of features", "calls of svm", "flushes of ")  # sizes, which do not add up


class Record:
    """The record of a run, and of those before it where `more` says so.

    Parameters
    ----------
    path : Path
        The file.
    seed : int
    asked : dict of str to int
        Counts that this run was asked for.
    more : bool
        Add to what the file holds.
    """

    def __init__(self, path: Path, seed: int, asked: dict[str, int], *, more: bool) -> None:
        self.path, self.seed, self.asked = path, seed, asked
        self.before: dict[str, Any] = {}
        if more and path.exists():
            self.before = json.loads(path.read_bytes())
        self.seconds: dict[str, int] = {}
        self.now: dict[str, Any] = {}
        self._saved = time.monotonic()

    def save(self, world: World, within_s: float = 0) -> None:
        """Write it, unless it was within the last `within_s` seconds."""
        if time.monotonic() - self._saved < within_s:
            return
        self._saved = time.monotonic()
        run = {"date": time.strftime("%Y-%m-%d"), "commit": _commit(), "seed": self.seed,
               "python": platform.python_version(), "asked": self.asked,
               "seconds": dict(self.seconds)}  # fmt: skip
        old = self.before
        faults = {kind: world.count[kind] + old.get("faults", {}).get(kind, 0) for kind in BAD}
        counts = Counter({k: v for k, v in world.count.items() if k not in BAD})
        for name, n in old.get("counts", {}).items():
            counts[name] = max(n, counts[name]) if name.startswith(_MOST) else n + counts[name]
        exits = Counter(world.exits)
        exits.update(old.get("exit codes", {}))
        self.now = {
            "runs": [*old.get("runs", []), run],
            "faults": faults,
            "exit codes": dict(sorted(exits.items())),
            "counts": dict(sorted(counts.items())),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(self.text() + "\n")
        os.replace(temporary, self.path)  # noqa: PTH105

    def text(self) -> str:
        """Spell it."""
        return json.dumps(self.now, indent=1)


def _commit() -> str:
    line = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
