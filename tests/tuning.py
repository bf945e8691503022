"""What the tests of fine-tuning share: a few real images, and the stage with its settings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.finetune import finetune
from cnn_codes.progress import Messages
from cnn_codes.settings import (
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    MachineSettings,
    PlaceSettings,
    from_mapping,
)

# A ResNet of timm of half a million parameters at 64 px, run by torch: no export.
USUAL: dict[str, Any] = {
    "model": "test_resnet",
    "weights": "none",
    "size": 64,
    "engine": "torch",
    "device": "cpu",
    "offline": True,
    "unfreeze": "layer4",
    "trunk_views": "random:3",
    "epochs": 2,
    "batch_size": 8,
    "lr": 1e-3,
    "refit": False,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "warmup": 0.0,
    "bn": "frozen",
    "choose": "accuracy",
}


def few_images(source: Path, target: Path, n_train: int = 12, n_test: int = 6) -> Path:
    """Copy a few real images of each class: target/<split>/<class>/*."""
    for split, n in (("train", n_train), ("test", n_test)):
        for kind in sorted((source / split).iterdir()):
            folder = target / split / kind.name
            folder.mkdir(parents=True)
            # The first test images of this set are leaks; take others.
            for path in sorted(kind.iterdir())[20 : 20 + n]:
                shutil.copy(path, folder)
    return target


@dataclass
class Tuning:
    """Stage three on a few images, with folders of the test's own."""

    data: Path
    places: PlaceSettings
    said: list[str] = field(default_factory=list)

    def manifest(self, **settings: Any) -> Manifest:
        values = {"data": str(self.data), **USUAL, **settings}
        return load_manifest(from_mapping(DataSettings, values), self.places)

    def __call__(self, manifest: Manifest | None = None, **settings: Any) -> dict[str, Any]:
        values = {"data": str(self.data), **USUAL, **settings}
        hooks = {k: values.pop(k) for k in ("say", "progress") if k in values}
        split = values.pop("split", None)
        context = Context(
            manifest=manifest or self.manifest(**settings),
            data=from_mapping(DataSettings, values),
            codes=from_mapping(CodesSettings, values),
            machine=from_mapping(MachineSettings, values),
            places=self.places,
            messages=Messages(**{"say": self.said.append, **hooks}),
        )
        return finetune(context, from_mapping(FinetuneSettings, values), split)

    @property
    def results(self) -> Path:
        return Path(self.places.results) / self.data.name
