"""A set, a split or a class whose images are all left out is a mistake to be corrected."""

import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.datasets.remaining import advice, counted
from conftest import SMALL, Inside
from pictures import encoded, jpeg, photo, write_set

Spoil = Callable[[int], bytes]


def many_bands(n_bands: int) -> Spoil:
    def write(seed: int) -> bytes:
        tifffile = pytest.importorskip("tifffile")
        stream = io.BytesIO()
        values = np.random.default_rng(seed).integers(0, 3000, (40, 40, n_bands), np.uint16)
        tifffile.imwrite(stream, values, photometric="minisblack", planarconfig="contig")
        return stream.getvalue()

    return write


def not_numbers(seed: int) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.full((40, 40), np.nan, np.float32))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 132735\n"
# What stands in the files, what the message says of it, what it advises, settings of the command
REASONS: dict[str, tuple[Spoil, str, str, dict[str, str]]] = {
    "13 bands": (many_bands(13), "13 bands of uint16 (", "BANDS=4,3,2", {}),
    "8 bands": (many_bands(8), "8 bands of uint16 (", "BANDS=5,3,2", {}),
    "4 bands": (many_bands(4), "4 bands of uint16 (", "BANDS=3,2,1", {}),
    "cut short": (
        lambda s: jpeg(s)[: len(jpeg(s)) // 2], "damaged or truncated", "audit", {}),
    "a page of the web": (
        lambda s: b"<!DOCTYPE html><title>%d</title>Not found" % s, "HTML page", "sound ones", {}),
    "no image": (lambda s: b"text %d" % s, "not an image of a known format", "sound ones", {}),
    "no numbers": (not_numbers, "NaN or infinite", "sound ones", {}),
    "JPEG XL": (lambda s: b"\xff\x0a" + bytes([s]) * 90, "JPEG XL", "djxl", {}),
    "too large": (
        lambda s: encoded(photo(s, (200, 100)), "PNG"), "absurdly large", "MAX_PIXELS=20000",
        {"max_pixels": "9000"}),
    "not fetched": (lambda s: LFS % s, "Git LFS pointer", "git lfs pull", {}),
    "empty": (lambda s: b"", "empty", "", {}),
}  # fmt: skip


def spoil(paths: list[Path], write: Spoil) -> None:
    for seed, path in enumerate(paths):
        path.write_bytes(write(seed))


def of_set(root: Path) -> list[Path]:
    return sorted(root.rglob("*.jpg"))


def of_class(root: Path) -> list[Path]:
    return [path for path in of_set(root) if path.parent.name == "dog"]


def of_test(root: Path) -> list[Path]:
    return [path for path in of_set(root) if path.parts[-3] == "test"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_set(tmp_path / "set" / "train", 8)
    for at, path in enumerate(write_set(tmp_path / "set" / "test", 4).rglob("*.jpg")):
        path.write_bytes(jpeg(100 + at))
    return tmp_path / "set"


@pytest.mark.parametrize("part", [of_set, of_class, of_test])
@pytest.mark.parametrize("reason", REASONS)
def test_a_part_that_is_left_out_stops_the_command(
    images: Path, inside: Inside, reason: str, part: Callable[[Path], list[Path]]
) -> None:
    write, said, todo, more = REASONS[reason]
    spoil(part(images), write)
    done = inside("features", data=images, **SMALL, **more)
    assert done.returncode == 2, done.stdout
    found, _, following = done.stderr.partition("Next: ")
    assert said in found
    assert re.search(todo, following)
    assert re.search(r"\(\d+\)|\d+ of \d+", found)  # how many
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["svm", "map", "labels"])
def test_every_stage_stops(images: Path, inside: Inside, stage: str) -> None:
    spoil(of_set(images), REASONS["13 bands"][0])
    done = inside(stage, data=images, **SMALL)
    assert done.returncode == 2
    assert "BANDS=4,3,2" in done.stderr


def test_training_from_a_random_start_stops(images: Path, inside: Inside) -> None:
    spoil(of_class(images), REASONS["cut short"][0])
    done = inside("finetune", data=images, epochs=1, init="random", unfreeze="all", **SMALL)
    assert done.returncode == 2
    assert "No training image of dog can be used" in done.stderr


@pytest.mark.parametrize("reason", ["13 bands", "8 bands", "4 bands", "too large"])
def test_the_advised_command_runs(images: Path, inside: Inside, reason: str) -> None:
    write, _, _, more = REASONS[reason]
    spoil(of_set(images), write)
    line = inside.line("features", data=images, **SMALL, **more)
    done = inside("features", data=images, **SMALL, **more)
    assert done.returncode == 2
    setting = re.search(r"(BANDS|MAX_PIXELS)=[\d,]+", done.stderr.partition("Next: ")[2])
    assert setting is not None
    assert main([*line[line.index("features") :], setting[0]]) == 0


def test_a_class_without_a_test_image_is_named(images: Path, inside: Inside) -> None:
    both = [path for path in of_test(images) if path.parent.name == "dog"]
    spoil(both, REASONS["cut short"][0])
    done = inside("features", data=images, **SMALL)
    assert done.returncode == 0
    assert "All test images of dog (2) were left out" in done.stderr


def test_reasons_are_counted_by_kind() -> None:
    reasons = ["absurdly large: 20 x 30 px, over 1 Mpx (MAX_PIXELS)"] * 2
    reasons += ["absurdly large: 40 x 30 px, over 1 Mpx (MAX_PIXELS)", "empty file (0 bytes)"]
    assert counted(reasons).startswith("absurdly large")
    assert "(3)" in counted(reasons)
    assert advice(reasons, "make svm DATA=x").startswith("make svm DATA=x MAX_PIXELS=1200")
    assert shlex.split(advice(["13 bands of uint16; BANDS=3,2,1 ..."], "c"))[1] == "BANDS=4,3,2"
