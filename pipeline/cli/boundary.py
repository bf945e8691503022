"""What no module foresaw becomes a sentence, and a traceback in a file that the sentence names.

A traceback on the terminal helps nobody who did not write the program; one that is lost helps
nobody at all. So there is one place where everything ends that is no answer of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..errors import PipelineError, first_line

_MOST_CHARACTERS = 300  # of an error's own text in the sentence
_START_S = 60.0  # for a thread to begin
_SECRET = re.compile("(--)?token(=|$)", re.IGNORECASE)


def unforeseen(error: BaseException, arguments: Sequence[str]) -> PipelineError:
    """Write the traceback of an error to a file, and give the answer that names it.

    Parameters
    ----------
    error : BaseException
        Anything that is no :class:`PipelineError`.
    arguments : sequence of str
        Of the command line, for the file; tokens are left out.
    """
    place = _written(error, arguments)
    todo = f"look at the traceback in {place}, and report it together with that file"
    if place is None:
        todo = "make room for a traceback (TMPDIR=), give the same command again, and report it"
    said = first_line(error)[:_MOST_CHARACTERS]
    kind = type(error).__name__
    if _lacks_memory(error):
        return PipelineError(
            "There is not enough memory.",
            expected="memory for some images and one batch of codes at a time",
            todo="close other programs, or set WORKERS=1 and a smaller EXTRACT_BATCH, BATCH_SIZE "
            f"or SIZE; the traceback is in {place}",
        )
    if isinstance(error, OSError) and error.strerror:
        where = f"{str(error.filename)[:_MOST_CHARACTERS]}: " if error.filename else ""
        return PipelineError(
            f"The system refused something: {where}{error.strerror}.",
            expected="a file, folder or device that can be used",
            todo=f"look at permissions and room there; the traceback is in {place}",
        )
    return PipelineError(
        f"Something went wrong that the pipeline did not foresee: {kind}: {said}",
        expected="an answer; what was finished is kept",
        todo=todo,
    )


def _lacks_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: of Python, of a call of the system, or for a library."""
    unmapped = ("failed to map segment", "annot allocate memory")
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, ImportError) and any(one in str(error) for one in unmapped))
    )


def _written(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write the traceback where there is room for it; None where there is none."""
    before = ["", *arguments]  # `--token VALUE` is two arguments
    shown = [
        "TOKEN=..." if _SECRET.match(one) or before[at].lower() == "--token" else one
        for at, one in enumerate(arguments)
    ]
    try:
        lines = traceback.format_exception(error)
    except Exception as second:  # an error whose text cannot be made
        lines = traceback.format_tb(error.__traceback__)
        lines.append(f"{type(error).__name__}, and its text failed: {type(second).__name__}\n")
    head = (
        f"cnn-codes {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}\n{' '.join(shown)}\n\n"
    )
    data = (head + "".join(lines)).encode("utf-8", "backslashreplace")
    for folder in (None, "."):
        try:
            handle, name = tempfile.mkstemp(
                prefix="cnn-codes-traceback-", suffix=".txt", dir=folder
            )
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
        except Exception:
            continue
        return Path(name).absolute()
    return None


def watch_threads(arguments: Sequence[str], note: Callable[[str], None]) -> None:
    """Answer what escapes from a thread of its own as everything else is answered."""

    def escaped(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            note(f"error: {unforeseen(args.exc_value, arguments)}")

    threading.excepthook = escaped
    if threading.Thread.start is not _started:
        threading.Thread.start = _started  # type: ignore[method-assign, assignment]


_start = threading.Thread.start


def _started(thread: threading.Thread) -> None:
    """Start a thread, or raise: CPython waits without end for one that gets no memory to begin."""
    began = getattr(thread, "_started", None)
    if began is None:
        _start(thread)
        return

    def wait(timeout: float | None = None) -> bool:
        if threading.Event.wait(began, _START_S if timeout is None else timeout):
            return True
        raise MemoryError("a thread did not begin")

    began.wait = wait
    try:
        _start(thread)
    finally:
        del began.wait


def settled() -> None:
    """Make sure that the interpreter can end: output that cannot be written is given up."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
