"""Cost against size: images in a folder, rows of a table, classes.

Hypothesis: no step is more than linear. Ten times the images take at most fifteen times the
seconds of the processor (2^n would be one hundred times for a quadratic step) and memory of some
hundred bytes an image; "nothing to do" at 100,000 images takes under 5 s.

``python -m benchmarks.scale --out scale.json`` (``--most 100000``: the largest folder; ``--rows
1000000``: the largest table). Images are one-pixel PNGs of distinct bytes. Seconds are those of the
processor (user and system, all threads), as other work on the machine hardly changes them; the
peak is the resident set of the process.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALL = ["MODEL=test_resnet", "WEIGHTS=none", "SIZE=32", "DEVICE=cpu", "OFFLINE=1"]


def png(number: int) -> bytes:
    """Make a one-pixel PNG; each of 2^24 numbers has its own colour and bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + number.to_bytes(3, "big"), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def folder_of(place: Path, n_images: int, n_classes: int) -> Path:
    """Write `n_images` into folders of `n_classes`, split into train and test."""
    for k in range(n_classes):
        for split in ("train", "test"):
            (place / split / f"class_{k:05}").mkdir(parents=True)
    for i in range(n_images):
        split = "test" if i // n_classes % 4 == 3 else "train"
        (place / split / f"class_{i % n_classes:05}" / f"{i:07}.png").write_bytes(png(i))
    return place


def table_of(folder: Path, path: Path, n_rows: int) -> Path:
    """Write a table of `n_rows` images of the folder, with further columns, of 100 bytes a row."""
    images = sorted(folder.rglob("*.png"))[:n_rows]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "patient", "remark"))
        for i, image in enumerate(images):
            name = str(image.relative_to(path.parent))
            writer.writerow((name, image.parent.name, f"p{i // 4}", "x" * max(1, 84 - len(name))))
    return path


def run(line: list[str], work: Path) -> dict[str, Any]:
    """Run a command; its seconds, peak and exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    code = (
        "import resource, sys\nfrom cnn_codes.cli import main\n"
        "try:\n rc = main(sys.argv[1:])\nexcept SystemExit as end:\n rc = end.code\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rc)\n"
    )
    places = [f"CACHE={work / 'cache'}", f"RESULTS={work / 'results'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *line, *places], capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout.rpartition("PEAK ")[2].split()
    if not said or said[1] not in ("0", "None"):
        raise SystemExit(f"{line} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    cpu = sum(getattr(after, one) - getattr(before, one) for one in ("ru_utime", "ru_stime"))
    return {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2), "peak_mb": int(said[0]) // 1024}


def measured(work: Path, most: int, rows: int, cases: list[str]) -> Iterator[dict[str, Any]]:
    """Run every case at its sizes, the smaller first."""
    for n in (most // 10, most):
        if not {"folder", "nothing", "audit"} & set(cases):
            break
        place = work / f"folder{n}"
        data = folder_of(place / "set", n, 10)
        for name, line in (
            ("folder: data, first", ["data", f"DATA={data}"]),
            ("folder: data, again", ["data", f"DATA={data}"]),
            ("folder: features, first", ["features", *SMALL, f"DATA={data}", "EXTRACT_BATCH=256"]),
            ("folder: features, nothing to do", ["features", *SMALL, f"DATA={data}"]),
            ("folder: audit, header findings", ["audit", *SMALL, f"DATA={data}"]),
        ):
            if name.startswith("folder: features") and not {"nothing", "audit"} & set(cases):
                continue
            if "audit" in name and "audit" not in cases:
                continue
            yield {"case": name, "n": n, **run(line, place)}
        shutil.rmtree(place)
    for n in (most // 100, most // 10) if "classes" in cases else ():
        place = work / f"classes{n}"
        data = folder_of(place / "set", 4 * n, n)
        yield {"case": "classes: data", "n": n, **run(["data", f"DATA={data}"], place)}
        shutil.rmtree(place)
    if "table" in cases:
        place = work / "table"
        images = folder_of(place / "set", rows, 10)
        for n in (rows // 10, rows):
            table = table_of(images, place / f"table{n}.csv", n)
            size = table.stat().st_size
            for name in ("table: data, first", "table: data, again"):
                line = ["data", f"DATA={table}"]
                yield {"case": name, "n": n, "mb": size // 10**6, **run(line, place)}
        shutil.rmtree(place)


def with_growth(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to the larger size of each case the exponent of its seconds: 1 linear, 2 quadratic."""
    small: dict[str, dict[str, Any]] = {}
    for one in found:
        first = small.setdefault(one["case"], one)
        if first is not one:
            times = one["cpu_s"] / max(first["cpu_s"], 0.01)
            one["exponent"] = round(math.log(times) / math.log(one["n"] / first["n"]), 2)
            more = (one["peak_mb"] - first["peak_mb"]) * 2**20
            one["bytes_an_item"] = round(more / (one["n"] - first["n"]))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cases", default="folder,nothing,audit,classes,table")
    parser.add_argument("--work", default=None, help="where the images are written")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="scale-", dir=options.work))
    found: list[dict[str, Any]] = []
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        for one in measured(work, options.most, options.rows, options.cases.split(",")):
            found = with_growth([*found, one])
            print(json.dumps(found[-1]), flush=True)
            if options.out:
                Path(options.out).write_text(json.dumps(found, indent=1) + "\n")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
