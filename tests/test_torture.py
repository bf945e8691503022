"""The harness itself: its shim counts, kills and fails at the very call."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ran

from torture.power import Disk, entries

ROOT = Path(__file__).parents[1]
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

CHILD = """
import ctypes, os, sys
shim, root, how, call = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
shim.torture_arm(root.encode(), how, ctypes.c_long(call))
error = 0
try:
    handle = os.open(f"{root}/a.tmp", os.O_WRONLY | os.O_CREAT)
    written = os.write(handle, b"x" * 100)      # 1
    written += os.write(handle, b"y" * 100)     # 2
    os.fsync(handle)                            # 3
    os.rename(f"{root}/a.tmp", f"{root}/a")     # 4
    os.unlink(f"{root}/a")                      # 5
except OSError as problem:
    error = problem.errno
print(shim.torture_counted(), written if not error else -error)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    target = tmp_path_factory.mktemp("shim") / "shim.so"
    source = ROOT / "torture" / "shim.c"
    line = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", target, source, "-ldl"]
    subprocess.run(line, check=True)
    return target


def run(shim: Path, folder: Path, how: int, call: int) -> tuple[int, str]:
    line = [sys.executable, "-c", CHILD, str(shim), str(folder), str(how), str(call)]
    env = os.environ | {"LD_PRELOAD": str(shim)}
    done = ran(line, env=env, timeout=300)
    return done.returncode, done.stdout.strip() or done.stderr


@needs_cc
def test_the_shim_counts_kills_and_fails_at_the_very_call(shim, tmp_path):
    assert run(shim, tmp_path, 0, 0) == (0, "5 200")
    for call, there in ((1, 0), (2, 100), (3, 200), (4, 200)):
        assert run(shim, tmp_path, 1, call)[0] == -9  # killed before the call
        assert (tmp_path / "a.tmp").stat().st_size == there
        (tmp_path / "a.tmp").unlink()
    assert run(shim, tmp_path, 2, 2)[0] == -9  # killed amid it
    assert (tmp_path / "a.tmp").stat().st_size == 150
    (tmp_path / "a.tmp").unlink()
    assert run(shim, tmp_path, 3, 2)[1].split()[1] == str(-errno.ENOSPC)
    assert run(shim, tmp_path, 4, 3)[1].split()[1] == str(-errno.EIO)
    assert run(shim, tmp_path, 5, 1) == (0, "5 150")  # half was written, and said so
    assert run(shim, tmp_path / "other", 1, 1)[0] == 0  # outside of the folder nothing is counted


WRITER = """
import ctypes, os, sys
from pathlib import Path
from cnn_codes.files import write_atomic
from cnn_codes.datasets.corrections import Correction, CorrectionLog, State
root = Path(sys.argv[2])
ctypes.CDLL(sys.argv[1]).torture_record(str(root).encode(), sys.argv[3].encode())
write_atomic(root / "new" / "folders" / "file", b"first")
write_atomic(root / "new" / "folders" / "file", b"second")
CorrectionLog(root / "labels" / "of.jsonl").append(
    [Correction("a.jpg", "0" * 64, "label", State("cat"), State("dog"))])
(root / "late").write_bytes(b"never flushed")
(root / "new" / "folders" / "file").rename(root / "moved")
"""


@needs_cc
def test_a_replay_to_each_flush_keeps_what_was_flushed_and_nothing_else(shim, tmp_path):
    root, journal = tmp_path / "root", tmp_path / "journal"
    root.mkdir()
    disk = Disk(root)
    line = [sys.executable, "-c", WRITER, str(shim), str(root), str(journal)]
    subprocess.run(line, check=True, env=os.environ | {"LD_PRELOAD": str(shim)})
    calls = list(entries(journal.read_bytes()))
    seen = []
    for call in calls:
        if call[0] == "r" and call[4].endswith("moved"):
            folders = disk.tree("both")["new"]["folders"]
            assert folders["file"] == b"second"  # write_atomic had returned
        disk.do(*call)
        found = disk.tree("both").get("new", {}).get("folders", {}).get("file")
        seen += [found] if found not in seen else []
    assert seen == [None, b"first", b"second"]  # never empty, never torn
    lost = disk.tree("both")
    assert not {"late", "moved"} & lost.keys()
    assert disk.tree("bytes")["late"] == b""
    assert disk.tree("bytes")["moved"] == b"second"
    assert b'"dog"' in lost["labels"]["of.jsonl"]
    there = {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    whole = disk.tree("nothing")
    assert {name: whole[name] for name in ("late", "moved")}.items() <= there.items()


@pytest.mark.slow  # about a minute
def test_a_short_torture_finds_nothing_and_counts_what_it_did(tmp_path):
    line = [sys.executable, "-m", "torture", sys.executable, "--out", tmp_path / "t.json",
            "--stages", "kills,calls,files", "--kills", "2", "--step", "60", "--files", "2",
            "--seconds", "120"]  # fmt: skip
    done = ran(line, timeout=300)
    record = json.loads((tmp_path / "t.json").read_text())
    assert done.returncode == 0, done.stdout[-3000:]
    assert not any(record["faults"].values())
    assert record["counts"]["kills"] >= 1
    assert record["counts"]["files"] >= 1
