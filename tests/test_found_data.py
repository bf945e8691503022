"""Data sets as strangers have them: what is certain is read, what is likely is asked."""

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets.images import decode, probe
from cnn_codes.datasets.layout import read_layout
from cnn_codes.datasets.samples import Reading
from cnn_codes.errors import DataError, ImageError
from cnn_codes.settings import DataSettings

SPLIT = {0: "train", 1: "val", 2: "test", -1: ""}


def lay(root: Path, names: list[str]) -> Path:
    """Write empty files that have the names of images; the reading looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + name.encode())
    return root


def several(folders: list[str], n: int = 4, start: int = 0) -> list[str]:
    return [f"{one}/{start + i:03}.jpg" for one in folders for i in range(n)]


def read(root: Path, **ask: str) -> set[tuple[str, str]]:
    """Give the pairs of split and class that were read."""
    listing = read_layout(root, DataSettings(**ask))
    return {(SPLIT[s], label) for s, label in zip(listing.split, listing.labels, strict=True)}


def followed(error: DataError) -> list[dict[str, str]]:
    """Give the settings of the commands that a message names."""
    commands = re.findall(r"make data ([^;]*)", error.todo or "")
    return [
        dict(word.split("=", 1) for word in shlex.split(one) if "=" in word) for one in commands
    ]


TWO_LEVELS = {
    "orders and species": ["Insecta/Lasius", "Insecta/Apis", "Aves/Pica", "Aves/Corvus"],
    "cameras": ["canon/ant", "canon/bee", "nikon/ant", "nikon/bee"],
    "within splits": [
        *("train/insect/ant", "train/insect/bee", "train/food/pie", "train/food/soup"),
        *("test/insect/ant", "test/insect/bee", "test/food/pie", "test/food/soup"),
    ],
}


@pytest.mark.parametrize("folders", TWO_LEVELS.values(), ids=TWO_LEVELS)
def test_which_of_two_levels_are_classes_is_asked_and_both_answers_work(tmp_path, folders):
    root = lay(tmp_path / "set", several(folders, 6))
    with pytest.raises(DataError) as caught:
        read(root)
    answers = followed(caught.value)
    assert [one.get("LAYOUT") for one in answers[:2]] == ["inner", "classes"]
    parts = [folder.split("/") for folder in folders]
    splits = {one[0] if len(one) == 3 else "" for one in parts}
    for one, at in zip(answers[:2], (-1, -2), strict=True):
        found = read(Path(one["DATA"]), layout=one["LAYOUT"])
        assert {label for _, label in found} == {part[at] for part in parts}
        assert {split for split, _ in found} == splits


SPLITS_BY_NAME = {
    "folders of split and class": several(
        ["train_ant", "train_bee", "test_ant", "test_bee", "val-ant", "val-bee"]
    ),
    "Chinese": several(["训练集/ant", "训练集/bee", "测试集/ant", "验证集/ant"]),
    "Portuguese": several(["treino/ant", "treino/bee", "teste/ant", "validação/bee"]),
    "file names": [
        f"{kind}/{part}_{i}.jpg" for kind in ("ant", "bee") for part in ("train", "val", "test")
        for i in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("names", SPLITS_BY_NAME.values(), ids=SPLITS_BY_NAME)
def test_splits_that_names_say_are_used_and_said(tmp_path, names):
    listing = read_layout(lay(tmp_path / "set", names))
    assert set(listing.labels) == {"ant", "bee"}
    assert set(listing.split.tolist()) == {0, 1, 2}
    assert "plits" in " ".join(listing.warnings)


DOUBTS = {
    "two splits and a third folder": (
        ["box_train/a.jpg", "box_test/b.jpg", "query/c.jpg"], "mixes splits"),
    "a folder called images": ([*several(["images", "background"])], "name of a class"),
    "magnifications": (several(["40X/ant", "40X/bee", "100X/ant", "100X/bee"]), "versions"),
    "products that hold splits and masks": (
        several([f"{one}/{part}" for one in ("cup", "nut")
                 for part in ("train/good", "test/good", "ground_truth/bad")]), "holds splits"),
    "classes that differ in writing": (
        several(["train/01", "train/02", "test/1", "test/2"]), "only in writing: '1' from '01'"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "words"), DOUBTS.values(), ids=DOUBTS)
def test_folders_that_are_not_classes_are_asked_about(tmp_path, names, words):
    with pytest.raises(DataError, match=re.escape(words)):
        read(lay(tmp_path / "set", names))


def test_folders_of_numbered_things_are_below_their_classes(tmp_path):
    names = [f"Class_{k}/{i:04}/image.jpg" for k in range(2) for i in range(4)]
    assert read(lay(tmp_path / "set", names)) == {("", "Class_0"), ("", "Class_1")}


def _tiff(values: np.ndarray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def test_a_camera_raw_file_is_not_its_thumbnail():
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        small = np.zeros((20, 30, 3), np.uint8)
        file.write(small, photometric="rgb", subfiletype=1, subifds=1)
        file.write(np.zeros((40, 60), np.uint16), photometric=32803)
    for look in (probe, decode):
        with pytest.raises(ImageError, match="camera RAW"):
            look(stream.getvalue())


def test_colours_of_12_bits_with_a_fourth_band_are_read_by_the_range_of_the_set():
    values = np.random.default_rng(0).integers(0, 4096, (24, 32, 4)).astype(np.uint16)
    data = _tiff(values, photometric="rgb", extrasamples=["unspecified"])
    pixels = decode(data, reading=Reading((("uint16", 0.0, 4095.0),)))
    assert np.abs(pixels - values[:, :, :3] * (255 / 4095)).max() <= 0.5


def test_bands_of_8_bits_need_no_range():
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 5)).astype(np.uint8)
    data = _tiff(values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(decode(data, reading=Reading(bands=(4, 3, 2))), values[:, :, [3, 2, 1]])


def test_libtiff_says_nothing_on_the_terminal(capfd):
    data = bytearray(_tiff(np.zeros((64, 64, 3), np.uint8), compression="zlib", photometric="rgb"))
    data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    with pytest.raises(ImageError):
        decode(bytes(data[: len(data) * 2 // 3]))
    assert capfd.readouterr().err == ""
