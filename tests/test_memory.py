"""Remembered facts: given back as they were, or forgotten; never a wrong figure."""

import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from cnn_codes.memory import recall_arrays, recall_values, remember_arrays, remember_values

ROW = np.dtype([("sha256", "S64"), ("width", "<i4")])
ARRAYS = {
    "rows": np.array([(b"a" * 64, 300), (b"b" * 64, 200)], ROW),
    "codes": np.arange(12, dtype=np.float32).reshape(3, 4),
    "blob": np.frombuffer(b"some bytes of a picture", np.uint8),
    "none": np.zeros((0, 5), np.int64),
}
VALUES = {"pairs": [["a/é.jpg", "b.jpg", 0.9371, True]], "n": 3, "nothing": None}


def arrays_file(folder):
    path = folder / "set" / "facts.npz"
    remember_arrays(path, "facts 1", ARRAYS)
    return path


def values_file(folder):
    path = folder / "set" / "near.json"
    remember_values(path, "near 1", VALUES)
    return path


def recalled(path):
    """Give what a file remembers, whichever of the two it is."""
    if path.suffix == ".npz":
        return recall_arrays(path, "facts 1")
    return recall_values(path, "near 1")


def test_arrays_and_values_come_back_as_they_were(tmp_path):
    found = recalled(arrays_file(tmp_path))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert recalled(values_file(tmp_path)) == VALUES


def test_another_kind_or_version_is_forgotten(tmp_path):
    arrays, values = arrays_file(tmp_path), values_file(tmp_path)
    for kind in ("facts 2", "facts", "near 1", ""):
        assert recall_arrays(arrays, kind) is None
    for kind in ("near 2", "near", "facts 1", ""):
        assert recall_values(values, kind) is None
    remember_arrays(arrays, "facts 2", {"rows": ARRAYS["rows"]})
    assert recall_arrays(arrays, "facts 1") is None
    assert set(recall_arrays(arrays, "facts 2")) == {"rows"}


@pytest.mark.parametrize("make", [arrays_file, values_file])
def test_a_damaged_file_is_forgotten_wherever_the_damage_is(tmp_path, make):
    path = make(tmp_path)
    sound, right = path.read_bytes(), recalled(path)
    n_forgotten = 0
    for at in range(0, len(sound), max(1, len(sound) // 400)):
        data = bytearray(sound)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        found = recalled(path)
        n_forgotten += found is None
        # Some bytes of a zip file mean nothing: whatever comes back is what was remembered.
        if found is not None:
            np.testing.assert_equal(found, right)
    assert n_forgotten > 200
    for data in (
        b"",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        sound[:-2],
        sound[: len(sound) // 2],
        b"[" * 9999,
    ):
        path.write_bytes(data)
        assert recalled(path) is None
    path.unlink()
    assert recalled(path) is None
    path.mkdir()
    assert recalled(path) is None


def test_values_changed_under_their_old_checksum_are_forgotten(tmp_path):
    arrays, values = arrays_file(tmp_path), values_file(tmp_path)
    with np.load(arrays) as saved:
        content = {name: saved[name] for name in saved.files}
    for name, other in (
        ("codes", content["codes"] + 1),
        ("codes", content["codes"].reshape(4, 3)),
        ("codes", content["codes"].view(np.int32)),
        ("more", content["codes"]),
    ):
        np.savez(arrays, **{**content, name: other})
        assert recalled(arrays) is None
    np.savez(arrays, **{name: one for name, one in content.items() if name != "codes"})
    assert recalled(arrays) is None
    np.savez(arrays, **content)
    assert recalled(arrays) is not None
    text = json.loads(values.read_text())
    text["values"]["n"] = 4
    values.write_text(json.dumps(text))
    assert recalled(values) is None


def test_files_that_other_programs_wrote_are_forgotten(tmp_path):
    path = tmp_path / "facts.npz"
    np.savez(path, **ARRAYS)
    assert recalled(path) is None
    np.save(tmp_path / "one.npy", np.array([{}], dtype=object), allow_pickle=True)
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    assert recalled(path) is None
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("kind.npy", b"facts 1")
    assert recalled(path) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "set").write_bytes(b"")  # a file where the folder should be
    for make in (arrays_file, values_file):
        assert recalled(make(tmp_path)) is None


WRITER = """
import sys
import numpy as np
from pathlib import Path
from cnn_codes.memory import remember_arrays, remember_values
folder, mine = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while True:
    remember_arrays(folder / "facts.npz", "facts 1", {"rows": np.full(50_000, mine)})
    remember_values(folder / "near.json", "near 1", [mine] * 5_000)
"""


def test_two_writers_and_a_kill_leave_what_one_of_them_remembered(tmp_path):
    paths = (tmp_path / "facts.npz", tmp_path / "near.json")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(mine)], stdout=subprocess.PIPE
        )
        for mine in (1, 2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        while not all(path.exists() for path in paths):
            pass
        seen = set()
        for _ in range(60):
            rows, values = recalled(paths[0])["rows"], recalled(paths[1])
            assert len(set(rows.tolist())) == len(set(values)) == 1
            seen |= {int(rows[0])}
    finally:
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
    assert seen <= {1, 2}
    assert set(recalled(paths[0])["rows"].tolist()) < {1, 2}
    assert set(recalled(paths[1])) < {1, 2}
