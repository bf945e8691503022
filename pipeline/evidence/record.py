"""The record of one piece of evidence: its name, its fingerprint, its frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..codes.reader import Codes
from ..context import Context
from ..files import digest_of, digest_of_arrays
from ..heads.rows import Rows, rows_of
from ..results.frame import framed, known, write_framed
from ..results.names import named
from ..settings import as_dict


@dataclass(frozen=True, eq=False)
class Request:
    """What one piece of evidence is asked of, and where its record lies.

    Attributes
    ----------
    kind : str
        ``mislabelled``, ``layers`` or ``map``; the record's name begins with it.
    version : int
        Of the way that its numbers are made; part of the fingerprint.
    context : Context
        The images and the seed.
    codes : Codes
        Current for the images.
    settings : dataclass
        Of this kind; those that change numbers are part of the fingerprint.
    extra : str
        What else the numbers depend on.
    """

    kind: str
    version: int
    context: Context
    codes: Codes
    settings: Any
    extra: str = ""

    @cached_property
    def rows(self) -> Rows:
        """What is known of each row of the codes."""
        return rows_of(self.context.manifest, self.codes)

    @cached_property
    def _named(self) -> tuple[str, str]:
        """Name of the record, and what it is about.

        Kind, codes, seed, and a digest where settings are not usual; none of other data has it.
        """
        asked, default = (
            as_dict(one, affects="bytes") for one in (self.settings, type(self.settings)())
        )
        mark = f"-{digest_of(asked)[:6]}" if asked != default else ""
        usual = f"{self.kind}-{self.codes.name}-seed{self.context.seed}{mark}"
        return named(self.context, usual, fingerprint=self.fingerprint)

    @property
    def name(self) -> str:
        """Name of the record."""
        return self._named[0]

    @property
    def path(self) -> Path:
        """The record's file."""
        return self.context.folder / f"{self.name}.json"

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that changes the record, 64 hexadecimal digits."""
        manifest, rows = self.context.manifest, self.rows
        return digest_of(
            {
                "kind": self.kind,
                "version": self.version,
                "codes": self.codes.fingerprint,
                "rows": digest_of_arrays(self.codes.sha256, rows.labels, rows.split),
                "paths": digest_of(rows.paths),
                "classes": manifest.class_names,
                "val_from": manifest.val_from,
                "settings": as_dict(self.settings, affects="bytes"),
                "seed": self.context.seed,
                "extra": self.extra,
            }
            | manifest.group_fields
        )

    def known(self) -> dict[str, Any] | None:
        """Give the record that is there if it answers this very request, marked ``reused``."""
        return known(self.path, self.fingerprint, kind=self.kind)

    def write(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write the record around `body`, which has at least ``sentences`` and ``warnings``."""
        head = {
            "model": str(self.codes.config["model"]),
            "views": str(self.codes.config["asked"]["views"]),
            "size": int(self.codes.config["size"]),
            "seed": self.context.seed,
            "subject": self._named[1],
            "class_names": list(self.context.manifest.class_names),
        }
        record = framed(
            self.context, self.kind, self.name, head | dict(body), fingerprint=self.fingerprint,
            settings=as_dict(self.settings) | as_dict(self.context.data),
        )  # fmt: skip
        return write_framed(self.path, record)
