"""A fine-tuned network as PyTorch has it, with what turns images into its input."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..backbones.preprocess import Preprocessing, Views
from ..errors import ResultError
from ..finetune.checkpoint import load_checkpoint
from .description import kind_of
from .items import Item, load_item
from .runs import find_run


@dataclass(frozen=True)
class InputTransform:
    """From an image to a network's input, as in training.

    Attributes
    ----------
    geometry : Preprocessing
        Size, crop, interpolation, mean and standard deviation.
    reading : Views
        Which views of an image the run's predictions average.
    """

    geometry: Preprocessing
    reading: Views

    def __call__(self, image: Item) -> Tensor:
        """Give the central view of an image, float32 (3, size, size), normalised.

        Parameters
        ----------
        image : path, bytes, PIL image or uint8 array
            One image.

        Raises
        ------
        ImageError
            It cannot be used.
        """
        return self._normalised(image, Views("center", 1))[0]

    def views(self, image: Item) -> Tensor:
        """Give all views that the run's predictions average, float32 (V, 3, size, size)."""
        return self._normalised(image, self.reading)

    def _normalised(self, image: Item, views: Views) -> Tensor:
        pixels = torch.from_numpy(load_item(image).views(self.geometry, views).copy())
        mean = torch.tensor(self.geometry.mean).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.geometry.std).view(1, 3, 1, 1) * 255
        return (pixels.permute(0, 3, 1, 2).float() - mean) / std


def load_network(
    run: str | os.PathLike[str], *, results: str | os.PathLike[str] = "results"
) -> nn.Module:
    """Give a fine-tuned network, with its preprocessing.

    Parameters
    ----------
    run : str or path
        Path of ``<run>.json`` (or of one of the model's two files), or the run's name.
    results : path
        Where runs are looked for by name.

    Returns
    -------
    nn.Module
        In eval mode, float32, on the CPU: normalised images (B, 3, size, size) to logits (B, K).
        Its attribute ``preprocessing`` is an :class:`InputTransform`; ``classes`` (tuple of str)
        names the K columns; ``output.probabilities(logits)``, with the logits (an array) averaged
        over ``preprocessing.views(image)``, are the probabilities of ``make predict``.

    Raises
    ------
    ResultError
        No such run, or a run without a network of its own.
    TrainingError
        Its files are damaged, or do not belong together.
    """
    found = find_run(run, Path(results))
    if kind_of(found.file(".model.json")) != "network":
        raise ResultError(
            f"{found.name} is a head on the codes of a published network; it has no network of "
            "its own.",
            expected="a run of make finetune",
            todo="Classifier.load(run) predicts with any run",
        )
    network, meta = load_checkpoint(found.stem)
    views = Views.parse(str(meta["views"]), int(meta.get("seed", 0)))
    network.preprocessing = InputTransform(meta["preprocessing"], views)  # type: ignore[assignment]
    network.classes = tuple(meta["classes"])  # type: ignore[assignment]
    network.temperature_scale = meta["output"].temperature_scale
    network.output = meta["output"]
    return network
