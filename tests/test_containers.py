"""Files that hold images and are not read are called what they are, with the step that helps."""

import bz2
import gzip
import lzma
import subprocess
import zipfile
from pathlib import Path

import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.layout import read_layout
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings, PlaceSettings
from pictures import jpeg

KINDS = {
    "set.tar.lz4": (b"\x04\x22\x4d\x18", "tar -I lz4 -xf set.tar.lz4"),
    "set.tar.Z": (b"\x1f\x9d\x90", "tar -xZf set.tar.Z"),
    "set.tar.br": (b"\x8b\x02\x80", "brotli -d set.tar.br"),
    "set.zip": (b"Rar!\x1a\x07\x01\0", "unrar x set.zip"),
    "my set.7z": (b"7z\xbc\xaf\x27\x1c", "7z x 'my set.7z'"),
    "set.dmg": (b"\0\0", "7z x set.dmg"),
    "train-00000-of-00002.tfrecord": (b"\x10\0\0\0", "tf.data.TFRecordDataset"),
    "data.mdb": (b"\0" * 16 + b"\xde\xc0\xef\xbe", "write the images out as files"),
    "scan.nii": (b"\x5c\1\0\0", "slices out as PNG"),
    "film.mp4": (b"\0\0\0\x18ftypmp42", "ffmpeg -i film.mp4"),
    "pages.pdf": (b"%PDF-1.4", "pdftoppm -png pages.pdf"),
    "slide.svs": (b"\0\0", "OpenSlide"),
    "a.jpg.crdownload": (b"\xff\xd8", "fetch it again"),
}


def read(given: Path, tmp_path: Path):
    places = PlaceSettings(cache=str(tmp_path / "cache"), data_root=str(tmp_path / "data"))
    return load_manifest(DataSettings(data=str(given)), places)


@pytest.mark.parametrize(("name", "head", "step"), [(n, *one) for n, one in KINDS.items()])
@pytest.mark.parametrize("folder", [True, False])
def test_what_is_not_read_is_named_with_the_step_that_helps(tmp_path, name, head, step, folder):
    place = tmp_path / "set"
    place.mkdir()
    (place / name).write_bytes(head + b"\0" * 600)
    with pytest.raises(DataError) as caught:
        read(place if folder else place / name, tmp_path)
    assert step in (caught.value.todo or "")


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_packed_images_are_unpacked_by_the_command_of_the_message(tmp_path, suffix, pack):
    for kind in range(2):
        for n in range(6):
            path = tmp_path / "set" / f"class{kind}" / f"{n}.jpg{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(jpeg(seed=10 * kind + n)))
    with pytest.raises(DataError, match="12 packed files") as caught:
        read(tmp_path / "set", tmp_path)
    command = (caught.value.todo or "").partition(": ")[2].partition(";")[0]
    subprocess.run(command, shell=True, check=True, timeout=60)
    assert read(tmp_path / "set", tmp_path).n_images == 12


@pytest.mark.parametrize("names", [["set.zip.001", "set.zip.002"], ["xaa", "xab"]])
def test_a_folder_of_parts_is_joined_by_the_command_of_the_message(tmp_path, names):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for kind in range(2):
            for n in range(6):
                archive.writestr(f"class{kind}/{n}.jpg", jpeg(seed=10 * kind + n))
    data = whole.read_bytes()
    place = tmp_path / "set"
    place.mkdir()
    for name, part in zip(names, (data[:5000], data[5000:]), strict=True):
        (place / name).write_bytes(part)
    with pytest.raises(DataError, match="one part of an archive") as caught:
        read(place, tmp_path)
    command, _, rest = (caught.value.todo or "").partition("; then give ")
    subprocess.run(command, shell=True, check=True, timeout=60)
    assert read(place / rest, tmp_path).n_images == 12


def test_placeholders_of_icloud_are_counted(tmp_path):
    for kind in ("ant", "bee"):
        for n in range(6):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{n}.jpg").write_bytes(jpeg(seed=n))
        (tmp_path / kind / ".IMG_7.HEIC.icloud").write_bytes(b"bplist00")
    said = " ".join(read_layout(tmp_path).warnings)
    assert "2 iCloud placeholder images are left out" in said
