"""How much memory is free for a fit, as the system and a container's limit have it."""

from __future__ import annotations

import math
import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")


def available_bytes() -> float:
    """Bytes that this process can take without swapping; infinite where the system does not say.

    On Linux ``MemAvailable``, and what is left below the limit of the control group (version 2);
    elsewhere half of the machine's memory.
    """
    return min(_of_the_machine(), _of_the_group())


def _of_the_machine() -> float:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf


def _of_the_group() -> float:
    """Memory below the limits of this process's control group and of those that it is in."""
    try:
        name = next(
            line.rpartition(":")[2].strip("/")
            for line in _GROUPS.read_text().splitlines()
            if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return math.inf
    folder, least = _GROUP_ROOT / name, math.inf
    for one in (folder, *folder.parents):
        if not one.is_relative_to(_GROUP_ROOT):
            break
        try:
            limit = (one / "memory.max").read_text().strip()
            if limit == "max":
                continue
            used = int((one / "memory.current").read_text())
            facts = dict(line.split() for line in (one / "memory.stat").read_text().splitlines())
            cached = int(facts.get("inactive_file", 0))  # dropped when memory is needed
            least = min(least, max(0.0, int(limit) - used + cached))
        except (OSError, ValueError):
            continue
    return least
