"""Unlabelled images as a manifest of their own, so that their codes are cached like any others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..codes.extract import extract
from ..context import Context
from ..datasets import Manifest
from ..datasets.split_words import SPLITS
from ..heads.examples import mean_view

CLASS = "unlabelled"


def unlabelled_manifest(name: str, root: Path, files: Sequence[Path]) -> Manifest:
    """Make a manifest of files without labels; what cannot be read is left out.

    Parameters
    ----------
    name : str
        Names the folder under the cache.
    root : Path
        Paths are relative to it.
    files : sequence of Path
    """
    rows: dict[str, str] = {}
    for file in files:
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            continue
        rows[os.path.relpath(os.path.realpath(file), root).replace(os.sep, "/")] = digest
    paths = tuple(sorted(rows))
    n = len(paths)
    return Manifest(
        name=name,
        root=root,
        paths=paths,
        sha256=np.array([rows[path].encode() for path in paths], "S64"),
        labels=np.zeros(n, np.int32),
        split=np.full(n, SPLITS.index("test"), np.int8),
        class_names=(CLASS,),
    )


def codes_of_files(
    context: Context, name: str, files: Sequence[Path]
) -> tuple[tuple[str, ...], list[str], NDArray[np.float32], list[str]]:
    """Give the codes of unlabelled files; only those that are not in the cache are run.

    Parameters
    ----------
    context : Context
        The labelled data set; paths are relative to its root.
    name : str
        Names the folder under the cache.
    files : sequence of Path

    Returns
    -------
    paths : tuple of str, length n
        Relative to the root; files that cannot be used are left out.
    sha256 : list of str, length n
    codes : float32 (n, D)
        Layers side by side, views averaged.
    rejects : list of str
        What cannot be used, and why.
    """
    manifest = unlabelled_manifest(name, context.manifest.root, files)
    if not manifest.n_images:
        return (), [], np.empty((0, 0), np.float32), []
    done = extract(replace(context, manifest=manifest), calibrated_on=context.manifest)
    found = done.codes
    return (
        found.paths,
        [sha.decode() for sha in found.sha256.tolist()],
        mean_view(found.matrix()),
        [f"{path}: {reason}" for path, reason in done.rejects.items()],
    )
