"""The solar cells of the package ``elpv-dataset``: 2,624 electroluminescence images, 300 x 300.

Labels are probabilities of a defect (0, 1/3, 2/3, 1), given by an expert; defective means above
0.5. Split 75/25, stratified by probability and by type of cell (mono- or polycrystalline).

The package does not name the module of a cell, but the order of its files gives it: the types
come in runs of 60, 300, 180, 360, 714, 530, 72, 180, 48 and 180 cells, and cut into pieces of
about 60 these are 44 modules, 18 mono- and 26 polycrystalline, the published numbers. By default
the cells of a module stay on one side of every split. The split of the published figures, by cell,
is the data set ``elpv-cells`` (or ``GROUP=none``). Its figures are too high for
other modules: softmax on the last layer has .856 by cell and .80 by module.

Deitsch et al. 2019, arXiv 1807.02894; Buerhop et al. 2018. Licence CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .listing import Listing
from .phrases import few
from .split_words import UNSPLIT

NAMES = ("elpv", "elpv-cells")  # split by module, split by cell
MODULE_CELLS = 60

CLASS_NAMES = ("functional", "defective")


def elpv_folder() -> Path:
    """Folder of the installed package's data, found without importing it (it imports Pillow).

    Raises
    ------
    DataError
        The package is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "data"
        if (folder / "labels.csv").is_file():
            return folder
    raise DataError(
        "The package elpv-dataset is not installed.",
        expected="its 2,624 images, which are in no folder of ours",
        todo=f"{sys.executable} -m pip install elpv-dataset",
    )


def read_elpv(folder: Path, *, by_module: bool = True) -> Listing:
    """List the cells, with ``probability`` (float64, 0 to 1) and ``type`` as further columns.

    A third column, ``weight``, is what each cell counts in the weighted accuracy of Deitsch et al.:
    1 where the expert was sure, 0.33 and 0.67 at the probabilities between. A fourth, ``module``,
    is the number of the module, inferred from the order of the files.

    Parameters
    ----------
    folder : Path
        Holds ``labels.csv`` and ``images``.
    by_module : bool
        Whether modules are groups.

    Raises
    ------
    DataError
        The table is not the one known, or names images that are not there.
    """
    table = folder / "labels.csv"
    rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        paths = [path for path, _, _ in rows]
        probability = np.array([float(cell) for _, cell, _ in rows])
    except ValueError as error:
        raise DataError(
            f"{table} is not the table of elpv-dataset ({error}).",
            expected="path, probability and type in every line",
            todo="install the package elpv-dataset again",
        ) from error
    kinds = np.array([kind for _, _, kind in rows])
    absent = [path for path in paths if not os.path.exists(folder / path)]  # noqa: PTH110
    if absent:
        raise DataError(
            f"{len(absent):,} of {len(paths):,} images of elpv-dataset are not there: "
            f"{few(absent)}.",
            expected="the complete package",
            todo="install the package elpv-dataset again",
        )
    levels = np.unique(probability, return_inverse=True)[1]
    types = np.unique(kinds, return_inverse=True)[1]
    modules = _modules(types)
    groups = [f"module {one}" for one in modules.tolist()]
    return Listing(
        root=Path(os.path.realpath(folder)),
        paths=paths,
        labels=[CLASS_NAMES[int(one > 0.5)] for one in probability],
        split=np.full(len(paths), UNSPLIT, dtype=np.int8),
        extra={
            "probability": probability,
            "type": kinds,
            "weight": _weights(probability),
            "module": modules,
        },
        strata=(levels * (types.max(initial=0) + 1) + types).astype(np.int32),
        cut_fractions=(0.75, 0.0, 0.25),
        class_names=CLASS_NAMES,
        groups=groups if by_module else None,
        groups_from="modules, inferred from the order of the files",
    ).in_order()


def _modules(types: NDArray[np.intp]) -> NDArray[np.int64]:
    """Count modules (N,): runs of one type, each cut evenly into pieces of about 60 cells."""
    modules = np.empty(len(types), dtype=np.int64)
    first = 0
    ends = [*(np.flatnonzero(np.diff(types)) + 1).tolist(), len(types)] if len(types) else []
    start = 0
    for end in ends:
        length = end - start
        pieces = max(1, round(length / MODULE_CELLS))
        modules[start:end] = first + np.arange(length) * pieces // length
        first, start = first + pieces, end
    return modules


def _weights(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    sure = (probability == 0) | (probability == 1)
    return np.where(sure, 1.0, np.round(probability, 2))
