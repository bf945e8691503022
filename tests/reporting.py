"""Evidence for reports: made-up predictions, but records as the real builders write them.

Runs, comparison and audit come from the code that makes them for users; the evidence that takes
fits (curve, layers, map, labels) is written by its schema, with figures of no meaning.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.audit import audit
from cnn_codes.compare.aligned import aligned_predictions
from cnn_codes.compare.judge import judge_pairs
from cnn_codes.compare.marks import mark
from cnn_codes.compare.splits import judge_splits
from cnn_codes.compare.words import sentences
from cnn_codes.context import Context
from cnn_codes.datasets import SPLITS, Manifest, load_manifest
from cnn_codes.report import write_report
from cnn_codes.results.metrics import measure
from cnn_codes.results.predictions import Predictions, read_predictions
from cnn_codes.results.provenance import machine, versions
from cnn_codes.results.records import plain
from cnn_codes.results.runs import build_record, write_run
from cnn_codes.settings import DataSettings, PlaceSettings, ReportSettings
from pictures import encoded, jpeg
from PIL import Image

NAME = "compare-net-final-center-seed0"
HOSTILE = "<script>alert(1)</script> \"'`|*_&amp; $x$ </style>"


def write_images(
    root: Path, names: Sequence[str], *, train: int, test: int, noise: bool = False
) -> Path:
    """Write a set of small photographs; the first test image of each class is a leak.

    With `noise` the pictures are of noise, which no format makes small.
    """
    for k, name in enumerate(names):
        for split, count in (("train", train), ("test", test)):
            folder = root / split / name  # a class cannot have a slash in its name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 10_000 * k + (0 if i == 0 else i + (5000 if split == "test" else 0))
                data = _noise(seed) if noise else jpeg(seed, (96, 72))
                (folder / f"{split}{i:04}.jpg").write_bytes(data)
    return root


def _noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=90)


@dataclass
class Made:
    """A data set and the records on it."""

    manifest: Manifest
    results: Path
    cache: Path
    comparison: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        places = PlaceSettings(cache=str(self.cache), results=str(self.results))
        data = DataSettings(data=str(self.manifest.root))
        return Context(manifest=self.manifest, data=data, places=places)

    def command(self, stage: str, **more: str) -> str:
        """Spell a command with the places of this set."""
        named = {"DATA": self.manifest.root, "CACHE": self.cache, "RESULTS": self.results}
        named |= {key.upper(): value for key, value in more.items()}
        return " ".join(
            ["make", stage, *(f"{key}={shlex.quote(str(one))}" for key, one in named.items())]
        )

    @property
    def folder(self) -> Path:
        return self.results / self.manifest.name

    def report(self, **settings: Any) -> str:
        """Write the report and give its HTML."""
        html, _ = write_report(self.context, NAME, ReportSettings(**settings))
        return html.read_text(encoding="utf-8")

    @property
    def markdown(self) -> str:
        return (self.folder / "report-net-final-center-seed0.md").read_text(encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        path = self.folder / f"{record['name']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain(record)), encoding="utf-8")


def make(
    root: Path,
    *,
    names: Sequence[str] = ("cat", "dog"),
    train: int = 12,
    test: int = 20,
    splits: int = 1,
    evidence: bool = True,
    noise: bool = False,
    methods: Sequence[str] = ("centroid", "svm", "finetune", "scratch"),
) -> Made:
    """Write images, runs, a comparison and, if asked for, all other evidence below `root`."""
    data = write_images(root / "data" / "pets", names, train=train, test=test, noise=noise)
    cache, results = root / "cache", root / "results"
    manifest = load_manifest(DataSettings(data=str(data)), PlaceSettings(cache=str(cache)))
    made = Made(manifest, results, cache)
    runs = [
        [_run(made, method, number, split, splits) for split in range(splits)]
        for number, method in enumerate(methods)
    ]
    _compare(made, runs, splits)
    if evidence:
        _write_evidence(made)
        audit(made.context)
    return made


def _predictions(made: Made, quality: float, seed: int) -> Predictions:
    """Make probabilities that favour the truth by `quality`; some images in exact ties."""
    manifest = made.manifest
    rows = np.flatnonzero((manifest.split == SPLITS.index("test")) & ~manifest.leaks)
    random = np.random.default_rng(seed)
    k = manifest.n_classes
    scores = random.normal(0, 1, (len(rows), k))
    scores[np.arange(len(rows)), manifest.labels[rows]] += quality
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    p[::7] = p[0]
    return Predictions(
        tuple(manifest.paths[row] for row in rows), manifest.labels[rows], p, manifest.class_names
    )


def _run(made: Made, method: str, number: int, split: int, splits: int) -> dict[str, Any]:
    found = _predictions(made, [0.4, 2.0, 2.1, 0.1, 1.5][number % 5], 100 * number + split)
    name = f"{method}-net-final-center-64-seed0" + (f"-{split + 1}of{splits}" * (splits > 1))
    extra: dict[str, Any] = {"n_parameters": 10 + number}
    chosen: dict[str, Any] = {"C": 0.01 * 10**number}
    if method in ("finetune", "scratch"):
        chosen = {"epoch": 2}
        extra["curve"] = [
            {"epoch": e, "phase": 0, "train_loss": 1 / (e + 1) if e else None, "val_loss": 0.9,
             "train_accuracy": 0.5 + 0.1 * e if e else None, "val_accuracy": 0.5 + 0.09 * e}
            for e in range(4)
        ]  # fmt: skip
    record = build_record(
        run=name, data=made.manifest.name, method=method, model="net", layers=["final"],
        views="center", size=64, seed=0, class_names=made.manifest.class_names,
        splits=made.manifest.counts(), chosen=chosen,
        metrics={"test": measure(found.labels, found.probabilities)},
        times_s={"codes": 2.0, "fit": 0.5 * 4**number, "predict": 0.01, "total": 3.0},
        fingerprint=f"{number}{split}" * 32, command=f"python -m pipeline compare {HOSTILE}",
        extra=extra,
    )  # fmt: skip
    write_run(made.folder, record, found)
    return record | {"found": found}


def _compare(made: Made, runs: list[list[dict[str, Any]]], splits: int) -> None:
    entries = []
    for every in runs:
        first = every[0]
        test = first["metrics"]["test"]
        figures = {
            key: None if test[key] is None else np.mean([r["metrics"]["test"][key] for r in every])
            for key in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "brier",
                        "ece")
        }  # fmt: skip
        entry = {
            **{key: first[key] for key in ("method", "model", "layers", "views", "size", "run")},
            **figures,
            "runs": [one["run"] for one in every],
            "accuracy_ci95": test["accuracy_ci95"] if splits == 1 else None,
            "times_s": {key: first["times_s"][key] for key in ("codes", "fit", "predict")},
            "images_per_s": 100.0, "disk_bytes": 5_000_000, "n_trained": first["n_parameters"],
            "n_network": 100, "n_test": test["n_images"], "reused": False,
            "fingerprint": first["fingerprint"], "asked": "0" * 64,
        }  # fmt: skip
        if splits > 1:
            values = [one["metrics"]["test"]["accuracy"] for one in every]
            entry |= {"values": values, "accuracy_sd": float(np.std(values, ddof=1))}
        entries.append(entry)
    found = aligned_predictions([every[0]["found"] for every in runs])
    n_test = len(found[0].labels)
    pairs = (
        judge_pairs([[one] for one in found])
        if splits == 1
        else judge_splits([one["values"] for one in entries], n_train=24, n_test=n_test, rope=0.01)
    )
    mark(entries, pairs)
    record = {
        "schema": 1, "kind": "compare", "name": NAME, "data": made.manifest.name,
        "class_names": list(made.manifest.class_names), "models": ["net"], "seed": 0,
        "n_test": n_test, "n_splits": splits, "rope": 0.01,
        "test": "mcnemar" if splits == 1 else "corrected_t", "entries": entries, "pairs": pairs,
        "left_out": [], "warnings": [f"A warning that names {HOSTILE}."], "versions": versions(),
        "provenance": {
            "settings": {}, "command": f"python -m pipeline compare {HOSTILE}",
            "date": "2026-01-02T03:04:05+00:00", "machine": machine(),
        },
    }  # fmt: skip
    record["sentences"] = sentences(record)
    made.comparison = plain(record)
    made.write(record)


def write_maps(made: Made, *, of: str = "") -> list[str]:
    """Write maps of the best run's mistakes, brightest at the upper right; give their paths."""
    best = next(one for one in made.comparison["entries"] if one["best"])
    found = read_predictions(made.folder / f"{best['run']}.predictions.csv")
    wrong = found.most_confident_errors()
    evidence = np.full((4, 4), -0.25)
    evidence[0, 3] = 2.0
    images = [
        {"path": found.paths[row], "explained": found.class_names[found.predicted[row]],
         "box": [0.25, 0.125, 0.5, 0.75], "evidence": evidence}
        for row in wrong
    ]  # fmt: skip
    made.write({
        "schema": 1, "data": made.manifest.name, "model": "net", "seed": 0, "kind": "explained",
        "name": f"explained-{best['run']}", "fingerprint": "f" * 64, "versions": versions(),
        "run": best["run"], "run_fingerprint": of or best["fingerprint"], "images": images,
        "method": "class activation map", "exact": True, "warnings": [], "sentences": [],
        "provenance": {"command": "make report", "date": "2026-01-02T03:04:05+00:00"},
    })  # fmt: skip
    return [found.paths[row] for row in wrong]


