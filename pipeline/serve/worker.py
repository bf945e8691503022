"""The decoding worker: a process that turns strangers' image files into pixels, and nothing else.

Started by :mod:`.decoder` as ``python -m <package>.serve.worker``. It reads messages from its
standard input and answers on its standard output until the input ends. It may crash, run out of
memory or be killed; the server starts another.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

from .frames import HEAD, pack, sizes

_MEMORY_BYTES = 3_000_000_000  # of address space: the largest allowed image, decoded, four times


def main() -> None:
    """Answer messages until the input ends."""
    os.environ["OMP_NUM_THREADS"] = "1"
    source, target = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    from . import decoding  # heavy: after the threads are limited, before the memory is

    _confine()
    target.write(b"".join(pack({"ready": True})))
    target.flush()
    while True:
        start = source.read(HEAD.size)
        if len(start) < HEAD.size:
            return
        n_head, n_body = sizes(start)
        head = json.loads(source.read(n_head))
        answer, body = decoding.answer(head, source.read(n_body))
        _send(target, answer, body)


def _send(target: BinaryIO, head: dict[str, Any], body: bytes | memoryview) -> None:
    start, rest = pack(head, body)
    target.write(start)
    target.write(rest)
    target.flush()


def _confine() -> None:
    """Take from this process what decoding does not need: memory, files, new programs."""
    if sys.platform == "win32":
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL


if __name__ == "__main__":
    main()
