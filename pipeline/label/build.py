"""From settings to a session: manifest, codes, map, near-duplicates, images without a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audit.near import find_near
from ..backbones.engine import n_cores
from ..codes.extract import extract
from ..datasets import Manifest, load_manifest
from ..errors import PipelineError
from ..evidence.map import map_codes
from ..heads.examples import mean_view
from ..next.unlabelled import codes_of_files
from ..predict.inputs import gathered
from ..progress import Progress, silent
from ..settings import (
    CodesSettings,
    DataSettings,
    LabelSettings,
    MachineSettings,
    MapSettings,
    PlaceSettings,
)
from .session import NEAR_MOST, Session

__all__ = ["Adder", "build_session", "labels_path"]


def labels_path(settings: LabelSettings, name: str, places: PlaceSettings) -> Path:
    """Give the file of corrections: LABELS, or ``labels.jsonl`` beside the results."""
    return (
        Path(settings.labels) if settings.labels else Path(places.results) / name / "labels.jsonl"
    )


class Adder:
    """Gives unlabelled files their codes and puts them into a session.

    Parameters
    ----------
    session : Session
    data, codes, machine, places : settings
    """

    def __init__(
        self,
        session: Session,
        data: DataSettings,
        codes: CodesSettings,
        machine: MachineSettings,
        places: PlaceSettings,
    ) -> None:
        self._session = session
        self._settings = (data, codes, machine, places)
        self._files: dict[str, Path] = {}

    def add(self, files: list[Path]) -> tuple[list[int], list[str]]:
        """Add some files; give the new images and what cannot be used.

        Only files whose codes are not cached are run.
        """
        for file in files:
            self._files[str(file.resolve())] = file
        session = self._session
        paths, shas, codes, rejects = codes_of_files(
            f"{session.name}.unlabelled", session.root, list(self._files.values()), *self._settings
        )
        found = [session.root / path for path in paths]
        return (session.add(found, shas, codes) if found else []), rejects


def build_session(
    settings: LabelSettings,
    data: DataSettings,
    codes: CodesSettings,
    machine: MachineSettings,
    places: PlaceSettings,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
) -> tuple[Session, Adder]:
    """Load a data set, its codes and its corrections.

    Parameters
    ----------
    settings, data, codes, machine, places : settings
    say : callable
        Told what is missing.
    progress : Progress

    Returns
    -------
    session : Session
    adder : Adder
        For images that are dropped in.

    Raises
    ------
    PipelineError
        The data set or the network cannot be used, or the file of corrections is damaged.
    """
    manifest = load_manifest(
        replace(data, labels=""), places, workers=machine.workers, progress=progress
    )
    done = extract(
        manifest, data, codes, machine, places, on_wait=lambda holder: None, progress=progress
    )
    kept = ~np.isin(manifest.sha256, np.array(list(done.codes.rejects), "S64"))
    manifest = manifest.take(np.flatnonzero(kept))
    matrix = mean_view(done.codes.matrix())
    results = Path(places.results)
    try:
        record = map_codes(manifest, done.codes, data, MapSettings(), results=results,
                           progress=progress)  # fmt: skip
    except PipelineError as error:
        say(f"note: the map is of principal components only: {error.found}")
        record = None
    near = find_near(manifest, Path(places.cache), progress=progress)
    pairs = [(a, b, s) for a, b, s, *_ in near.pairs[:NEAR_MOST]] if near else []
    session = Session(
        manifest,
        matrix,
        path=labels_path(settings, manifest.name, places),
        xy=_places(manifest, matrix, record),
        pairs=pairs,
        seed=data.seed,
        jobs=machine.workers or n_cores(),
    )
    adder = Adder(session, data, codes, machine, places)
    files = session.new_files()
    if settings.images:
        with gathered(settings.images, progress=progress) as inputs:
            files += [Path(path) for path in inputs.paths]
    if files:
        rows, rejects = adder.add(files)
        say(f"{len(rows)} images without a label.")
        for reject in rejects[:5]:
            say(f"left out: {reject}")
    return session, adder


def _places(
    manifest: Manifest, codes: NDArray[np.float32], record: dict[str, Any] | None
) -> NDArray[np.float32]:
    """Place all images (N, 2) in [0, 1]: as on the map; others beside their nearest one on it."""
    centred = codes - codes.mean(axis=0)
    if record is None:
        _, _, axes = np.linalg.svd(centred[:2000], full_matrices=False)
        xy = centred @ axes[:2].T
    else:
        kind = next(name for name in (*(k for k in record["projections"] if k != "pca"), "pca"))
        rows = {path: row for row, path in enumerate(manifest.paths)}
        at = np.array([rows[one["path"]] for one in record["images"]])
        placed = np.array(record["projections"][kind]["xy"])
        xy = np.empty((len(codes), 2))
        xy[at] = placed
        units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        others = np.setdiff1d(np.arange(len(codes)), at)
        noise = np.random.default_rng(0).normal(0, 0.004, (len(others), 2)) * np.ptp(placed, axis=0)
        for start in range(0, len(others), 2048):
            some = others[start : start + 2048]
            nearest = (units[some] @ units[at].T).argmax(axis=1)
            xy[some] = placed[nearest] + noise[start : start + 2048]
    low, span = xy.min(axis=0), np.maximum(np.ptp(xy, axis=0), 1e-9)
    placed_: NDArray[np.float32] = ((xy - low) / span).astype(np.float32)
    return placed_
