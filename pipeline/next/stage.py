"""Which unlabelled images to label next: from folders of files to a list of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cells import csv_bytes
from ..codes.extract import extract
from ..context import Context
from ..datasets import SPLITS
from ..errors import DataError
from ..files import write_atomic
from ..heads.examples import mean_view
from ..notation import number
from ..predict.inputs import gathered
from ..results.tables import Table, aligned
from ..settings import NextSettings
from .judged import probabilities
from .order import choose_next
from .unlabelled import codes_of_files


@dataclass(frozen=True)
class Next:
    """Images in the order worth labelling.

    Attributes
    ----------
    paths : tuple of str
        As the user would write them.
    predicted : tuple of str
        Class of each by the head on the labelled images.
    margin : tuple of float
        Probability of that class less that of the next one, 0 to 1.
    how : str
        ``typicality`` or ``margin``.
    n_unlabelled, n_labelled : int
        Images that were chosen among, and those that are labelled.
    rejects : tuple of str
        Files that cannot be used, and why.
    """

    paths: tuple[str, ...]
    predicted: tuple[str, ...]
    margin: tuple[float, ...]
    how: str
    n_unlabelled: int
    n_labelled: int
    rejects: tuple[str, ...] = ()

    def words(self) -> str:
        """Say how many images there are, and in which order they are listed."""
        why = (
            "typical images of regions without a label, since a class has fewer than ten labels"
            if self.how == "typicality"
            else "images that the head is least certain of, spread over the space of codes"
        )
        return (
            f"{len(self.paths)} of {self.n_unlabelled:,} unlabelled images; {self.n_labelled:,} "
            f"are labelled. Order: {why}."
        )


def find_next(context: Context, settings: NextSettings) -> Next:
    """Choose which unlabelled images to label next.

    Test images are not asked: what is labelled next must not be chosen by what it is tested on.

    Raises
    ------
    DataError
        No unlabelled image can be used.
    PipelineError
        The data set or the network cannot be used.
    """
    manifest, done = context.manifest, extract(context)
    kept = ~np.isin(manifest.sha256, np.array(list(done.codes.rejects), "S64"))
    manifest = manifest.take(np.flatnonzero(kept))
    known = np.flatnonzero(manifest.split != SPLITS.index("test"))
    labelled = mean_view(done.codes.matrix())[known]
    labels = manifest.labels[known]
    with gathered(settings.images, progress=context.progress) as inputs:
        real = {str(Path(path).resolve()): name for path, name in zip(
            inputs.paths, inputs.names, strict=True)}  # fmt: skip
        paths, shas, some, rejects = codes_of_files(
            context, f"{manifest.name}.unlabelled", [Path(path) for path in inputs.paths]
        )  # fmt: skip
        names = [real.get(str((manifest.root / path).resolve()), path) for path in paths]
    there = {sha.decode() for sha in manifest.sha256.tolist()}
    first = {sha: at for at, sha in reversed(list(enumerate(shas))) if sha not in there}
    fresh = np.array(sorted(first.values()), np.int64)
    if not len(fresh):
        raise DataError(
            f"IMAGES={settings.images} has no image that is not labelled already.",
            expected="images that are not in the data set, each once",
        )
    some = some[fresh]
    p = probabilities(labelled, labels, some, manifest.n_classes)
    counts = np.bincount(labels, minlength=manifest.n_classes)
    rows, how = choose_next(some, labelled, counts, p, settings.count, seed=context.seed)
    top = np.sort(p[rows], axis=1)
    return Next(
        paths=tuple(names[fresh[row]] for row in rows.tolist()),
        predicted=tuple(manifest.class_names[k] for k in p[rows].argmax(axis=1).tolist()),
        margin=tuple((top[:, -1] - top[:, -2]).tolist()) if p.shape[1] > 1 else (1.0,) * len(rows),
        how=how,
        n_unlabelled=len(fresh),
        n_labelled=len(known),
        rejects=tuple(rejects),
    )


def next_table(found: Next) -> Table:
    """Lay the images out, the one most worth a label first."""
    rows = zip(found.paths, found.predicted, found.margin, strict=True)
    lines = [["path", "predicted", "margin"]]
    lines += [[path, called, number(margin)] for path, called, margin in rows]
    return aligned(lines, text_columns=2)


def write_next(found: Next, out: Path) -> None:
    """Write path, predicted class and margin as CSV."""
    rows = zip(found.paths, found.predicted, found.margin, strict=True)
    table = [["path", "predicted", "margin"]]
    table += [[path, called, f"{margin:.4f}"] for path, called, margin in rows]
    write_atomic(out, csv_bytes(table, paths=(0,)))
