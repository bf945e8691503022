"""What the measurements share: a data set opened as the stages open it, and its codes."""

from __future__ import annotations

from typing import Any

from cnn_codes.codes.extract import extract
from cnn_codes.codes.reader import Codes
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.settings import CodesSettings, DataSettings, PlaceSettings, from_mapping

__all__ = ["codes_of", "opened"]


def opened(
    data: str,
    places: PlaceSettings,
    codes: CodesSettings | None = None,
    *,
    manifest: Manifest | None = None,
    **settings: Any,
) -> Context:
    """Open a data set by its name or folder; `manifest` stands in for all of its images."""
    asked: DataSettings = from_mapping(DataSettings, {"data": data, "offline": True, **settings})
    return Context(
        manifest=manifest or load_manifest(asked, places), data=asked,
        codes=codes or CodesSettings(), places=places,
    )  # fmt: skip


def codes_of(context: Context) -> Codes:
    """Give its codes, extracted where they are not cached."""
    return extract(context).codes
