"""``make bench-gpu``: stage one and the ``gpu`` tests on this machine's GPU, in one JSON.

    python -m benchmarks.gpu DATA_ROOT=../shared/data [DEVICE=auto] [SECONDS=5] [MODELS=resnet18]

Hypotheses, files to published HDF5: the loop of the tutorials (DataLoader, eager, float32) is
slower than this project; mixed precision is worth it on every network; and the end-to-end rate is
at least 85 % of the smaller of the network's rate and the decoders'. Written for ten minutes with a
GPU: photographs are those of hotdog, weights of networks that no package brings are random, which
changes no time. On a machine without a GPU it measures the CPU, and says so.

For each network and precision: images a second of the network alone (uint8 batches in host memory,
copies included), end to end, of the tutorials' loop; decoding alone on all cores; the bound.
"""

from __future__ import annotations

import os
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
from cnn_codes.backbones.engine import open_engine, pick_device
from cnn_codes.backbones.preprocess import Views, read_views
from cnn_codes.cli.options import assigned
from cnn_codes.codes.extract import extract
from cnn_codes.files import write_json
from cnn_codes.results.runs import machine, versions
from cnn_codes.settings import CodesSettings, MachineSettings, PlaceSettings

from benchmarks.sets import opened
from benchmarks.stage_one import all_cores, tutorial_loop

MODELS = ("efficientnet_lite0", "resnet18", "resnet50", "vit_small_patch16_224")
CENTER = Views("center", 1)


def rate(run: Callable[[], object], n_images: int, seconds: float) -> float:
    """Images a second of `run`, which takes `n_images` at a time: after one run to warm up."""
    run()
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        runs += 1
    return n_images * runs / (time.perf_counter() - began)


def bench_network(
    codes: CodesSettings, device: str, places: PlaceSettings, seconds: float
) -> dict[str, Any]:
    """Measure one network at one precision; a cache of its own for the end-to-end rate."""
    with tempfile.TemporaryDirectory() as name:
        graphs = Path(name) / "cache"
        here = replace(places, cache=str(graphs))
        machine_ = MachineSettings(device=device)
        context = replace(opened("hotdog", here, codes), machine=machine_)
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
            (context.manifest.root / path).read_bytes() for path in context.manifest.paths[:400]
        ]
        decode = all_cores(lambda blob: read_views(blob, card.preprocessing, CENTER, ""), blobs)
        loop = None
        if codes.precision == "float32":
            loop = tutorial_loop(context.manifest, codes, graphs, card.preprocessing, device)()
        shutil.rmtree(graphs, ignore_errors=True)
    whole, bound = done.n_new / done.run_s, min(network, decode)
    return {
        "model": codes.model, "precision": codes.precision, "engine": engine.name, "batch": batch,
        "network_per_s": network, "decode_per_s": decode, "end_to_end_per_s": whole,
        "tutorial_per_s": loop, "bound_per_s": bound, "share_of_bound": whole / bound,
    }  # fmt: skip


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
    names = ("data_root", "cache", "results", "device", "seconds", "models", "tests")
    pairs = (one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], names, names))
    given = dict(pairs)
    seconds, device = float(given.pop("seconds", 5)), pick_device(given.pop("device", "auto"))
    models = given.pop("models", ",".join(MODELS)).split(",")
    tests = given.pop("tests", "1")
    places = PlaceSettings(**{name.replace("-", "_"): value for name, value in given.items()})
    gpu = device.startswith("cuda")
    called = torch.cuda.get_device_name(0) if gpu else "no GPU: this is the CPU"
    print(f"{device}: {called}; {os.cpu_count()} cores")
    found: dict[str, Any] = {"device": device, "name": called, "networks": []}
    found["relative_difference_from_cpu"] = agreement(device, places)
    print("| network | precision | network | decode | end to end | tutorial | of the bound |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        weights = "default" if model == MODELS[0] else "none"
        for precision in ("float32", "mixed") if gpu else ("float32",):
            codes = CodesSettings(model=model, weights=weights, precision=precision)
            row = bench_network(codes, device, places, seconds)
            found["networks"].append(row)
            loop = f"{row['tutorial_per_s']:.0f}" if row["tutorial_per_s"] else ""
            print(
                f"| {model} | {precision} | {row['network_per_s']:.0f} | {row['decode_per_s']:.0f} "
                f"| {row['end_to_end_per_s']:.0f} | {loop} | {row['share_of_bound']:.2f} |",
                flush=True,
            )
    if tests == "1":
        found["gpu_tests"] = gpu_tests()
        print(found["gpu_tests"])
    out = Path(places.results) / "gpu.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found | {"versions": versions(), "machine": machine()})
    print(out)


if __name__ == "__main__":
    main()
