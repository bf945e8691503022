"""A run's classifier, applied to new images: as many as there are, in order, as fast as stage one.

>>> classifier = Classifier.load("results/hotdog/svm-....json")  # doctest: +SKIP
>>> classifier.predict(["lunch.jpg", Image.open("dinner.png")])  # doctest: +SKIP
array(['hotdog', 'not-hotdog'], dtype='<U10')
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.preprocess import Preprocessing, Views
from ..codes.stream import Batch, Stream
from ..errors import ImageError
from ..progress import Progress, silent
from ..settings import MachineSettings
from .items import Images, Item, as_items, load_item, name_of
from .loading import load_model
from .models import Model
from .neighbours import Nearest, Neighbours, training_neighbours
from .runs import Run, find_run

_CHUNK = 64  # images that are scored together


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was found of one image.

    Attributes
    ----------
    name : str
        Its path, or its place in the list.
    probabilities : float64 (K,) or None
        One a class, in the order of ``Classifier.classes``; None where it cannot be used.
    error : str
        Why it cannot be used; empty where it can.
    nearest : tuple of Nearest
        The nearest training images, where they were asked for.
    decided : int or None
        Index of the predicted class by the run's decision rule; None: the most probable one.
    inside : tuple of int or None
        Indices of the classes in the prediction set; None where the run has no sets (SET).
    """

    name: str
    probabilities: NDArray[np.float64] | None
    error: str = ""
    nearest: tuple[Nearest, ...] = ()
    decided: int | None = None
    inside: tuple[int, ...] | None = None

    @property
    def best(self) -> int:
        """Index of the predicted class; -1 where there is none."""
        if self.decided is not None:
            return self.decided
        return -1 if self.probabilities is None else int(self.probabilities.argmax())


