"""The settings of each stage: one frozen dataclass a stage, and nothing else knows a default.

The command-line options, the recipe files, the fingerprint and the provenance in every file
derive from these classes. Each field says what it is for and whether it changes bytes
(``"bytes"``: part of the fingerprint), only speed (``"speed"``) or only where things are
(``"place"``).
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SettingsError

__all__ = [
    "METHODS",
    "METRICS",
    "RENAMED",
    "AdviseSettings",
    "CodesSettings",
    "CompareSettings",
    "CurveSettings",
    "DataSettings",
    "DoorSettings",
    "ExplainSettings",
    "ExportSettings",
    "FinetuneSettings",
    "FitSettings",
    "HeadSettings",
    "LabelSettings",
    "LabelsSettings",
    "LayersSettings",
    "MachineSettings",
    "MapSettings",
    "NextSettings",
    "PlaceSettings",
    "PredictSettings",
    "ReportSettings",
    "RunsSettings",
    "ServeSettings",
    "TableSettings",
    "allowed",
    "as_dict",
    "from_mapping",
    "setting",
]


RENAMED = {"fit": "resize", "batch": "extract_batch"}  # earlier names of settings


INFINITE = math.inf
LARGEST = 2**31 - 1  # of whole numbers: seeds and counts fit into 32 bits everywhere


def setting(
    default: Any,
    help: str,
    *,
    affects: str = "bytes",
    choices: tuple[str, ...] = (),
    low: float = 0,
    high: float | None = None,
    above: float | None = None,
    form: str = "",
    says: str = "",
    later: bool = False,
) -> Any:
    """Declare one field of the settings.

    Parameters
    ----------
    default
        Its default, whose type is that of the setting.
    help : str
        What it is for.
    affects : str
        ``bytes``, ``speed`` or ``place``.
    choices : tuple of str
        The allowed values of a text, or of each part of a list.
    low, high : float
        Smallest and largest number. Without `high`, any finite one (whole numbers: up to
        2**31 - 1).
    above : float
        The number must be larger than this.
    form : str
        Regular expression that a text, or each part of a list, must match.
    says : str
        The allowed values in words, for `form`.
    later : bool
        It came after results had been published: at its default it is not part of fingerprints,
        so that those results stay current.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "affects": affects,
            "choices": choices,
            "low": low,
            "high": high,
            "above": above,
            "form": form,
            "says": says,
            "later": later,
        },
    )


