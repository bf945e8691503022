"""What each test function costs, so that the long ones can be left out by name.

``python tests/costs.py JUNIT.xml ...`` writes ``tests/costs.txt`` from what ``pytest
--junitxml=JUNIT.xml -m "not slow and not network and not gpu"`` wrote on a quiet machine: the
seconds of a function's cases together, set-up included, a line per function from ``LISTED_S`` on.
"""

import collections
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

COSTS = Path(__file__).with_name("costs.txt")
LISTED_S = 0.2  # `make test-fast` leaves out what is listed
LONG_S = 2.5  # `make test` leaves out what takes as long; `make test-long` runs it
HEAD = "# Seconds of each test function from 0.2 s on; written by tests/costs.py.\n"


def read_costs() -> dict[str, float]:
    """Return the listed functions, ``file.py::function``, and their seconds."""
    lines = COSTS.read_text(encoding="utf-8").splitlines()[1:]
    return {name: float(seconds) for seconds, _, name in (one.partition(" ") for one in lines)}


def costs_of(files: list[Path]) -> dict[str, float]:
    """Sum the seconds of the cases of each function, the longest of several files."""
    cost: dict[str, float] = {}
    for path in files:
        found: dict[str, float] = collections.Counter()
        for case in ET.parse(path).getroot().iter("testcase"):
            name = case.get("name", "").partition("[")[0]
            file = case.get("classname", "").rpartition(".")[2]
            found[f"{file}.py::{name}"] += float(case.get("time", 0))
        cost |= {name: max(cost.get(name, 0), seconds) for name, seconds in found.items()}
    return cost


if __name__ == "__main__":
    listed = {k: v for k, v in costs_of(list(map(Path, sys.argv[1:]))).items() if v >= LISTED_S}
    lines = [f"{seconds:.1f} {name}\n" for name, seconds in sorted(listed.items())]
    COSTS.write_text(HEAD + "".join(lines), encoding="utf-8")
