"""Runs handed to MLflow or TensorBoard, where these are installed.

Both get what the record holds: settings and choices as parameters, figures, curves by epoch, and
the files of the run by reference (path and SHA-256), not copied. Giving the same command again
adds nothing: MLflow knows a run by its fingerprint, TensorBoard's file is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .content import Exported
from .listing import Run
from .mlflow import write_mlflow
from .tensorboard import write_tensorboard


def export(runs: Sequence[Run], tool: str, out: Path) -> Exported:
    """Write runs for ``mlflow`` or ``tensorboard`` into the folder `out`.

    Raises
    ------
    SettingsError
        The tool's package is not installed.
    CacheError, NoSpaceError
        The folder cannot be written.
    """
    if tool == "mlflow":
        return write_mlflow(runs, out)
    return write_tensorboard(runs, out)
