"""What predicts: a head on the codes of a published network, or a fine-tuned network.

Both are rebuilt from a run's two model files, which may be a stranger's: nothing in them can run,
and what they say is checked before it is used. A head's network is looked up by name and must
have the very weights that the head was fitted on.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..backbones import load_card
from ..backbones.card import Card
from ..backbones.engine import Engine, JoinedEngine, open_engine, pick_device
from ..backbones.graph import graph_path
from ..backbones.preprocess import JoinedPreprocessing, Preprocessing, Views
from ..codes.calibration import known_calibration
from ..codes.joined import join_codes, joined_fingerprint
from ..codes.keys import Key, codes_key
from ..codes.reader import Codes, open_codes
from ..codes.work import as_stored
from ..errors import (
    BackboneError,
    CacheError,
    HeadError,
    SettingsError,
    TrainingError,
    command_line,
)
from ..files import sha256_file
from ..finetune.description import checkpoint_paths, read_description, refusal
from ..heads import Head, load_head
from ..heads.output import Output
from ..progress import Progress, silent
from ..settings import CodesSettings, MachineSettings, from_mapping
from .description import kind_of, networks_in, unreadable
from .runs import Run

__all__ = [
    "HeadModel",
    "Model",
    "NetworkModel",
    "kind_of",
    "load_model",
]


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A head on the codes of a published network.

    Attributes
    ----------
    head : Head
        The head.
    key : Key
        Which cached codes are of this network, these layers and views.
    preprocessing, views
        How images are read: as in training.
    engine : Engine
        What runs the network.
    dtype : str
        How the codes were stored.
    notes : tuple of str
        What its user should know.
    card : Card
        The network.
    asked : CodesSettings
        What the codes are, as they are made here.
    source : dict
        Cache folder, seed, offline and progress: where the network comes from.
    parts : tuple of HeadModel
        Of a head on the codes of several networks, one for each; `card` and `source` are then the
        first one's.
    """

    head: Head
    key: Key
    preprocessing: Preprocessing
    views: Views
    engine: Engine
    dtype: str
    notes: tuple[str, ...]
    card: Card
    asked: CodesSettings
    source: dict[str, Any]
    parts: tuple[HeadModel, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.head.classes

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
        return as_stored(block, self.dtype)

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
        engine = _network_engine(self.stem, self.card, self.final, machine, self.cache, stage=stage)
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


Model: TypeAlias = HeadModel | NetworkModel


def load_model(
    run: Run,
    *,
    cache: Path,
    machine: MachineSettings,
    weights: str = "",
    offline: bool = False,
    progress: Progress = silent,
) -> Model:
    """Rebuild a run's model and open an engine for its network.

    Parameters
    ----------
    run : Run
        Its files.
    cache : Path
        Folder of exported networks and downloaded weights.
    machine : MachineSettings
        What runs it.
    weights : str
        Where a head's network has its weights now; empty: where the run had them.
    offline : bool
        Fetch nothing.
    progress : Progress
        Shows a download.

    Raises
    ------
    HeadError, TrainingError
        The files are damaged, or do not hold what prediction needs.
    BackboneError
        The network's weights are not here, or are others.
    """
    description = run.file(".model.json")
    if kind_of(description) == "network":
        if weights:
            raise SettingsError(
                f"{run.name} is a fine-tuned network, which brings its own weights.",
                todo="leave WEIGHTS out",
            )
        return _network_model(run, cache=cache, machine=machine, offline=offline)
    return _head_model(
        run, cache=cache, machine=machine, weights=weights, offline=offline, progress=progress
    )


def _network_model(
    run: Run, *, cache: Path, machine: MachineSettings, offline: bool
) -> NetworkModel:
    meta = read_description(run.stem)
    file = run.file(".safetensors")
    if sha256_file(file) != meta["tensors_sha256"]:
        raise refusal(file, "it is not the file that the description was written with")
    model, final, preprocessing = str(meta["model"]), str(meta["final"]), meta["preprocessing"]
    try:
        views = Views.parse(str(meta["views"]), int(meta.get("seed", 0)))
    except (SettingsError, TypeError, ValueError) as error:
        raise refusal(run.file(".model.json"), str(error)) from error
    card = Card(  # of a network whose output, the scores, is what is wanted
        model=model,
        weights=file.name,
        library="finetuned",
        arch=model,
        origin=file.name,
        weights_digest=meta["tensors_sha256"],
        preprocessing=preprocessing,
        final=None,
        layers={},
        stages=(),
        pooled_is_final=None,
        n_parameters=0,
    )

    engine = _network_engine(run.stem, card, final, machine, cache, offline=offline)
    return NetworkModel(
        classes=tuple(meta["classes"]),
        preprocessing=preprocessing,
        views=views,
        engine=engine,
        code_dim=_code_dim(file, final),
        weights_digest=meta["tensors_sha256"],
        output=meta["output"],
        stem=run.stem,
        final=final,
        card=card,
        cache=cache,
    )


def _network_outputs(final: str, stage: str) -> tuple[tuple[str, str], str]:
    """Name what a fine-tuned network is run for, and how it is pooled.

    What goes into the last layer, or the maps of a stage; and the scores.
    """
    return (stage or f"{final}.codes", "final"), "none" if stage else "mean"


def _network_engine(
    stem: Path,
    card: Card,
    final: str,
    machine: MachineSettings,
    cache: Path,
    *,
    offline: bool = True,
    stage: str = "",
) -> Engine:
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


def _code_dim(weights: Path, final: str) -> int:
    """Look up how many numbers the last layer takes."""
    try:
        with safe_open(weights, framework="np") as tensors:
            return int(tensors.get_slice(f"{final}.weight").get_shape()[1])
    except (OSError, SafetensorError, IndexError) as error:
        raise refusal(weights, f"it has no last layer {final} ({error})") from error


def _head_model(
    run: Run,
    *,
    cache: Path,
    machine: MachineSettings,
    weights: str,
    offline: bool,
    progress: Progress,
) -> HeadModel:
    head, meta = load_head(run.stem)
    source: dict[str, Any] = {"cache": cache, "offline": offline, "progress": progress}
    try:
        several = networks_in(meta)
    except ValueError as error:
        raise unreadable(run.file(".model.json"), error) from error
    if not several:
        return _on_network(run, head, meta, machine, weights, source)
    if weights:
        raise SettingsError(
            f"WEIGHTS={weights} are of one network; {run.name} uses {len(several)}.",
            todo="leave WEIGHTS out",
        )
    parts = tuple(_on_network(run, head, one, machine, "", source) for one in several)
    first, prints = parts[0], [part.key.fingerprint for part in parts]
    try:
        asked = replace(
            first.asked,
            model="+".join(part.asked.model for part in parts),
            layers=tuple(f"{part.asked.model}/{one}" for part in parts for one in part.layers),
        )
        if len({(part.views, part.dtype) for part in parts}) > 1:
            raise ValueError("its networks read other views of the images")
        if joined_fingerprint(prints) != meta["codes_fingerprint"]:
            raise ValueError("its networks are not those of its fingerprint")
    except (SettingsError, ValueError) as error:
        raise unreadable(run.file(".model.json"), error) from error
    preprocessing = JoinedPreprocessing.of([part.preprocessing for part in parts])
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(
        first,
        key=Key(first.key.path, meta["codes_fingerprint"], meta["codes"]),
        preprocessing=preprocessing,
        engine=JoinedEngine([part.engine for part in parts], preprocessing),
        notes=notes,
        asked=asked,
        parts=parts,
    )


def _on_network(
    run: Run,
    head: Head,
    meta: dict[str, Any],
    machine: MachineSettings,
    weights: str,
    places: dict[str, Any],
) -> HeadModel:
    """Give a head's model on one network, whose codes `meta` describes."""
    trained = _trained_on(run, meta)
    asked, config = trained.asked, trained.config
    if weights:
        asked = replace(asked, weights=weights)
    source = places | {"seed": trained.seed}
    card = load_card(asked, **source)
    if card.weights_digest != config["weights_digest"]:
        raise BackboneError(
            f"The weights of {asked.model} here ({card.origin}, digest "
            f"{card.weights_digest[:12]}…) are not those that {run.name} was trained on "
            f"({config.get('weights')}, digest {str(config['weights_digest'])[:12]}…).",
            expected="the very same weights: with others its predictions would mean nothing",
            todo="WEIGHTS=<file> if they lie elsewhere; else train the head again with these",
        )
    preprocessing, views = trained.preprocessing, trained.views
    layers = card.resolve(trained.layers)
    digest = trained.calibration
    key = codes_key(
        run.data,
        card,
        layers,
        preprocessing,
        views,
        asked,
        cache=source["cache"],
        calibration=digest,
    )
    if key.fingerprint != meta["codes_fingerprint"]:
        other = [name for name in ("backbone", "preprocessing", "views", "layers", "pool")
                 if key.config[name] != config.get(name)]  # fmt: skip
        raise BackboneError(
            f"This version would read or run images otherwise than {run.name} was trained on: it "
            f"differs in {', '.join(other) or 'what the fingerprint is taken of'}.",
            todo="use the version that trained it, or train the head again",
        )
    notes: tuple[str, ...] = ()
    run_as = asked
    if asked.precision == "mixed" and pick_device(machine.device) == "cpu":
        run_as = replace(asked, precision="float32")
        notes = (
            "The run's codes were made with mixed precision, on a GPU; here they are made with "
            "float32, and may differ in the third digit.",
        )
    calibration = None
    if digest:
        again = command_line(
            "features",
            {"DATA": run.data, "MODEL": asked.model, "PRECISION": "int8", "CACHE": "another"},
        )
        calibration = known_calibration(digest, again)
    engine = open_engine(
        card, layers, preprocessing, run_as, machine, **source, calibration=calibration
    )
    return HeadModel(
        head, key, preprocessing, views, engine, asked.dtype, notes, card, run_as, source
    )


@dataclass(frozen=True)
class _Trained:
    """What a head's description says of the codes that it was trained on."""

    config: dict[str, Any]
    asked: CodesSettings
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    views: Views
    seed: int  # of a random start
    calibration: str = ""  # digest of the images that a network in int8 was calibrated on


def _trained_on(run: Run, meta: dict[str, Any]) -> _Trained:
    """Read what the codes are out of a head's description, which may be a stranger's."""
    try:
        config = meta["codes"]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in config["asked"].items()}
        asked: CodesSettings = from_mapping(CodesSettings, values)
        for field in dataclasses.fields(CodesSettings):
            if type(getattr(asked, field.name)) is not type(field.default):
                raise ValueError(f"its {field.name} is of another type")
        if config.get("pool") == "mean":  # the default, which earlier versions called so
            asked = replace(asked, pool="default")
        layers = tuple(config["layers"])
        if not layers or not all(isinstance(layer, str) for layer in (*layers, *asked.layers)):
            raise ValueError("its layers are not names")
        calibration = config.get("calibration", "")
        for digest in (meta["codes_fingerprint"], config["weights_digest"], calibration):
            if not isinstance(digest, str):
                raise ValueError("a digest is no word")
        Path(asked.weights).is_file()  # raises where no system could have a file of that name
        start = re.fullmatch(r"random start, seed (\d{1,18})", str(config.get("weights")))
        kind, count, seed = config["views"]
        return _Trained(
            calibration=calibration,
            config=config,
            asked=asked,
            layers=layers,
            preprocessing=Preprocessing.from_dict(config["preprocessing"]),
            views=Views.parse(f"random:{count}" if kind == "random" else str(kind), int(seed)),
            seed=int(start.group(1)) if start else 0,
        )
    except (
        KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, SettingsError,
    ) as error:  # fmt: skip
        raise unreadable(run.file(".model.json"), error) from error
