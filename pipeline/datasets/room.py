"""Room on the disk of the data sets, and its errors with an answer that fits them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CacheError, DataError, NoSpaceError
from ..files import explained, need_space

_TODO = "free some space, or choose a folder on another disk (DATA_ROOT=)"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors of writing `path` into ones that say what to do.

    Raises
    ------
    NoSpaceError
        The disk is full.
    DataError
        The folder cannot be written.
    """
    try:
        with explained(path):
            yield
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"{error.filename or path} is in the way: a file where a folder is needed.",
            expected="a folder, or nothing yet",
            todo="move it away, or choose another folder with DATA_ROOT=",
        ) from error
    except NoSpaceError as error:
        raise NoSpaceError(error.found, expected=error.expected, todo=_TODO) from error
    except CacheError as error:
        raise DataError(
            error.found, expected=error.expected, todo="choose another folder with DATA_ROOT="
        ) from error


def need_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise NoSpaceError when the disk of `folder` has less than `n_bytes` free."""
    try:
        need_space(folder.absolute(), n_bytes, what)
    except NoSpaceError as error:
        raise NoSpaceError(error.found, expected="room for all of it", todo=_TODO) from error
