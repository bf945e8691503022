"""Messages between the server and its decoding workers: a JSON head and bytes behind it.

No pickle: a worker that a stranger's image has taken over can send numbers and bytes, nothing
that runs.
"""

from __future__ import annotations

import json
import struct
from typing import Any

HEAD = struct.Struct(">II")  # bytes of the JSON head, bytes of the body
MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 512_000_000


def pack(head: dict[str, Any], body: bytes | memoryview = b"") -> tuple[bytes, bytes | memoryview]:
    """Give the bytes of a message: its sizes with its head, and its body."""
    text = json.dumps(head).encode()
    return HEAD.pack(len(text), len(body)) + text, body


def sizes(data: bytes) -> tuple[int, int]:
    """Read the two sizes, checked.

    Raises
    ------
    ValueError
        A size that no message has.
    """
    head, body = HEAD.unpack(data)
    if head > MAX_HEAD_BYTES or body > MAX_BODY_BYTES:
        raise ValueError(f"a message of {head} + {body} bytes")
    return head, body
