"""``make bench``: run every measurement and write results/bench.json."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_codes.cli.options import assigned
from cnn_codes.files import write_json
from cnn_codes.results.provenance import machine, versions
from cnn_codes.settings import PlaceSettings

from benchmarks.accuracy import bench_accuracy
from benchmarks.bench_heads import bench_svm
from benchmarks.memory import bench_memory
from benchmarks.sets import codes_of, opened
from benchmarks.stage_one import bench_stage_one, bench_start
from benchmarks.training import bench_training


def _svm(data_root: Path, cache: Path) -> dict[str, Any]:
    places = PlaceSettings(data_root=str(data_root), cache=str(cache))
    codes = codes_of(opened("hotdog", places))
    train = codes.split == "train"
    return dict(bench_svm(codes.matrix()[train], codes.labels[train]))


def main() -> None:
    """Run the measurements asked for (default: all) one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", default="", help="names with commas")
    names = ("data_root", "cache", "results", "only")
    every = ("data", "seed", "offline", "model", *names)  # make hands on what it was given
    options = parser.parse_args(assigned(sys.argv[1:], names, every))
    root, cache = options.data_root, options.cache
    if not (root / "hotdog").is_dir():
        sys.exit(
            f"error: there is no {root / 'hotdog'}.\n"
            "Next: make data DATA=hotdog, or DATA_ROOT=<the folder that holds it>"
        )
    measurements: dict[str, Callable[[], Any]] = {
        "stage_one_efficientnet_lite0": lambda: bench_stage_one(
            root, "efficientnet_lite0", "default"
        ),
        "stage_one_resnet18": lambda: bench_stage_one(root, "resnet18", "none"),
        "start": lambda: bench_start(root),
        "memory": bench_memory,
        "training": lambda: bench_training(root),
        "svm": lambda: _svm(root, cache),
        "accuracy": lambda: bench_accuracy(root, cache),
    }
    wanted = options.only.split(",") if options.only else list(measurements)
    path = options.results / "bench.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in wanted:
        began = time.perf_counter()
        found[name] = measurements[name]()
        found["machine"], found["versions"] = machine(), versions()
        write_json(path, found)
        print(f"{name}  ({time.perf_counter() - began:.0f} s)")
        print(json.dumps(found[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