class Classifier:
    """A trained classifier with its network; made by :meth:`load`.

    Attributes
    ----------
    run : str
        The run's name.
    classes : tuple of str
        K class names, in the order of the columns of :meth:`predict_proba`.
    engine : str
        What runs the network: ``onnx on cpu``.
    notes : tuple of str
        What its user should know.
    model : Model
        What predicts: a head on codes, or a fine-tuned network.
    """

    def __init__(self, run: Run, model: Model, *, workers: int = 0) -> None:
        self.run = run.name
        self.classes = model.classes
        self.engine = model.engine.name
        self.notes = model.notes
        self._run = run
        self.model = model
        self._workers = workers

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        results: str | os.PathLike[str] = "results",
        cache: str | os.PathLike[str] = "cache",
        machine: MachineSettings | None = None,
        weights: str = "",
        offline: bool = False,
        progress: Progress = silent,
    ) -> Classifier:
        """Load a run from its saved files alone.

        Parameters
        ----------
        run : str or path
            Path of ``<run>.json`` (or of one of the model's two files), or the run's name.
        results : path
            Where runs are looked for by name.
        cache : path
            Folder of exported networks and downloaded weights; the network is exported into it
            where it is not there.
        machine : MachineSettings, optional
            Device, engine, batch, reading threads; default: the best that is there.
        weights : str
            Where the network's weights lie now; empty: where the run had them.
        offline : bool
            Fetch nothing.
        progress : Progress
            Shows a download.

        Raises
        ------
        ResultError, HeadError, TrainingError
            No such run, or files that are damaged or do not belong together.
        BackboneError
            The weights are not here, or are not those of the run.
        DeviceError
            The device is not there.
        """
        machine = machine or MachineSettings()
        found = find_run(run, Path(results))
        model = load_model(
            found,
            cache=Path(cache),
            machine=machine,
            weights=weights,
            offline=offline,
            progress=progress,
        )
        return cls(found, model, workers=machine.workers)

    @property
    def files(self) -> Run:
        """The run's files."""
        return self._run

    @property
    def concurrent(self) -> bool:
        """Whether :meth:`score` gains from several threads: the engine uses one core a call."""
        return self.model.engine.concurrent

    @property
    def batch_images(self) -> int:
        """Images per call of :meth:`score` that suit the engine."""
        return max(1, self.model.engine.batch // self.model.views.count)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are read: as in training."""
        return self.model.preprocessing

    @property
    def views(self) -> Views:
        """Which views are taken of an image: as in training."""
        return self.model.views

    @property
    def views_shape(self) -> tuple[int, ...]:
        """Shape (V, size, size, 3) of the views of one image; for several networks (V, P)."""
        return self.model.views.count, *self.model.preprocessing.shape

    @property
    def trained_data(self) -> str | None:
        """The setting DATA of the run: a registered name or a path; None where not recorded."""
        try:
            return str((self._run.record or {})["provenance"]["settings"]["data"])
        except (KeyError, TypeError):
            return None

    def score(
        self,
        pixels: NDArray[np.uint8],
        *,
        neighbours: Neighbours | None = None,
        n_nearest: int = 1,
    ) -> list[Outcome]:
        """Give an outcome for each image whose views are at hand; a server's way in.

        Parameters
        ----------
        pixels : uint8 (n, ...)
            Of shape :attr:`views_shape` each: the views of an image, as ``read_views(bytes,
            classifier.preprocessing, classifier.views, sha256)`` of
            :mod:`cnn_codes.backbones.preprocess` gives them for one image.
        neighbours, n_nearest
            As :meth:`classify`.

        Returns
        -------
        list of Outcome
            Called ``image 0`` and so on.
        """
        model = self.model
        n, v = pixels.shape[:2]
        flat = pixels.reshape(n * v, *pixels.shape[2:])
        step = model.engine.batch
        chunks = [model.engine.run(flat[i : i + step]) for i in range(0, n * v, step)]
        blocks = [
            model.store(np.concatenate(one).reshape(n, v, *one[0].shape[1:]))
            for one in zip(*chunks, strict=True)
        ]
        batch: Batch[tuple[int, Item]] = Batch(
            items=[(i, f"image {i}") for i in range(n)], blocks=blocks
        )
        return [one for _, one in _scored(model, [batch], neighbours, n_nearest)]

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Give the probability of each class.

        Parameters
        ----------
        images : image or several
            As :func:`cnn_codes.predict.items.as_items`: paths, bytes, PIL images, uint8 arrays.

        Returns
        -------
        float64 (N, K)
            One row per image, one row for a single image; rows sum to 1.

        Raises
        ------
        ImageError
            An image cannot be used. :meth:`classify` goes on and says which.
        """
        found = np.empty((0, len(self.classes)))
        rows = []
        for outcome in self.classify(as_items(images)):
            if outcome.probabilities is None:
                raise ImageError(
                    f"{outcome.name}: {outcome.error}.",
                    expected="images that can be read",
                    todo="take it out; or use Classifier.classify, which goes on and says which",
                )
            rows.append(outcome.probabilities)
        return np.stack(rows) if rows else found

    def predict(self, images: Images) -> NDArray[np.str_]:
        """Give the predicted class of each image by name, (N,); see :meth:`predict_proba`.

        The most probable one, unless the head was trained with a decision rule (THRESHOLD) or
        balanced class weights, whose offsets are then followed.
        """
        best = self.model.output.decide(self.predict_proba(images))
        called: NDArray[np.str_] = np.array(self.classes)[best]
        return called

    def neighbours(self, share: float = 0.99) -> Neighbours:
        """Take the training images: from the cache, or a fine-tuned run's own file of codes.

        Parameters
        ----------
        share : float
            Of the training images that keep within the limit of what counts as unlike.

        Raises
        ------
        CacheError
            They are not here, or not of this run, or damaged.
        """
        return training_neighbours(self._run, self.model, share=share)

    def classify(
        self,
        images: Iterable[Item],
        *,
        names: Sequence[str] | None = None,
        neighbours: Neighbours | None = None,
        n_nearest: int = 1,
    ) -> Iterator[Outcome]:
        """Give an outcome for each image, in order, while the next ones are read.

        An image that cannot be used gives an outcome that says so. Memory does not grow with the
        number of images.

        Parameters
        ----------
        images : iterable of images
            As :func:`cnn_codes.predict.items.as_items` lists them.
        names : sequence of str, optional
            What to call them; default: their paths.
        neighbours : Neighbours, optional
            Look up the nearest of these training images.
        n_nearest : int
            How many of them, at least 1.
        """
        model = self.model

        def read(one: tuple[int, Item]) -> NDArray[np.uint8]:
            return load_item(one[1]).views(model.preprocessing, model.views)

        stream = Stream(
            model.engine,
            read,
            n_views=model.views.count,
            workers=self._workers,
            store=model.store,
        )
        waiting: list[Batch[tuple[int, Item]]] = []
        n_waiting = 0

        def outcomes() -> Iterator[Outcome]:
            found = dict(_scored(model, waiting, neighbours, n_nearest))
            for batch in waiting:
                for (index, item), error in batch.rejects:
                    found[index] = Outcome(name_of(item, index), None, error)
            for index in sorted(found):
                one = found[index]
                yield one if names is None else replace(one, name=names[index])

        for batch in stream.batches(enumerate(images)):
            waiting.append(batch)
            n_waiting += len(batch.items) + len(batch.rejects)
            if n_waiting >= _CHUNK:
                yield from outcomes()
                waiting.clear()
                n_waiting = 0
        yield from outcomes()


def _scored(
    model: Model,
    batches: Sequence[Batch[tuple[int, Item]]],
    neighbours: Neighbours | None,
    n_nearest: int,
) -> Iterator[tuple[int, Outcome]]:
    """Score what the network gave for some batches together."""
    items = [item for batch in batches for item in batch.items]
    if not items:
        return
    columns = zip(*(batch.blocks for batch in batches if batch.items), strict=True)
    blocks: list[NDArray[Any]] = [np.concatenate(column) for column in columns]  # (n, V, ...)
    codes = model.codes(blocks)
    nearest = neighbours.nearest(codes, n_nearest) if neighbours else [[] for _ in items]
    # BLAS sums the last rows of an odd number in another order, and the same image would differ in
    # its 14th digit with its place in the list.
    missing = -len(items) % 16
    padded = [np.concatenate([one, *[one[-1:]] * missing]) for one in blocks]
    output = model.output
    probabilities = output.probabilities(model.scores(padded))[: len(items)]
    decided = output.decide(probabilities).tolist()
    inside = [np.flatnonzero(row) for row in output.inside(probabilities)] if output.sets else None
    for at, ((index, item), near) in enumerate(zip(items, nearest, strict=True)):
        yield (
            index,
            Outcome(
                name_of(item, index),
                probabilities[at],
                nearest=tuple(near),
                decided=decided[at],
                inside=tuple(inside[at].tolist()) if inside else None,
            ),
        )
