"""WebDataset: tars of images and labels, read where the images lie."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets.images import read_file
from cnn_codes.datasets.packed import members_of, packed_at
from cnn_codes.datasets.shards import is_shard, shards_in
from cnn_codes.errors import DataError
from pictures import jpeg, write_set


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write a tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


def samples(numbers: range, kind: str = "cls") -> dict[str, bytes]:
    """Give the members of some samples: even ones are cats, odd ones dogs."""
    members: dict[str, bytes] = {}
    for i in numbers:
        name = ("cat", "dog")[i % 2]
        text = {"cls": str(i % 2), "txt": name, "json": json.dumps({"label": name, "who": i // 4})}
        members |= {f"{i:06}.jpg": jpeg(i), f"{i:06}.{kind}": text[kind].encode()}
    return members


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a manifest whose data root and cache are folders of the test."""
    from cnn_codes.datasets import load_manifest
    from cnn_codes.settings import DataSettings, PlaceSettings

    places = PlaceSettings(data_root=str(tmp_path / "root"), cache=str(tmp_path / "cache"))
    return lambda data, **more: load_manifest(DataSettings(data=str(data), **more), places)


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_labels_and_splits_of_shards(tmp_path, load, kind):
    write_tar(tmp_path / "set" / "train-000000.tar", samples(range(12), kind))
    write_tar(tmp_path / "set" / "train-000001.tar", samples(range(12, 20), kind))
    write_tar(tmp_path / "set" / "val-000000.tar", samples(range(20, 28), kind))
    manifest = load(tmp_path / "set")
    assert manifest.class_names == (("0", "1") if kind == "cls" else ("cat", "dog"))
    assert manifest.counts()["train"] == dict.fromkeys(manifest.class_names, 10)
    numbers = [int(path[-10:-4]) for path in manifest.paths]
    assert (manifest.labels == np.array(numbers) % 2).all()
    assert any("without unpacking" in note for note in manifest.warnings)
    assert not list((tmp_path / "root").rglob("*.jpg"))
    if kind == "json":
        assert load(tmp_path / "set", group="who").grouping == "column who"


def test_bytes_and_digests_are_those_of_the_files(tmp_path, load):
    folder = write_set(tmp_path / "files", 12)
    files = sorted(folder.rglob("*.jpg"))
    members = {}
    for path in files:
        members[f"{path.stem}.jpg"] = path.read_bytes()
        members[f"{path.stem}.txt"] = path.parent.name.encode()
    tar = write_tar(tmp_path / "some.tar", members)
    inside, outside = load(tar), load(folder)
    assert sorted(inside.sha256.tolist()) == sorted(outside.sha256.tolist())
    assert inside.class_names == outside.class_names
    for path in inside.paths:
        assert read_file(inside.root / path) == members[path.rpartition("/")[2]]
    again = load(tar)  # remembered
    assert (again.sha256 == inside.sha256).all()


def test_a_label_that_stands_twice_is_named(tmp_path, load):
    tar = write_tar(tmp_path / "set" / "all.tar", samples(range(12)))
    write_tar(tar, {"000002.cls": b"1"}, mode="a")
    for _ in range(2):  # the second time from memory
        assert "1 member of the tar files had the name of an earlier one, which was not used." in (
            load(tar).warnings
        )


def test_a_changed_shard_is_read_again(tmp_path, load):
    tar = write_tar(tmp_path / "some.tar", samples(range(12)))
    before = load(tar)
    write_tar(tar, samples(range(2, 14)))
    after = load(tar)
    assert set(after.sha256.tolist()) != set(before.sha256.tolist())


def test_codes_of_shards_are_those_of_the_files(tmp_path, stage_one):
    tar = write_tar(tmp_path / "some.tar", samples(range(8), "txt"))
    folder = write_set(tmp_path / "files", 8)
    inside, outside = stage_one(tar).codes, stage_one(folder).codes
    order, other = np.argsort(inside.sha256), np.argsort(outside.sha256)
    assert (inside["final"][order] == outside["final"][other]).all()


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/x.jpg", "a/../b.jpg", "a\\b.jpg"])
def test_names_that_lead_out_are_left_out(tmp_path, name):
    tar = write_tar(tmp_path / "some.tar", {**samples(range(4)), name: jpeg(9)})
    assert len(members_of(str(tar)).places) == 8
    assert members_of(str(tar)).n_strange == 1


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    tar = tmp_path / "some.tar"
    write_tar(tar, samples(range(4)))
    with tarfile.open(tar, "a") as opened:
        info = tarfile.TarInfo("999999.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(info)
    assert packed_at(f"{tar}/999999.jpg") is None
    with pytest.raises(NotADirectoryError):
        read_file(tar / "999999.jpg")


def test_a_tar_of_class_folders_is_no_shard(tmp_path):
    members = {f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(6)}
    assert not is_shard(write_tar(tmp_path / "plain.tar", members))
    assert shards_in(tmp_path) == []


def test_a_shard_cut_short_is_refused(tmp_path, load):
    write_tar(tmp_path / "set" / "a-0.tar", samples(range(12)))
    tar = write_tar(tmp_path / "set" / "a-1.tar", samples(range(12, 24)))
    tar.write_bytes(tar.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"a-1\.tar cannot be read as a tar"):
        load(tmp_path / "set")


def test_captions_are_not_classes(tmp_path, load):
    members = {f"{i}.jpg": jpeg(i) for i in range(12)}
    members |= {f"{i}.txt": f"a picture of number {i}".encode() for i in range(12)}
    tar = write_tar(tmp_path / "some.tar", members)
    with pytest.raises(DataError, match="not certain") as caught:
        load(tar)
    assert "LABEL_COLUMN=txt" in caught.value.todo