def _write_evidence(made: Made) -> None:
    manifest = made.manifest
    names = list(manifest.class_names)
    random = np.random.default_rng(5)
    frame: dict[str, Any] = {
        "schema": 1, "data": manifest.name, "model": "net", "seed": 0, "fingerprint": "f" * 64,
        "warnings": [], "versions": versions(), "class_names": names,
        "provenance": {"command": "python -m pipeline x", "date": "2026-01-02T03:04:05+00:00"},
    }  # fmt: skip
    xy = random.normal(0, 1, (manifest.n_images, 2)) + manifest.labels[:, None]
    images = [
        {"path": path, "split": SPLITS[split], "label": int(label)}
        for path, split, label in zip(
            manifest.paths, manifest.split, manifest.labels, strict=True
        )
    ]  # fmt: skip
    made.write(frame | {
        "kind": "map", "name": "map-net-seed0", "layer": "final", "images": images,
        "n_images": len(images), "n_shown": len(images), "sentences": ["A map."],
        "projections": {"pca": {"xy": xy, "explained": [0.3, 0.2]}, "tsne": {"xy": -xy}},
    })  # fmt: skip
    doubtful = [
        {"path": manifest.paths[i], "split": "train", "label": names[manifest.labels[i]],
         "suggested": names[manifest.labels[i] - 1], "p_label": 0.1, "p_suggested": 0.9,
         "score": 0.1, "certain": False, "suspect": True, "copies": []}
        for i in range(4)
    ]  # fmt: skip
    made.write(frame | {
        "kind": "mislabelled", "name": "mislabelled-net-seed0", "method": "confident",
        "n_images": len(images), "n_listed": 4, "images": doubtful,
        "sentences": [f"Some are doubtful, {HOSTILE} too."],
    })  # fmt: skip
    layers = [
        {"layer": f"blocks.{i}", "code_dim": 8 * i, "depth": i / 3, "accuracy": 0.6 + 0.1 * i,
         "sd": 0.02, "C": 10.0**-i}
        for i in range(4)
    ]  # fmt: skip
    made.write(frame | {
        "kind": "layers", "name": "layers-net-seed0", "layers": layers, "best": "blocks.3",
        "n_train": 24, "folds": 5, "sentences": ["Later is better."],
    })  # fmt: skip
    sizes = [5, 10, 20]
    curves = {
        method: {
            "model": "net", "sizes": sizes, "values": [[a, a + 0.02] for a in means],
            "mean": [a + 0.01 for a in means], "sd": [0.014] * 3,
            "ci95": [[a - 0.05, a + 0.05] for a in means], "fit_s": [0.1] * 3,
        }
        for method, means in (("svm", [0.7, 0.75, 0.8]), ("finetune", [0.6, 0.74, 0.85]))
    }  # fmt: skip
    made.write(frame | {
        "kind": "curve", "name": "curve-net-seed0", "methods": curves, "draws": 2, "sizes": sizes,
        "crossings": [{"a": "svm", "b": "finetune", "size": 11.5, "ci95": [9.0, 15.0],
                       "share": 0.99, "clear": True, "direction": "finetune"}],
        "sentences": ["They cross at 12."],
    })  # fmt: skip
    made.write(frame | {
        "kind": "advise", "name": "advise-net-seed0", "case": 1,
        "strategy": {"method": "svm", "model": "net", "layers": ["final"], "unfreeze": "",
                     "command": "make svm DATA=pets"},
        "sentences": ["Take the SVM."],
    })  # fmt: skip
