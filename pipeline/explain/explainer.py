"""Explanations by a run's model: exact where the head is linear in maps, by gradient elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import Engine, open_engine, run_all
from ..backbones.preprocess import Views
from ..datasets.images import decode
from ..datasets.samples import Reading
from ..errors import ImageError
from ..heads.model import AFFINE_METHODS
from ..predict.classifier import Classifier
from ..predict.description import need_one_network, several_refused
from ..predict.items import Item, Loaded, load_item, name_of
from ..predict.models import HeadModel
from ..predict.runs import find_run
from ..progress import Progress, silent
from ..settings import MachineSettings
from .explanation import Explanation, source_box
from .regions import combined, layer_contributions, score_gradient, upright

if TYPE_CHECKING:
    from .gradients import Differentiated


@dataclass(frozen=True, eq=False)
class _Found:
    """Maps of a class's logit and of the mean of all classes' logits."""

    logit: float
    map: NDArray[np.float64]
    mean: NDArray[np.float64]


class Explainer:
    """Explains the predictions of a run.

    Parameters
    ----------
    classifier : Classifier
        The run's; its network is shared.
    machine : MachineSettings, optional
        What runs the network for the maps; default: the best that is there.

    Attributes
    ----------
    method : str
        What the maps are.
    exact : bool
        They sum to the logit.
    """

    def __init__(self, classifier: Classifier, machine: MachineSettings | None = None) -> None:
        self.classifier = classifier
        self._model = classifier.model
        self._machine = machine or MachineSettings()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._network: Differentiated | None = None
        model = self._model
        if isinstance(model, HeadModel) and model.parts:
            models = [part.asked.model for part in model.parts]
            raise several_refused(classifier.files, models, "an explanation")
        self._views = model.views
        centre = ""
        if model.views.kind == "random":  # random crops share no frame to add their maps in
            self._views = Views("center", 1)
            centre = ", central view only"
        self._layers = model.map_layers() if isinstance(model, HeadModel) else None
        linear = isinstance(model, HeadModel) and model.head.method in AFFINE_METHODS
        self.exact = linear and self._layers is not None and not centre
        if self.exact and isinstance(model, HeadModel) and model.pool == "mean":
            self.method = "class activation map"
        else:
            self.method = f"gradient x activation{centre}"

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
    ) -> Explainer:
        """Load a run from its saved files; parameters and errors as :meth:`Classifier.load`.

        Raises
        ------
        BackboneError
            The run uses the codes of several networks.
        """
        need_one_network(find_run(run, Path(results)), "an explanation")
        classifier = Classifier.load(
            run,
            results=results,
            cache=cache,
            machine=machine,
            weights=weights,
            offline=offline,
            progress=progress,
        )
        return cls(classifier, machine)

    def explain(self, image: Item, *, target: str = "", name: str = "") -> Explanation:
        """Explain one image.

        Parameters
        ----------
        image : path, bytes, PIL image or uint8 array
            The image.
        target : str
            The class to explain; empty: the most probable one.
        name : str
            What to call the image; empty: its path.

        Raises
        ------
        ImageError
            It cannot be used.
        ValueError
            There is no class `target`.
        """
        loaded = load_item(image)
        model = self._model
        classes = model.classes
        views = loaded.views(model.preprocessing, model.views)  # (V, S, S, 3)
        blocks = [model.store(block[None]) for block in run_all(model.engine, views)]
        probabilities = model.output.probabilities(model.scores(blocks))[0]
        if target and target not in classes:
            raise ValueError(f"There is no class {target!r}; there are {', '.join(classes)}.")
        at = classes.index(target) if target else int(model.output.decide(probabilities[None])[0])
        if self._views != model.views:
            views = loaded.views(model.preprocessing, self._views)
        scores = model.scores(blocks)[0]  # (K,)
        found = self._maps(views, blocks, at)
        logit, mean = float(scores[at]), float(scores.mean())
        if self.exact:  # what no region brings, the bias, is spread evenly
            n_regions = found.map.size
            found = replace(
                found,
                map=found.map + (logit - found.logit) / n_regions,
                mean=found.mean + (mean - found.mean.sum()) / n_regions,
            )
        pixels = _pixels(loaded, model.preprocessing.reading)
        height, width = pixels.shape[:2]
        return Explanation(
            name=name or name_of(image, 0),
            classes=classes,
            probabilities=probabilities,
            predicted=int(model.output.decide(probabilities[None])[0]),
            target=at,
            logit=logit,
            map=found.map,
            evidence=found.map - found.mean,
            method=self.method,
            exact=self.exact,
            box=source_box(width, height, model.preprocessing),
            pixels=pixels,
        )

    def explain_all(
        self, images: Iterable[Item], *, names: Iterable[str] | None = None
    ) -> Iterator[tuple[str, Explanation | ImageError]]:
        """Explain images in turn; one that cannot be used gives its name and the error."""
        given = iter(names) if names is not None else None
        for index, image in enumerate(images):
            name = next(given) if given else name_of(image, index)
            try:
                yield name, self.explain(image, name=name)
            except ImageError as error:
                yield name, error

    def _maps(self, views: NDArray[np.uint8], blocks: list[NDArray[Any]], at: int) -> _Found:
        model = self._model
        if isinstance(model, HeadModel):
            codes = model.flat_codes(blocks)[0].astype(np.float64)  # (V, D)
            gradient = score_gradient(model.head, codes.mean(axis=0))  # (K, D)
        else:
            gradient = np.eye(len(model.classes))
        wanted = np.stack([gradient[at], gradient.mean(axis=0)])  # (2, D)
        if self._layers is None:
            found = self._differentiated().contributions(views, wanted)
        else:
            found = self._pooled(views, wanted)
        parts = [upright(one, self._views.kind, view) for view, one in enumerate(found)]
        total = np.mean(parts, axis=0)  # (2, h, w)
        # The affine part of the logit that the regions bring: what is left is the bias.
        return _Found(float(total[0].sum()), total[0], total[1])

    def _pooled(
        self, views: NDArray[np.uint8], wanted: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Contributions (2, h, w) for each view, from the maps of the layers."""
        model = self._model
        assert isinstance(model, HeadModel)
        pool = model.pool
        maps = run_all(self._map_engine(), views)
        found = []
        for view in range(len(views)):
            parts, start = [], 0
            for block in maps:
                one = _channels_first(block[view])  # (C, h, w)
                size = one.shape[0] * (int(pool.partition(":")[2]) ** 2 if ":" in pool else 1)
                part = layer_contributions(one, wanted[:, start : start + size], pool)
                parts.append(_squared(part) if block.ndim == 3 else part)
                start += size
            found.append(combined(parts))
        return found

    def _map_engine(self) -> Engine:
        model = self._model
        assert isinstance(model, HeadModel)
        assert self._layers is not None
        with self._lock:
            if self._engine is None:
                asked = replace(model.asked, pool="none")
                if asked.precision == "int8":  # maps are not calibrated; what differs is spread
                    asked = replace(asked, precision="float32")
                self._engine = open_engine(
                    model.card,
                    self._layers,
                    model.preprocessing,
                    asked,
                    self._machine,
                    **model.source,
                )
            return self._engine

    def _differentiated(self) -> Differentiated:
        with self._lock:
            if self._network is None:
                from .gradients import Differentiated

                self._network = Differentiated.of(self._model)
            return self._network


def _channels_first(block: NDArray[Any]) -> NDArray[Any]:
    """Bring a map to (C, h, w): channels last as Swin has it, or tokens (T, C) as a strip."""
    if block.ndim == 2:
        return block.T[:, None, :]
    last = block.shape[0] == block.shape[1] != block.shape[2]
    return block.transpose(2, 0, 1) if last else block


def _squared(strip: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put a strip of tokens (Q, 1, T) into the square of their patches.

    What stands in front of the patches, a class token, is at no place: it is spread evenly.
    """
    tokens = strip[:, 0]
    side = int(np.sqrt(tokens.shape[1]))
    n_front = tokens.shape[1] - side * side
    patches = tokens[:, n_front:] + tokens[:, :n_front].sum(axis=1, keepdims=True) / side**2
    square: NDArray[np.float64] = patches.reshape(-1, side, side)
    return square


def _pixels(loaded: Loaded, reading: Reading) -> NDArray[np.uint8]:
    content = loaded.content
    pixels = decode(content, reading=reading) if isinstance(content, bytes) else content
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
