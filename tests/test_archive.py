"""Archives: unpacked whole or not at all, and never out of their folder."""

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from cnn_codes.datasets import archive as archive_module
from cnn_codes.datasets.archive import unpack, unpacked_note
from cnn_codes.errors import DataError, NoSpaceError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FILES = {"top/a/1.jpg": b"one" * 500, "top/b/2.jpg": b"two", "top/b/deep/3 4.jpg": os.urandom(9000)}
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def make(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, data in files.items():
                opened.writestr(name, data)
        return path
    suffix = next(one for one in sorted(MODES, key=len, reverse=True) if path.name.endswith(one))
    with tarfile.open(path, MODES[suffix]) as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "unpacking" in path.name]


@pytest.mark.parametrize("suffix", [".zip", *MODES])
def test_every_kind_unpacks_without_its_wrapping_folder(tmp_path, suffix):
    archive = make(tmp_path / f"x{suffix}", FILES | {"__MACOSX/top/._1.jpg": b"", ".DS_Store": b""})
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {name[4:]: data for name, data in FILES.items()}
    assert left_over(tmp_path) == []


def test_a_single_class_folder_is_not_taken_for_a_wrapping(tmp_path):
    unpack(make(tmp_path / "x.zip", {"cats/1.jpg": b"1"}), tmp_path / "out")
    assert list(tree(tmp_path / "out")) == ["cats/1.jpg"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_name_that_stands_twice_is_named(tmp_path, suffix):
    archive = tmp_path / f"x.{suffix}"
    pairs = [("a/1.jpg", b"old"), ("a/1.jpg", b"new"), ("b/1.jpg", b"one")]
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name, data in pairs:
                opened.writestr(name, data)
    else:
        with tarfile.open(archive, "w:gz") as opened:
            for name, data in pairs:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "1.jpg").read_bytes() == b"new"
    (note,) = unpacked_note(tmp_path / "out")
    assert note.endswith(
        "holds 1 name more than once (a/1.jpg); the last file of each name was taken."
    )


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    unpack(make(tmp_path / "x.zip", FILES), tmp_path / "out")
    assert tree(tmp_path / "out") == {}


ESCAPES = [
    "../evil",
    "a/../../evil",
    "/tmp/evil-absolute",
    "..\\evil",
    "C:\\evil",
    "a/./../../evil",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_no_member_leads_out(tmp_path, name, suffix):
    archive = make(tmp_path / f"x{suffix}", {"a/1.jpg": b"1", name: b"evil"})
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="leads out"):
        unpack(archive, tmp_path / "in" / "out")
    assert [one.name for one in (tmp_path / "in").iterdir() if not one.name.endswith(".lock")] == []
    assert not list(tmp_path.rglob("*evil*"))


@given(st.lists(st.text("ab./\\:~ \x00é", min_size=1, max_size=12), min_size=1, max_size=4))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_names_nothing_is_written_outside(tmp_path_factory, names):
    base = tmp_path_factory.mktemp("x")
    with tarfile.open(base / "x.tar", "w") as opened:
        for name in names:
            opened.addfile(tarfile.TarInfo(name.replace("\0", "0")))
    inner = base / "in"
    inner.mkdir()
    try:
        unpack(base / "x.tar", inner / "out")
    except DataError:
        assert not (inner / "out").exists()
    assert {one.name for one in base.iterdir()} == {"x.tar", "in"}
    assert {one.name for one in inner.iterdir()} <= {"out", ".out.lock"}


def tar_of(path: Path, *members: tuple[str, bytes, str, bytes]) -> Path:
    with tarfile.open(path, "w") as opened:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("a/link", tarfile.SYMTYPE, "../../outside", b"")],
        [("a/link", tarfile.SYMTYPE, "/etc/passwd", b"")],
        [("a/link", tarfile.LNKTYPE, "../outside", b"")],
        [("a/fifo", tarfile.FIFOTYPE, "", b"")],
        [("a/dev", tarfile.CHRTYPE, "", b"")],
    ],
)
def test_links_out_of_the_folder_and_devices_are_refused(tmp_path, members):
    archive = tar_of(tmp_path / "x.tar", ("a/1.jpg", tarfile.REGTYPE, "", b"1"), *members)
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_writing_through_a_link_of_the_archive_is_impossible(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tar_of(
        tmp_path / "x.tar",
        ("real/1.jpg", tarfile.REGTYPE, "", b"1"),
        ("real/a", tarfile.SYMTYPE, "../b", b""),
        ("b", tarfile.SYMTYPE, "real", b""),
        ("b/../../outside/evil", tarfile.REGTYPE, "", b"evil"),
    )
    with pytest.raises(DataError, match="leads out"):
        unpack(archive, tmp_path / "in" / "out")
    archive = tar_of(
        tmp_path / "y.tar",
        ("real/1.jpg", tarfile.REGTYPE, "", b"1"),
        ("b", tarfile.SYMTYPE, "real", b""),
        ("b/2.jpg", tarfile.REGTYPE, "", b"2"),
    )
    unpack(archive, tmp_path / "y")
    assert tree(tmp_path / "y") == {"real/1.jpg": b"1", "b/2.jpg": b"2"}
    assert list(outside.iterdir()) == []


def test_a_link_below_a_link_does_not_lead_out(tmp_path):
    archive = tar_of(
        tmp_path / "x.tar",
        ("goal/1.jpg", tarfile.REGTYPE, "", b"1"),
        ("real/1.jpg", tarfile.REGTYPE, "", b"1"),
        ("p/q/s", tarfile.SYMTYPE, "../../real", b""),
        ("p/q/s/evil", tarfile.SYMTYPE, "../../../goal", b""),  # from real/: above the folder
        ("stacked", tarfile.SYMTYPE, "p/q/s", b""),
    )
    (tmp_path / "goal").mkdir()
    out = unpack(archive, tmp_path / "in" / "out")
    links = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_symlink()}
    assert list(links) == ["p/q/s"]
    assert all(path.resolve().is_relative_to(out.resolve()) for path in links.values())


