"""Empty a cache folder, unless a run is using it or it holds files that are not the cache's."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import CacheBusyError, CacheError
from ..files import explained

README = "README.md"
_OWN = (README, "backbones", "weights", ".names.lock")
_MARK = "source.json"  # in every folder of a data set


def clear_cache(cache: Path) -> int:
    """Remove everything in a cache folder except its ``README.md``.

    Parameters
    ----------
    cache : Path
        The cache folder; it may be missing.

    Returns
    -------
    int
        Bytes removed.

    Raises
    ------
    CacheError
        The folder holds something that no cache holds: then nothing is removed.
    CacheBusyError
        A run is extracting codes into it: then nothing is removed.
    """
    if not cache.is_dir():
        return 0
    foreign = [path.name for path in sorted(cache.iterdir()) if not _is_own(path)]
    if foreign:
        raise CacheError(
            f"{cache} holds {foreign[0]}, which is not part of a cache. Nothing was removed.",
            expected=f"only {', '.join(_OWN[:3])} and folders with a {_MARK}",
            todo=f"move {foreign[0]} out of the folder, or name the right folder with CACHE=",
        )
    with ExitStack() as held, explained(cache):
        for path in sorted(cache.glob("*/**/*.h5.parts/lock")):
            try:
                held.enter_context(FileLock(path).acquire(timeout=0))
            except Timeout as error:
                name = path.parent.name.removesuffix(".parts")
                raise CacheBusyError(
                    f"A run is writing {path.parents[1].name}/{name}. Nothing was removed.",
                    todo="wait until the run has finished, then: make clean-cache",
                ) from error
        removed = 0
        for path in sorted(cache.iterdir()):
            if path.name == README:
                continue
            removed += _size(path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return removed


def _is_own(path: Path) -> bool:
    """Whether a cache folder has such an entry; hidden temporary files are left by killed runs."""
    return (
        path.name in _OWN
        or (path.name.startswith(".") and path.name.endswith(".tmp"))
        or (path / _MARK).is_file()
    )


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())
