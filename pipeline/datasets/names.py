"""The name of a data set: the folder under the cache and under the results.

A registered set has its own. A path is named after its last part; where another folder holds
that name already (``source.json`` in the cache says which), a few digits of the path are added. A
data set that was moved keeps its name: the folder that held it is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container
from pathlib import Path

from ..errors import CacheError
from ..files import write_atomic

_MAX_BYTES = 80


def safe_name(text: str) -> str:
    """Make a name that is safe as a folder's: letters, digits, ``.``, ``_``, ``-``."""
    clean = re.sub(r"[^\w.-]+", "-", text.encode("utf-8", "replace").decode()).strip(".-")
    clean = clean.encode()[:_MAX_BYTES].decode("utf-8", "ignore")
    return clean or "data"


def claim_name(wanted: str, origin: Path, cache: Path, taken: Container[str]) -> str:
    """Give the name of the data set at `origin` and note in the cache whose it is.

    Parameters
    ----------
    wanted : str
        What it would be called if nobody else were.
    origin : Path
        The folder, archive or table that the user named, absolute and without links.
    cache : Path
        Folder of the caches. If it cannot be written, the name is given but not noted.
    taken : container of str
        Names that no path may have: the registered ones.
    """
    name = safe_name(wanted)
    if _owner(cache / name) == str(origin):
        return name
    digits = hashlib.sha256(os.fsencode(origin)).hexdigest()[:6]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(cache / ".names.lock"):
            chosen = _choose(name, f"{name}-{digits}", origin, cache, taken)
            note = json.dumps({"root": str(origin)})
            write_atomic(cache / chosen / "source.json", note.encode() + b"\n")
            return chosen
    except (CacheError, OSError, NotImplementedError):
        return _choose(name, f"{name}-{digits}", origin, cache, taken)


def _choose(name: str, longer: str, origin: Path, cache: Path, taken: Container[str]) -> str:
    siblings = sorted(cache.glob(f"{name}-" + "[0-9a-f]" * 6)) if cache.is_dir() else []
    held = [(folder.name, _owner(folder)) for folder in (cache / name, *siblings)]
    held = [(one, owner) for one, owner in held if one not in taken]
    for one, owner in held:
        if owner == str(origin):
            return one
    for one, owner in held:
        # Held by nobody, or by a folder that is gone: moved, most likely, to where we are.
        if (owner is None and one == name) or (owner is not None and not Path(owner).exists()):
            return one
    return longer


def _owner(folder: Path) -> str | None:
    try:
        owner = json.loads((folder / "source.json").read_bytes())["root"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return owner if isinstance(owner, str) else None