def allowed(field: dataclasses.Field[Any]) -> str:
    """Say which values a field takes, for messages and help; empty where any text will do."""
    meta: Mapping[str, Any] = field.metadata
    kind: type[Any] = type(field.default)
    if kind is bool:
        return "1 or 0"
    if kind in (int, float):
        what = "a whole number" if kind is int else "a number"
        high = meta["high"]
        if meta["above"] is not None:
            what += f" above {meta['above']:g}"
            return what if high in (None, INFINITE) else f"{what}, at most {high:g}"
        if high in (None, INFINITE):
            return f"{what}, at least {meta['low']:g}"
        return f"{what} from {meta['low']:g} to {_plain(high)}"
    if meta["choices"]:
        return f"{'any' if kind is tuple else 'one'} of {', '.join(filter(None, meta['choices']))}"
    return str(meta["says"])


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What all settings have in common: every value is checked when they are made."""

    def __post_init__(self) -> None:
        """Refuse values that the fields do not allow.

        Raises
        ------
        SettingsError
            A value of another type, outside its range, or not one of the allowed ones.
        """
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuse a value that the field does not allow."""
    name: str = field.name.upper()
    kind: type[Any] = type(field.default)
    meta: Mapping[str, Any] = field.metadata
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    wrong = SettingsError(f"{name}={shown} is not allowed.", expected=allowed(field) or "a text")
    if kind in (bool, int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = {bool: isinstance(value, bool), int: whole}
        if not fits.get(kind, whole or isinstance(value, float)):
            raise wrong
        if kind is not bool and not _in_range(value, kind, meta):
            raise wrong
        return
    if not isinstance(value, kind) or not all(isinstance(one, str) for one in value):
        raise wrong
    if not value and field.default:
        what = allowed(field) or (
            "at least one, with commas" if kind is tuple else f"such as {field.default}"
        )
        raise SettingsError(f"{name} is empty.", expected=what)
    for one in value if kind is tuple else (value,):
        if "\0" in one:
            raise wrong
        if meta["choices"] and one not in meta["choices"]:
            raise SettingsError(f"{name}={one} is not known.", expected=allowed(field))
        if one and meta["form"] and not re.fullmatch(meta["form"], one):
            raise SettingsError(f"{name}={one} is not known.", expected=meta["says"])


def _in_range(value: float, kind: type, meta: Mapping[str, Any]) -> bool:
    high = meta["high"]
    if high is None:
        high = LARGEST if kind is int else sys.float_info.max
    if meta["above"] is not None and not value > meta["above"]:
        return False
    return bool(meta["low"] <= value <= high)  # False for NaN too


VIEWS = "center|flip|dihedral|random:([1-9]|[1-5][0-9]|6[0-4])"
NUMBER = r"\s*-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*"
AUGMENTATIONS = (
    "resized-crop", "resize", "center-crop", "random-crop", "hflip", "vflip", "dihedral", "rotate",
    "color", "grey", "randaugment", "erase",
)  # fmt: skip


def as_dict(settings: Any, *, affects: str | None = None) -> dict[str, Any]:
    """Give the settings as plain values for JSON, all or those that affect one thing."""
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if affects is None
        or (
            field.metadata["affects"] == affects
            and not (field.metadata["later"] and getattr(settings, field.name) == field.default)
        )
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class PlaceSettings(_Settings):
    """Where things lie."""

    data_root: str = setting("data", "folder of the data sets", affects="place")
    cache: str = setting("cache", "folder of the cached codes", affects="place")
    results: str = setting("results", "folder of the results", affects="place")


@dataclass(frozen=True, kw_only=True)
class DataSettings(_Settings):
    """Which images, and how they are split."""

    data: str = setting("hotdog", "a registered data set's name, or a path", affects="place")
    seed: int = setting(
        0, "seed of every random choice: splits, folds, random crops, new layers", high=LARGEST
    )
    offline: bool = setting(False, "no downloads", affects="place")
    strict: bool = setting(False, "stop at the first image that cannot be read", affects="place")
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
        affects="place",  # what it changes, the groups, is in the fingerprints
    )
    layout: str = setting(
        "auto",
        "what the folders of DATA are: 'classes', 'inner' (things that hold class folders), "
        "'names' (classes at the beginning of file names); auto: decided by evidence",
        affects="place",
        choices=("auto", "classes", "inner", "names"),
    )
    label: str = setting(
        "",
        "images with several labels: 'first' (use the first), 'drop' (leave them out), 'combine' "
        "(each combination is a class); empty: stop",
        affects="place",
        choices=("", "first", "drop", "combine"),
    )
    label_column: str = setting(
        "", "column of the labels in a table or list: a name or a number", affects="place"
    )
    path_column: str = setting(
        "", "column of the files in a table or list: a name or a number", affects="place"
    )
    labels: str = setting(
        "",
        "a file of corrections, as make label writes it, laid over the data set",
        affects="place",
    )


