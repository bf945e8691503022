"""From settings to a session: manifest, codes, map, near-duplicates, images without a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audit.near import find_near
from ..backbones.engine import n_cores
from ..codes.extract import extract
from ..context import Context
from ..datasets import Manifest
from ..errors import PipelineError
from ..evidence.map import map_codes
from ..heads.examples import mean_view
from ..next.unlabelled import codes_of_files
from ..predict.inputs import gathered
from ..settings import LabelSettings, MapSettings
from .session import NEAR_MOST, Session


def labels_path(context: Context, settings: LabelSettings) -> Path:
    """Give the file of corrections: LABELS, or ``labels.jsonl`` among the results."""
    return Path(settings.labels) if settings.labels else context.folder / "labels.jsonl"


class Adder:
    """Gives unlabelled files their codes and puts them into a session.

    Parameters
    ----------
    session : Session
    context : Context
        The labelled images, and how codes are made.
    """

    def __init__(self, session: Session, context: Context) -> None:
        self._session = session
        self._context = context
        self._files: dict[str, Path] = {}

    def add(self, files: list[Path]) -> tuple[list[int], list[str]]:
        """Add some files; give the new images and what cannot be used.

        Only files whose codes are not cached are run.
        """
        for file in files:
            self._files[str(file.resolve())] = file
        session = self._session
        paths, shas, codes, rejects = codes_of_files(
            self._context, f"{session.name}.unlabelled", list(self._files.values())
        )
        found = [session.root / path for path in paths]
        return (session.add(found, shas, codes) if found else []), rejects


def build_session(context: Context, settings: LabelSettings) -> tuple[Session, Adder]:
    """Load a data set, its codes and its corrections.

    Parameters
    ----------
    context : Context
        The images with the labels of the data set itself, without corrections.
    settings : LabelSettings
        The file of corrections, and further images.

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
    manifest, done = context.manifest, extract(context)
    kept = ~np.isin(manifest.sha256, np.array(list(done.codes.rejects), "S64"))
    manifest = manifest.take(np.flatnonzero(kept))
    context = replace(context, manifest=manifest)
    matrix = mean_view(done.codes.matrix())
    try:
        record = map_codes(context, done.codes, MapSettings())
    except PipelineError as error:
        context.say(f"note: the map is of principal components only: {error.found}")
        record = None
    near = find_near(manifest, context.cache, progress=context.progress)
    pairs = [(a, b, s) for a, b, s, *_ in near.pairs[:NEAR_MOST]] if near else []
    session = Session(
        manifest,
        matrix,
        path=labels_path(context, settings),
        xy=_places(manifest, matrix, record),
        pairs=pairs,
        seed=context.seed,
        jobs=context.machine.workers or n_cores(),
    )
    adder = Adder(session, context)
    files = session.images.new_files()
    if settings.images:
        with gathered(settings.images, progress=context.progress) as inputs:
            files += [Path(path) for path in inputs.paths]
    if files:
        rows, rejects = adder.add(files)
        context.say(f"{len(rows)} images without a label.")
        for reject in rejects[:5]:
            context.say(f"left out: {reject}")
    return session, adder


def _places(
    manifest: Manifest, codes: NDArray[np.float32], record: dict[str, Any] | None
) -> NDArray[np.float32]:
    """Place all images (N, 2) in [0, 1]: as on the map; others next to their nearest one on it."""
    centred = codes - codes.mean(axis=0)
    if record is None:
        _, _, axes = np.linalg.svd(centred[:2000], full_matrices=False)
        xy = centred @ axes[:2].T
    else:
        kind = next(name for name in (*(k for k in record["projections"] if k != "pca"), "pca"))
        rows = manifest.row_of
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
