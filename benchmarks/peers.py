"""``make bench-peers``: from image files to a tested linear classifier, against what others use.

    python -m benchmarks.peers DATA_ROOT=../shared/data [ONLY=ours,tutorial] [LIMIT=900]

Hypothesis: from the same images, with the same weights, on the same cores and in one run, this
project is the fastest to a tested linear classifier, and none is more accurate. The peers are those
of ``benchmarks/contenders.py``, at the versions that are installed (they are printed). Every one is
a process of its own; its seconds begin with the process and end with the test accuracy, imports
and opening the network included. One that is not done after LIMIT seconds is ended, and counted so.
The figures, the losses too, go to ``<RESULTS>/peers.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.backbones.card import load_network
from cnn_codes.cli.options import assigned
from cnn_codes.files import write_json
from cnn_codes.heads.rows import TEST, TRAIN, rows_of
from cnn_codes.results.provenance import machine, versions
from cnn_codes.settings import CodesSettings, PlaceSettings

from benchmarks.contenders import CONTENDERS
from benchmarks.sets import codes_of, opened

OURS = ("ours, network at hand", "ours, from nothing")
PACKAGES = ("timm", "embetter", "fastai", "scikit-learn", "torch", "torchvision")
NEEDS = {"embetter": "embetter", "fastai": "fastai"}


def task_of(folder: Path, places: PlaceSettings) -> Path:
    """Write the images, the network's weights and the cached codes that contenders are given."""
    import torch

    context = opened("hotdog", places)
    codes = codes_of(context)
    matrix, rows = codes.matrix(), rows_of(context.manifest, codes)
    task: dict[str, Any] = {"weights": str(folder / "weights.pth"), "codes": str(folder / "c.npz")}
    held: dict[str, Any] = {}
    for name, split in (("train", TRAIN), ("test", TEST)):
        mine = np.flatnonzero(rows.split == split)
        root = context.manifest.root.resolve()
        task[name] = {
            "paths": [str(root / rows.paths[row]) for row in mine],
            "labels": rows.labels[mine].tolist(),
        }
        held |= {f"{name}_codes": matrix[mine, 0], f"{name}_labels": rows.labels[mine]}
    np.savez(folder / "c.npz", **held)
    _, network = load_network(CodesSettings(), cache=Path(places.cache), seed=0, offline=True)
    torch.save(network.state_dict(), folder / "weights.pth")
    path = folder / "task.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


def ours(folder: Path, places: PlaceSettings, limit: float) -> dict[str, Any]:
    """Run ``svm`` with an empty cache, but for the exported networks that lie in `folder`."""
    results = folder / "results"
    line = [sys.executable, "-m", "pipeline", "svm", "DATA=hotdog", "OFFLINE=1",
            f"DATA_ROOT={places.data_root}", f"CACHE={folder}", f"RESULTS={results}"]  # fmt: skip
    found = _run(line, limit)
    if "seconds" in found:
        (record,) = [json.loads(one.read_text()) for one in results.rglob("svm-*.json")
                     if not one.name.endswith(".model.json")]  # fmt: skip
        found["accuracy"] = record["metrics"]["test"]["accuracy"]
        images = sum(sum(kinds.values()) for kinds in record["splits"].values())
        found["codes_per_s"] = images / record["times_s"]["codes"]
    return found


def _run(line: list[str], limit: float) -> dict[str, Any]:
    """Run a process to its end: its last line of JSON, where it has one, and its seconds."""
    began = time.perf_counter()
    measured = ["/usr/bin/env", "time", "-f", "%M", *line]
    try:
        done = subprocess.run(measured, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"not_done_after_s": limit}
    seconds = time.perf_counter() - began
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-2:]}
    last = done.stdout.strip().splitlines()[-1]
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    peak = int(done.stderr.strip().splitlines()[-1]) / 1024
    return found | {"seconds": seconds, "peak_mb": max(peak, found.get("peak_mb", 0))}


def main() -> None:
    """Print a row per contender, and write the figures."""
    names = ("data_root", "cache", "results", "only", "limit")
    given = dict(
        one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], names, names)
    )
    limit, only = float(given.pop("limit", 900)), given.pop("only", "")
    places = PlaceSettings(**{name.replace("-", "_"): value for name, value in given.items()})
    wanted = only.split(",") if only else ["ours", *CONTENDERS]
    found: dict[str, Any] = {}
    print("| | codes a second | seconds to a tested classifier | accuracy, % | memory, MB |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = task_of(folder, places)
        if "ours" in wanted:
            graphs = folder / "cache" / "backbones"
            found[OURS[1]] = ours(folder / "cache", places, limit)
            for below in (folder / "cache").iterdir():
                if below != graphs:
                    subprocess.run(["rm", "-rf", below], check=True)
            found[OURS[0]] = ours(folder / "cache", places, limit)
        for contender in CONTENDERS:
            if contender not in wanted:
                continue
            try:
                version(NEEDS.get(contender, "timm"))
            except PackageNotFoundError:
                found[contender] = {"failed": [f"{contender} is not installed; make bench-peers"]}
            else:
                line = [sys.executable, "-m", "benchmarks.contenders", contender, str(task)]
                found[contender] = _run(line, limit)
        for who, row in found.items():
            _print(who, row)
    installed = versions() | {one: _version(one) for one in PACKAGES}
    out = Path(places.results) / "peers.json"
    write_json(out, {"peers": found, "versions": installed, "machine": machine()})
    print(out)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _print(who: str, row: dict[str, Any]) -> None:
    if "seconds" not in row:
        why = row.get("failed") or f"not done after {row['not_done_after_s']:.0f} s"
        print(f"| {who} | {why} | | | |")
        return
    rate = f"{row['codes_per_s']:.0f}" if "codes_per_s" in row else ""
    print(
        f"| {who} | {rate} | {row['seconds']:.1f} | {100 * row['accuracy']:.1f} | "
        f"{row['peak_mb']:.0f} |"
    )


if __name__ == "__main__":
    main()
