"""The frame of every record: its header, its provenance, its digest, and when it is still current.

A record is JSON with ``schema``, ``kind``, a name, ``data``, ``fingerprint`` (digest of everything
that changes a number in it) and ``digest`` (of the record itself, so that an edited figure is
noticed). It is taken instead of being made again where the fingerprint agrees.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..context import Context
from ..errors import ResultError
from ..files import digest_of, write_json
from .provenance import machine, versions
from .records import SCHEMA, plain


def provenance(settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Say where a record comes from: settings, command, date and machine."""
    return {
        "settings": dict(settings),
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }


def without_leaks(warnings: Iterable[str], of_run: Iterable[str]) -> list[str]:
    """Leave out what was noticed of leaks where the run itself says what it did about them."""
    said = any("(leaks)" in text for text in of_run)
    return [one for one in warnings if not (said and getattr(one, "kind", "") == "leaks")]


def framed(
    context: Context,
    kind: str,
    name: str,
    body: Mapping[str, Any],
    *,
    fingerprint: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Put the header and the provenance around the `body` of a record.

    Parameters
    ----------
    context : Context
        The data set, and the command that makes it again.
    kind, name : str
        What it is, and what its file is called.
    body : mapping
        The record's own fields.
    fingerprint : str
        Digest of everything that changes a number in it.
    settings : mapping
        For the provenance.
    """
    record: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "kind": kind,
            "name": name,
            "data": context.manifest.name,
            **body,
            "fingerprint": fingerprint,
            "versions": versions(),
            "provenance": provenance(settings, context.command),
        }
    )
    return record


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the record's digest of itself; what says only how it was come by is left out."""
    body = {key: value for key, value in record.items() if key not in ("digest", "reused")}
    return body | {"digest": digest_of(body)}


def write_framed(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Seal a record, write it, and return it."""
    whole = sealed(record)
    write_json(path, whole)
    return whole


def read_framed(path: Path) -> dict[str, Any]:
    """Read a record and check its digest; one of an older version that has none is taken as it is.

    Raises
    ------
    ResultError
        It is missing, not a JSON object, or its content is not what was written.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(
            f"{path} cannot be read as a record ({error}).",
            expected="a record that this pipeline wrote",
            todo="run the method again, or move the file away",
        ) from error
    if not isinstance(record, dict):
        raise ResultError(f"{path} is not a record.", todo="move the file away")
    if "digest" in record and sealed(record)["digest"] != record["digest"]:
        raise ResultError(
            f"{path} was changed after it was written: its digest does not match.",
            expected="the record as the run wrote it",
            todo="run the method again, or move the file away",
        )
    return record


def known(path: Path, fingerprint: str, *, kind: str) -> dict[str, Any] | None:
    """Give the record at `path` if it is intact and current, marked ``reused``; else None.

    Parameters
    ----------
    path : Path
        Where it would be.
    fingerprint : str
        What its own must equal.
    kind : str
        What it must be.
    """
    try:
        record = read_framed(path)
    except ResultError:
        return None  # missing, damaged, or of another version: it is made again
    same = record.get("kind") == kind and record.get("fingerprint") == fingerprint
    return record | {"reused": True} if same else None
