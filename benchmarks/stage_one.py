"""Stage one against the loop of every tutorial, and against what the machine can do.

Hypotheses, two cores, photographs of some 300 px, files to published HDF5, steady rate:

- EfficientNet-Lite0 runs at least 7 times as fast as torchvision's PIL transforms in a
  ``DataLoader`` with two workers and PyTorch eager under ``no_grad``; ResNet-18 1.4 times;
- at least 85 % of the bound 1 / (1 / network alone + 1 / decoding alone), both on all cores, is
  reached;
- the first image is through in 2 s when the exported network is at hand, in 15 s when it is not.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.backbones import load_card
from cnn_codes.backbones.engine import n_cores, open_engine
from cnn_codes.backbones.preprocess import Views, read_views
from cnn_codes.codes.extract import extract
from cnn_codes.datasets import Manifest
from cnn_codes.settings import CodesSettings, MachineSettings, PlaceSettings

from benchmarks.sets import opened

ROUNDS = 3
N_OURS, N_TUTORIAL = 800, 192


def bench_stage_one(data_root: Path, model: str, weights: str) -> dict[str, Any]:
    """Measure one network on hotdog: our rate, the tutorial's, the bound, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        places = PlaceSettings(data_root=str(data_root), cache=folder)
        codes = CodesSettings(model=model, weights=weights)
        context = opened("hotdog", places, codes)
        manifest = some_of(context.manifest, N_OURS)
        context = replace(context, manifest=manifest)
        source: dict[str, Any] = {"cache": Path(folder), "seed": 0, "offline": True}
        card = load_card(codes, **source)
        layers = card.resolve(codes.layers)
        engine = open_engine(card, layers, card.preprocessing, codes, MachineSettings(), **source)
        tutorial = tutorial_loop(manifest, codes, Path(folder), card.preprocessing)
        blobs = [(manifest.root / path).read_bytes() for path in manifest.paths]
        size = card.preprocessing.size
        noise = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), dtype=np.uint8)

        def ours() -> float:
            shutil.rmtree(Path(folder) / manifest.name, ignore_errors=True)
            done = extract(context)
            return done.n_new / done.run_s

        def decode() -> float:
            return all_cores(
                lambda blob: read_views(blob, card.preprocessing, Views("center", 1), ""), blobs
            )

        def network() -> float:
            step = engine.batch
            batches = [noise[i : i + step] for i in range(0, 64, step)] * 6
            return step * all_cores(engine.run, batches)

        measured: dict[str, list[float]] = {}
        for _ in range(ROUNDS):  # in turn, so that all see the same machine
            for name, run in (
                ("ours", ours), ("tutorial", tutorial), ("decode", decode), ("network", network)
            ):  # fmt: skip
                measured.setdefault(name, []).append(run())
    rate = {name: statistics.median(values) for name, values in measured.items()}
    pairs = zip(measured["network"], measured["decode"], strict=True)
    bounds = [1 / (1 / n + 1 / d) for n, d in pairs]

    def ratio(over: list[float], under: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(over, under, strict=True))

    return {
        "model": model,
        "images_per_s": measured,
        "times_tutorial": ratio(measured["ours"], measured["tutorial"]),
        "share_of_bound": ratio(measured["ours"], bounds),
        "bound_images_per_s": statistics.median(bounds),
        "median_images_per_s": rate,
    }


def some_of(manifest: Manifest, n: int) -> Manifest:
    """Take `n` images, evenly spread."""
    rows = np.linspace(0, manifest.n_images - 1, min(n, manifest.n_images)).astype(int)
    return replace(
        manifest,
        paths=tuple(manifest.paths[i] for i in rows),
        sha256=manifest.sha256[rows],
        labels=manifest.labels[rows],
        split=manifest.split[rows],
        extra={},
        strata=None,
    )


def tutorial_loop(
    manifest: Manifest,
    codes: CodesSettings,
    cache: Path,
    preprocessing: Any,
    device: str = "cpu",
    *,
    workers: int = 2,
    batch: int = 32,
    n_images: int = N_TUTORIAL,
) -> Callable[[], float]:
    """Build what tutorials show: PIL transforms, a DataLoader with workers, eager PyTorch."""
    import torch
    from cnn_codes.backbones.card import load_network
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    _, network = load_network(codes, cache=cache, seed=0, offline=True)
    network.to(device)
    mode = getattr(transforms.InterpolationMode, preprocessing.interpolation.upper())
    transform = transforms.Compose(
        [
            transforms.Resize(round(preprocessing.size / preprocessing.crop_ratio), mode),
            transforms.CenterCrop(preprocessing.size),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return n_images

        def __getitem__(self, i: int) -> Any:
            path = manifest.root / manifest.paths[i * manifest.n_images // n_images]
            return transform(Image.open(path).convert("RGB"))

    def run() -> float:
        loader = DataLoader(
            Images(), batch_size=batch, num_workers=workers, pin_memory=device != "cpu"
        )
        batches = iter(loader)
        with torch.no_grad():
            network(next(batches).to(device)).cpu()  # the workers' start does not count
            began = time.perf_counter()
            for images in batches:
                network(images.to(device, non_blocking=True)).cpu()
        return (n_images - batch) / (time.perf_counter() - began)

    return run


def all_cores(run: Callable[[Any], Any], items: list[Any]) -> float:
    """Run over all items, a thread a core: items a second."""
    with ThreadPoolExecutor(n_cores()) as pool:
        began = time.perf_counter()
        for _ in pool.map(run, items):
            pass
        return len(items) / (time.perf_counter() - began)


def bench_start(data_root: Path) -> dict[str, float]:
    """Measure whole commands on 8 images, in seconds: first ever, and with the graph at hand."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            for name in ("hotdog", "not-hotdog"):
                target = Path(folder) / "data" / "few" / split / name
                target.mkdir(parents=True)
                images = sorted((data_root / "hotdog" / split / name).iterdir())
                for path in images[50:56]:
                    shutil.copy(path, target)
        command = [
            sys.executable, "-m", "pipeline", "features",
            f"DATA={folder}/data/few", f"CACHE={folder}/cache", "OFFLINE=1",
        ]  # fmt: skip
        for name in ("first", "graph_at_hand", "nothing_to_do"):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[f"{name}_s"] = time.perf_counter() - began
            if name == "first":
                shutil.rmtree(Path(folder) / "cache" / "few")
    return times
