"""What would make stage one's engine faster on a GPU: each way by itself, images a second.

    python -m benchmarks.gpu_ways [MODELS=efficientnet_lite0,resnet50] [SECONDS=2] [DEVICE=auto]
        [BATCHES=16,32,64,256,512,128]

Hypotheses: channels last is faster than PyTorch's default layout; the batch does not matter from
128 on; ``torch.compile`` is worth it where the network is of many small kernels, at seconds of
compilation; a copy that waits for the network before it costs less than a tenth.

All ways are tried with the last batch. uint8 images in host memory in, float32 codes in host
memory out. On a CPU it shows only that every way runs.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cnn_codes.backbones.card import load_network
from cnn_codes.backbones.engine import pick_device
from cnn_codes.backbones.tapped import Tapped
from cnn_codes.backbones.torch_engine import TorchEngine
from cnn_codes.cli.options import assigned
from cnn_codes.settings import CodesSettings
from numpy.typing import NDArray

BROUGHT = {"efficientnet_lite0"}  # networks whose weights a package brings


def measure(run: Callable[[], Any], n_images: int, seconds: float) -> tuple[float, float]:
    """Give images a second, by the median call; and the seconds of the three calls before."""
    began = time.perf_counter()
    for _ in range(3):
        run()
    warm = time.perf_counter() - began
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        run()  # ends with the codes on the CPU, so nothing is left to wait for
        times.append(time.perf_counter() - at)
    return n_images / float(np.median(times)), warm


def ways_of(tapped: Tapped, noise: NDArray[np.uint8], device: str) -> dict[str, Callable[[], Any]]:
    """Make the ways to run one batch; each gives its codes on the CPU."""
    kind = device.partition(":")[0]
    host = torch.from_numpy(noise)
    pinned = host.pin_memory() if kind == "cuda" else host
    sources: dict[str, Callable[[], torch.Tensor]] = {
        "pinned each time": lambda: host.pin_memory() if kind == "cuda" else host,
        "pageable memory": lambda: host,
        "pinned before": lambda: pinned,
    }
    there = pinned.to(device)
    sources["images on the device"] = lambda: there
    compiled = torch.compile(tapped)
    dtypes = {"float32": None, "bfloat16": torch.bfloat16}
    if kind == "cuda":
        dtypes["float16"] = torch.float16

    def way(
        network: Callable[[torch.Tensor], Any], source: str, dtype: torch.dtype | None
    ) -> Callable[[], Any]:
        def run() -> Any:
            cast = torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None)
            with torch.inference_mode(), cast:
                outputs = network(sources[source]().to(device, non_blocking=True))
                return [output.float().cpu().numpy() for output in outputs]

        return run

    found = {}
    for name, dtype in dtypes.items():
        for source in sources:
            found[f"{name}, {source}"] = way(tapped, source, dtype)
        found[f"{name}, torch.compile"] = way(compiled, "pinned each time", dtype)
    return found


def bench(model: str, batches: list[int], device: str, cache: Path, seconds: float) -> None:
    """Print a row for each batch and way of one network."""
    codes = CodesSettings(model=model, weights="default" if model in BROUGHT else "none")
    card, network = load_network(codes, cache=cache, seed=0, offline=True)
    pre = card.preprocessing
    rest = (card.resolve(("final",)), card.final, card.pooling(codes.pool), pre)

    def own() -> Any:  # hooks stay in a network
        return (copy.deepcopy(network), *rest)

    def noise(n: int) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 256, (n, pre.size, pre.size, 3), np.uint8)

    for batch in batches:
        runs: dict[str, Callable[[], Any]] = {}
        for name, mixed in {"float32": False, "mixed": True}.items():
            if mixed and device == "cpu":
                continue
            engine = TorchEngine(
                *own(), tokens=card.tokens, device=device, mixed=mixed, batch=batch
            )
            runs[f"engine, {name}"] = partial(engine.run, noise(batch))
        if batch == batches[-1]:
            for layout in (torch.contiguous_format, torch.channels_last):
                tapped = Tapped(*own(), tokens=card.tokens).eval()
                tapped = tapped.to(device, memory_format=layout)  # type: ignore[call-overload]
                named = str(layout).removeprefix("torch.").replace("_", " ")
                for name, run in ways_of(tapped, noise(batch), device).items():
                    runs[f"{named}, {name}"] = run
        for name, run in runs.items():
            rate, warm = measure(run, batch, seconds)
            print(f"| {model} | {batch} | {name} | {rate:.0f} | {warm:.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    names = ("models", "seconds", "cache", "device", "batches")
    pairs = (one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], names, names))
    given = dict(pairs)
    device = pick_device(given.get("device", "auto"))
    print(torch.cuda.get_device_name(0) if device.startswith("cuda") else device, torch.__version__)
    print("| network | batch | way | images a second | seconds to warm up |\n|---|---|---|---|---|")
    batches = [int(one) for one in given.get("batches", "16,32,64,256,512,128").split(",")]
    for model in given.get("models", "efficientnet_lite0,resnet50").split(","):
        place = Path(given.get("cache", "cache"))
        bench(model, batches, device, place, float(given.get("seconds", 2)))


if __name__ == "__main__":
    main()
