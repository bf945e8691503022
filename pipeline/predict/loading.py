"""A run's model rebuilt from its two files, which may be a stranger's.

Nothing in them can run, and what they say is checked before it is used. A head's network is looked
up by name and must have the very weights that the head was fitted on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..backbones import load_card
from ..backbones.card import Card
from ..backbones.engine import JoinedEngine, pick_device
from ..backbones.preprocess import JoinedPreprocessing, Preprocessing, Views
from ..backbones.quantise import Calibration
from ..codes.calibration import known_calibration
from ..codes.engine import engine_of
from ..codes.joined import joined_fingerprint
from ..codes.keys import Key, Spec, codes_key
from ..errors import BackboneError, SettingsError, command_line
from ..files import sha256_file
from ..finetune.description import read_description, refusal
from ..heads import Head, load_head
from ..progress import Progress, silent
from ..settings import CodesSettings, MachineSettings, from_mapping
from .description import kind_of, networks_in, unreadable
from .models import HeadModel, Model, NetworkModel, network_engine
from .runs import Run


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
    if kind_of(run.file(".model.json")) == "network":
        if weights:
            raise SettingsError(
                f"{run.name} is a fine-tuned network, which brings its own weights.",
                todo="leave WEIGHTS out",
            )
        return _network_model(run, cache=cache, machine=machine, offline=offline)
    source = {"cache": cache, "offline": offline, "progress": progress}
    return _Heads(run, machine, source).model(weights)


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
    engine = network_engine(run.stem, card, final, machine, cache, offline=offline)
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


def _code_dim(weights: Path, final: str) -> int:
    """Look up how many numbers the last layer takes."""
    try:
        with safe_open(weights, framework="np") as tensors:
            return int(tensors.get_slice(f"{final}.weight").get_shape()[1])
    except (OSError, SafetensorError, IndexError) as error:
        raise refusal(weights, f"it has no last layer {final} ({error})") from error


@dataclass(frozen=True)
class _Heads:
    """Rebuilds the model of a run that is a head: on the codes of one network, or of several."""

    run: Run
    machine: MachineSettings
    source: Mapping[str, Any]  # cache, offline, progress

    def model(self, weights: str) -> HeadModel:
        """Give the model; `weights` is where the network has them now."""
        run = self.run
        head, meta = load_head(run.stem)
        try:
            several = networks_in(meta)
        except ValueError as error:
            raise unreadable(run.file(".model.json"), error) from error
        if not several:
            return self._on_network(head, meta, weights)
        if weights:
            raise SettingsError(
                f"WEIGHTS={weights} are of one network; {run.name} uses {len(several)}.",
                todo="leave WEIGHTS out",
            )
        return self._joined([self._on_network(head, one, "") for one in several], meta)

    def _joined(self, parts: list[HeadModel], meta: Mapping[str, Any]) -> HeadModel:
        """Join the models of several networks, on all of whose codes the head was trained."""
        first, prints = parts[0], [part.key.fingerprint for part in parts]
        try:
            asked = replace(
                first.asked,
                model="+".join(part.asked.model for part in parts),
                layers=tuple(f"{part.asked.model}/{one}" for part in parts for one in part.layers),
            )
            if len({(part.views, part.asked.dtype) for part in parts}) > 1:
                raise ValueError("its networks read other views of the images")
            if joined_fingerprint(prints) != meta["codes_fingerprint"]:
                raise ValueError("its networks are not those of its fingerprint")
        except (SettingsError, ValueError) as error:
            raise unreadable(self.run.file(".model.json"), error) from error
        preprocessing = JoinedPreprocessing.of([part.preprocessing for part in parts])
        return replace(
            first,
            key=Key(first.key.path, meta["codes_fingerprint"], meta["codes"]),
            spec=replace(first.spec, preprocessing=preprocessing, asked=asked),
            engine=JoinedEngine([part.engine for part in parts], preprocessing),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            parts=tuple(parts),
        )

    def _on_network(self, head: Head, meta: dict[str, Any], weights: str) -> HeadModel:
        """Give a head's model on one network, whose codes `meta` describes."""
        run = self.run
        trained = _trained_on(run, meta)
        asked = replace(trained.asked, weights=weights) if weights else trained.asked
        source = {**self.source, "seed": trained.seed}
        card = load_card(asked, **source)
        _check_weights(run, card, asked, trained.config)
        layers = card.resolve(trained.layers)
        spec = Spec(card, layers, trained.preprocessing, trained.views, asked, trained.calibration)
        key = codes_key(run.data, spec, cache=source["cache"])
        if key.fingerprint != meta["codes_fingerprint"]:
            other = [name for name in ("backbone", "preprocessing", "views", "layers", "pool")
                     if key.config[name] != trained.config.get(name)]  # fmt: skip
            raise BackboneError(
                f"This version would read or run images otherwise than {run.name} was trained on: "
                f"it differs in {', '.join(other) or 'what the fingerprint is taken of'}.",
                todo="use the version that trained it, or train the head again",
            )
        notes: tuple[str, ...] = ()
        if asked.precision == "mixed" and pick_device(self.machine.device) == "cpu":
            spec = replace(spec, asked=replace(asked, precision="float32"))
            notes = (
                "The run's codes were made with mixed precision, on a GPU; here they are made with "
                "float32, and may differ in the third digit.",
            )
        engine = engine_of(spec, self.machine, source, _calibration(run, spec))
        return HeadModel(head, key, spec, engine, notes, source)


def _check_weights(run: Run, card: Card, asked: CodesSettings, config: dict[str, Any]) -> None:
    """Refuse weights that are not those that the head was trained on."""
    if card.weights_digest == config["weights_digest"]:
        return
    raise BackboneError(
        f"The weights of {asked.model} here ({card.origin}, digest "
        f"{card.weights_digest[:12]}…) are not those that {run.name} was trained on "
        f"({config.get('weights')}, digest {str(config['weights_digest'])[:12]}…).",
        expected="the very same weights: with others its predictions would mean nothing",
        todo="WEIGHTS=<file> if they lie elsewhere; else train the head again with these",
    )


def _calibration(run: Run, spec: Spec) -> Calibration | None:
    """Stand for the images that a network in int8 was calibrated on."""
    if not spec.calibration:
        return None
    again = command_line(
        "features",
        {"DATA": run.data, "MODEL": spec.asked.model, "PRECISION": "int8", "CACHE": "another"},
    )
    return known_calibration(spec.calibration, again)


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
