"""The cache of codes: rows follow bytes, nothing is lost, nothing stale is served."""

import hashlib
import multiprocessing
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.codes import cache as cache_module
from cnn_codes.codes import parts as parts_module
from cnn_codes.codes.cache import CacheFile
from cnn_codes.codes.format import MATTERS
from cnn_codes.codes.keys import Key
from cnn_codes.codes.parts import read_part
from cnn_codes.codes.reader import open_codes
from cnn_codes.datasets import Manifest
from cnn_codes.errors import CacheBusyError, CacheError
from cnn_codes.files import digest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LAYERS = ("block/1", "final")


def key(folder: Path, weights: str = "f" * 64) -> Key:
    matters = dict.fromkeys(MATTERS, "") | {"layers": list(LAYERS), "weights_digest": weights}
    return Key(folder / "set" / "net.h5", digest_of(matters), matters | {"n_views": 1})


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def blocks(numbers: list[int]) -> list[np.ndarray]:
    """Give codes of two layers that only the image decides."""
    rows = [np.random.default_rng(number).normal(size=7).astype(np.float32) for number in numbers]
    whole = np.array(rows, np.float32).reshape(len(rows), 7)
    return [whole[:, :3].copy(), whole[:, 3:].copy()]


def manifest(numbers: list[int], root: Path = Path("/nowhere"), **changes) -> Manifest:
    """Give a set of these images (repeats are copies), by turns of two classes and two splits."""
    n = len(numbers)
    values = {
        "paths": tuple(f"{i:03}-{number}.jpg" for i, number in enumerate(numbers)),
        "labels": np.arange(n, dtype=np.int32) % 2,
        "split": (np.arange(n) % 2 * 2).astype(np.int8),
        "sha256": np.array([digest(number) for number in numbers], "S64"),
        "class_names": ("a", "b"),
    }
    return Manifest(name="set", root=root, **values | changes)


def run(file: CacheFile, some: Manifest, numbers: list[int], rejects: dict[str, str] | None = None):
    """Do as stage one does; return the file and which images had to run."""
    current = file.current(some)
    if current is not None:
        return current, []
    with file.locked(None):
        known = file.known()
        missing = [numbers[row] for row in known.missing(some).tolist()]
        good = [number for number in missing if digest(number) not in (rejects or {})]
        if missing:
            bad = {d: why for d, why in (rejects or {}).items()}
            file.add_part([digest(number) for number in good], blocks(good), bad, 1.0)
        return file.publish(some, file.known()), missing


def assert_holds(codes, numbers: list[int]) -> None:
    for layer, block in zip(LAYERS, blocks(numbers), strict=True):
        assert np.array_equal(codes[layer], block)
    assert not len(codes.damaged_rows())


SETS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=16), min_size=1, max_size=6)


@given(SETS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_after_any_changes_rows_are_their_images_and_no_image_runs_twice(tmp_path_factory, sets):
    folder = tmp_path_factory.mktemp("cache")
    file, seen = CacheFile(key(folder)), set()
    for numbers in sets:
        codes, ran = run(file, manifest(numbers), numbers)
        assert_holds(codes, numbers)
        assert sorted(ran) == sorted(set(numbers) - seen)
        seen |= set(numbers)
        assert run(file, manifest(numbers), numbers)[1] == []


@pytest.mark.parametrize("part_rows", [1, 3, 1000])
def test_rows_that_are_not_wanted_stay_behind_and_come_back(tmp_path, monkeypatch, part_rows):
    monkeypatch.setattr(cache_module, "PART_ROWS", part_rows)
    file = CacheFile(key(tmp_path))
    run(file, manifest([1, 2, 3, 4]), [1, 2, 3, 4])
    run(file, manifest([3]), [3])
    codes, ran = run(file, manifest([4, 3, 2, 1]), [4, 3, 2, 1])
    assert ran == []
    assert_holds(codes, [4, 3, 2, 1])
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([1, 1, 0], np.int32)},
        {"split": np.array([1, 1, 1], np.int8)},
        {"paths": ("x", "y", "z")},
        {"class_names": ("b", "c")},
        {"extra": {"weight": np.array([1.0, np.nan, 2.0])}},
        {"extra": {"type": np.array(["mono", "poly", "mono"], object)}},
    ],
)
def test_labels_names_and_columns_are_brought_up_to_date_without_running(tmp_path, change):
    file = CacheFile(key(tmp_path))
    run(file, manifest([1, 2, 3]), [1, 2, 3])
    changed = manifest([1, 2, 3], **change)
    assert file.current(changed) is None
    codes, ran = run(file, changed, [1, 2, 3])
    assert ran == []
    assert_holds(codes, [1, 2, 3])
    assert np.array_equal(codes.labels, changed.labels)
    assert codes.class_names == changed.class_names
    assert codes.paths == changed.paths
    assert codes.extra.keys() == changed.extra.keys()
    assert file.current(changed) is not None


