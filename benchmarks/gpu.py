"""``make bench-gpu``: stages one and three and the ``gpu`` tests on a GPU, in one JSON.

    python -m benchmarks.gpu DATA_ROOT=../shared/data [DEVICE=auto] [SECONDS=3] [IMAGES=6400]
        [MODELS=resnet18] [TRAINING=1] [TESTS=1]

Hypotheses, files to published HDF5: the loop of the tutorials (DataLoader with a worker per core,
eager, float32) is slower than this project; mixed precision is worth it on every network; and the
end-to-end rate is at least 85 % of the smaller of the network's rate and the decoders'. Written for
ten minutes with a GPU: photographs are those of hotdog, repeated up to IMAGES with another comment
in each file (the cache holds equal files once); weights of networks that no package brings are
random, which changes no time. On a machine without a GPU it measures the CPU, and says so.

For each network and precision: images a second of the network alone (uint8 batches in host memory,
copies included), end to end, of the tutorials' loop; decoding alone on all cores; the bound. Then
seconds an epoch of training: late layers from the cached trunk, with the trunk in the loop, and of
the whole network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cnn_codes.backbones import load_card
from cnn_codes.backbones.card import load_network
from cnn_codes.backbones.engine import n_cores, open_engine, pick_device
from cnn_codes.backbones.preprocess import Views, read_views
from cnn_codes.cli.options import assigned
from cnn_codes.codes.extract import extract
from cnn_codes.files import write_json
from cnn_codes.finetune import finetune
from cnn_codes.results.provenance import machine, versions
from cnn_codes.settings import CodesSettings, FinetuneSettings, MachineSettings, PlaceSettings

from benchmarks.sets import opened
from benchmarks.stage_one import all_cores, tutorial_loop

MODELS = ("efficientnet_lite0", "resnet18", "resnet50", "vit_small_patch16_224")
CENTER = Views("center", 1)
WAYS = {
    "cached": {"unfreeze": "3", "trunk": "cached"},
    "loop": {"unfreeze": "3", "trunk": "loop"},
    "whole": {"unfreeze": "all", "trunk": "loop"},
}


def enlarge(photographs: Path, folder: Path, n_images: int) -> None:
    """Repeat the JPEG files of a data set up to `n_images`, each with a comment of its own."""
    paths = sorted(photographs.rglob("*.jpg"))
    for number in range(n_images):
        path = paths[number * len(paths) // n_images]
        blob, comment = path.read_bytes(), f"{number}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        target = folder / path.relative_to(photographs).with_name(f"{number}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(blob[:2] + marker + blob[2:])


def rate(run: Callable[[], object], n_images: int, seconds: float) -> float:
    """Images a second of `run`, which takes `n_images` at a time: after one run to warm up."""
    run()
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        runs += 1
    return n_images * runs / (time.perf_counter() - began)


def bench_network(
    data: Path, codes: CodesSettings, device: str, places: PlaceSettings, seconds: float
) -> dict[str, Any]:
    """Measure one network at one precision; a cache of its own for the end-to-end rate."""
    with tempfile.TemporaryDirectory() as name:
        graphs = Path(name) / "cache"
        here = replace(places, cache=str(graphs))
        machine_ = MachineSettings(device=device)
        context = replace(opened(str(data), here, codes), machine=machine_)
        source: dict[str, Any] = {"cache": graphs, "seed": 0, "offline": True}
        card = load_card(codes, **source)
        engine = open_engine(
            card, card.resolve(codes.layers), card.preprocessing, codes, machine_, **source
        )
        side, batch = card.preprocessing.size, max(engine.batch, 1)
        noise = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        network = rate(lambda: engine.run(noise), batch, seconds)
        done = extract(context)
        blobs = [
            (context.manifest.root / path).read_bytes() for path in context.manifest.paths[:1600]
        ]
        decode = all_cores(lambda blob: read_views(blob, card.preprocessing, CENTER, ""), blobs)
        loop = None
        if codes.precision == "float32":
            loop = tutorial_loop(
                context.manifest, codes, graphs, card.preprocessing, device,
                workers=n_cores(), batch=128 if device != "cpu" else 32,
                n_images=min(2048, context.manifest.n_images),
            )()  # fmt: skip
        shutil.rmtree(graphs, ignore_errors=True)
    whole, bound = done.n_new / done.run_s, min(network, decode)
    return {
        "model": codes.model, "precision": codes.precision, "engine": engine.name, "batch": batch,
        "network_per_s": network, "decode_per_s": decode, "end_to_end_per_s": whole,
        "tutorial_per_s": loop, "bound_per_s": bound, "share_of_bound": whole / bound,
    }  # fmt: skip


def bench_training(
    data: Path, device: str, places: PlaceSettings, precisions: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Time the last of three epochs of each way to train EfficientNet-Lite0."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for precision in precisions:
            codes = CodesSettings(precision=precision)
            context = opened(str(data), replace(places, cache=name), codes)
            context = replace(context, machine=MachineSettings(device=device))
            for way, settings in WAYS.items():
                results = replace(context.places, results=f"{name}/{precision}-{way}")
                record = finetune(
                    replace(context, places=results),
                    FinetuneSettings(
                        **settings, epochs=3, refit=False, init="pretrained",
                        trunk_views="random:4", batch_size=128 if device != "cpu" else 32,
                    ),
                )  # fmt: skip
                seconds = record["curve"][-1]["seconds"]
                n_images = sum(record["splits"]["train"].values())
                rows.append({
                    "precision": precision, "way": way, "epoch_s": seconds, "n_images": n_images,
                    "images_per_s": n_images / seconds,
                    "peak_memory_bytes": record["peak_memory_bytes"],
                })  # fmt: skip
                print(
                    f"| training, {way} | {precision} | {rows[-1]['images_per_s']:.0f} images/s | "
                    f"{seconds:.2f} s an epoch |",
                    flush=True,
                )
    return rows


def agreement(device: str, places: PlaceSettings) -> float:
    """Largest difference of codes between the device and the CPU, relative to the largest code."""
    with tempfile.TemporaryDirectory() as name:
        here = replace(places, cache=name)
        codes, source = CodesSettings(), {"cache": Path(name), "seed": 0, "offline": True}
        card, _ = load_network(codes, **source)  # type: ignore[arg-type]
        manifest = opened("hotdog", here, codes).manifest
        images = np.concatenate(
            [read_views((manifest.root / one).read_bytes(), card.preprocessing, CENTER, "")
             for one in manifest.paths[:32]]
        )  # fmt: skip
        found = [
            open_engine(
                card, card.resolve(codes.layers), card.preprocessing, codes,
                MachineSettings(device=one), **source,  # type: ignore[arg-type]
            ).run(images)[0]
            for one in ("cpu", device)
        ]  # fmt: skip
    return float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())


def gpu_tests() -> str:
    """Run the tests marked ``gpu`` and give pytest's last line."""
    line = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=900)
    return (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]


