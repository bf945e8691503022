"""Drawings as SVG whose text stays text: letters of any script are the reader's own fonts'."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import write_atomic


@contextmanager
def drawing(**settings: Any) -> Iterator[None]:
    """Within the block, matplotlib has these settings and does not miss glyphs.

    It measures text with its own font, which has no Chinese letters and no emoji, and would say so
    on the terminal; the drawing does not use that font.
    """
    import matplotlib

    chosen: dict[Any, Any] = {"svg.fonttype": "none", **settings}
    with matplotlib.rc_context(chosen), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")
        yield


def write_svg(path: Path, figure: Any) -> None:
    """Write a figure, completely or not at all, without a date in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_atomic(path, stream.getvalue())