def test_links_within_the_archive_are_kept(tmp_path):
    archive = tar_of(
        tmp_path / "x.tar",
        ("a/soft.jpg", tarfile.SYMTYPE, "../b/1.jpg", b""),
        ("b/1.jpg", tarfile.REGTYPE, "", b"1"),
        ("a/hard.jpg", tarfile.LNKTYPE, "b/1.jpg", b""),
        ("c", tarfile.SYMTYPE, "b", b""),
        ("a/broken.jpg", tarfile.SYMTYPE, "nothing.jpg", b""),
    )
    out = unpack(archive, tmp_path / "out")
    assert tree(out) == {"a/soft.jpg": b"1", "a/hard.jpg": b"1", "b/1.jpg": b"1"}
    assert (out / "c" / "1.jpg").read_bytes() == b"1"


def test_links_in_a_zip_obey_the_same_rules(tmp_path):
    def linked(goal: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zip"
        info = zipfile.ZipInfo("a/link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("a/1.jpg", b"1")
            opened.writestr("b/1.jpg", b"1")
            opened.writestr(info, goal)
        return path

    assert tree(unpack(linked("1.jpg"), tmp_path / "out"))["a/link.jpg"] == b"1"
    with pytest.raises(DataError, match="leads out"):
        unpack(linked("../../../etc/passwd"), tmp_path / "out2")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_stopped(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(archive_module, "FREE_BYTES", 1 << 20)
    archive = make(tmp_path / f"x{suffix}", {"a/1.jpg": bytes(8 << 20), "b/1.jpg": b"1"})
    assert archive.stat().st_size < 50_000
    with pytest.raises(DataError, match="100 times its own size"):
        unpack(archive, tmp_path / "out")
    assert left_over(tmp_path) == []
    monkeypatch.setattr(archive_module, "FREE_BYTES", 16 << 20)
    assert len(tree(unpack(archive, tmp_path / "out"))) == 2


def test_bombs_of_empty_files_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "FREE_BYTES", 1 << 19)
    archive = make(tmp_path / "x.tar.gz", {f"a/{i}.jpg": b"" for i in range(3000)})
    with pytest.raises(DataError, match="100 times its own size"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".zip", *MODES])
def test_half_a_download_is_answered_wherever_it_ends(tmp_path, suffix):
    data = make(tmp_path / f"whole{suffix}", FILES).read_bytes()
    # A tar ends in zeros of no meaning: its half lies before them.
    end = len(data.rstrip(b"\0")) + 400 if suffix == ".tar" else len(data) - 1
    for n, size in enumerate(range(0, end, max(end // 25, 1))):
        half = tmp_path / f"half{n}{suffix}"
        half.write_bytes(data[:size])
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack(half, tmp_path / f"out{n}")
        assert not (tmp_path / f"out{n}").exists()
    assert left_over(tmp_path) == []


def test_a_tar_cut_between_two_members_is_answered(tmp_path):
    data = make(tmp_path / "x.tar", FILES).read_bytes()
    header_of_last = data.index(b"top/b/deep/3 4.jpg")
    for size in (header_of_last, header_of_last + 100):
        (tmp_path / "half.tar").write_bytes(data[:size])
        with pytest.raises(DataError, match="end mark"):
            unpack(tmp_path / "half.tar", tmp_path / "out")


def test_flipped_bytes_in_a_zip_are_found(tmp_path):
    archive = make(tmp_path / "x.zip", {"a/1.jpg": os.urandom(4000), "b/1.jpg": b"1"})
    data = bytearray(archive.read_bytes())
    data[2000] ^= 255
    archive.write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")


def test_a_web_page_saved_as_an_archive_is_recognised(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(DataError, match="begins like a web page"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_a_name_that_is_file_and_folder_is_answered(tmp_path):
    archive = make(tmp_path / "x.tar", {"a": b"file", "a/1.jpg": b"1"})
    with pytest.raises(DataError, match="at once"):
        unpack(archive, tmp_path / "out")


def test_an_encrypted_zip_is_answered(tmp_path):
    archive = make(tmp_path / "x.zip", {"a/1.jpg": b"1"})
    data = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + at] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        unpack(archive, tmp_path / "out")


def test_a_disk_without_room_is_answered(tmp_path):
    archive = make(tmp_path / "x.zip", {"a/1.jpg": os.urandom(3 << 20), "b/1.jpg": b"1"})
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from cnn_codes.datasets.archive import unpack\nfrom cnn_codes.errors import NoSpaceError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except NoSpaceError as error: print(error); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, archive, tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    assert "DATA_ROOT=" in done.stdout
    assert left_over(tmp_path) == []


def test_more_than_the_disk_has_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    archive = make(tmp_path / "x.zip", FILES)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1000})())
    with pytest.raises(NoSpaceError, match=r"x\.zip needs"):
        unpack(archive, tmp_path / "out")


def test_killed_while_unpacking_leaves_nothing_that_counts(tmp_path):
    archive = make(tmp_path / "x.zip", {f"c{i % 3}/{i}.jpg": os.urandom(4000) for i in range(4000)})
    code = (
        "import sys\nfrom pathlib import Path\nfrom cnn_codes.datasets.archive import unpack\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, archive, tmp_path / "out"])
    while not (parts := [*tmp_path.glob(".out.unpacking-*/whole/c0/*")]) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert parts
    assert not (tmp_path / "out").exists()
    assert len(tree(unpack(archive, tmp_path / "out"))) == 4000
    assert left_over(tmp_path) == []
