"""Files are whole or not there, whatever happens while they are written."""

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from cnn_codes.errors import CacheError, NoSpaceError
from cnn_codes.files import (
    canonical_json,
    digest_of,
    explained,
    need_space,
    publishing,
    write_atomic,
    write_json,
)

LEFT = """
import os, signal, sys
from pathlib import Path
from cnn_codes.files import publishing
with publishing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    if sys.argv[2] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_swept_up_and_a_living_one_is_not_disturbed(tmp_path):
    line = [sys.executable, "-c", LEFT]
    subprocess.run([*line, tmp_path / "a.json", "dies"], check=False)
    assert len(list(tmp_path.glob(".a.json.*.tmp"))) == 1
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*line, tmp_path / "b.json", "lives"], **pipes) as living:
        living.stdout.readline()
        write_atomic(tmp_path / "c.json", b"whole")
        assert not list(tmp_path.glob(".a.json.*.tmp"))
        assert len(list(tmp_path.glob(".b.json.*.tmp"))) == 1
        living.communicate(b"")
    assert (tmp_path / "b.json").read_bytes() == b"half"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "c.json"]


def child(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")

    def fail() -> None:
        with publishing(path) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_kill_while_writing_leaves_the_old_or_the_new_file(tmp_path):
    path, size = tmp_path / "a.bin", 2_000_000
    contents = {letter * size for letter in (b"a", b"b")}
    write_atomic(path, b"a" * size)
    moments = random.Random(0)
    for _ in range(8):
        writer = child(
            """
            import sys
            from pathlib import Path
            from cnn_codes.files import write_atomic
            print("ready", flush=True)
            while True:
                for letter in (b"a", b"b"):
                    write_atomic(Path(sys.argv[1]), letter * int(sys.argv[2]))
            """,
            path,
            size,
        )
        assert writer.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.03))
        writer.kill()
        writer.communicate()
        assert path.read_bytes() in contents


def test_a_file_over_the_limit_is_no_space_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    writer = child(
        """
        import resource, sys
        from pathlib import Path
        from cnn_codes.errors import NoSpaceError
        from cnn_codes.files import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_atomic(Path(sys.argv[1]), bytes(200_000))
        except NoSpaceError as error:
            print(error)
        """,
        path,
    )
    out, err = writer.communicate(timeout=30)
    assert (writer.returncode, err) == (0, "")
    assert "No space left" in out
    assert "CACHE=" in out
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_folder_that_cannot_be_written_is_a_cache_error(tmp_path, number):
    with pytest.raises(CacheError, match="cannot be written") as caught, explained(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert not isinstance(caught.value, NoSpaceError)


def test_other_errors_of_the_system_pass_through(tmp_path):
    with pytest.raises(OSError, match="Input/output"), explained(tmp_path / "a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_room_is_asked_of_the_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    need_space(tmp_path / "not" / "yet", 1, "A file")
    with pytest.raises(NoSpaceError, match="A file needs"):
        need_space(tmp_path / "not" / "yet", 1 << 60, "A file")


def test_equal_values_have_one_spelling_and_one_digest():
    assert canonical_json({"b": 1, "a": [1.5]}) == canonical_json({"a": [1.5], "b": 1})
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1}) != digest_of({"a": 1, "b": 2})


def test_json_has_no_numbers_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_writing_leaves_no_temporary_file(tmp_path):
    writer = child(
        """
        import sys, time
        from pathlib import Path
        from cnn_codes.files import replacing
        with replacing(Path(sys.argv[1])) as stream:
            stream.write(b"half")
            print("ready", flush=True)
            time.sleep(30)
        """,
        tmp_path / "a.bin",
    )
    assert writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGINT)
    writer.communicate(timeout=30)
    assert list(tmp_path.iterdir()) == []
