"""The strategies that advice chooses among: what each is expected to gain, and to cost.

Linear heads are judged by cross-validation on train; training is tried (:mod:`.trial`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compare.runs import Network
from ..context import Context
from ..results.measures import ALPHA
from ..settings import (
    AdviseSettings,
    FinetuneSettings,
    FitSettings,
)
from .sample import Sample

if TYPE_CHECKING:
    from ..heads.held_out import HeldOut

SIGNIFICANT = 1.64  # standard errors by which a linear option must beat the baseline: 5 %
LATE_LAYERS = 3


@dataclass(frozen=True)
class Option:
    """One strategy.

    Attributes
    ----------
    strategy : str
        ``last layer``, ``all layers``, ``late layers``, ``fine-tune late layers``, ``fine-tune
        all``.
    method, model : str
        A head of stage two, or ``finetune``; the network.
    layers : list of str
        That a head reads; empty for fine-tuning.
    unfreeze : str
        What fine-tuning trains; empty for heads.
    command : str
        That runs it.
    accuracy : float or None
        Held out, cross-validated on train; None where that would mean training the network.
    gain_points : float or None
        Over the baseline, in points of accuracy on the same held-out images; None: not tried.
    interval : list of float or None
        Of the gain, 95 %.
    error_points : float
        Standard error of the gain; 0 where it was not measured.
    p : float or None
        Of trained options: Holm-adjusted exact test against the baseline (McNemar, or sign-flip
        over groups).
    gain_from : str
        Where the gain is known from.
    cost_s : float
        Seconds from nothing cached: codes or trunk, and fit.
    cost_from : str
        What the cost was worked out from.
    """

    strategy: str
    method: str
    model: str
    layers: list[str]
    unfreeze: str
    command: str
    accuracy: float | None
    gain_points: float | None
    interval: list[float] | None
    error_points: float
    gain_from: str
    cost_s: float
    cost_from: str
    p: float | None = None


def linear_options(
    context: Context, network: Network, sample: Sample, settings: AdviseSettings
) -> list[Option]:
    """Cross-validate linear heads on the last layer, on the late layers, and on all of them.

    The first option is the baseline: of SVM and softmax on the last layer, the one of the lower
    log-loss.
    """
    from ..heads.held_out import held_out, paired_gain

    layers = list(network.codes.layers)
    groups: list[tuple[str, list[str]]] = [("last layer", layers[-1:])]
    if len(layers) > LATE_LAYERS:
        groups.append(("late layers", layers[-LATE_LAYERS:]))
    if len(layers) > 1:
        groups.append(("all layers", layers))
    found: list[tuple[str, list[str], str, HeldOut]] = []
    with context.progress("linear options", 2 * len(groups), "heads") as meter:
        for name, some in groups:
            codes = _stacked(network, some, sample)
            for method in ("svm", "softmax"):
                one = held_out(
                    codes, sample.labels, sample.folds, method=method,
                    n_classes=sample.n_classes, jobs=settings.jobs,
                    balanced=settings.class_weight == "balanced",
                )  # fmt: skip
                found.append((name, some, method, one))
                meter.advance()
    best = min((one for one in found if one[0] == "last layer"), key=lambda one: one[3].log_loss)
    found.remove(best)
    options = []
    scale = sample.n_train / len(sample.rows)  # a sample stands for all
    for name, some, method, one in [best, *found]:
        gain, ends = paired_gain(one, best[3], sample.groups)
        options.append(
            Option(
                strategy=name,
                method=method,
                model=network.model,
                layers=some,
                unfreeze="",
                command=command_of(
                    context, network, method, layers=some, every=layers, fit=settings
                ),
                accuracy=one.accuracy,
                gain_points=100 * gain,
                interval=[100 * end for end in ends],
                error_points=100 * (ends[1] - ends[0]) / (2 * 1.96),
                gain_from="cross-validated on train",
                cost_s=network.codes.extraction_s + scale * one.seconds,
                cost_from="measured: codes, and the fits of the cross-validation",
            )
        )
    return options


def _stacked(network: Network, layers: Sequence[str], sample: Sample) -> Any:
    """Codes (N, V, D) of some layers side by side."""
    n_views = int(network.codes.config["n_views"])
    blocks = [
        np.asarray(network.codes[layer][sample.rows], np.float32).reshape(
            len(sample.rows), n_views, -1
        )
        for layer in layers
    ]
    return np.concatenate(blocks, axis=2)


def choose(options: Sequence[Option]) -> Option:
    """Choose the baseline, unless another option is significantly better.

    Of several linear options that are better than the baseline, those are taken that are within
    one standard error of the best, and of these the one of the fewest layers. A trained one is
    taken if its own test says that it is better (Holm-adjusted) and no linear option gains as much.

    Parameters
    ----------
    options : sequence of Option
        The baseline first, linear ones from few layers to many.
    """
    best = options[0]
    linear = [
        one for one in options[1:] if one.method != "finetune" and one.gain_points is not None
    ]
    better = [one for one in linear if _points(one) > SIGNIFICANT * one.error_points]
    if better:
        top = max(better, key=_points)
        near = [one for one in better if _points(one) >= _points(top) - top.error_points]
        fewest = [one for one in near if one.strategy == near[0].strategy]
        best = max(fewest, key=_points)
    trained = [
        one
        for one in options
        if one.p is not None and one.p <= ALPHA and _points(one) > max(0.0, _points(best))
    ]
    return max(trained, key=_points, default=best)


def _points(option: Option) -> float:
    return option.gain_points or 0.0


def command_of(
    context: Context,
    network: Network,
    stage: str,
    *,
    layers: Sequence[str] = (),
    every: Sequence[str] = (),
    training: FinetuneSettings | None = None,
    fit: FitSettings | None = None,
) -> str:
    """Spell the command of a stage, with every setting that is not the default."""
    more: dict[str, object] = {"layers": None}
    if layers and list(layers) == list(every) and len(every) > 1:
        more["layers"] = network.asked.layers
    elif layers and list(layers) != ["final"]:
        more["layers"] = layers
    if training and training.recipe:
        more["recipe"] = training.recipe
    elif training:
        more["unfreeze"] = training.unfreeze
    for name, usual in vars(FitSettings()).items() if fit else ():
        if name != "jobs" and getattr(fit, name) != usual:
            more[name] = getattr(fit, name)
    return replace(context, codes=network.asked).command_for(stage, more)