def test_codes_of_another_fingerprint_are_never_served(tmp_path):
    run(CacheFile(key(tmp_path)), manifest([1, 2]), [1, 2])
    other = CacheFile(key(tmp_path, "e" * 64))
    assert other.current(manifest([1, 2])) is None
    assert not len(other.known().sha256())


def test_a_file_never_replaces_one_of_another_fingerprint(tmp_path):
    run(CacheFile(key(tmp_path)), manifest([1, 2]), [1, 2])
    before = (tmp_path / "set" / "net.h5").read_bytes()
    with pytest.raises(CacheError, match="another fingerprint"):
        run(CacheFile(key(tmp_path, "e" * 64)), manifest([1, 2]), [1, 2])
    assert (tmp_path / "set" / "net.h5").read_bytes() == before


def test_parts_of_another_fingerprint_are_never_used(tmp_path):
    file = CacheFile(key(tmp_path))
    with file.locked(None):
        file.add_part([digest(1)], blocks([1]), {}, 1.0)
    other = CacheFile(key(tmp_path, "e" * 64))
    with other.locked(None):
        assert not len(other.known().sha256())


def test_rejected_images_are_remembered_and_forgotten_with_the_image(tmp_path):
    file, bad = CacheFile(key(tmp_path)), {digest(2): "no picture"}
    codes, ran = run(file, manifest([1, 2, 3]), [1, 2, 3], bad)
    assert ran == [1, 2, 3]
    assert codes.rejects == bad
    assert_holds(codes, [1, 3])
    assert run(file, manifest([1, 2, 3]), [1, 2, 3])[1] == []
    codes, ran = run(file, manifest([1, 3]), [1, 3])
    assert (codes.rejects, ran) == ({}, [])


def test_a_renamed_reject_is_named_anew(tmp_path):
    file, bad = CacheFile(key(tmp_path)), {digest(2): "no picture"}
    run(file, manifest([1, 2]), [1, 2], bad)
    codes, ran = run(file, manifest([1, 2], paths=("good.jpg", "worse.jpg")), [1, 2])
    assert ran == []
    assert codes.contents.array("rejects/path").tolist() == [b"worse.jpg"]


def test_all_images_may_be_bad(tmp_path):
    file, bad = CacheFile(key(tmp_path)), {digest(1): "a", digest(2): "b"}
    codes, _ = run(file, manifest([1, 2]), [1, 2], bad)
    assert len(codes) == 0
    assert codes.rejects == bad


