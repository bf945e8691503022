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

from .errors import SettingsError

__all__ = [
    "METHODS",
    "RENAMED",
    "AdviseSettings",
    "CodesSettings",
    "CompareSettings",
    "CurveSettings",
    "DataSettings",
    "DoorSettings",
    "FinetuneSettings",
    "FitSettings",
    "HeadSettings",
    "LabelsSettings",
    "LayersSettings",
    "MachineSettings",
    "MapSettings",
    "PlaceSettings",
    "PredictSettings",
    "ReportSettings",
    "RunsSettings",
    "ServeSettings",
    "as_dict",
    "from_mapping",
    "setting",
]


RENAMED = {"fit": "resize", "batch": "extract_batch"}  # earlier names of settings


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
        "test images whose bytes or group are in train too: left out of the test figure, or kept "
        "in it",
        choices=("drop", "keep"),
    )
    group: str = setting(
        "",
        "images of one thing, kept on one side of every split: a column's name, 'parent' (the "
        "folder of the image), a regular expression whose match on the path is the group, 'auto' "
        "(near-duplicates) or 'none'; empty: what the data set brings",
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
    resize: str = setting(
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
    extract_batch: int = setting(
        0, "images per batch of extraction; 0: what suits the engine", affects="speed"
    )
    workers: int = setting(0, "threads that read images; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse negative counts and unknown engines."""
        _check(self)
        for name in ("extract_batch", "workers"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name.upper()} is negative.", expected="a count, or 0")


METHODS = ("svm", "softmax", "ridge", "centroid", "knn", "rbf")
RECIPE_HELP = "a published run, by name: its settings, unless given otherwise"


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How one classical head is fitted."""

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
    jobs: int = setting(0, "processes; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse unknown methods and counts that make no sense."""
        _check(self)
        if self.folds < 2:
            raise SettingsError(f"FOLDS={self.folds}.", expected="at least 2")
        for name in ("splits", "seeds", "draws", "trained_draws"):
            if getattr(self, name, 1) < 1:
                raise SettingsError(f"{name.upper()} is below 1.", expected="a count of at least 1")


@dataclass(frozen=True, kw_only=True)
class HeadSettings(FitSettings):
    """How the classical heads are trained on the codes."""

    methods: tuple[str, ...] = setting(("svm",), "heads to train", choices=METHODS)
    splits: int = setting(1, "random train/test splits to repeat on (1: the data set's own)")
    seeds: int = setting(1, "seeds to repeat with: seed, seed + 1, ...")
    recipe: str = setting("", RECIPE_HELP, affects="place")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FitSettings):
    """What is compared."""

    methods: tuple[str, ...] = setting(
        ("centroid", "ridge", "svm", "softmax", "rbf", "finetune", "scratch"),
        f"heads ({', '.join(METHODS)}), 'finetune' (the late layers), 'scratch' (the whole network "
        "from a random start), or recipes by name",
    )
    models: tuple[str, ...] = setting((), "several networks, with commas; default: MODEL alone")
    splits: int = setting(1, "random train/test splits to repeat on (1: the data set's own)")
    rope: float = setting(1.0, "points of accuracy that make no practical difference")

    def __post_init__(self) -> None:
        """Refuse what could not be compared."""
        super().__post_init__()
        if not self.methods:
            raise SettingsError("METHODS is empty.", expected="at least one method")
        if not 0 <= self.rope < 100:
            raise SettingsError(f"ROPE={self.rope}.", expected="points of accuracy, 0 to 100")


@dataclass(frozen=True, kw_only=True)
class CurveSettings(FitSettings):
    """Of the learning curve."""

    methods: tuple[str, ...] = setting(
        ("svm", "softmax"), f"heads ({', '.join(METHODS)}), 'finetune', 'scratch' or recipes"
    )
    sizes: tuple[str, ...] = setting(
        ("auto",), "images a class, with commas; auto: 5, 10, 20, 50, ... up to all"
    )
    draws: int = setting(10, "random draws, in each of which a size holds all smaller ones")
    trained_draws: int = setting(3, "draws for methods that train the network")


@dataclass(frozen=True, kw_only=True)
class AdviseSettings(FitSettings):
    """Of the advice."""

    models: tuple[str, ...] = setting(
        (),
        "networks to choose from, with commas, each MODEL or MODEL:WEIGHTS; default: MODEL and "
        "those whose codes of this data set are cached",
    )


_UNLIMITED = float("inf")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """What of the network is trained, from which start, and how."""

    recipe: str = setting("", RECIPE_HELP, affects="place")
    unfreeze: str = setting(
        "last",
        "what is trained: 'head' (the last linear layer), 'last' (the last stage too), a number "
        "of stages, a layer's name (it and all after it), or 'all'",
    )
    init: str = setting(
        "probe",
        "start: 'probe' (the fitted linear head as last layer), 'pretrained' (a random last "
        "layer), 'random' (the whole network at random)",
        choices=("probe", "pretrained", "random"),
    )
    probe: str = setting(
        "softmax", "linear head that INIT=probe starts from", choices=("softmax", "svm")
    )
    fresh: tuple[str, ...] = setting((), "layers that start at random though the rest does not")
    bn: str = setting(
        "auto",
        "BatchNorm: 'frozen' (statistics of the trained layers follow the data, frozen ones stay), "
        "'eval' (all stay), 'update' (all follow); auto: eval with INIT=probe, whose head was "
        "fitted with the statistics as they are, else frozen",
        choices=("auto", "frozen", "eval", "update"),
    )
    epochs: int = setting(10, "passes over the training images")
    batch_size: int = setting(32, "training images a step, over all processes")
    optimizer: str = setting("adamw", "optimiser", choices=("sgd", "adam", "adamw", "rmsprop"))
    lr: float = setting(1e-4, "learning rate; the default suits adamw")
    head_lr: float = setting(1.0, "the last layer's rate, as a multiple of lr")
    layer_decay: float = setting(1.0, "each stage's rate, as a multiple of the next one's")
    momentum: float = setting(0.9, "momentum (sgd, rmsprop)")
    weight_decay: float = setting(0.05, "weight decay; the default suits adamw")
    schedule: str = setting("cosine", "of the rate", choices=("constant", "step", "cosine"))
    warmup: float = setting(1.0, "epochs in which the rate rises from 0")
    step_epochs: int = setting(7, "epochs between falls of the rate (schedule step)")
    step_factor: float = setting(0.1, "factor of each fall (schedule step)")
    label_smoothing: float = setting(0.0, "share of each target spread over all classes")
    mixup: float = setting(0.0, "mixup: alpha of the Beta distribution; 0: none")
    ema: float = setting(0.0, "decay of the weights' moving average, which is then used; 0: none")
    clip: float = setting(0.0, "largest norm of the gradient; 0: no limit")
    balance: str = setting(
        "none",
        "rare classes: 'weights' in the loss, or drawn more often ('sampling')",
        choices=("none", "weights", "sampling"),
    )
    augment: tuple[str, ...] = setting(
        ("auto",),
        "'auto', 'none', or in order: resized-crop[:S], resize:S, center-crop, random-crop:P, "
        "hflip, vflip, dihedral, rotate:D, color:X, grey:P, randaugment[:M], erase:P",
    )
    trunk_views: str = setting(
        "auto",
        "views of each training image in the trunk's cache: 'center', 'flip', 'dihedral', "
        "'random:K'; auto: those of VIEWS, or random:4 where VIEWS has one",
    )
    trunk: str = setting(
        "auto",
        "frozen trunk: 'cached' (runs once) or 'loop' (at every step, on fresh augmentations); "
        "auto: cached where it can be and AUGMENT leaves it open",
        choices=("auto", "cached", "loop"),
    )
    disk: float = setting(20.0, "most GB that the trunk's cache may take", affects="place")
    normalise: str = setting("", "'mean,std' of the input in place of the weights' own")
    val_fraction: float = setting(0.2, "share of train held out where the data set has no val")
    choose: str = setting(
        "loss",
        "the epoch whose weights are kept, by val: lowest 'loss' (with a temperature), best "
        "'accuracy' (of equals, the lower loss), or the 'last'",
        choices=("accuracy", "loss", "last"),
    )
    patience: int = setting(0, "stop after this many epochs without a better one; 0: never")
    refit: bool = setting(
        True,
        "where val is cut from train: after the epoch is chosen, train again for as many on all "
        "of train, as the heads are fitted",
    )
    tune: int = setting(0, "pairs of rate and weight decay to try on val; 0: none")
    phases: tuple[str, ...] = setting(
        (), "several trainings in turn, each 'name=value name=value' over the other settings"
    )

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        _check(self)
        for name, low, high in (
            ("epochs", 0, _UNLIMITED),
            ("batch_size", 1, _UNLIMITED),
            ("lr", 0, _UNLIMITED),
            ("head_lr", 0, _UNLIMITED),
            ("layer_decay", 0, 1),
            ("momentum", 0, 1),
            ("weight_decay", 0, _UNLIMITED),
            ("warmup", 0, _UNLIMITED),
            ("step_epochs", 1, _UNLIMITED),
            ("step_factor", 0, _UNLIMITED),
            ("label_smoothing", 0, 1),
            ("mixup", 0, _UNLIMITED),
            ("ema", 0, 1),
            ("clip", 0, _UNLIMITED),
            ("disk", 0, _UNLIMITED),
            ("val_fraction", 0.01, 0.9),
            ("patience", 0, _UNLIMITED),
            ("tune", 0, _UNLIMITED),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # NaN too
                bounds = f"{low} to {high}" if high != _UNLIMITED else f"at least {low}"
                raise SettingsError(f"{name.upper()}={value}.", expected=bounds)


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Which images are predicted by which run, and how that is written."""

    images: str = setting(
        "", "an image, a folder (with all below), a glob, a list file, a .zip or .tar",
        affects="place",
    )  # fmt: skip
    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "where the network's weights lie now, if not where the run had them", affects="place"
    )
    out: str = setting("", "file to write; empty: standard output", affects="place")
    format: str = setting(
        "auto", "auto: by OUT's suffix, else csv", affects="place", choices=("auto", "csv", "jsonl")
    )
    top: int = setting(0, "also list so many of the most probable classes")
    abstain: float = setting(0.0, "name no class where the highest probability is below this")
    unlike: float = setting(
        0.99,
        "flag images farther from every training image than this share of the training images "
        "are from one another; 0: no distances",
    )
    nearest: int = setting(0, "also list so many of the nearest training images")
    offline: bool = setting(False, "fetch nothing", affects="place")

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        _check(self)
        for name, high in (("abstain", 1), ("unlike", 1), ("top", _UNLIMITED), ("nearest", 1000)):
            value = getattr(self, name)
            if not 0 <= value <= high:  # NaN too
                bounds = f"0 to {high}" if high != _UNLIMITED else "at least 0"
                raise SettingsError(f"{name.upper()}={value}.", expected=bounds)


@dataclass(frozen=True, kw_only=True)
class DoorSettings:
    """Where a server listens, and whom it lets in."""

    host: str = setting(
        "127.0.0.1", "address to listen on; any but this machine's own needs TOKEN", affects="place"
    )
    port: int = setting(8000, "port to listen on; 0: a free one", affects="place")
    token: str = setting(
        "", "what clients must show: 'Authorization: Bearer TOKEN'; '@file' reads it from a file",
        affects="place",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse ports that do not exist."""
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"PORT={self.port}.", expected="0 to 65535")
        if not self.host:
            raise SettingsError("HOST is empty.", expected="an address", todo="HOST=127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class ServeSettings(DoorSettings):
    """Which runs are served, and where."""

    run: tuple[str, ...] = setting(
        (), "runs with commas, each a path or name, or NAME=RUN to name it; the first is the "
        "default", affects="place",
    )  # fmt: skip
    offline: bool = setting(False, "fetch nothing", affects="place")


@dataclass(frozen=True, kw_only=True)
class LabelsSettings:
    """Which labels are likely to be wrong."""

    folds: int = setting(5, "folds: each image is judged by a head that never saw it")
    share: float = setting(0.1, "share of the images that the record lists, most suspicious first")
    top: int = setting(20, "images that are printed; 0: all that the record lists", affects="place")
    jobs: int = setting(0, "processes; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if self.folds < 2:
            raise SettingsError(f"FOLDS={self.folds}.", expected="at least 2")
        if not 0 < self.share <= 1:
            raise SettingsError(f"SHARE={self.share}.", expected="above 0, at most 1")
        if self.top < 0:
            raise SettingsError(f"TOP={self.top}.", expected="a count, or 0")


@dataclass(frozen=True, kw_only=True)
class LayersSettings:
    """How good a linear probe of each layer is."""

    probe: str = setting("softmax", "linear head of each layer", choices=("softmax", "svm"))
    folds: int = setting(5, "folds of the cross-validation on train, the same for all layers")
    jobs: int = setting(0, "processes; 0: one a core", affects="speed")

    def __post_init__(self) -> None:
        """Refuse unknown heads and a single fold."""
        _check(self)
        if self.folds < 2:
            raise SettingsError(f"FOLDS={self.folds}.", expected="at least 2")


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How the codes are drawn in two dimensions."""

    shown: int = setting(3000, "most images shown: those of test first, then a sample of train")

    def __post_init__(self) -> None:
        """Refuse too few to place."""
        if self.shown < 10:
            raise SettingsError(f"SHOWN={self.shown}.", expected="at least 10")


@dataclass(frozen=True, kw_only=True)
class RunsSettings:
    """Which runs are listed, set side by side or exported."""

    data: str = setting("", "of one data set only: its name, or a path", affects="place")
    where: str = setting(
        "",
        "conditions that all must hold: 'method=svm accuracy>0.93 model~lite', with = != > >= < <= "
        "~ (contains) and columns or places in the record (chosen.C)",
        affects="place",
    )
    sort: str = setting(
        "-date", "columns to sort by, with commas; '-': the largest first", affects="place"
    )
    limit: int = setting(50, "runs that are printed; 0: all", affects="place")
    run: str = setting(
        "", "one run in full: its name, the beginning of it, or its .json", affects="place"
    )
    against: str = setting("", "a second run, set beside RUN", affects="place")
    export: str = setting(
        "", "write the listed runs for 'mlflow' or 'tensorboard' into OUT", affects="place"
    )
    out: str = setting("", "folder that EXPORT writes into", affects="place")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.export not in ("", "mlflow", "tensorboard"):
            raise SettingsError(
                f"EXPORT={self.export} is not known.", expected="mlflow or tensorboard"
            )
        if self.limit < 0:
            raise SettingsError(f"LIMIT={self.limit}.", expected="a count, or 0")
        if self.against and not self.run:
            raise SettingsError("AGAINST is given without RUN.", expected="RUN=<one> AGAINST=<two>")
        if self.export and not self.out:
            raise SettingsError(
                f"EXPORT={self.export} without OUT.",
                expected="a folder to write into",
                todo=f"EXPORT={self.export} OUT=exported",
            )
        if self.out and not self.export:
            raise SettingsError(
                "OUT is given without EXPORT.", expected="EXPORT=mlflow or EXPORT=tensorboard"
            )


EVIDENCE = ("audit", "labels", "layers", "map", "curve", "advise")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the report shows."""

    gallery: int = setting(
        24, "pictures each of mistakes, doubtful labels and pairs of copies", affects="place"
    )
    pictures: int = setting(
        5000, "most images put into the report, small; 0: none", affects="place"
    )
    evidence: tuple[str, ...] = setting(
        EVIDENCE,
        f"what is brought up to date first ({', '.join(EVIDENCE)}); 'none': nothing is",
        affects="place",
        choices=(*EVIDENCE, "none"),
    )

    def __post_init__(self) -> None:
        """Refuse negative counts and unknown evidence."""
        _check(self)
        for name in ("gallery", "pictures"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name.upper()} is negative.", expected="a count, or 0")


def from_mapping(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build settings of class `cls` from those of `values` that are its fields.

    Files of earlier versions have settings under their earlier names (`RENAMED`).
    """
    names = {field.name for field in dataclasses.fields(cls)}
    named = {RENAMED.get(name, name): value for name, value in values.items()}
    return cls(**{name: value for name, value in named.items() if name in names})
