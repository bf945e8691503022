"""What the tests of prediction share: a folder of a few real images, and heads trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.cli import main
from cnn_codes.codes.extract import extract
from cnn_codes.heads.run import fit_heads
from cnn_codes.predict import Classifier
from cnn_codes.results.predictions import Predictions, read_predictions
from cnn_codes.settings import HeadSettings, from_mapping
from conftest import SMALL, StageOne
from numpy.typing import NDArray
from tuning import few_images

REAL: dict[str, Any] = {"model": "efficientnet_lite0", "weights": "default", "size": 0}


@dataclass
class Workshop:
    """A few real images, a cache and a results folder."""

    images: Path
    cache: Path
    results: Path

    @classmethod
    def open(cls, hotdog: Path, folder: Path, backbones: Path) -> Workshop:
        backbones.mkdir(exist_ok=True)
        (folder / "cache").mkdir()
        (folder / "cache" / "backbones").symlink_to(backbones)
        images = few_images(hotdog, folder / "few")
        return cls(images, folder / "cache", folder / "results")

    def heads(self, *methods: str, **settings: Any) -> list[Path]:
        """Train heads with the small network, unless told; give their records' paths."""
        values = (
            SMALL | {"folds": 2, "methods": methods or ("svm",), "seed": 0, "jobs": 1} | settings
        )
        stage_one = StageOne(self.cache)
        manifest = stage_one.manifest(self.images, seed=values["seed"])
        named = {"data": str(self.images), "results": self.results, **values}
        context = stage_one.context(manifest, **named)
        records = fit_heads(context, extract(context).codes, from_mapping(HeadSettings, values))
        return [context.folder / f"{record['run']}.json" for record in records]

    def load(self, run: Path, **options: Any) -> Classifier:
        return Classifier.load(run, cache=self.cache, offline=True, **options)

    def stored(self, run: Path) -> Predictions:
        return read_predictions(run.with_name(f"{run.stem}.predictions.csv"))

    def again(self, run: Path, **options: Any) -> NDArray[np.float64]:
        """Predict the images of the stored predictions anew."""
        paths = [self.images / path for path in self.stored(run).paths]
        return self.load(run, **options).predict_proba(paths)

    def predict(self, images: Path | str, run: Path | str, **settings: Any) -> int:
        """Run the command in this process and give its exit code."""
        values = {"images": images, "run": run, "cache": self.cache, "results": self.results}
        named = [f"{k.upper()}={v}" for k, v in (values | {"offline": 1} | settings).items()]
        return main(["predict", *named])

    def test_images(self) -> list[Path]:
        return sorted((self.images / "test").rglob("*.*"))
