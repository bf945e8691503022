"""Arrays of images are written out once, pickles are refused, a renamed set keeps its codes."""

from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings, PlaceSettings
from PIL import Image


@pytest.fixture
def places(tmp_path) -> PlaceSettings:
    return PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


def load(path: Path, places: PlaceSettings):
    return load_manifest(DataSettings(data=str(path)), places)


def test_npz_is_read_to_the_last_pixel(tmp_path, places):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 9, 8, 3), np.uint8) for n in (30, 12))
    np.savez(
        tmp_path / "set.npz", train_images=train, train_labels=np.arange(30) % 3,
        test_images=test, test_labels=(np.arange(12) % 3)[:, None],
    )  # fmt: skip
    manifest = load(tmp_path / "set.npz", places)
    assert np.bincount(manifest.split).tolist() == [30, 0, 12]
    for row, path in enumerate(manifest.paths):
        at = int(Path(path).stem)
        assert manifest.class_names[manifest.labels[row]] == str(at % 3)
        with Image.open(manifest.root / path) as image:
            wanted = test if manifest.split[row] == 2 else train
            np.testing.assert_array_equal(np.asarray(image), wanted[at])


def test_pickles_are_named_and_never_opened(tmp_path, places):
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1").write_bytes(b"\x80\x02cos\nsystem\n")
    with pytest.raises(DataError, match="pickles, which run code"):
        load(tmp_path / "cifar", places)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_a_damaged_file_is_one_sentence_and_leaves_nothing(tmp_path, places, suffix):
    path = tmp_path / f"set.{suffix}"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 300)
    with pytest.raises(DataError, match="cannot be read"):
        load(path, places)
    assert not list((tmp_path / "data").glob("set*"))


def test_a_renamed_set_takes_its_codes_along(tmp_path, places, monkeypatch):
    monkeypatch.setattr("cnn_codes.datasets.digests.RACY_NS", 0)
    for c in "ab":
        for i in range(20):
            path = tmp_path / "before" / c / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{c}{i}".encode())
    codes = tmp_path / "cache" / load(tmp_path / "before", places).name / "model.h5"
    codes.write_bytes(b"codes")
    (tmp_path / "before").rename(tmp_path / "after")
    renamed = load(tmp_path / "after", places)
    assert (tmp_path / "cache" / renamed.name / codes.name).read_bytes() == b"codes"
    assert "holds the same images" in " ".join(renamed.warnings)
