"""SHA-256 of every file, remembered as long as the file is untouched.

What is remembered is keyed by relative path, size, times of content and of inode, and inode
number. A file changed within the clock's grain of its hashing could keep all of these (git calls
such entries "racily clean"), so files that young are hashed again the next time. Each run also
hashes a random sample of the remembered files, and all of them where one differs.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory import recall_arrays, remember_arrays
from ..progress import Progress, silent
from .formats import pointer
from .packed import Packed, packed_at

RACY_NS = 2_000_000_000
_KIND = "digests of files 2"
_POINTER_BYTES = 1024  # a pointer of Git LFS or git-annex is smaller
_CHUNK = 32  # files per task: enough that handing out tasks costs nothing
_COLUMNS = 4  # size, mtime_ns, ctime_ns, inode
_SAMPLED, _LEAST_SAMPLED = 0.01, 20  # remembered files that each run reads all the same
_INT64 = (1 << 63) - 1


@dataclass(frozen=True, eq=False)
class Digests:
    """Digests of N files.

    Attributes
    ----------
    raw : array of shape (N, 32), uint8
        SHA-256 of each file's bytes; zeros where it could not be read.
    faults : dict of row to str
        Why a file could not be read.
    n_hashed : int
        Files that were read; the others were remembered.
    """

    raw: NDArray[np.uint8]
    faults: dict[int, str]
    n_hashed: int

    @property
    def hex(self) -> NDArray[np.bytes_]:
        """Lower-case hexadecimal digits: (N,) of dtype S64."""
        digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
        text = np.empty((len(self.raw), 64), dtype=np.uint8)
        text[:, 0::2] = digits[self.raw >> 4]
        text[:, 1::2] = digits[self.raw & 15]
        return text.view("S64").reshape(-1)


def hash_files(
    root: Path,
    paths: Sequence[str],
    memory: Path | None,
    *,
    workers: int = 0,
    rehash: bool = False,
    progress: Progress = silent,
) -> Digests:
    """Hash files, those that are remembered unchanged excepted.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    paths : sequence of str, length N
        POSIX paths.
    memory : Path, optional
        File that remembers digests between runs. A damaged one is ignored; one that cannot be
        written is not an error.
    workers : int
        Threads; 0: one per core.
    rehash : bool
        Read every file, whatever is remembered.
    """
    base = f"{root}/"
    stats, faults = _stat_all(base, paths)
    raw = np.zeros((len(paths), 32), dtype=np.uint8)
    blob = "\0".join(paths).encode()
    known = np.zeros(len(paths), dtype=bool)
    remembered = None if memory is None or rehash else recall(memory)
    if remembered is not None:
        known = _look_up(remembered, blob, paths, stats, raw)
        if not _sample_agrees(base, paths, np.flatnonzero(known), raw):
            known[:] = False  # size and times say nothing here: every file is read
    sound = np.ones(len(paths), dtype=bool)
    sound[list(faults)] = False
    todo = np.flatnonzero(sound & ~known)
    trusted = known.copy()
    try:
        if len(todo):
            _hash_rows(base, paths, todo, stats, raw, trusted, faults, workers, progress)
    finally:  # on Ctrl-C too: what has been hashed is not hashed again
        n_old = 0 if remembered is None else len(remembered[1])
        changed = bool(np.any(trusted & ~known)) or int(known.sum()) != n_old
        if memory is not None and changed:
            kept = [paths[row] for row in np.flatnonzero(trusted).tolist()]
            listed = np.frombuffer("\0".join(kept).encode(), np.uint8)
            known_now: dict[str, NDArray[Any]] = {
                "paths": listed,
                "stats": stats[trusted],
                "digests": raw[trusted],
            }
            remember_arrays(memory, _KIND, known_now)
    raw[list(faults)] = 0
    return Digests(raw, dict(sorted(faults.items())), len(todo))


def _sample_agrees(
    base: str, paths: Sequence[str], rows: NDArray[np.intp], raw: NDArray[np.uint8]
) -> bool:
    """Read some remembered files again, others each time: at least 20, and 1 %.

    Other bytes of the same size and times, as another disk under the same mount point has them,
    are found with certainty where all are others, and in time where few are.
    """
    n_sampled = min(len(rows), max(_LEAST_SAMPLED, math.ceil(_SAMPLED * len(rows))))
    for row in np.random.default_rng().choice(rows, n_sampled, replace=False).tolist():
        try:
            digest, _, _ = _hash_file(base + paths[row])
        except OSError:
            return False
        if digest != raw[row].tobytes():
            return False
    return True


def _stat_all(base: str, paths: Sequence[str]) -> tuple[NDArray[np.int64], dict[int, str]]:
    stats = np.zeros((len(paths), _COLUMNS), dtype=np.int64)
    faults: dict[int, str] = {}
    rows = []
    for row, path in enumerate(paths):
        try:
            status = os.stat(base + path)  # noqa: PTH116 (a Path an image costs 10 µs)
        except (OSError, ValueError) as error:
            packed = packed_at(base + path) if isinstance(error, NotADirectoryError) else None
            if packed is None:
                faults[row] = _reason(base + path, error)
                rows.append((0, 0, 0, 0))
                continue
            if packed.n_bytes == 0:
                faults[row] = "empty (0 bytes)"
            rows.append(_packed_key(packed))
            continue
        if not stat.S_ISREG(status.st_mode):
            faults[row] = "not a regular file"
        elif status.st_size == 0:
            faults[row] = "empty (0 bytes)"
        rows.append(_key(status))
    if rows:
        stats[:] = rows
    return stats, faults


def _key(status: os.stat_result) -> tuple[int, int, int, int]:
    # A time beyond 2262 has more nanoseconds than 63 bits hold.
    return (
        status.st_size,
        _wrapped(status.st_mtime_ns),
        _wrapped(status.st_ctime_ns),
        status.st_ino & _INT64,
    )


def _wrapped(time_ns: int) -> int:
    return time_ns if -_INT64 <= time_ns <= _INT64 else time_ns & _INT64


def _packed_key(packed: Packed) -> tuple[int, int, int, int]:
    """Key of a member of a tar: its own size and place, and the times of the tar."""
    _, mtime_ns, ctime_ns, inode = _key(packed.status)
    return packed.n_bytes, mtime_ns, ctime_ns, (inode ^ packed.offset << 20) & _INT64


class _NotFetched(Exception):
    """The file is the pointer of a version-control tool, not the image."""


def _reason(path: str, error: Exception) -> str:
    """Say why a file cannot be read; of a broken link, where it leads."""
    if isinstance(error, FileNotFoundError):
        try:
            goal = os.readlink(path)  # noqa: PTH115
        except OSError:
            return "no such file"
        if ".git/annex/" in goal:
            return "a broken link of git-annex: git annex get fetches the file"
        if ".dvc/" in goal:
            return "a broken link of DVC: dvc pull fetches the file"
        return f"a broken link (to {goal[:120]})"
    return getattr(error, "strerror", None) or str(error)


def _hash_rows(
    base: str,
    paths: Sequence[str],
    todo: NDArray[np.intp],
    stats: NDArray[np.int64],
    raw: NDArray[np.uint8],
    trusted: NDArray[np.bool_],
    faults: dict[int, str],
    workers: int,
    progress: Progress,
) -> None:
    """Fill `raw`, `stats` and `trusted` at the rows of `todo`; threads: hashlib frees the GIL."""
    from concurrent.futures import ThreadPoolExecutor

    def hash_chunk(rows: list[int]) -> int:
        for row in rows:
            try:
                digest, key, still = _hash_file(base + paths[row])
            except OSError as error:
                faults[row] = _reason(base + paths[row], error)
                continue
            except _NotFetched as error:
                faults[row] = str(error)
                continue
            raw[row] = np.frombuffer(digest, dtype=np.uint8)
            stats[row] = key
            trusted[row] = still
        return len(rows)

    chunks = [todo[at : at + _CHUNK].tolist() for at in range(0, len(todo), _CHUNK)]
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        with progress("hashing", len(todo), "files") as meter:
            for count in pool.map(hash_chunk, chunks):
                meter.advance(count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _hash_file(path: str) -> tuple[bytes, tuple[int, int, int, int], bool]:
    """Digest of a file, its key, and whether that key may be trusted the next time."""
    now = time.time_ns()
    try:
        opened = open(path, "rb", buffering=0)  # noqa: PTH123
    except NotADirectoryError:
        packed = packed_at(path)
        if packed is None:
            raise
        young = packed.status.st_ctime_ns > now - RACY_NS
        return hashlib.sha256(packed.read()).digest(), _packed_key(packed), not young
    with opened as stream:
        before = os.fstat(stream.fileno())
        if before.st_size < _POINTER_BYTES and (what := pointer(stream.read(_POINTER_BYTES))):
            raise _NotFetched(what)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").digest()
        after = os.fstat(stream.fileno())
    # A date of content far in the future (a camera's clock) says nothing; that of the inode,
    # which nobody can set, always counts.
    young = before.st_ctime_ns > now - RACY_NS or abs(before.st_mtime_ns - now) < RACY_NS
    return digest, _key(before), _key(before) == _key(after) and not young


_Memory = tuple[bytes, NDArray[np.int64], NDArray[np.uint8]]


def recall(memory: Path) -> _Memory | None:
    """Give the paths, file states and digests (N, 32) that a file remembers; None for none."""
    saved = recall_arrays(memory, _KIND)
    return None if saved is None else (saved["paths"].tobytes(), saved["stats"], saved["digests"])


def _look_up(
    remembered: _Memory,
    blob: bytes,
    paths: Sequence[str],
    stats: NDArray[np.int64],
    raw: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    """Copy what is remembered of unchanged files into `raw`; tell which rows these are."""
    old_blob, old_stats, old_raw = remembered
    if old_blob == blob:
        known = np.all(old_stats == stats, axis=1)
        raw[known] = old_raw[known]
        return np.asarray(known)
    place = {path: row for row, path in enumerate(old_blob.decode().split("\0"))}
    old = np.array([place.get(path, -1) for path in paths], dtype=np.intp)
    known = old >= 0
    if not len(old_stats):
        return np.zeros(len(paths), dtype=bool)
    known &= np.all(old_stats[old] == stats, axis=1)
    raw[known] = old_raw[old[known]]
    return known
