"""All evidence on one file of codes at once, as the report asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..codes.reader import Codes
from ..datasets import Manifest
from ..errors import HeadError
from ..progress import Progress, silent
from ..settings import DataSettings, LabelsSettings, LayersSettings, MapSettings
from .labels import find_mislabelled
from .layers import probe_layers
from .map import map_codes

__all__ = ["evidence"]


def evidence(
    manifest: Manifest,
    codes: Codes,
    data: DataSettings,
    *,
    results: Path,
    labels: LabelsSettings | None = None,
    layers: LayersSettings | None = None,
    map_: MapSettings | None = None,
    all_layers: Codes | None = None,
    command: str = "",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Gather every piece of evidence, or take what is there.

    Parameters
    ----------
    manifest, codes
        The images, and the codes that labels and map are read off.
    data : DataSettings
        Its seed.
    results : Path
        The results folder.
    labels, layers, map_
        Settings; default: the usual ones.
    all_layers : Codes, optional
        The codes of all layers of the same network; without them the layers of `codes` are
        probed.
    command, progress
        For the records; told of the fits.
    say : callable
        Told what had to be left out, and why.

    Returns
    -------
    dict
        ``mislabelled``, ``layers`` and ``map``, each its record. A piece that the data are too
        few for is left out.
    """
    asked: dict[str, Callable[[], dict[str, Any]]] = {
        "mislabelled": lambda: find_mislabelled(
            manifest, codes, data, labels or LabelsSettings(),
            results=results, command=command, progress=progress,
        ),
        "layers": lambda: probe_layers(
            manifest, all_layers or codes, data, layers or LayersSettings(),
            results=results, command=command, progress=progress,
        ),
        "map": lambda: map_codes(
            manifest, codes, data, map_ or MapSettings(),
            results=results, command=command, progress=progress,
        ),
    }  # fmt: skip
    found = {}
    for kind, make in asked.items():
        try:
            found[kind] = make()
        except HeadError as error:
            say(f"No {kind} record: {error.found}")
    return found
