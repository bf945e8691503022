"""Finished pieces of a long measurement: one line of JSON each, kept as soon as it is done.

The file is only appended to. A line that was cut short by a kill is ignored and computed again;
nothing else can be lost.
"""

from __future__ import annotations

import json
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import digest_of, explained, make_folder, sync_folder

_DIGITS = 16  # of a line's digest: 64 bits


@dataclass(frozen=True)
class Piece:
    """One method on one draw of one size, measured on test.

    Attributes
    ----------
    key : str
        Digest of everything that changes it.
    hits : str
        Which test images it classified correctly: bits in base64.
    n_test : int
        How many bits.
    n_train : int
        Images it was trained on.
    fit_s : float
        Seconds, choices included.
    chosen : dict
        What was chosen within the draw.
    warnings : list of str
    called, probabilities : str
        Predicted classes (int32) and probabilities (float32), compressed, in base64; empty unless
        METRIC needs them.
    """

    key: str
    hits: str
    n_test: int
    n_train: int
    fit_s: float
    chosen: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    called: str = ""
    probabilities: str = ""

    @staticmethod
    def packed(array: NDArray[np.generic]) -> str:
        """Encode an array of numbers."""
        return b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()

    def classes(self) -> NDArray[np.int32]:
        """Decode the predicted class of each test image, (N,)."""
        found: NDArray[np.int32] = _unpacked(self.called, np.int32)
        return found

    def table(self, n_classes: int) -> NDArray[np.float64]:
        """Decode the probabilities (N, K); where none were kept, 1 for the predicted class."""
        if not self.probabilities:
            return np.eye(n_classes)[self.classes()]
        found = _unpacked(self.probabilities, np.float32).reshape(-1, n_classes)
        return found.astype(np.float64)

    @staticmethod
    def bits(right: NDArray[np.bool_]) -> str:
        """Encode which images (N,) were classified correctly."""
        return b64encode(np.packbits(right).tobytes()).decode()

    def right(self) -> NDArray[np.bool_]:
        """Decode which of the test images (N,) were classified correctly."""
        packed = np.frombuffer(b64decode(self.hits), np.uint8)
        return np.unpackbits(packed, count=self.n_test).astype(bool)


class Pieces:
    """The pieces in a file, by key.

    Parameters
    ----------
    path : Path
        Made at the first piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Piece] = {}
        self._torn = False
        if path.is_file():
            data = path.read_bytes()
            self._torn = bool(data) and not data.endswith(b"\n")
            for line in data.splitlines():
                piece = _read(line)
                if piece is not None:
                    self._found[piece.key] = piece

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Piece:
        return self._found[key]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no piece, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._found]

    def add(self, piece: Piece) -> None:
        """Append a piece and flush it to the disk.

        Raises
        ------
        NoSpaceError, CacheError
            The file cannot be written.
        """
        values = asdict(piece)
        values["digest"] = digest_of(values)[:_DIGITS]
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        with explained(self.path):
            make_folder(self.path.parent)
            fresh = not self.path.exists()
            with self.path.open("ab") as stream:
                stream.write(b"\n" + line if self._torn else line)
                stream.flush()
                os.fsync(stream.fileno())
            if fresh:
                sync_folder(self.path.parent)
        self._torn = False
        self._found[piece.key] = piece


def _unpacked(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(zlib.decompress(b64decode(text)), dtype)


def _read(line: bytes) -> Piece | None:
    """Read a line; None where it is torn or changed. Those of earlier versions have no digest."""
    try:
        values = json.loads(line)
        if values.pop("digest", None) not in (None, digest_of(values)[:_DIGITS]):
            return None
        piece = Piece(**values)
        return piece if len(piece.right()) == piece.n_test > 0 else None
    except (ValueError, TypeError, AttributeError):
        return None
