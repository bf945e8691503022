"""An epoch of training: from the trunk's cache, with the trunk in the loop, of the whole network.

Hypotheses, two cores, files decoded wherever a file is read: with EfficientNet-Lite0's last two
stages and head convolution trained, an epoch from the cache is at least 2.5 times as fast as one
with the frozen trunk at every step, and 6 times as fast as one of the whole network; with
ResNet-18's ``layer4``, 1.7 and 4 times.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_codes.finetune import finetune
from cnn_codes.settings import (
    CodesSettings,
    FinetuneSettings,
    PlaceSettings,
)

from benchmarks.sets import opened
from benchmarks.stage_one import some_of

ROUNDS = 3
N_IMAGES = 320
EPOCHS = 2  # the first warms up, the last is the one timed
NETWORKS = (
    ("efficientnet_lite0", "default", "3", "pretrained"),
    ("efficientnet_lite0", "default", "3", "probe"),  # BatchNorm's statistics stay as they are
    ("resnet18", "none", "layer4", "pretrained"),
)


def bench_training(data_root: Path) -> list[dict[str, Any]]:
    """Time the three ways in turn for each network; ratios of the times of each round."""
    return [_network(data_root, *network) for network in NETWORKS]


def _network(data_root: Path, model: str, weights: str, unfreeze: str, init: str) -> dict[str, Any]:
    codes = CodesSettings(model=model, weights=weights)
    ways = {
        "cached": {"unfreeze": unfreeze, "trunk": "cached"},
        "loop": {"unfreeze": unfreeze, "trunk": "loop"},
        "whole": {"unfreeze": "all", "trunk": "loop"},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = PlaceSettings(data_root=str(data_root), cache=folder)
        context = opened("hotdog", places, codes)
        context = replace(context, manifest=some_of(context.manifest, N_IMAGES))
        for number in range(ROUNDS):
            for name, way in ways.items():
                settings = FinetuneSettings(
                    **way, init=init, trunk_views="random:4", epochs=EPOCHS, refit=False
                )
                results = replace(places, results=f"{folder}/results{number}")
                record = finetune(replace(context, places=results), settings)
                seconds[name].append(record["curve"][-1]["seconds"])
                counts[name] = sum(record["splits"]["train"].values())
    return {
        "model": model,
        "unfreeze": unfreeze,
        "init": init,
        "images_per_s": {n: counts[n] / statistics.median(s) for n, s in seconds.items()},
        "epoch_s": seconds,
        "cached_over_loop": _ratio(seconds["loop"], seconds["cached"]),
        "cached_over_whole": _ratio(seconds["whole"], seconds["cached"]),
    }


def _ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