@dataclass(frozen=True, kw_only=True)
class CodesSettings(_Settings):
    """Which codes are extracted."""

    model: str = setting("efficientnet_lite0", "a torchvision or timm network, by its own name")
    weights: str = setting(
        "default",
        "'default' (the published ones), 'none' (random initialisation), the name of published "
        "weights, or a file",
    )
    layers: tuple[str, ...] = setting(
        ("final",), "'final', 'all', or layers as the network names them, with commas"
    )
    pool: str = setting(
        "default",
        "pooling of maps and tokens to vectors; cls: the class token; mean: of a transformer, the "
        "mean of its patches; default: the network's own for the final layer, the mean for others",
        form=r"default|mean|max|none|grid:[2-8]|cls|cls\+mean",
        says="default, mean, max, grid:K with K from 2 to 8, cls or cls+mean",
    )
    size: int = setting(0, "input size in pixels; 0: that of the weights", high=4096)
    resize: str = setting(
        "default",
        "from image to square: 'crop' (centre), 'stretch' or 'pad'; default: the weights' own",
        choices=("default", "crop", "stretch", "pad"),
    )
    range: str = setting(
        "auto",
        "values that become black and white, of images of more than 8 bits, for the whole data set",
        form=f"auto|full|(percentile:)?{NUMBER},{NUMBER}",
        says="auto, full (of the type), percentile:LOW,HIGH, or MIN,MAX",
    )
    bands: tuple[str, ...] = setting(
        (),
        "bands of a TIFF of several, counted from 1: one (grey) or three (red, green, blue)",
        form="[1-9][0-9]{0,2}",
        says="one band or three, such as BANDS=4,3,2",
    )
    views: str = setting(
        "center", "views of each image: 'center', 'flip' (2), 'dihedral' (8) or 'random:K'",
        form=VIEWS, says="center, flip, dihedral, or random:K with K from 1 to 64",
    )  # fmt: skip
    precision: str = setting(
        "float32",
        "precision of the network's arithmetic (mixed: GPU only)",
        choices=("float32", "mixed"),
    )
    dtype: str = setting(
        "float32", "number format of the stored codes", choices=("float32", "float16")
    )

    def __post_init__(self) -> None:
        """Refuse bands that are neither grey nor colours, and ranges from high to low."""
        super().__post_init__()
        if len(self.bands) not in (0, 1, 3):
            raise SettingsError(
                f"BANDS={','.join(self.bands)} is not allowed.",
                expected="one band (grey) or three (red, green, blue)",
            )
        ends = self.range.rpartition(":")[2].split(",")
        if len(ends) == 2 and not float(ends[0]) < float(ends[1]):
            raise SettingsError(
                f"RANGE={self.range} is not allowed.", expected="LOW below HIGH, MIN below MAX"
            )


@dataclass(frozen=True, kw_only=True)
class MachineSettings(_Settings):
    """Device and engine; they change speed, not results beyond the engines' stated tolerance."""

    device: str = setting(
        "auto",
        "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'; a device that is not available is an error",
        affects="speed",
        form=r"auto|cpu|mps|cuda(:\d{1,3})?",
        says="auto, cpu, cuda, cuda:N or mps",
    )
    engine: str = setting(
        "auto",
        "'onnx' (CPU) or 'torch'; auto: the faster one for the device",
        affects="speed",
        choices=("auto", "onnx", "torch"),
    )
    extract_batch: int = setting(
        0,
        "images per batch of extraction; 0: chosen for the engine",
        affects="speed",
        high=65536,
    )
    workers: int = setting(
        0, "threads that read images; 0: one per core", affects="speed", high=1024
    )
    max_pixels: int = setting(
        100_000_000,
        "images of more pixels, once decoded, are refused",
        affects="speed",
        low=1,
    )


METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "average_precision",
    "auroc",
    "log_loss",
)
METHODS = ("svm", "softmax", "ridge", "centroid", "knn", "rbf")
RECIPE_HELP = "name of a recipe: its settings become the defaults; explicit settings override them"


_CLASS_WEIGHT = (
    "'balanced' gives all classes the same total weight in training; probabilities are then "
    "corrected to the classes' shares in the data"
)
_METRIC = (
    "the figure that matters: it decides on C (of the values not clearly worse by it, the one with "
    "the least log-loss), on the epoch, and on the best method and its tests"
)
_COST = (
    "a CSV of what each confusion costs (rows: true class, columns: predicted class); the mean "
    "cost then takes the place of METRIC"
)
_THRESHOLD = (
    "decision rule, set on held-out scores: 'recall:0.95' or 'precision:0.9' (of the last "
    "class, or recall:0.95:CLASS), or 'cost' (with COST); default: the most probable class"
)
_SET = "prediction sets that hold the true class in this share of cases, such as 0.9; 0: none"
_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class FitSettings(_Settings):
    """How a linear or other classical head is fitted."""

    folds: int = setting(
        5, "folds of the cross-validation that selects C (where there is no val)", low=2, high=1000
    )
    class_weight: str = setting("none", _CLASS_WEIGHT, choices=_WEIGHTS)
    train_views: str = setting(
        "mean",
        "with several views: train on their 'mean', on 'all' of them, or select among 'both'",
        choices=("mean", "all", "both"),
    )
    metric: str = setting("accuracy", _METRIC, choices=METRICS)
    cost: str = setting("", _COST)
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)