@pytest.mark.parametrize("name", ["codes/final", "images/row_digest", "images/sha256"])
def test_a_row_with_flipped_bits_is_made_again_and_only_that_row(tmp_path, name):
    numbers = [1, 2, 3, 4]
    file = CacheFile(key(tmp_path))
    codes, _ = run(file, manifest(numbers), numbers)
    field = codes.contents.fields[name]
    with codes.path.open("r+b") as stream:
        stream.seek(field.offset + 2 * field.n_bytes // 4 + 1)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 16]))
    assert file.current(manifest(numbers)) is None
    codes, ran = run(file, manifest(numbers), numbers)
    assert ran == [3]
    assert_holds(codes, numbers)


def test_a_damaged_part_is_made_again_and_the_others_are_kept(tmp_path):
    file = CacheFile(key(tmp_path))
    with file.locked(None):
        for number in (1, 2, 3):
            file.add_part([digest(number)], blocks([number]), {}, 1.0)
    parts = sorted(tmp_path.rglob("*.part"))
    data = bytearray(parts[0].read_bytes())
    at = data.find(read_part(parts[0])[0]["codes/1"].tobytes())
    assert at > 0
    data[at + 2] ^= 1
    parts[0].write_bytes(data)
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    with pytest.raises(CacheError):
        read_part(parts[0])
    damaged = {path.name: path.read_bytes() for path in parts[:2]}
    with file.locked(None):
        notes = file.known().notes
    assert len(notes) == 2
    assert all(name in " ".join(notes) for name in damaged)
    codes, ran = run(file, manifest([1, 2, 3]), [1, 2, 3])
    assert len(ran) == 2
    assert_holds(codes, [1, 2, 3])
    folder = tmp_path / "set" / "net.h5.parts" / "damaged"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == damaged


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_a_part_that_cannot_be_read_just_now_is_kept(tmp_path, monkeypatch, error):
    file = CacheFile(key(tmp_path))
    with file.locked(None):
        file.add_part([digest(1)], blocks([1]), {}, 1.0)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "unpack", fails)
        if isinstance(error, OSError):
            patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(CacheError, match="cannot be read"), file.locked(None):
            file.known()
    assert run(file, manifest([1]), [1])[1] == []


@pytest.mark.parametrize("column", ["images/label", "images/split", "images/path"])
def test_a_changed_label_split_or_path_is_noticed(tmp_path, column):
    numbers = [1, 2, 3, 4]
    file = CacheFile(key(tmp_path))
    codes, _ = run(file, manifest(numbers), numbers)
    field = codes.contents.fields[column]
    with file.key.path.open("r+b") as stream:
        stream.seek(field.offset)
        byte = stream.read(1)
        stream.seek(field.offset)
        stream.write(bytes([byte[0] ^ 1]))
    changed = open_codes(file.key.path)
    assert "labels, splits" in changed.columns_fault
    with pytest.raises(CacheError, match="labels, splits"):
        changed.matrix()
    assert not open_codes(run(file, manifest(numbers), numbers)[0].path).columns_fault


def test_any_other_changed_byte_is_noticed_too(tmp_path):
    """Attributes, their copies for other readers, the probe, HDF5's own structures."""
    file = CacheFile(key(tmp_path))
    file.probe = {"final": np.arange(8, dtype=np.float32).reshape(2, 4)}
    codes, _ = run(file, manifest([1, 2, 3]), [1, 2, 3])
    data = file.key.path.read_bytes()
    rows = [one for name, one in codes.contents.fields.items() if name.startswith("codes/")]
    inside = {at for one in rows for at in range(one.offset, one.offset + one.n_bytes)}
    others = [at for at in range(len(data)) if at not in inside]
    copy = tmp_path / "copy.h5"
    for at in others[::17]:
        copy.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            assert open_codes(copy).columns_fault, at
        except CacheError:
            pass
    copy.write_bytes(data)
    assert not open_codes(copy).columns_fault


def test_appended_bytes_and_a_config_of_another_fingerprint_are_noticed(tmp_path):
    file = CacheFile(key(tmp_path))
    run(file, manifest([1, 2]), [1, 2])
    whole = file.key.path.read_bytes()
    file.key.path.write_bytes(whole + b"x")
    with pytest.raises(CacheError, match="should have"):
        open_codes(file.key.path)
    file.key.path.unlink()
    other = replace(file.key, fingerprint="e" * 64)
    with pytest.raises(CacheError, match="config is not what its fingerprint"):
        run(CacheFile(other), manifest([1, 2]), [1, 2])


def test_a_file_cut_short_while_it_is_open_is_an_error_and_not_the_end_of_the_process(tmp_path):
    file = CacheFile(key(tmp_path))
    codes, _ = run(file, manifest([1, 2]), [1, 2])
    with file.key.path.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(CacheError, match="cut short while it was open"):
        codes["final"].sum()


def test_refusals_by_other_decoders_are_tried_again(tmp_path, monkeypatch):
    file, bad = CacheFile(key(tmp_path)), {digest(2): "no picture"}
    run(file, manifest([1, 2]), [1, 2], bad)
    assert run(file, manifest([1, 2]), [1, 2], bad)[1] == []
    monkeypatch.setattr(cache_module, "decoder_version", lambda: "another")
    codes, ran = run(file, manifest([1, 2]), [1, 2])
    assert ran == [2]
    assert not codes.rejects
    assert_holds(codes, [1, 2])


