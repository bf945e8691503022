"""Arrays of images are written out once, pickles are refused, a renamed set keeps its codes."""

import io
from pathlib import Path

import h5py
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


# Sound files as libraries write them, under the usual names: (files, splits expected)


def pixels(n: int, *, channels: int = 3) -> np.ndarray:
    shape = (n, 9, 8, channels) if channels else (n, 9, 8)
    return np.random.default_rng(n).integers(0, 256, shape, np.uint8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train_images", "train_labels"), ("x_train", "y_train"), ("X_train", "Y_train"),
        ("train_x", "train_y"), ("train/images", "train/labels"), ("trainImages", "trainLabels"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["npz", "h5", "hdf5"])
def test_arrays_under_their_usual_names(tmp_path, places, suffix, images, labels):
    if "/" in images and suffix == "npz":
        pytest.skip("groups are of HDF5")
    arrays = {}
    for split, n in (("train", 30), ("test", 12)):
        name = images.replace("train", split)
        arrays[name] = pixels(n)
        arrays[labels.replace("train", split)] = np.arange(n) % 3
    path = tmp_path / f"set.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, dtype=array.dtype)
    manifest = load(path, places)
    assert np.bincount(manifest.split).tolist() == [30, 0, 12]
    assert manifest.class_names == ("0", "1", "2")
    for row, name in enumerate(manifest.paths):
        at = int(Path(name).stem)
        assert manifest.class_names[manifest.labels[row]] == str(at % 3)
        with Image.open(manifest.root / name) as image:
            np.testing.assert_array_equal(
                np.asarray(image), pixels(12 if manifest.split[row] == 2 else 30)[at]
            )


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_grey_and_colour_images_of_an_hdf5_file_without_splits(tmp_path, places, channels):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset("images", data=pixels(24, channels=channels), dtype=np.uint8)
        names = np.array([b"ants", b"bees"])[np.arange(24) % 2]
        file.create_dataset("labels", data=names, dtype=names.dtype)
    manifest = load(tmp_path / "set.h5", places)
    assert manifest.n_images == 24
    assert manifest.class_names == ("ants", "bees")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_tables_with_the_bytes_of_images(tmp_path, places, kind, form):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    (tmp_path / "set").mkdir()
    for split, n in (("train", 30), ("test", 12)):
        cells = [png(one) for one in pixels(n)]
        column = (
            pa.array([{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)])
            if form == "struct"
            else pa.array(cells, pa.binary())
        )
        table = pa.table({"image": column, "label": [("ants", "bees")[i % 2] for i in range(n)]})
        path = tmp_path / "set" / f"{split}-00000-of-00001.{kind}"
        if kind == "parquet":
            pyarrow.parquet.write_table(table, path)
        elif kind == "feather":
            pyarrow.feather.write_feather(table, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
                out.write_table(table)
    manifest = load(tmp_path / "set", places)
    assert np.bincount(manifest.split).tolist() == [30, 0, 12]
    assert manifest.class_names == ("ants", "bees")
    assert np.bincount(manifest.labels).tolist() == [21, 21]