@dataclass(frozen=True, kw_only=True)
class HeadSettings(FitSettings):
    """Which heads are trained on the codes."""

    methods: tuple[str, ...] = setting(("svm",), "heads to train", choices=METHODS)
    splits: int = setting(
        1, "repeat on this many random train/test splits; 1: the data set's own split", low=1,
        high=1000,
    )  # fmt: skip
    seeds: int = setting(1, "repeat with this many seeds: SEED, SEED + 1, ...", low=1, high=1000)
    threshold: str = setting("", _THRESHOLD)
    set: float = setting(0.0, _SET, low=0.0, high=0.999)
    recipe: str = setting("", RECIPE_HELP, affects="place")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FitSettings):
    """Which methods are compared."""

    methods: tuple[str, ...] = setting(
        ("centroid", "ridge", "svm", "softmax", "rbf", "finetune", "scratch"),
        f"heads ({', '.join(METHODS)}), 'finetune' (the late layers), 'scratch' (the whole network "
        "from a random start), or recipes by name",
    )
    models: tuple[str, ...] = setting((), "networks to compare, with commas; default: MODEL")
    splits: int = setting(
        1, "repeat on this many random train/test splits; 1: the data set's own split", low=1,
        high=1000,
    )  # fmt: skip
    rope: float = setting(
        1.0,
        "differences up to this count as none: points of accuracy, hundredths of other figures",
        high=99.99,
    )
    seeds: int = setting(
        3, "training seeds of methods that train the network (on the data set's own split)",
        low=1, high=100,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CurveSettings(FitSettings):
    """Methods and sizes of the learning curve."""

    methods: tuple[str, ...] = setting(
        ("svm", "softmax"), f"heads ({', '.join(METHODS)}), 'finetune', 'scratch' or recipes"
    )
    sizes: tuple[str, ...] = setting(
        ("auto",),
        "images per class, with commas; auto: 5, 10, 20, 50, ... up to all",
        form=r"auto|all|[2-9]|[1-9]\d{1,8}",
        says="images per class, each at least 2, or auto, or all",
    )
    draws: int = setting(
        10, "random draws of training images; in each, a size contains all smaller ones", low=1,
        high=1000,
    )  # fmt: skip
    trained_draws: int = setting(
        3, "draws (and seeds) for methods that train the network", low=1, high=1000
    )


@dataclass(frozen=True, kw_only=True)
class AdviseSettings(FitSettings):
    """Which networks are considered."""

    models: tuple[str, ...] = setting(
        (),
        "networks to choose from, with commas, each MODEL or MODEL:WEIGHTS; default: MODEL and "
        "those whose codes of this data set are cached",
    )
    budget: str = setting(
        "5m",
        "time that trials of training may take, such as 90s, 5m or 1h; 0: none are made",
        form=r"\d+(\.\d+)?[smh]?",
        says="seconds, or a number with s, m or h",
    )

    @property
    def seconds(self) -> float:
        """The budget in seconds."""
        unit = {"s": 1, "m": 60, "h": 3600}.get(self.budget[-1:], 0)
        return float(self.budget[:-1]) * unit if unit else float(self.budget)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(_Settings):
    """Which layers are trained, from which start, and how."""

    recipe: str = setting("", RECIPE_HELP, affects="place")
    unfreeze: str = setting(
        "last",
        "what is trained: 'head' (the last linear layer), 'last' (the last stage too), a number "
        "of stages, a layer's name (it and all after it), or 'all'",
    )
    init: str = setting(
        "probe",
        "start: 'probe' (the fitted linear head as last layer), 'pretrained' (a random last "
        "layer), 'random' (all layers random)",
        choices=("probe", "pretrained", "random"),
    )
    probe: str = setting(
        "softmax", "linear head that INIT=probe starts from", choices=("softmax", "svm")
    )
    fresh: tuple[str, ...] = setting((), "further layers that are initialised at random")
    bn: str = setting(
        "auto",
        "BatchNorm statistics: 'frozen' (updated in trained layers only), 'eval' (never updated), "
        "'update' (updated in all layers); auto: eval with INIT=probe, whose head was fitted with "
        "the statistics as they are, else frozen",
        choices=("auto", "frozen", "eval", "update"),
    )
    epochs: int = setting(10, "passes over the training images", high=1_000_000)
    batch_size: int = setting(
        32, "training images per step, over all processes", low=1, high=1_000_000
    )
    optimizer: str = setting("adamw", "optimiser", choices=("sgd", "adam", "adamw", "rmsprop"))
    lr: float = setting(1e-4, "learning rate; the default suits adamw")
    head_lr: float = setting(1.0, "learning rate of the last layer, as a multiple of LR")
    layer_decay: float = setting(
        1.0, "learning rate of each stage, as a multiple of the next stage's", high=1
    )
    momentum: float = setting(0.9, "momentum (sgd, rmsprop)", high=1)
    weight_decay: float = setting(0.05, "weight decay; the default suits adamw")
    schedule: str = setting(
        "cosine", "learning-rate (LR) schedule", choices=("constant", "step", "cosine")
    )
    warmup: float = setting(1.0, "epochs of linear warm-up from a learning rate of 0")
    step_epochs: int = setting(7, "epochs between LR steps (SCHEDULE=step)", low=1)
    step_factor: float = setting(0.1, "factor of the LR at each step (SCHEDULE=step)")
    label_smoothing: float = setting(0.0, "share of each target spread over all classes", high=1)
    mixup: float = setting(0.0, "mixup: alpha of the Beta distribution; 0: none")
    ema: float = setting(
        0.0,
        "decay of an exponential moving average of the weights, which is then used; 0: none",
        high=1,
    )
    clip: float = setting(0.0, "gradient clipping: largest norm; 0: none")
    class_weight: str = setting(
        "none", f"{_CLASS_WEIGHT}; of the probe and of the loss", choices=_WEIGHTS, later=True
    )
    metric: str = setting("accuracy", _METRIC, choices=METRICS, later=True)
    cost: str = setting("", _COST, later=True)
    threshold: str = setting("", _THRESHOLD, later=True)
    set: float = setting(0.0, _SET, low=0.0, high=0.999, later=True)
    balance: str = setting(
        "none",
        "balance the classes of the loss by 'weights' or by 'sampling'; probabilities are then "
        "corrected to the classes' shares in the data",
        choices=("none", "weights", "sampling"),
    )
    augment: tuple[str, ...] = setting(
        ("auto",),
        "augmentations in order: resized-crop[:S], resize:S, center-crop, random-crop:P, hflip, "
        "vflip, dihedral, rotate:D, color:X, grey:P, randaugment[:M], erase:P; or 'auto', 'none'",
        form="(" + "|".join(AUGMENTATIONS) + r")(:[0-9.eE+-]+)?|auto|none",
        says="auto, none, or " + ", ".join(AUGMENTATIONS) + ", each perhaps with :number",
    )
    trunk_views: str = setting(
        "auto",
        "views of each training image in the trunk's cache: 'center', 'flip', 'dihedral', "
        "'random:K'; auto: those of VIEWS, or random:4 where VIEWS has one",
        form=f"auto|{VIEWS}",
        says="auto, center, flip, dihedral, or random:K with K from 1 to 64",
    )
    trunk: str = setting(
        "auto",
        "frozen trunk: 'cached' (computed once) or 'loop' (computed in every step, with new "
        "augmentations); auto: cached where possible and AUGMENT is auto",
        choices=("auto", "cached", "loop"),
    )
    disk: float = setting(
        20.0, "largest size of the trunk's cache, in GB", affects="place", high=INFINITE
    )
    normalise: str = setting(
        "",
        "'mean,std' of the input instead of those of the weights",
        form=rf"{NUMBER},{NUMBER}",
        says="mean,std, such as 0.5,0.25",
    )
    val_fraction: float = setting(
        0.2, "share of train held out where the data set has no val", low=0.01, high=0.9
    )
    choose: str = setting(
        "one_se",
        "epoch whose weights are kept, by val: 'one_se' (a later one replaces the kept one if it "
        "is better by more than one standard error, by the calibrated loss or by a METRIC other "
        "than accuracy: the start is kept unless training helps), lowest calibrated 'loss', "
        "highest 'accuracy', or the 'last'",
        choices=("one_se", "loss", "accuracy", "last"),
    )
    patience: int = setting(0, "early stopping: epochs without improvement; 0: never")
    refit: bool = setting(
        True,
        "where val is cut from train: after the epoch is selected, train again for as many epochs "
        "on all of train",
    )
    repeat: int = setting(
        0,
        "number of the repetition: the training seed is SEED + REPEAT (order, augmentation, new "
        "layers); val and the trunk's views stay those of SEED",
        high=100_000,
        later=True,
    )
    tune: int = setting(
        0, "pairs of learning rate and weight decay to try on val; 0: none", high=10_000
    )
    phases: tuple[str, ...] = setting(
        (), "several trainings in sequence, each 'name=value name=value' over the other settings"
    )

    @property
    def weighted(self) -> bool:
        """Whether the loss weighs the classes alike."""
        return self.balance == "weights" or (
            self.class_weight == "balanced" and self.balance == "none"
        )

    @property
    def balanced(self) -> bool:
        """Whether training sees all classes alike, so that the prior has to be corrected."""
        return self.class_weight == "balanced" or self.balance != "none"


@dataclass(frozen=True, kw_only=True)
class PredictSettings(_Settings):
    """Which images are predicted by which run, and the output format."""

    images: str = setting(
        "", "an image, a folder (with all below), a glob, a list file, a .zip or .tar",
        affects="place",
    )  # fmt: skip
    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting("", "file to write; empty: standard output", affects="place")
    format: str = setting(
        "auto",
        "output format; auto: by OUT's suffix, else csv",
        affects="place",
        choices=("auto", "csv", "jsonl"),
    )
    top: int = setting(0, "also list the K most probable classes")
    abstain: float = setting(
        0.0, "abstain where the highest probability is below this threshold", high=1
    )
    unlike: float = setting(
        0.99,
        "flag images as out-of-distribution whose distance to the nearest training image exceeds "
        "this quantile of the training images' own; 0: no distances",
        high=1,
    )
    nearest: int = setting(0, "also list the K nearest training images", high=1000)
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class ExplainSettings(_Settings):
    """Which images are explained by which run, and where the pictures go."""

    images: str = setting(
        "", "an image, a folder (with all below), a glob, a list file, a .zip or .tar",
        affects="place",
    )  # fmt: skip
    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting(
        "explained", "folder for the pictures and explanations.json", affects="place"
    )
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(_Settings):
    """What a run is exported to."""

    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting("exported", "folder for the model, its script and its card", affects="place")
    format: str = setting(
        "onnx",
        "onnx: one file; openvino: for OpenVINO; web: a folder for any browser",
        affects="place",
        choices=("onnx", "openvino", "web"),
    )
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class TableSettings(_Settings):
    """Where the data set is written as a table."""

    out: str = setting(
        "", "a .csv of path, label, split to write, corrections included; empty: none",
        affects="place",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse what is no table."""
        super().__post_init__()
        if self.out and not self.out.lower().endswith(".csv"):
            raise SettingsError(f"OUT={self.out}.", expected="a file called .csv")


@dataclass(frozen=True, kw_only=True)
class DoorSettings(_Settings):
    """Where a server listens, and its access token."""

    host: str = setting(
        "127.0.0.1", "address to listen on; any but this machine's own needs TOKEN", affects="place"
    )
    port: int = setting(8000, "port to listen on; 0: a free one", affects="place", high=65535)
    token: str = setting(
        "", "token that clients must send: 'Authorization: Bearer TOKEN'; '@file' reads it from a "
        "file", affects="place",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServeSettings(DoorSettings):
    """Which runs are served, and where."""

    run: tuple[str, ...] = setting(
        (), "runs with commas, each a path or name, or NAME=RUN to name it; the first is the "
        "default", affects="place",
    )  # fmt: skip
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class LabelSettings(DoorSettings):
    """The labelling page."""

    images: str = setting(
        "", "unlabelled images to label too: a folder, a glob, a list file", affects="place"
    )
    labels: str = setting(
        "", "the file of corrections; empty: labels.jsonl beside the results", affects="place"
    )


@dataclass(frozen=True, kw_only=True)
class NextSettings(_Settings):
    """Which unlabelled images to label next."""

    images: str = setting(
        "", "the unlabelled images: a folder, a glob, a list file", affects="place"
    )
    count: int = setting(50, "how many images to name", low=1)
    out: str = setting("", "a .csv to write them to; empty: they are printed", affects="place")


@dataclass(frozen=True, kw_only=True)
class LabelsSettings(_Settings):
    """How likely label errors are found."""

    folds: int = setting(
        5, "folds: each image is predicted by a head that was not trained on it", low=2, high=1000
    )
    share: float = setting(
        0.1, "share of the images that the record lists, most suspicious first", above=0, high=1
    )
    top: int = setting(20, "images that are printed; 0: all that the record lists", affects="place")
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)


@dataclass(frozen=True, kw_only=True)
class LayersSettings(_Settings):
    """How each layer is probed."""

    probe: str = setting("softmax", "linear head of each layer", choices=("softmax", "svm"))
    folds: int = setting(
        5, "folds of the cross-validation on train, the same for all layers", low=2, high=1000
    )
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)


@dataclass(frozen=True, kw_only=True)
class MapSettings(_Settings):
    """How many codes are shown in two dimensions."""

    shown: int = setting(
        3000, "largest number of images shown: test first, then a sample of train", low=10
    )


@dataclass(frozen=True, kw_only=True)
class RunsSettings(_Settings):
    """Which runs are listed, compared or exported."""

    data: str = setting("", "of one data set only: its name, or a path", affects="place")
    where: str = setting(
        "",
        "conditions, all of which must hold: 'method=svm accuracy>0.93 model~lite', with = != > >= "
        "< <= ~ (contains), on columns or fields of the record (chosen.C)",
        affects="place",
    )
    sort: str = setting(
        "-date", "columns to sort by, with commas; '-' before a column: descending", affects="place"
    )
    limit: int = setting(50, "runs that are printed; 0: all", affects="place")
    run: str = setting(
        "", "one run in full: its name, the beginning of it, or its .json", affects="place"
    )
    against: str = setting("", "a second run, to compare with RUN", affects="place")
    export: str = setting(
        "",
        "write the listed runs into OUT for 'mlflow' or 'tensorboard'",
        affects="place",
        choices=("", "mlflow", "tensorboard"),
    )
    out: str = setting("", "folder that EXPORT writes into", affects="place")

    def __post_init__(self) -> None:
        """Refuse settings that need others."""
        super().__post_init__()
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
class ReportSettings(_Settings):
    """What the report shows."""

    gallery: int = setting(
        24, "number of pictures of mistakes, of suspect labels and of duplicates", affects="place"
    )
    pictures: int = setting(
        5000, "largest number of thumbnails in the report; 0: none", affects="place"
    )
    evidence: tuple[str, ...] = setting(
        EVIDENCE,
        f"evidence that is updated first ({', '.join(EVIDENCE)}), or 'none'",
        affects="place",
        choices=(*EVIDENCE, "none"),
    )


def from_mapping(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build settings of class `cls` from those of `values` that are its fields.

    Files of earlier versions have settings under their earlier names (`RENAMED`).
    """
    names = {field.name for field in dataclasses.fields(cls)}
    named = {
        RENAMED.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return cls(**{name: value for name, value in named.items() if name in names})
