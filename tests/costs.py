"""What each test costs in processor seconds, so that the long ones can be named.

``pytest -p costs`` with ``tests/`` on ``PYTHONPATH`` writes ``COSTS=<file>.<process>.jsonl``, a
line a test; ``python tests/costs.py <files>`` makes ``tests/long.txt`` of them. Processor seconds,
those of child processes included, are nearly the same on a busy machine.
"""

import collections
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = Path(__file__).with_name("long.txt")
FROM_S = 0.8  # processor seconds from which a test function is long
HEAD = "# Test functions that `make test-fast` leaves out; written by tests/costs.py.\n"


def used() -> float:
    """Seconds that this process and its finished children have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Append what the test and its fixtures used."""
    before = used()
    done = yield
    with Path(f"{os.environ.get('COSTS', 'costs')}.{os.getpid()}.jsonl").open("a") as stream:
        stream.write(json.dumps([item.nodeid, round(used() - before, 3)]) + "\n")
    return done


def long_functions(files: list[Path]) -> list[str]:
    """Name the functions whose cases together are long."""
    cost: dict[str, float] = collections.defaultdict(float)
    for path in files:
        for line in path.read_text().splitlines():
            name, seconds, *_ = json.loads(line)
            cost[name.partition("[")[0].removeprefix("tests/")] += seconds
    return sorted(name for name, seconds in cost.items() if seconds >= FROM_S)


if __name__ == "__main__":
    known = set(LONG.read_text().splitlines()[1:]) if LONG.exists() else set()
    names = sorted(known | set(long_functions(list(map(Path, sys.argv[1:])))))
    LONG.write_text(HEAD + "".join(f"{name}\n" for name in names))
