"""The manifest: rows, digests, names, splits; quick where nothing changed."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets import Manifest, cut_val, load_manifest
from cnn_codes.datasets import digests as digests_module
from cnn_codes.datasets.digests import hash_files
from cnn_codes.datasets.names import claim_name, safe_name
from cnn_codes.datasets.split_words import TEST, TRAIN, VAL
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings, PlaceSettings
from conftest import needs_elpv


@pytest.fixture
def places(tmp_path) -> PlaceSettings:
    return PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def classes(root: Path, n: int = 20) -> Path:
    return put(root, {f"{c}/{i:03}.jpg": f"{c}{i}".encode() for c in "ab" for i in range(n)})


def load(data, places, **further) -> Manifest:
    names = ("seed", "strict", "offline")
    settings = {name: further.pop(name) for name in names if name in further}
    return load_manifest(DataSettings(data=str(data), **settings), places, **further)


def test_rows_carry_digest_label_and_split_of_their_file(tmp_path, places):
    manifest = load(classes(tmp_path / "set"), places)
    assert manifest.name == "set"
    assert manifest.n_images == 40
    assert manifest.paths == tuple(sorted(manifest.paths))
    assert manifest.sha256.dtype == "S64"
    assert (manifest.labels.dtype, manifest.split.dtype) == (np.int32, np.int8)
    for path, digest, label in zip(manifest.paths, manifest.sha256, manifest.labels, strict=True):
        data = (manifest.root / path).read_bytes()
        assert digest.decode() == hashlib.sha256(data).hexdigest()
        assert manifest.class_names[label] == path[0]
    assert (manifest.split_from, manifest.val_from) == ("cut", "cut")
    assert manifest.counts() == {
        "train": {"a": 12, "b": 12},
        "val": {"a": 3, "b": 3},
        "test": {"a": 5, "b": 5},
    }


def test_the_split_follows_the_bytes_not_the_names(tmp_path, places):
    before = load(classes(tmp_path / "set"), places)
    sides = dict(zip(before.sha256.tolist(), before.split.tolist(), strict=True))
    for number, path in enumerate(sorted((tmp_path / "set").rglob("*.jpg"), reverse=True)):
        path.rename(path.with_name(f"renamed{number:03}.png"))
    after = load(tmp_path / "set", places)
    assert dict(zip(after.sha256.tolist(), after.split.tolist(), strict=True)) == sides
    assert load(tmp_path / "set", places, seed=1).split.tolist() != after.split.tolist()


@pytest.mark.parametrize(
    ("splits", "expected", "val_from"),
    [
        (("train", "test"), {"train", "test"}, "none"),
        (("train", "val", "test"), {"train", "val", "test"}, "data"),
        (("train", "val"), {"train", "test"}, "none"),
    ],
)
def test_splits_that_the_set_brings_are_kept(tmp_path, places, splits, expected, val_from):
    for split in splits:
        put(
            tmp_path / "set" / split,
            {f"{c}/{i}.jpg": f"{split}{c}{i}".encode() for c in "ab" for i in range(6)},
        )
    manifest = load(tmp_path / "set", places)
    assert set(manifest.counts()) == expected
    assert (manifest.split_from, manifest.val_from) == ("data", val_from)
    assert ("val is reported as test" in " ".join(manifest.warnings)) == (
        len(expected) < len(splits) or splits == ("train", "val")
    )


def test_leaks_and_contradictions_are_reported(tmp_path, places):
    files = {
        f"{s}/{c}/{i}.jpg": f"{s}{c}{i}".encode()
        for s in ("train", "test")
        for c in "ab"
        for i in range(6)
    }
    files["test/a/0.jpg"] = files["train/a/3.jpg"]
    files["train/b/1.jpg"] = files["train/a/2.jpg"]
    manifest = load(put(tmp_path / "set", files), places)
    paths = np.array(manifest.paths)
    assert paths[manifest.leaks].tolist() == ["test/a/0.jpg"]
    assert [paths[list(rows)].tolist() for rows in manifest.contradictions] == [
        ["train/a/2.jpg", "train/b/1.jpg"]
    ]
    text = " ".join(manifest.warnings)
    assert "1 of 12 test images are byte-identical" in text
    assert "1 image has copies in several classes" in text


def test_files_that_cannot_be_used_are_named_or_stop_it(tmp_path, places):
    root = classes(tmp_path / "set")
    put(root, {"a/empty.jpg": b""})
    (root / "a" / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "b" / "pipe.jpg")
    manifest = load(root, places)
    assert [one.path for one in manifest.rejects] == ["a/broken.jpg", "a/empty.jpg", "b/pipe.jpg"]
    assert manifest.n_images == 40
    assert "3 files were left out" in " ".join(manifest.warnings)
    with pytest.raises(DataError, match=r"a/empty\.jpg \(empty"):
        load(root, places, strict=True)


def test_a_class_left_with_nothing_is_answered(tmp_path, places):
    root = put(classes(tmp_path / "set"), {})
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"20 of 40 files .*, all of b: 20 empty"):
        load(root, places)


def test_odd_classes_are_warned_of(tmp_path, places):
    files = {
        f"train/{c}/{i}.jpg": f"{c}{i}".encode() for c in ("Cat", "cat ", "dog") for i in range(4)
    }
    files |= {f"test/{c}/{i}.jpg": f"{c}{i}t".encode() for c in ("Cat", "dog") for i in range(4)}
    text = " ".join(load(put(tmp_path / "set", files), places).warnings)
    assert "differ only by case or spaces: 'Cat', 'cat '" in text
    assert "fewer than 5 training images: 'Cat' (4)" in text
    assert "no test images: 'cat '" in text


def test_a_table_s_columns_stay_with_their_rows_when_some_are_rejected(tmp_path, places):
    root = classes(tmp_path / "set")
    (root / "a" / "004.jpg").write_bytes(b"")
    lines = [f"{c}/{i:03}.jpg,{c},{ord(c) * 100 + i}" for c in "ba" for i in range(20)]
    (root / "t.csv").write_text("path,label,number\n" + "\n".join(lines))
    manifest = load(root / "t.csv", places)
    numbers = [ord(path[0]) * 100 + int(path[2:5]) for path in manifest.paths]
    assert manifest.extra["number"].tolist() == numbers
    assert len(numbers) == 39


@needs_elpv
def test_elpv_by_cell_is_split_by_probability_and_type(places):
    manifest = load("elpv-cells", places)
    assert (manifest.name, manifest.n_images) == ("elpv-cells", 2624)
    assert manifest.class_names == ("functional", "defective")
    np.testing.assert_array_equal(manifest.labels, manifest.extra["probability"] > 0.5)
    assert np.sum(manifest.split == TEST) == 656
    assert not np.any(manifest.split == VAL)
    for level in np.unique(manifest.extra["probability"]):
        for kind in ("mono", "poly"):
            here = (manifest.extra["probability"] == level) & (manifest.extra["type"] == kind)
            assert abs(np.sum(manifest.split[here] == TEST) - here.sum() / 4) <= 1.5
    for split in (manifest.split, load("elpv-cells", places, seed=1).split):
        assert not set(manifest.groups[split == TRAIN]) & set(manifest.groups[split == TEST])
    later = cut_val(manifest.labels, manifest.split, manifest.sha256, 0, strata=manifest.strata)
    assert abs(np.sum(later == VAL) - 394) <= 2


def test_the_real_hotdogs_leak(real_hotdog, places):
    manifest = load(real_hotdog, places)
    assert manifest.counts()["train"] == {"hotdog": 1000, "not-hotdog": 1000}
    assert manifest.leaks.sum() == 8
    assert "8 of 400 test images" in " ".join(manifest.warnings)


def test_the_real_ants_and_bees_are_tested_on_their_val(real_ants_bees, places):
    manifest = load(real_ants_bees, places)
    assert sum(manifest.counts()["test"].values()) == 153
    assert "train/ants/imageNotFound.gif" in manifest.paths
    assert manifest.val_from == "none"


# --- names


def test_names_are_safe_for_a_folder():
    for text in ("a b/c", "..", "", "über café", "x" * 500, "a\udce9b", "\n", "-rf"):
        name = safe_name(text)
        assert name
        assert "/" not in name
        assert not name.startswith((".", "-"))
        assert len(name.encode()) <= 80
    assert safe_name("über café") == "über-café"


def test_a_second_folder_of_the_name_gets_another_and_a_moved_one_keeps_it(tmp_path, places):
    first, second = classes(tmp_path / "x" / "set"), classes(tmp_path / "y" / "set")
    assert load(first, places).name == "set"
    other = load(second, places).name
    assert other.startswith("set-")
    assert len(other) == 10
    assert (load(first, places).name, load(second, places).name) == ("set", other)
    (tmp_path / "z").mkdir()
    shutil.move(first, tmp_path / "z" / "set")
    assert load(tmp_path / "z" / "set", places).name == "set"
    shutil.move(second, tmp_path / "x" / "set")
    assert load(tmp_path / "x" / "set", places).name == other


def test_registered_names_are_never_given_to_paths(tmp_path, places):
    first, second = classes(tmp_path / "x" / "hotdog"), classes(tmp_path / "y" / "hotdog")
    name = load(first, places).name
    assert name.startswith("hotdog-")
    assert load(second, places).name not in ("hotdog", name)
    assert load(first, places).name == name


def test_an_archive_a_table_and_a_list_are_named_after_what_the_user_calls_them(tmp_path, places):
    root = classes(tmp_path / "birds")
    (root / "train.txt").write_text("".join(f"a/{i:03}.jpg a\nb/{i:03}.jpg b\n" for i in range(20)))
    (root / "by site.csv").write_text(
        "path,label\na/000.jpg,a\na/001.jpg,a\na/002.jpg,a\n"
        + "".join(f"b/{i:03}.jpg,b\n" for i in range(3))
    )
    assert load(root / "train.txt", places).name == "birds"
    assert load(root / "by site.csv", places).name == "by-site"
    (root / "by site.csv").unlink()
    (root / "train.txt").unlink()
    shutil.make_archive(str(tmp_path / "packed"), "gztar", root)
    manifest = load(tmp_path / "packed.tar.gz", places)
    assert (manifest.name, manifest.n_images) == ("packed", 40)


def test_a_damaged_claim_is_no_claim(tmp_path):
    for text in (b"", b"[]", b'{"root": 3}', b"\xff"):
        put(tmp_path, {"set/source.json": text})
        assert claim_name("set", tmp_path / "x", tmp_path, taken=()) == "set"
        put(tmp_path, {"set/source.json": text})


# --- digests


@pytest.fixture
def old_files(tmp_path, monkeypatch):
    """Files that are not too young to be trusted."""
    monkeypatch.setattr(digests_module, "RACY_NS", 0)
    root = put(tmp_path / "set", {f"{i}.jpg": f"{i}".encode() for i in range(200)})
    return root, [f"{i}.jpg" for i in range(200)], tmp_path / "cache" / "digests.npz"


def test_untouched_files_are_not_read_again(old_files):
    root, paths, memory = old_files
    first = hash_files(root, paths, memory)
    again = hash_files(root, paths, memory)
    assert (first.n_hashed, again.n_hashed) == (200, 0)
    np.testing.assert_array_equal(first.raw, again.raw)
    fewer = hash_files(root, paths[50:150:-1] + paths[10:60:3], memory)
    np.testing.assert_array_equal(fewer.raw, first.raw[list(range(10, 60, 3))])
    assert fewer.n_hashed == 0
    assert hash_files(root, paths, memory, rehash=True).n_hashed == 200


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_changed_file_is_read_again_even_with_its_old_size_and_date(old_files, keep_times):
    root, paths, memory = old_files
    hash_files(root, paths, memory)
    status = (root / "7.jpg").stat()
    (root / "7.jpg").write_bytes(b"X")
    if keep_times:
        os.utime(root / "7.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = hash_files(root, paths, memory)
    assert after.n_hashed == 1
    assert after.hex[7].decode() == hashlib.sha256(b"X").hexdigest()


def test_swapped_files_are_noticed(old_files):
    root, paths, memory = old_files
    before = hash_files(root, paths, memory).hex
    for old, new in (("1.jpg", "t"), ("2.jpg", "1.jpg"), ("t", "2.jpg")):
        (root / old).rename(root / new)
    after = hash_files(root, paths, memory).hex
    assert (after[1], after[2]) == (before[2], before[1])


def test_files_too_young_to_be_trusted_are_read_again(tmp_path):
    root = put(tmp_path / "set", {"a.jpg": b"1", "b.jpg": b"2"})
    memory = tmp_path / "digests.npz"
    for _ in range(2):
        assert hash_files(root, ["a.jpg", "b.jpg"], memory).n_hashed == 2


def test_a_date_in_the_future_does_not_make_a_file_young_for_ever(old_files, monkeypatch):
    root, paths, memory = old_files
    os.utime(root / "3.jpg", (4e9, 4e9))
    time.sleep(0.02)
    monkeypatch.setattr(digests_module, "RACY_NS", 10_000_000)
    hash_files(root, paths, memory)
    assert hash_files(root, paths, memory).n_hashed == 0


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "pickle", "empty"])
def test_a_damaged_memory_is_ignored_and_mended(old_files, damage):
    root, paths, memory = old_files
    right = hash_files(root, paths, memory).hex
    data = bytearray(memory.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "pickle":
        np.save(memory.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
        data = bytearray(memory.with_suffix(".npy").read_bytes())
    else:
        data = {"cut": data[: len(data) // 2], "text": bytearray(b"no"), "empty": bytearray()}[
            damage
        ]
    memory.write_bytes(data)
    again = hash_files(root, paths, memory)
    assert again.n_hashed == 200
    np.testing.assert_array_equal(again.hex, right)
    assert hash_files(root, paths, memory).n_hashed == 0


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path):
    root = classes(tmp_path / "set")
    (tmp_path / "file").write_bytes(b"")
    for cache in (tmp_path / "file" / "cache", Path("/proc/nothing")):
        places = PlaceSettings(data_root=str(tmp_path / "data"), cache=str(cache))
        manifest = load(root, places)
        assert (manifest.name, manifest.n_images) == ("set", 40)


def test_bad_files_do_not_spoil_the_memory_of_good_ones(old_files):
    root, paths, memory = old_files
    put(root, {"bad.jpg": b""})
    hash_files(root, [*paths, "bad.jpg", "none.jpg"], memory)
    before = memory.stat().st_mtime_ns
    again = hash_files(root, [*paths, "bad.jpg", "none.jpg"], memory)
    assert again.n_hashed == 0
    assert list(again.faults) == [200, 201]
    assert memory.stat().st_mtime_ns == before, "written again though nothing changed"


def test_interrupted_hashing_keeps_what_was_hashed(old_files):
    root, paths, memory = old_files

    class Stop:
        def __init__(self, *args):
            self.done = 0

        def advance(self, n=1):
            self.done += n
            if self.done >= 96:
                raise KeyboardInterrupt

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

    with pytest.raises(KeyboardInterrupt):
        hash_files(root, paths, memory, workers=1, progress=Stop)
    assert hash_files(root, paths, memory).n_hashed <= 200 - 96


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_nothing(old_files, workers):
    root, paths, _ = old_files
    expected = [hashlib.sha256((root / path).read_bytes()).hexdigest().encode() for path in paths]
    assert hash_files(root, paths, None, workers=workers).hex.tolist() == expected


# --- speed


def test_five_thousand_untouched_images_load_at_once(tmp_path, places, monkeypatch):
    monkeypatch.setattr(digests_module, "RACY_NS", 0)
    root = put(tmp_path / "set", {f"c{i % 10}/{i}.jpg": b"%d" % i for i in range(5000)})
    first = load(root, places)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        again = load(root, places)
        best = min(best, time.perf_counter() - start)
    np.testing.assert_array_equal(first.sha256, again.sha256)
    np.testing.assert_array_equal(first.split, again.split)
    assert best < 0.4, f"{best:.3f} s"


def test_importing_data_sets_imports_no_framework_and_no_decoder():
    code = "import sys, cnn_codes.datasets; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "sklearn", "h5py", "PIL", "scipy", "urllib.request", "tarfile"}