def test_rows_are_taken_over_from_the_predecessor_but_those_that_changed(tmp_path):
    old = CacheFile(key(tmp_path))
    run(old, manifest([1, 2, 3]), [1, 2, 3])
    new = replace(key(tmp_path, "e" * 64), predecessor=old.key.fingerprint)
    new = replace(new, path=new.path.with_name(f"net-{new.fingerprint[:8]}.h5"))
    file = CacheFile(new)
    with file.locked(None):
        known = file.known(np.array([digest(2)], "S64"))
        assert known.missing(manifest([1, 2, 3])).tolist() == [1]
        file.add_part([digest(2)], blocks([2]), {}, 1.0)
        codes = file.publish(manifest([1, 2, 3]), file.known(np.array([digest(2)], "S64")))
    assert_holds(codes, [1, 2, 3])
    assert old.key.path.exists()


@pytest.mark.parametrize("data", [b"", b"text\n", b"\x89HDF\r\n\x1a\nrest"])
def test_what_is_no_file_of_ours_is_refused_and_left_alone(tmp_path, data):
    file = CacheFile(key(tmp_path))
    file.key.path.parent.mkdir(parents=True)
    file.key.path.write_bytes(data)
    with pytest.raises(CacheError, match=re.escape(str(file.key.path))):
        file.current(manifest([1]))
    assert file.key.path.read_bytes() == data


def test_a_reader_keeps_its_file_while_the_next_is_published(tmp_path):
    file = CacheFile(key(tmp_path))
    codes, _ = run(file, manifest([1, 2]), [1, 2])
    run(file, manifest([5]), [5])
    assert_holds(codes, [1, 2])


def test_what_a_killed_run_left_half_written_is_swept_up(tmp_path):
    file = CacheFile(key(tmp_path))
    left = [
        tmp_path / "set" / ".net.h5.abc123.tmp",
        tmp_path / "set" / "net.h5.parts" / ".0123.part.abc123.tmp",
    ]
    others = tmp_path / "set" / ".other.h5.abc123.tmp"
    for path in [*left, others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(file, manifest([1]), [1])
    assert not any(path.exists() for path in left)
    assert others.exists()  # perhaps being written, under another lock


def test_seconds_are_those_of_the_rows_in_the_file(tmp_path):
    file = CacheFile(key(tmp_path))
    with file.locked(None):
        file.add_part([digest(n) for n in (1, 2, 3, 4)], blocks([1, 2, 3, 4]), {}, 8.0)
    for _ in range(3):  # the part stays, since half of it is not wanted
        assert run(file, manifest([1, 2]), [1, 2])[0].extraction_s == pytest.approx(4)
        assert run(file, manifest([2, 1]), [2, 1])[0].extraction_s == pytest.approx(4)
    codes, ran = run(file, manifest([4, 3, 2, 1]), [4, 3, 2, 1])
    assert ran == []
    assert codes.extraction_s == pytest.approx(8)


def _hold(folder: Path, held, release) -> None:
    with CacheFile(key(folder)).locked(None):
        held.set()
        release.wait(30)


def test_a_second_writer_is_told_who_holds_the_file_and_waits(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, held, release))
    first.start()
    assert held.wait(60)
    file, told = CacheFile(key(tmp_path)), []
    with pytest.raises(CacheBusyError, match=f"process {first.pid} on "), file.locked(None):
        pass
    threading.Timer(0.5, release.set).start()
    with file.locked(told.append):
        assert release.is_set()
    first.join()
    assert len(told) == 1
    assert f"process {first.pid} on " in told[0]


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, held, release))
    first.start()
    assert held.wait(60)
    first.kill()
    first.join()
    with CacheFile(key(tmp_path)).locked(None):
        pass


def test_a_published_file_opens_by_its_path_alone(tmp_path):
    codes, _ = run(CacheFile(key(tmp_path)), manifest([1, 2]), [1, 2])
    assert_holds(open_codes(str(codes.path)), [1, 2])
