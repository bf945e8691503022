"""Files written completely or not at all, digests, and room on the disk.

What a reader can see under a published name is always complete: the bytes go to a temporary
name in the same folder, are flushed to the disk, and replace the old file in one step; then the
folder itself is flushed, so that the name survives a loss of power too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import CacheError, NoSpaceError
from .notation import size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OURS = ".~"  # in the names of temporary files that are locked while they are written
_swept: set[Path] = set()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk; without effect where the system has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make `folder` and those it is in; the names of new ones are flushed to the disk."""
    new = []
    while not folder.is_dir():
        new.append(folder)
        folder = folder.parent
    if not new:
        return
    new[0].mkdir(parents=True, exist_ok=True)
    for one in new:
        sync_folder(one.parent)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder to the disk, so that the new name never stands for less."""
    from concurrent.futures import ThreadPoolExecutor

    def flush(path: str) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    paths = []
    for place, _, files in os.walk(folder):
        paths += [os.path.join(place, name) for name in files]  # noqa: PTH118
        if os.name != "nt":
            paths.append(place)
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(flush, paths):
            pass


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors of writing `path` into ones that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError(
                f"No space left while writing {path} ({error.strerror}).",
                expected="room for the new file next to the old one",
                todo="free some space, or put the cache on another disk with CACHE=; then give "
                "the same command again: what was finished is kept",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise CacheError(
                f"{path.parent} cannot be written ({error.strerror}).",
                expected="a folder this user may write to",
                todo="correct its permissions, or choose another with CACHE= or RESULTS=",
            ) from error
        if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            raise CacheError(
                f"{path} cannot be written: {error.filename or path.parent} is in the way "
                f"({error.strerror}).",
                expected="a folder, and a file in it or nothing",
                todo="move it away, or choose another folder with CACHE= or RESULTS=",
            ) from error
        raise


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `path` when the block ends without an error.

    The block flushes what it writes to the disk before it ends.

    Raises
    ------
    NoSpaceError
        The disk is full, or the file larger than this process may write.
    CacheError
        The folder cannot be written.
    """
    with explained(path):
        make_folder(path.parent)
        _sweep(path.parent)
        handle, temporary = _temporary(path)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600; a cache is often shared
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            if handle is not None:
                os.close(handle)
        sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int | None, Path]:
    """Make a temporary file next to `path`, locked for as long as the handle is open.

    There is no handle on Windows, where an open file cannot be renamed.
    """
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{_OURS}", suffix=".tmp",
                                        dir=path.parent)  # fmt: skip
        if os.name == "nt":
            os.close(handle)
            return None, Path(name)
        _locked(handle, waits=True)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # swept up between its making and its lock


def _locked(handle: int, *, waits: bool) -> bool:
    """Lock an open file; False where another holds it, or locks are not to be had."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in `folder`, once in this process: what nobody locks."""
    if folder in _swept:
        return
    _swept.add(folder)
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [one.path for one in entries if _OURS in one.name and one.name.endswith(".tmp")]
    for name in names:
        with contextlib.suppress(OSError):
            handle = os.open(name, os.O_RDWR)
            try:
                if _locked(handle, waits=False):
                    os.unlink(name)  # noqa: PTH108
            finally:
                os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a stream whose bytes become `path`, as :func:`publishing` does it."""
    with publishing(path) as temporary, temporary.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with replacing(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; what is not a finite number is refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of_arrays(*arrays: NDArray[Any] | None) -> str:
    """SHA-256 of the bytes of arrays, one after the other, 64 hexadecimal digits; None is one byte.

    Shapes and types are not in it: they must follow from what calls.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"-" if array is None else array.tobytes())
    return digest.hexdigest()


def _largest_file() -> float:
    """Bytes that this process may write to one file (ulimit -f)."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return float("inf")
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def need_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise NoSpaceError when the disk of `folder` has less than `n_bytes` free."""
    probe = folder
    while not probe.exists():
        probe = probe.parent
    free = min(shutil.disk_usage(probe).free, _largest_file())
    if free < n_bytes:
        raise NoSpaceError(
            f"{what} needs {size(n_bytes)} in {folder}; {size(free)} are free.",
            expected="the finished file and the parts it is made of fit side by side",
            todo="free some space, or put the cache on another disk with CACHE=",
        )
