"""The command of the server: serve."""

from __future__ import annotations

import argparse
import importlib.util
import logging

from ..errors import SettingsError
from ..settings import MachineSettings, PlaceSettings, ServeSettings
from .options import settings_from
from .stage import Stage, note

__all__ = ["STAGES", "need_extra"]


def need_extra() -> None:
    """Say how to install what the servers need.

    Raises
    ------
    SettingsError
        The extra is not installed.
    """
    packages = ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart")
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise SettingsError(
            f"This needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not "
            "installed.",
            expected="the extra 'serve'",
            todo=".venv/bin/python -m pip install -c constraints.txt -e '.[serve]'",
        )


def show_log() -> None:
    """Let the server's own messages through, on standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)


def _serve(options: argparse.Namespace) -> None:
    need_extra()
    from ..serve.running import serve

    show_log()
    serve(
        settings_from(options, ServeSettings),
        settings_from(options, PlaceSettings),
        settings_from(options, MachineSettings),
        say=note,
    )


STAGES = {
    "serve": Stage(
        _serve,
        "predict over HTTP with trained runs, and a page for people",
        (ServeSettings, MachineSettings, PlaceSettings),
    )
}
