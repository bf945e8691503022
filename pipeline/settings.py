"""The settings of each stage: one frozen dataclass a stage, and nothing else knows a default.

The command-line options, the recipe files, the fingerprint and the provenance in every file
derive from these classes. Each field says what it is for and whether it changes bytes
(``"bytes"``: part of the fingerprint), only speed (``"speed"``) or only where things are
(``"place"``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SettingsError

__all__ = [
    "METHODS",
    "CodesSettings",
    "DataSettings",
    "HeadSettings",
    "MachineSettings",
    "PlaceSettings",
    "as_dict",
    "from_mapping",
    "setting",
]


def setting(
    default: Any, help: str, *, affects: str = "bytes", choices: tuple[str, ...] = ()
) -> Any:
    """Declare one field: its default, its help, what it affects, its allowed values."""
    return dataclasses.field(
        default=default, metadata={"help": help, "affects": affects, "choices": choices}
    )


def _check(settings: Any) -> None:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        choices = field.metadata["choices"]
        values = value if isinstance(value, tuple) else (value,)
        for one in values:
            if choices and one not in choices:
                raise SettingsError(
                    f"{field.name.upper()}={one} is not known.",
                    expected=f"one of {', '.join(choices)}",
                )


def as_dict(settings: Any, *, affects: str | None = None) -> dict[str, Any]:
    """Give the settings as plain values for JSON, all or those that affect one thing."""
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if affects is None or field.metadata["affects"] == affects
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class PlaceSettings:
    """Where things lie."""

    data_root: str = setting("data", "folder of the data sets", affects="place")
    cache: str = setting("cache", "folder of the cached codes", affects="place")
    results: str = setting("results", "folder of the results", affects="place")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images, and how they are split."""

    data: str = setting("hotdog", "a registered data set's name, or a path", affects="place")
    seed: int = setting(0, "seed of every random choice: splits, folds, random crops, new layers")
    offline: bool = setting(False, "fetch nothing", affects="place")
    strict: bool = setting(False, "stop at the first bad image", affects="place")
    leaks: str = setting(
        "drop",
        "test images whose bytes are in train too: left out of the test figure, or kept in it",
        choices=("drop", "keep"),
    )


@dataclass(frozen=True, kw_only=True)
class CodesSettings:
    """What the codes are."""

    model: str = setting("efficientnet_lite0", "a torchvision or timm network, by its own name")
    weights: str = setting(
        "default",
        "'default' (published), 'none' (random start), a published set's name, or a file",
    )
    layers: tuple[str, ...] = setting(
        ("final",), "'final', 'all', or layers as the network names them, with commas"
    )
    pool: str = setting("mean", "how maps become vectors: 'mean', 'max' or 'grid:K'")
    size: int = setting(0, "input size in pixels; 0: what the weights were made for")
    fit: str = setting(
        "default",
        "from image to square: 'crop' (centre), 'stretch' or 'pad'; default: the weights' own",
        choices=("default", "crop", "stretch", "pad"),
    )
    views: str = setting("center", "'center', 'flip' (2), 'dihedral' (8) or 'random:K'")
    precision: str = setting(
        "float32", "arithmetic of the network (mixed: GPU only)", choices=("float32", "mixed")
    )
    dtype: str = setting("float32", "how codes are stored", choices=("float32", "float16"))

    def __post_init__(self) -> None:
        """Refuse values that no network could make sense of."""
        _check(self)
        if not self.layers:
            raise SettingsError("LAYERS is empty.", expected="'final', 'all' or layer names")
        if self.size < 0:
            raise SettingsError(f"SIZE={self.size} is negative.", expected="pixels, or 0")


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """What runs it; changes speed, never bytes beyond the engines' stated tolerance."""

    device: str = setting(
        "auto",
        "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'; one that is not there is an error",
        affects="speed",
    )
    engine: str = setting(
        "auto",
        "'onnx' (CPU) or 'torch'; auto: the faster one for the device",
        affects="speed",
        choices=("auto", "onnx", "torch"),
    )
    batch: int = setting(0, "images a batch; 0: what suits the engine", affects="speed")
    workers: int = setting(0, "threads that read images; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse negative counts and unknown engines."""
        _check(self)
        for name in ("batch", "workers"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name.upper()} is negative.", expected="a count, or 0")


METHODS = ("svm", "softmax", "ridge", "centroid", "knn", "rbf")


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How the classical heads are trained on the codes."""

    methods: tuple[str, ...] = setting(("svm",), "heads to train", choices=METHODS)
    folds: int = setting(5, "folds of the cross-validation that chooses C (where there is no val)")
    class_weight: str = setting(
        "none",
        "'none', or 'balanced': rare classes weigh as much as common ones",
        choices=("none", "balanced"),
    )
    train_views: str = setting(
        "mean",
        "with several views: train on their 'mean', on 'all' of them, or try 'both'",
        choices=("mean", "all", "both"),
    )
    splits: int = setting(1, "random train/test splits to repeat on (1: the data set's own)")
    seeds: int = setting(1, "seeds to repeat with: seed, seed + 1, ...")
    jobs: int = setting(0, "processes; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse unknown methods and counts that make no sense."""
        _check(self)
        if self.folds < 2:
            raise SettingsError(f"FOLDS={self.folds}.", expected="at least 2")
        for name in ("splits", "seeds"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name.upper()} is below 1.", expected="a count of at least 1")


def from_mapping(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build settings of class `cls` from those of `values` that are its fields."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in names})
