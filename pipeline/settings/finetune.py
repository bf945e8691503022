"""Settings of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from .codes import NUMBER, VIEWS
from .fields import INFINITE, Settings, setting
from .heads import (
    CLASS_WEIGHT_HELP,
    CLASS_WEIGHTS,
    COST_HELP,
    METRIC_HELP,
    METRICS,
    RECIPE_HELP,
    SET_HELP,
    THRESHOLD_HELP,
)

AUGMENTATIONS = (
    "resized-crop", "resize", "center-crop", "random-crop", "hflip", "vflip", "dihedral", "rotate",
    "color", "grey", "randaugment", "erase",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Settings):
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
        "none",
        f"{CLASS_WEIGHT_HELP}; of the probe and of the loss",
        choices=CLASS_WEIGHTS,
        later=True,
    )
    metric: str = setting("accuracy", METRIC_HELP, choices=METRICS, later=True)
    cost: str = setting("", COST_HELP, later=True)
    threshold: str = setting("", THRESHOLD_HELP, later=True)
    set: float = setting(0.0, SET_HELP, low=0.0, high=0.999, later=True)
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
    deepen: bool = setting(
        True,
        "where the default training (UNFREEZE=last from the probe) improves val by more than one "
        "standard error: try the last three stages too, as RECIPE=late-adapted trains them, and "
        "keep them if they improve val by more than one standard error again",
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
