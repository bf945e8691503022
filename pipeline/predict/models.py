"""What predicts: a head on the codes of a published network, or a fine-tuned network.

Both are rebuilt from a run's two model files, which may be a stranger's: nothing in them can run,
and what they say is checked before it is used. A head's network is looked up by name and must
have the very weights that the head was fitted on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import load_card
from pipeline.backbones.card import Card
from pipeline.engines import Engine, open_engine
from pipeline.engines.choice import pick_device
from pipeline.errors import BackboneError, HeadError, SettingsError
from pipeline.extract import as_stored
from pipeline.files import sha256_file
from pipeline.finetune.description import read_description, refusal
from pipeline.heads import Head, load_head
from pipeline.keys import Key, codes_key
from pipeline.predict.runs import Run
from pipeline.preprocess import Preprocessing, Views
from pipeline.progress import Progress, silent
from pipeline.settings import CodesSettings, MachineSettings, from_mapping

__all__ = ["HeadModel", "Model", "NetworkModel", "load_model"]

_KIND_LIMIT_BYTES = 64 * 2**20


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
    """

    head: Head
    key: Key
    preprocessing: Preprocessing
    views: Views
    engine: Engine
    dtype: str
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.head.classes

    def store(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Round codes as the cache did."""
        return as_stored(block, self.dtype)

    def probabilities(self, blocks: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Score codes (n, V, D) side by side over the layers."""
        n, v = blocks[0].shape[:2]
        flat = [np.asarray(block, np.float32).reshape(n, v, -1) for block in blocks]
        codes = np.concatenate(flat, axis=2)
        if codes.shape[2] != self.head.code_dim:
            raise HeadError(
                f"The network gives codes of {codes.shape[2]} numbers.",
                expected=f"{self.head.code_dim}, as the head has",
                todo="train the head again",
            )
        return self.head.predict_proba(codes)


@dataclass(frozen=True, eq=False)
class NetworkModel:
    """A fine-tuned network.

    Attributes
    ----------
    classes : tuple of str
        K class names.
    preprocessing, views, engine, notes
        As :class:`HeadModel`; the engine gives scores (B, K).
    temperature_scale : float
        Probabilities are ``softmax(temperature_scale * scores)``.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    views: Views
    engine: Engine
    temperature_scale: float
    notes: tuple[str, ...] = ()

    def store(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Keep scores as they are, if they are finite."""
        return as_stored(block, "float32")

    def probabilities(self, blocks: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Average scores (n, V, K) over the views, and take the softmax."""
        scores = self.temperature_scale * blocks[0].astype(np.float64).mean(axis=1)  # (n, K)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
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
    if _kind(description) == "network":
        if weights:
            raise SettingsError(
                f"{run.name} is a fine-tuned network, which brings its own weights.",
                todo="leave WEIGHTS out",
            )
        return _network_model(run, cache=cache, machine=machine, offline=offline)
    return _head_model(
        run, cache=cache, machine=machine, weights=weights, offline=offline, progress=progress
    )


def _kind(path: Path) -> str:
    """Say what a description is of; the loaders refuse whatever is wrong with it."""
    try:
        if path.stat().st_size > _KIND_LIMIT_BYTES:
            return ""
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _network_model(
    run: Run, *, cache: Path, machine: MachineSettings, offline: bool
) -> NetworkModel:
    meta = read_description(run.stem)
    file = run.file(".safetensors")
    if sha256_file(file) != meta["tensors_sha256"]:
        raise refusal(file, "it is not the file that the description was written with")
    model, preprocessing = str(meta["model"]), meta["preprocessing"]
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

    def build() -> Any:
        from pipeline.finetune import load_checkpoint

        return load_checkpoint(run.stem)[0]

    engine = open_engine(
        card,
        ("final",),
        preprocessing,
        CodesSettings(model=model),
        machine,
        cache=cache,
        seed=0,
        offline=offline,
        build=build,
    )
    return NetworkModel(
        classes=tuple(meta["classes"]),
        preprocessing=preprocessing,
        views=views,
        engine=engine,
        temperature_scale=float(meta["temperature_scale"]),
    )


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
    asked = _asked(run, meta)
    config = meta["codes"]
    if weights:
        asked = replace(asked, weights=weights)
    found = re.fullmatch(r"random start, seed (\d+)", str(config.get("weights")))
    source: dict[str, Any] = {
        "cache": cache,
        "seed": int(found.group(1)) if found else 0,
        "offline": offline,
        "progress": progress,
    }
    card = load_card(asked, **source)
    if card.weights_digest != config["weights_digest"]:
        raise BackboneError(
            f"The weights of {asked.model} here ({card.origin}, digest "
            f"{card.weights_digest[:12]}…) are not those that {run.name} was trained on "
            f"({config.get('weights')}, digest {str(config['weights_digest'])[:12]}…).",
            expected="the very same weights: with others its predictions would mean nothing",
            todo="WEIGHTS=<file> if they lie elsewhere; else train the head again with these",
        )
    preprocessing, views = _reading(run, config)
    layers = card.resolve(tuple(config["layers"]))
    key = codes_key(run.data, card, layers, preprocessing, views, asked, cache=cache)
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
    engine = open_engine(card, layers, preprocessing, run_as, machine, **source)
    return HeadModel(head, key, preprocessing, views, engine, asked.dtype, notes)


def _asked(run: Run, meta: dict[str, Any]) -> CodesSettings:
    """Read the settings of the codes out of a head's description."""
    try:
        config = meta["codes"]
        asked = {k: tuple(v) if isinstance(v, list) else v for k, v in config["asked"].items()}
        settings: CodesSettings = from_mapping(CodesSettings, asked)
        for name in ("model", "weights", "pool", "fit", "views", "precision", "dtype"):
            if not isinstance(getattr(settings, name), str):
                raise ValueError(f"its {name} is no word")
        if not isinstance(meta["codes_fingerprint"], str) or not isinstance(settings.size, int):
            raise ValueError("its fingerprint is no word, or its size no number")
        if not all(isinstance(layer, str) for layer in config["layers"]) or not config["layers"]:
            raise ValueError("its layers are no names")
        if not isinstance(config["weights_digest"], str):
            raise ValueError("its weights have no digest")
    except (KeyError, TypeError, AttributeError, ValueError, SettingsError) as error:
        raise _refusal(run, error) from error
    return settings


def _reading(run: Run, config: dict[str, Any]) -> tuple[Preprocessing, Views]:
    """Read how images were read out of a head's description."""
    try:
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in config["preprocessing"].items()
            if k != "version"
        }
        kind, count, seed = config["views"]
        views = Views.parse(f"random:{count}" if kind == "random" else kind, int(seed))
        return Preprocessing(**fields), views
    except (KeyError, TypeError, AttributeError, ValueError, SettingsError) as error:
        raise _refusal(run, error) from error


def _refusal(run: Run, error: Exception) -> HeadError:
    return HeadError(
        f"{run.file('.model.json')} does not say what its codes are ({error}).",
        expected="a head that make svm, softmax or heads wrote",
        todo="train the head again",
    )
