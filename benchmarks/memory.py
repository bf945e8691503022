"""Memory of stage one against the number of images.

Hypothesis: publishing and opening 100,000 rows takes no more memory than 10,000 do, but for the
table of images itself (paths, digests, labels: some hundred bytes each).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

CODE_DIM = 1280


def bench_memory() -> dict[str, Any]:
    """Publish 10,000 and 100,000 made-up rows, each in a process of its own; peak MB of each."""
    peaks = {}
    for n_images in (10_000, 100_000):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(n_images)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks[n_images] = json.loads(done.stdout)
    extra = peaks[100_000]["peak_mb"] - peaks[10_000]["peak_mb"]
    return {
        "peaks": peaks,
        "more_mb_for_10_times_the_images": extra,
        "codes_mb": 100_000 * CODE_DIM * 4 / 1e6,
    }


def _publish(n_images: int) -> dict[str, float]:
    from cnn_codes.codes.cache import PART_ROWS, CacheFile
    from cnn_codes.codes.keys import Key
    from cnn_codes.datasets import Manifest

    peak = _Peak()
    random = np.random.default_rng(0)
    digests = [f"{i:064x}" for i in range(n_images)]
    manifest = Manifest(
        name="made-up",
        root=Path("/"),
        paths=tuple(f"train/class_{i % 10}/image_{i:07d}.jpg" for i in range(n_images)),
        sha256=np.array(digests, "S64"),
        labels=np.arange(n_images, dtype=np.int32) % 10,
        split=np.zeros(n_images, np.int8),
        class_names=tuple(f"class_{i}" for i in range(10)),
    )
    with tempfile.TemporaryDirectory() as folder:
        config = {"layers": ["final"], "n_views": 1}
        file = CacheFile(Key(Path(folder) / "made-up" / "codes.h5", "0" * 64, config))
        with file.locked(None):
            for start in range(0, n_images, PART_ROWS):
                shas = digests[start : start + PART_ROWS]
                block = random.standard_normal((len(shas), CODE_DIM), np.float32)
                file.add_part(shas, [block], {}, 0.0)
            codes = file.publish(manifest, file.known())
        assert file.current(manifest) is not None
        assert codes["final"][n_images - 1].shape == (CODE_DIM,)
    return {"peak_mb": peak.stop()}


class _Peak:
    """Watches the process's own memory: not pages of mapped files, which the system takes back."""

    def __init__(self) -> None:
        self._most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            (kb,) = re.findall(r"^RssAnon:\s*(\d+) kB", status, re.MULTILINE)
            self._most = max(self._most, int(kb))

    def stop(self) -> float:
        """Give the most that was seen, in MB."""
        self._over.set()
        self._thread.join()
        return self._most / 1024


if __name__ == "__main__":
    json.dump(_publish(int(sys.argv[1])), sys.stdout)
