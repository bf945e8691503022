"""Settings of the heads, and of what compares them: METHODS and how they are fitted."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError
from .fields import Settings, setting

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
CLASS_WEIGHT_HELP = (
    "'balanced' gives all classes the same total weight in training; probabilities are then "
    "corrected to the classes' shares in the data"
)
METRIC_HELP = (
    "the figure that matters: it decides on C (of the values not clearly worse by it, the one with "
    "the least log-loss), on the epoch, and on the best method and its tests"
)
COST_HELP = (
    "a CSV of what each confusion costs (rows: true class, columns: predicted class); the mean "
    "cost then takes the place of METRIC"
)
THRESHOLD_HELP = (
    "decision rule, set on held-out scores: 'recall:0.95' or 'precision:0.9' (of the last "
    "class, or recall:0.95:CLASS), or 'cost' (with COST); default: the most probable class"
)
SET_HELP = "prediction sets that hold the true class in this share of cases, such as 0.9; 0: none"
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class FitSettings(Settings):
    """How a linear or other classical head is fitted."""

    folds: int = setting(
        5, "folds of the cross-validation that selects C (where there is no val)", low=2, high=1000
    )
    class_weight: str = setting("none", CLASS_WEIGHT_HELP, choices=CLASS_WEIGHTS)
    train_views: str = setting(
        "mean",
        "with several views: train on their 'mean', on 'all' of them, or select among 'both'",
        choices=("mean", "all", "both"),
    )
    metric: str = setting("accuracy", METRIC_HELP, choices=METRICS)
    cost: str = setting("", COST_HELP)
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)


@dataclass(frozen=True, kw_only=True)
class TestedSettings(FitSettings):
    """What heads are tested on."""

    splits: int = setting(
        1, "repeat on this many random train/test splits; 1: the data set's own split", low=1,
        high=1000,
    )  # fmt: skip
    test: str = setting(
        "split",
        "what is tested on: the images of the 'split', or all images by 'cv:K', nested "
        "cross-validation in K folds of groups, three times for heads (cv:KxR: R times); for sets "
        "of less than about 1,000 images",
        form=r"split|cv:([3-9]|1\d|20)(x[1-9]\d?)?",
        says="split, or cv:K with K from 3 to 20, or cv:KxR",
        later=True,
    )

    def __post_init__(self) -> None:
        """Refuse random splits of folds."""
        super().__post_init__()
        if self.splits > 1 and self.test != "split":
            raise SettingsError(
                f"SPLITS={self.splits} and TEST={self.test} do not go together.",
                expected="random splits, or folds",
                todo="leave one of them out",
            )

    @property
    def outer(self) -> tuple[int, int]:
        """Outer folds and repetitions of TEST; (0, 0) for the data set's own split."""
        if self.test == "split":
            return 0, 0
        folds, _, repeats = self.test.removeprefix("cv:").partition("x")
        return int(folds), int(repeats or 3)


@dataclass(frozen=True, kw_only=True)
class HeadSettings(TestedSettings):
    """Which heads are trained on the codes."""

    methods: tuple[str, ...] = setting(("svm",), "heads to train", choices=METHODS)
    seeds: int = setting(1, "repeat with this many seeds: SEED, SEED + 1, ...", low=1, high=1000)
    threshold: str = setting("", THRESHOLD_HELP)
    set: float = setting(0.0, SET_HELP, low=0.0, high=0.999)
    recipe: str = setting("", RECIPE_HELP, affects="place")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(TestedSettings):
    """Which methods are compared."""

    methods: tuple[str, ...] = setting(
        ("centroid", "ridge", "svm", "softmax", "rbf", "finetune", "scratch"),
        f"heads ({', '.join(METHODS)}), 'finetune' (the late layers), 'scratch' (the whole network "
        "from a random start), or recipes by name",
    )
    models: tuple[str, ...] = setting((), "networks to compare, with commas; default: MODEL")
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
