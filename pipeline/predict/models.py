"""What predicts: a head on the codes of a published network, or a fine-tuned network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from ..backbones.card import Card
from ..backbones.engine import Engine, open_engine
from ..backbones.graph import graph_path
from ..backbones.preprocess import Preprocessing, Views
from ..codes.joined import join_codes
from ..codes.keys import Key, Spec
from ..codes.reader import Codes, open_codes
from ..codes.work import as_stored
from ..errors import CacheError, HeadError, TrainingError
from ..finetune.description import checkpoint_paths
from ..heads import Head
from ..heads.output import Output
from ..settings import CodesSettings, MachineSettings


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A head on the codes of a published network.

    Attributes
    ----------
    head : Head
        The head.
    key : Key
        Which cached codes are of this network, these layers and views.
    spec : Spec
        What the codes are, as they are made here; images are read as in training.
    engine : Engine
        What runs the network.
    notes : tuple of str
        What its user should know.
    source : dict
        Cache folder, seed, offline and progress: where the network comes from.
    parts : tuple of HeadModel
        Of a head on the codes of several networks, one for each; the card of `spec` and
        `source` are then the first one's.
    """

    head: Head
    key: Key
    spec: Spec
    engine: Engine
    notes: tuple[str, ...]
    source: dict[str, Any]
    parts: tuple[HeadModel, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.head.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are read: as in training."""
        return self.spec.preprocessing

    @property
    def views(self) -> Views:
        """Which views are taken of an image: as in training."""
        return self.spec.views

    @property
    def card(self) -> Card:
        """The network."""
        return self.spec.card

    @property
    def asked(self) -> CodesSettings:
        """The settings of the codes, as they are made here."""
        return self.spec.asked

    @property
    def layers(self) -> tuple[str, ...]:
        """Resolved layer names."""
        return tuple(self.key.config["layers"])

    @property
    def pool(self) -> str:
        """How maps become codes."""
        return str(self.key.config["pool"])

    def map_layers(self) -> tuple[str, ...] | None:
        """Name the layers whose maps, pooled, are the codes; None where one has no map.

        For ``final`` that is the stage whose mean over all positions goes into the last layer. A
        transformer's tokens are not taken apart here.
        """
        if self.card.tokens or not (self.pool in ("mean", "max") or self.pool.startswith("grid:")):
            return None
        found = []
        for layer in self.layers:
            if layer == "final":
                # The network itself averages over the positions, whatever POOL says.
                if self.card.pooled_is_final is None or self.pool != "mean":
                    return None
                layer = self.card.pooled_is_final
            shape = self.card.layers.get(layer, ())
            if len(shape) not in (2, 3):
                return None
            found.append(layer)
        return tuple(found)

    def store(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Round codes as the cache did."""
        return as_stored(block, self.asked.dtype)

    def codes(self, blocks: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Pick the codes out of what the engine gave: all of it."""
        return blocks

    def flat_codes(self, blocks: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Put the codes of the layers side by side, (n, V, D).

        Raises
        ------
        HeadError
            The head was trained on codes of another length.
        """
        n, v = blocks[0].shape[:2]
        flat = [np.asarray(block, np.float32).reshape(n, v, -1) for block in blocks]
        codes = np.concatenate(flat, axis=2)
        if codes.shape[2] != self.head.code_dim:
            raise HeadError(
                f"The network gives codes of {codes.shape[2]} numbers.",
                expected=f"{self.head.code_dim}, as the head has",
                todo="train the head again",
            )
        return codes

    def cached(self) -> Codes:
        """Open the cached codes that the head was trained on.

        Raises
        ------
        CacheError
            They are not here, or of other settings.
        """
        if self.parts:
            return join_codes(self.asked, [part.cached() for part in self.parts])
        codes = open_codes(self.key.path)
        if codes.fingerprint != self.key.fingerprint:
            raise CacheError(
                f"{self.key.path} holds codes of other settings.", todo="make features"
            )
        return codes

    def scores(self, blocks: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Score every class before the temperature, (n, K)."""
        return self.head.scores(self.flat_codes(blocks))

    @property
    def output(self) -> Output:
        """From scores to probabilities, classes and prediction sets."""
        return self.head.output


@dataclass(frozen=True, eq=False)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    classes : tuple of str
        K class names.
    preprocessing, views, engine, notes
        As :class:`HeadModel`; the engine gives codes (B, D), the input of the last layer, and
        scores (B, K).
    code_dim : int
        D.
    weights_digest : str
        SHA-256 of the weights' file.
    output : Output
        From scores to probabilities, classes and prediction sets.
    stem : Path
        The run's files, without a suffix.
    final : str
        Name of the last layer.
    card : Card
        The network, as its graph is named.
    cache : Path
        Folder of exported networks.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    views: Views
    engine: Engine
    code_dim: int
    weights_digest: str
    output: Output
    stem: Path
    final: str
    card: Card
    cache: Path
    notes: tuple[str, ...] = ()

    def build(self) -> Any:
        """Build the network (``nn.Module``, in eval mode), which imports torch."""
        from ..finetune.checkpoint import load_checkpoint

        return load_checkpoint(self.stem)[0]

    def exported(self, stage: str = "") -> tuple[Engine, Path]:
        """Give an engine on the CPU and its graph, exported now where it is not in the cache.

        Its outputs are codes and scores; with a `stage`, its maps in place of the codes.
        """
        machine = MachineSettings(device="cpu", engine="onnx")
        engine = network_engine(self.stem, self.card, self.final, machine, self.cache, stage=stage)
        layers, pool = _network_outputs(self.final, stage)
        path = graph_path(self.card, layers, pool, self.preprocessing, cache=self.cache)
        return engine, path

    def last_map(self) -> str:
        """Name the stage whose mean over all positions goes into the last layer; "" where none.

        Builds the network and runs it once, which imports torch.
        """
        from ..backbones.network import survey

        seen = survey(self.build(), self.preprocessing.size)
        stage = seen.pooled_is_final if seen.final == self.final else None
        return stage if stage and len(seen.layers[stage]) == 3 else ""

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the last layer's weights (K, D) and biases (K,)."""
        weights, _ = checkpoint_paths(self.stem)
        with safe_open(weights, framework="np") as tensors:
            weight = tensors.get_tensor(f"{self.final}.weight")
            there = f"{self.final}.bias" in tensors.keys()
            bias = tensors.get_tensor(f"{self.final}.bias") if there else np.zeros(len(weight))
        return weight.astype(np.float64), bias.astype(np.float64)

    def store(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Keep codes and scores as they are, if they are finite."""
        return as_stored(block, "float32")

    def codes(self, blocks: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Pick the codes (n, V, D) out of what the engine gave."""
        return blocks[:1]

    def scores(self, blocks: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Average scores (n, V, K), the second block, over the views: before the temperature.

        Raises
        ------
        TrainingError
            The network has another number of scores than classes.
        """
        given = blocks[1]
        if given.shape[2:] != (len(self.classes),):
            raise TrainingError(
                f"The network gives scores of shape {given.shape[2:]}.",
                expected=f"one for each of {len(self.classes)} classes",
                todo="fetch both files of the run again",
            )
        found: NDArray[np.float64] = given.astype(np.float64).mean(axis=1)  # (n, K)
        return found


def _network_outputs(final: str, stage: str) -> tuple[tuple[str, str], str]:
    """Name what a fine-tuned network is run for, and how it is pooled.

    What goes into the last layer, or the maps of a stage; and the scores.
    """
    return (stage or f"{final}.codes", "final"), "none" if stage else "mean"


def network_engine(
    stem: Path,
    card: Card,
    final: str,
    machine: MachineSettings,
    cache: Path,
    *,
    offline: bool = True,
    stage: str = "",
) -> Engine:
    """Open what runs a fine-tuned network, given by its run's files `stem`.

    Its outputs are the input of the last layer, or the maps of a `stage`, and the scores.
    """
    layers, _ = _network_outputs(final, stage)

    def build() -> Any:
        from ..finetune.checkpoint import load_checkpoint, name_codes

        return name_codes(load_checkpoint(stem)[0], final)

    return open_engine(
        card,
        layers,
        card.preprocessing,
        CodesSettings(model=card.model, pool="none" if stage else "default"),
        machine,
        cache=cache,
        seed=0,
        offline=offline,
        build=build,
    )


Model: TypeAlias = HeadModel | NetworkModel
