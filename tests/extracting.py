"""Stage one in processes of its own, for tests that kill them, limit them, or start several.

Kept apart from the tests, so that such a process imports no pytest and starts at once.
"""

import multiprocessing
import os
import resource
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cnn_codes.codes import cache as cache_module
from cnn_codes.codes import extract as extract_module
from cnn_codes.codes import making as making_module
from cnn_codes.codes import publication as publication_module
from cnn_codes.context import Context
from cnn_codes.datasets import load_manifest
from cnn_codes.errors import PipelineError
from cnn_codes.progress import Messages
from cnn_codes.settings import (
    CodesSettings,
    DataSettings,
    MachineSettings,
    PlaceSettings,
    from_mapping,
)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["cnn_codes.codes.extract", "cnn_codes.backbones.onnx_engine", "cnn_codes.codes.cache"]
)


class Counted:
    """Progress that appends what was done to a file at once, so that it outlives a kill."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, label: str, total: int, unit: str) -> "Counted":
        self._label = label
        return self

    def advance(self, n: int = 1) -> None:
        if self._label == "codes":
            os.write(self._handle, f"{n}\n".encode())

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def counted(path: Path) -> int:
    """Sum what :class:`Counted` wrote."""
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def _run(
    settings: dict[str, Any], cache: Path, log: Path, part_rows: int, largest_file: int
) -> None:
    cache_module.PART_ROWS = part_rows
    if largest_file:
        # The check beforehand would foresee it; a disk that others fill meanwhile is not foreseen.
        publication_module.need_space = making_module.need_space = lambda *_: None
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    data = from_mapping(DataSettings, settings)
    places = PlaceSettings(cache=str(cache))
    try:
        extract_module.extract(
            Context(
                manifest=load_manifest(data, places),
                data=data,
                codes=from_mapping(CodesSettings, settings),
                machine=from_mapping(MachineSettings, settings),
                places=places,
                messages=Messages(progress=Counted(log), waiting=lambda holder: None),
            )
        )
    except PipelineError as error:
        log.with_suffix(".error").write_text(str(error))
        os._exit(2)


def start(
    settings: dict[str, Any],
    *,
    cache: Path,
    log: Path,
    part_rows: int = 16,
    largest_file: int = 0,
) -> BaseProcess:
    """Start stage one; its exit code is 0, or 2 with the message in ``<log>.error``.

    `log` counts the images that went through; `largest_file` bounds, in bytes, what it may write
    to one file, 0 not at all.
    """
    process = CONTEXT.Process(target=_run, args=(settings, cache, log, part_rows, largest_file))
    process.start()
    return process
