"""Images inside a tar, read where they lie: a path that leads through the file.

``shards/train-0000.tar/000012.jpg`` is the member ``000012.jpg`` of that tar. No real file has such
a path, so it is recognised by the error that opening it gives. A tar that is not compressed holds
each file's bytes in one piece; the place and length of each member are found by reading the
headers once, and the bytes are then read with one call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock

from ..errors import DataError, first_line

_MOST_MEMBERS = 5_000_000
_KEPT = 256  # tars whose members are remembered in this process
_LOCK = Lock()


@dataclass(frozen=True)
class Members:
    """The regular files in one tar.

    Attributes
    ----------
    places : dict of str to (int, int)
        Of each member's name: where its bytes begin in the tar, and their number. Of a name that
        occurs twice, the last, as tar itself has it.
    n_strange : int
        Members that are links, devices, or have no sound name.
    n_again : int
        Members with the name of an earlier one.
    """

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    n_strange: int = 0
    n_again: int = 0


@dataclass(frozen=True)
class Packed:
    """One member: its tar, the state of that file, and where the bytes are."""

    container: str
    status: os.stat_result
    offset: int
    n_bytes: int

    def read(self, n_bytes: int | None = None) -> bytes:
        """Read the bytes, or the first `n_bytes`.

        Raises
        ------
        OSError
            The tar ends before, or cannot be read.
        """
        wanted = self.n_bytes if n_bytes is None else min(n_bytes, self.n_bytes)
        with open(self.container, "rb", buffering=0) as stream:  # noqa: PTH123
            stream.seek(self.offset)
            pieces = []
            while wanted and (piece := stream.read(wanted)):
                pieces.append(piece)
                wanted -= len(piece)
        if wanted:
            raise OSError(f"{self.container} was cut short")
        return b"".join(pieces)


def container_of(path: str) -> tuple[str, str] | None:
    """Split a path that leads through a regular file: that file, and the rest; None for none."""
    at = len(path)
    while (at := path.rfind("/", 0, at)) > 0:
        above = path[:at]
        if os.path.isfile(above):  # noqa: PTH113
            return above, path[at + 1 :]
        if os.path.isdir(above):  # noqa: PTH112
            return None
    return None


def packed_at(path: str) -> Packed | None:
    """Find the member of a tar that a path leads to; None where there is none."""
    found = container_of(path)
    if found is None or not found[0].lower().endswith(".tar"):
        return None
    container, name = found
    status = os.stat(container)  # noqa: PTH116
    try:
        place = members_of(container).places.get(name)
    except DataError:
        return None
    return None if place is None else Packed(container, status, *place)


def read_packed(path: Path) -> bytes | None:
    """Read the member of a tar that a path leads to; None where there is none."""
    found = packed_at(str(path))
    return None if found is None else found.read()


def members_of(container: str) -> Members:
    """List the regular files in a tar that is not compressed; remembered in this process.

    Raises
    ------
    DataError
        It is no such tar, or damaged.
    """
    status = os.stat(container)  # noqa: PTH116
    with _LOCK:  # several reading threads ask at once; one reads the headers
        return _members(container, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(_KEPT)
def _members(container: str, n_bytes: int, mtime_ns: int, inode: int) -> Members:
    import tarfile  # here, so that who has no tar does not pay for it

    from .tars import GuardedInfo

    places: dict[str, tuple[int, int]] = {}
    n_strange = n_again = 0
    try:
        with (
            open(container, "rb") as raw,  # noqa: PTH123
            tarfile.open(fileobj=raw, mode="r:", tarinfo=GuardedInfo) as opened,
        ):
            while (info := opened.next()) is not None:
                name = info.name.removeprefix("./")
                sound = info.isreg() and not info.issparse() and _is_sound(name)
                if sound and info.offset_data + info.size > n_bytes:
                    raise tarfile.ReadError("unexpected end of data")
                if sound:
                    n_again += name in places
                    places[name] = (info.offset_data, info.size)
                elif not info.isdir():
                    n_strange += 1
                opened.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
                if len(places) > _MOST_MEMBERS:
                    raise tarfile.ReadError(f"more than {_MOST_MEMBERS:,} files")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{container} cannot be read as a tar: {first_line(error)}.",
            expected="a complete .tar that is not compressed",
            todo="fetch it again",
        ) from error
    return Members(places, n_strange, n_again)


def _is_sound(name: str) -> bool:
    parts = name.split("/")
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and "\0" not in name and "\\" not in name and not {"", "..", "."} & {*parts}
