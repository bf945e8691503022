"""The record of one piece of evidence: its name, its fingerprint, its frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..codes.reader import Codes
from ..datasets import Manifest
from ..files import digest_of, write_json
from ..heads.run import Rows, rows_of
from ..results.provenance import machine, versions
from ..results.records import plain
from ..settings import DataSettings, as_dict

__all__ = ["SCHEMA", "Request"]

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Request:
    """What one piece of evidence is asked of, and where its record lies.

    Attributes
    ----------
    kind : str
        ``mislabelled``, ``layers`` or ``map``; the record's name begins with it.
    version : int
        Of the way that its numbers are made; part of the fingerprint.
    manifest, codes
        The images, and a file of codes that is current for them.
    rows : Rows
        What is known of each row of the codes.
    data : DataSettings
        Its seed.
    settings : dataclass
        Of this kind; those that change numbers are part of the fingerprint.
    results : Path
        The results folder; the record goes to ``results/<data>/``.
    extra : str
        What else the numbers depend on.
    """

    kind: str
    version: int
    manifest: Manifest
    codes: Codes
    rows: Rows
    data: DataSettings
    settings: Any
    results: Path
    extra: str = ""

    @classmethod
    def of(
        cls,
        kind: str,
        version: int,
        manifest: Manifest,
        codes: Codes,
        data: DataSettings,
        settings: Any,
        results: Path,
        extra: str = "",
    ) -> Request:
        """Take the rows of the codes, and gather the rest."""
        rows = rows_of(manifest, codes)
        return cls(kind, version, manifest, codes, rows, data, settings, results, extra)

    @property
    def name(self) -> str:
        """Name of the record: kind, codes, seed, and a digest where settings are not usual."""
        asked, usual = (
            as_dict(one, affects="bytes") for one in (self.settings, type(self.settings)())
        )
        mark = f"-{digest_of(asked)[:6]}" if asked != usual else ""
        return f"{self.kind}-{self.codes.path.stem}-seed{self.data.seed}{mark}"

    @property
    def path(self) -> Path:
        """The record's file."""
        return self.results / self.manifest.name / f"{self.name}.json"

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes the record, 64 hexadecimal digits."""
        rows = hashlib.sha256(self.codes.sha256.tobytes())
        for column in (self.rows.labels, self.rows.split):
            rows.update(np.ascontiguousarray(column).tobytes())
        return digest_of(
            {
                "kind": self.kind,
                "version": self.version,
                "codes": self.codes.fingerprint,
                "rows": rows.hexdigest(),
                "paths": digest_of(self.rows.paths),
                "classes": self.manifest.class_names,
                "val_from": self.manifest.val_from,
                "settings": as_dict(self.settings, affects="bytes"),
                "seed": self.data.seed,
                "extra": self.extra,
            }
            | ({"groups": self.manifest.groups_digest} if self.manifest.grouping else {})
        )

    def known(self) -> dict[str, Any] | None:
        """Give the record that is there if it answers this very request, marked ``reused``."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            same = found["kind"] == self.kind and found["fingerprint"] == self.fingerprint
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # none, or a damaged one: it is made anew
        return found | {"reused": True} if same else None

    def write(self, body: Mapping[str, Any], *, command: str) -> dict[str, Any]:
        """Write the record around `body`, which has at least ``sentences`` and ``warnings``."""
        record = {
            "schema": SCHEMA,
            "kind": self.kind,
            "name": self.name,
            "data": self.manifest.name,
            "model": str(self.codes.config["model"]),
            "seed": self.data.seed,
            "fingerprint": self.fingerprint,
            "class_names": list(self.manifest.class_names),
            **body,
            "versions": versions(),
            "provenance": {
                "settings": as_dict(self.settings) | as_dict(self.data),
                "command": command,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
            },
        }
        whole: dict[str, Any] = plain(record)
        write_json(self.path, whole)
        return whole
