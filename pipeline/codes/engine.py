"""The engine that makes codes of a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backbones.engine import Engine, open_engine
from ..backbones.quantise import Calibration
from ..settings import MachineSettings
from .keys import Spec


def engine_of(
    spec: Spec,
    machine: MachineSettings,
    source: Mapping[str, Any],
    calibration: Calibration | None = None,
) -> Engine:
    """Open what runs the network.

    Parameters
    ----------
    spec : Spec
        What the codes are.
    machine : MachineSettings
        Device, engine and batch.
    source : mapping
        As :attr:`cnn_codes.context.Context.source`.
    calibration : Calibration, optional
        The images whose digest is that of `spec`.
    """
    return open_engine(
        spec.card, spec.layers, spec.preprocessing, spec.asked, machine, **source,
        calibration=calibration,
    )  # fmt: skip