def main() -> None:
    """Measure, print a row per network and precision, and write ``<RESULTS>/gpu.json``."""
    names = (
        "data_root", "cache", "results", "device", "seconds", "images", "models", "training",
        "tests",
    )  # fmt: skip
    pairs = (one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], names, names))
    given = dict(pairs)
    seconds, device = float(given.pop("seconds", 3)), pick_device(given.pop("device", "auto"))
    gpu = device.startswith("cuda")
    n_images = int(given.pop("images", 6400 if gpu else 400))
    models = given.pop("models", ",".join(MODELS)).split(",")
    training, tests = given.pop("training", "1"), given.pop("tests", "1")
    places = PlaceSettings(**{name.replace("-", "_"): value for name, value in given.items()})
    called = torch.cuda.get_device_name(0) if gpu else "no GPU: this is the CPU"
    print(f"{device}: {called}; {n_cores()} cores; {n_images} images")
    found: dict[str, Any] = {
        "device": device, "name": called, "n_cores": n_cores(), "n_images": n_images,
        "networks": [],
    }  # fmt: skip
    found["relative_difference_from_cpu"] = agreement(device, places)
    print(f"codes differ from the CPU's by {found['relative_difference_from_cpu']:.1e}")
    print("| network | precision | network | decode | end to end | tutorial | of the bound |")
    print("|---|---|---|---|---|---|---|")
    precisions = ("float32", "mixed") if gpu else ("float32",)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "many"
        enlarge(Path(places.data_root) / "hotdog", data, n_images)
        for model in models:
            weights = "default" if model == MODELS[0] else "none"
            for precision in precisions:
                codes = CodesSettings(model=model, weights=weights, precision=precision)
                row = bench_network(data, codes, device, places, seconds)
                found["networks"].append(row)
                loop = f"{row['tutorial_per_s']:.0f}" if row["tutorial_per_s"] else ""
                print(
                    f"| {model} | {precision} | {row['network_per_s']:.0f} "
                    f"| {row['decode_per_s']:.0f} | {row['end_to_end_per_s']:.0f} | {loop} "
                    f"| {row['share_of_bound']:.2f} |",
                    flush=True,
                )
        if training == "1":
            found["training"] = bench_training(data, device, places, precisions)
    if tests == "1":
        found["gpu_tests"] = gpu_tests()
        print(found["gpu_tests"])
    out = Path(places.results) / "gpu.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found | {"versions": versions(), "machine": machine()})
    print(out)


if __name__ == "__main__":
    main()
