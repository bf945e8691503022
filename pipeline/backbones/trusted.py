"""Small JSON files that this package writes and later believes: with a digest over their content.

One changed digit is noticed. Such a file is then as good as absent, and what it says is worked
out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import digest_of, write_json

_LIMIT_BYTES = 16 * 2**20


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with the SHA-256 of its content, ``digest``."""
    plain = json.loads(json.dumps(dict(value)))  # tuples are lists there, and so in the digest
    write_json(path, {**plain, "digest": digest_of(plain)})


def read_checked(path: Path) -> dict[str, Any]:
    """Read what :func:`write_checked` wrote.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It is not what was written.
    """
    if path.stat().st_size > _LIMIT_BYTES:
        raise ValueError(f"{path} is too large")
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no mapping")
    digest = value.pop("digest", None)
    if digest != digest_of(value):
        raise ValueError(f"{path} is not what was written")
    return value
