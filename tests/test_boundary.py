"""Whatever escapes is a sentence, exit 2 and a traceback in a file: a fuzz of the boundary."""

import dataclasses
import errno
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from cnn_codes.cli import STAGES, boundary, main
from cnn_codes.cli.boundary import unforeseen
from conftest import ran
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]


class Panic(BaseException):
    """What libraries in Rust raise."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


KINDS = [
    RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError,
    ZeroDivisionError, OverflowError, RecursionError, NotImplementedError, MemoryError, OSError,
    PermissionError, FileNotFoundError, TimeoutError, EOFError, ImportError, StopIteration,
    FloatingPointError, LookupError, Panic, Unspeakable, GeneratorExit, ConnectionResetError,
    UnicodeError, BufferError, SyntaxError, UserWarning,
]  # fmt: skip
texts = st.text(max_size=40) | st.sampled_from(["", "\x1b[31mred", "a\nb", "\udcff", "x" * 9000])


@given(kind=st.sampled_from(KINDS), text=texts, number=st.integers(1, 130), late=st.booleans())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_error_of_a_stage_is_a_sentence_and_a_file(
    tmp_path, monkeypatch, kind, text, number, late
):
    error = kind(number, os.strerror(number), text) if issubclass(kind, OSError) else kind(text)

    def fail(chosen):
        try:
            raise LookupError("first") from None
        except LookupError as first:
            raise error from (first if late else None)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(STAGES, "runs", dataclasses.replace(STAGES["runs"], run=fail))
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    assert main(["runs", "TOKEN=secret", f"RESULTS={tmp_path}"]) == (
        0 if isinstance(error, BrokenPipeError) else 2
    )
    if isinstance(error, BrokenPipeError):
        return
    answer = said.getvalue()
    assert answer.startswith("error: ")
    assert "Traceback" not in answer
    assert "\x1b" not in answer
    assert len(answer) < 1500
    (place,) = re.findall(r"\S*cnn-codes-traceback-\S+\.txt", answer)
    written = Path(place).read_text()
    assert "Traceback (most recent call last)" in written
    assert type(error).__name__ in written
    assert "in fail" in written
    assert "secret" not in written
    Path(place).unlink()


def test_every_shortage_of_memory_is_called_so():
    for error in (
        MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ):  # fmt: skip
        assert "not enough memory" in str(unforeseen(error, []))
    assert "not enough memory" not in str(unforeseen(ImportError("no module"), []))


def test_a_thread_that_never_begins_is_a_shortage_of_memory_and_no_hang(monkeypatch):
    for owner, name in ((threading, "excepthook"), (threading.Thread, "start")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    boundary.watch_threads([], print)
    done = []
    thread = threading.Thread(target=done.append, args=[1])
    thread.start()
    thread.join()
    assert done == [1]
    monkeypatch.setattr(boundary, "_START_S", 0.05)
    for name in ("_start_new_thread", "_start_joinable_thread"):  # 3.11 and 3.12; later ones
        monkeypatch.setattr(threading, name, lambda *_, **__: None, raising=False)
    with pytest.raises(MemoryError, match="did not begin"):
        threading.Thread(target=print).start()


def test_without_room_for_the_file_it_is_still_a_sentence(tmp_path, monkeypatch, capsys):
    def fail(chosen):
        raise RuntimeError("x")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    monkeypatch.setitem(STAGES, "runs", dataclasses.replace(STAGES["runs"], run=fail))
    assert main(["runs", f"RESULTS={tmp_path}"]) == 2
    assert "RuntimeError: x" in capsys.readouterr().err


def run(line: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return ran(
        ["sh", "-c", f'exec "$0" -m pipeline {line}', sys.executable],
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )


@pytest.mark.parametrize("line", ["--help", "runs --help", "runs RESULTS=none"])
@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "2>&-", "2> /dev/full"])
def test_output_that_cannot_be_written_is_no_traceback(tmp_path, line, where):
    done = run(f"{line} {where}", tmp_path)
    assert done.returncode in (0, 2), done
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr


def test_bytes_that_are_not_utf8_are_spelled_out(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "data", b"DATA=/nowhere/\xff\xfe", f"CACHE={tmp_path}"],
        cwd=ROOT, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert rb"\udcff" in done.stderr


@pytest.mark.parametrize(
    "spelling", [["TOKEN=hidden"], ["token=hidden"], ["--token=hidden"], ["--token", "hidden"]]
)
def test_no_spelling_of_a_token_is_written(tmp_path, monkeypatch, spelling):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = str(unforeseen(RuntimeError("x"), ["serve", *spelling, "RUN=kept"]))
    (place,) = re.findall(r"\S*cnn-codes-traceback-\S+\.txt", answer)
    written = Path(place).read_text()
    assert "hidden" not in written
    assert "serve TOKEN=..." in written
    assert "RUN=kept" in written
