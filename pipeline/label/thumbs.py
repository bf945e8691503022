"""Small pictures of the data set's images, each made once: a table in the cache by digest."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from ..datasets.images import preview, read_as
from ..errors import DataError, ImageError
from ..serve.decoding import shrunk

SIDES = (160, 640)  # px: in lists, and looked at


class Thumbs:
    """Pictures by the digest of their image's bytes.

    Parameters
    ----------
    path : Path
        A SQLite file; one that cannot be written is kept in memory instead.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(str(path))
        except (sqlite3.Error, OSError):
            self._open(":memory:")

    def _open(self, name: str) -> None:
        self._table = sqlite3.connect(name, check_same_thread=False, timeout=30)
        self._table.execute("PRAGMA journal_mode=WAL")
        self._table.execute("PRAGMA synchronous=NORMAL")
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS thumbs (sha TEXT, side INTEGER, data BLOB, "
            "PRIMARY KEY (sha, side)) WITHOUT ROWID"
        )

    def known(self, sha: str, side: int) -> bytes | None:
        """Give a picture that was made before."""
        with self._lock:
            row = self._table.execute(
                "SELECT data FROM thumbs WHERE sha = ? AND side = ?", (sha, side)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def keep(self, sha: str, side: int, data: bytes) -> None:
        """Remember a picture; a full disk is no error."""
        try:
            with self._lock, self._table:
                self._table.execute(
                    "INSERT OR REPLACE INTO thumbs VALUES (?, ?, ?)", (sha, side, data)
                )
        except sqlite3.Error:
            return

    def get(self, sha: str, side: int, file: Path) -> bytes | None:
        """Give a picture, made now where it is not known; None where the image cannot be read."""
        found = self.known(sha, side)
        if found is None:
            try:
                found, _ = shrunk(preview(read_as(file, sha), min_side=side), side)
            except (DataError, ImageError):  # gone, changed since it was listed, or damaged
                return None
            self.keep(sha, side, found)
        return found

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._table.close()
