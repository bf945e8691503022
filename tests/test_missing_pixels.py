"""Values that stand for missing pixels do not decide what is black and white."""

import io
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.ranges import reading_of
from cnn_codes.settings import DataSettings, PlaceSettings
from PIL import Image

tifffile = pytest.importorskip("tifffile")
SIDE = 40


def write_set(root: Path, kind: str, high: int, mark: float | None) -> None:
    """Write 8 TIFFs of two classes with values to `high`, a corner of which is `mark`."""
    rng = np.random.default_rng(0)
    for n in range(8):
        values = (np.mgrid[:SIDE, :SIDE][n % 2] * (high / (SIDE - 1))).astype(kind)
        values += rng.integers(0, 3, values.shape).astype(kind)
        if mark is not None and n < 6:
            values[:10, :10] = mark
        folder = root / ("across" if n % 2 else "down")
        folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        tifffile.imwrite(stream, values)
        (folder / f"{n}.tif").write_bytes(stream.getvalue())


def limits(root: Path, tmp_path: Path, kind: str) -> tuple[tuple[float, float], str]:
    places = PlaceSettings(cache=str(tmp_path / "cache"), data_root=str(tmp_path / "data"))
    manifest = load_manifest(DataSettings(data=str(root)), places)
    for _ in range(2):  # measured, then remembered
        found = reading_of(manifest, "auto", (), cache=tmp_path / "cache")
    held = found.reading.limits(kind)
    assert held is not None
    return held, " ".join(found.notes)


@pytest.mark.parametrize(
    ("kind", "high", "mark"),
    [("uint16", 4000, 65535), ("int16", 3000, -9999), ("int16", 3000, -32768),
     ("float32", 200, -9999)],
)  # fmt: skip
def test_a_value_for_missing_pixels_does_not_stretch_the_range(tmp_path, kind, high, mark):
    write_set(tmp_path / "plain", kind, high, None)
    write_set(tmp_path / "marked", kind, high, mark)
    plain, said = limits(tmp_path / "plain", tmp_path, kind)
    assert "missing" not in said
    marked, said = limits(tmp_path / "marked", tmp_path, kind)
    assert marked == pytest.approx(plain, rel=0.05, abs=3)
    assert f"The value {mark:g} stands for missing pixels" in said


def test_the_highest_value_of_a_full_range_is_a_value(tmp_path):
    write_set(tmp_path / "set", "uint16", 60000, 65535)
    held, said = limits(tmp_path / "set", tmp_path, "uint16")
    assert held == (0, 65535)
    assert "missing" not in said


def test_images_of_missing_pixels_alone_are_no_reason_to_stop(tmp_path):
    write_set(tmp_path / "set", "uint16", 4000, 65535)
    blank = np.full((SIDE, SIDE), 65535, np.uint16)
    Image.fromarray(blank).save(tmp_path / "set" / "down" / "blank.png")
    held, _ = limits(tmp_path / "set", tmp_path, "uint16")
    assert held == (0, 4095)
