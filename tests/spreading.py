"""What the tests of clusters share: a stage on a local Ray, and its workers, to be killed."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest
from conftest import ROOT

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="pip install 'cnn-codes[cluster]'"
)


class Spread:
    """A stage in a process of its own, on a Ray of its own with two workers."""

    def __init__(self, stage: str, **settings: Any) -> None:
        named = {"cluster": "local", "workers": 2, **settings}
        line = [sys.executable, "-m", "pipeline", stage]
        line += [f"{name.upper()}={value}" for name, value in named.items()]
        self.process = subprocess.Popen(
            line,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def workers(self) -> list[psutil.Process]:
        """Find the worker processes that are there now."""
        found = []
        try:
            for one in psutil.Process(self.process.pid).children(recursive=True):
                try:
                    if one.cmdline()[0].startswith(("ray::_Worker", "ray::_Member")):
                        found.append(one)
                except (psutil.Error, IndexError):
                    continue
        except psutil.Error:
            return []
        return found

    def end(self) -> str:
        out, _ = self.process.communicate(timeout=250)
        assert self.process.returncode == 0, out
        return out
