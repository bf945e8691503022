"""Facts remembered in the cache: what can be computed again, kept so that it need not be.

A memory file holds arrays (``.npz``) or plain values (``.json``) of one kind, with a checksum over
all of them. `kind` names what they are, the version of their layout, and whatever else they depend
on as a whole, such as the version of a library. A file that is missing, damaged, of another kind
or of an earlier layout is forgotten: its contents are computed again, never trusted. Files are
replaced in one step, so readers and writers at the same time, and writers that are killed, leave a
complete file; of two writers the last one is remembered. A cache that cannot be written is no
error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PipelineError
from .files import canonical_json, replacing, write_json

Arrays = Mapping[str, NDArray[Any]]
_HEAD = ("kind", "checksum")  # entries of the file besides its content


def recall_arrays(path: Path, kind: str) -> dict[str, NDArray[Any]] | None:
    """Give the arrays that `path` remembers, by name; None where it has none of this kind.

    Parameters
    ----------
    path : Path
        An ``.npz`` file of :func:`remember_arrays`.
    kind : str
        As it was remembered.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
            if str(saved["kind"]) != kind:
                return None
            arrays = {name: saved[name] for name in saved.files if name not in _HEAD}
            return arrays if str(saved["checksum"]) == _of_arrays(kind, arrays) else None
    except Exception:  # missing or damaged: zip, npy and keys raise many kinds
        return None


def remember_arrays(path: Path, kind: str, arrays: Arrays) -> None:
    """Replace what `path` remembers; without effect where it cannot be written.

    Parameters
    ----------
    path : Path
        An ``.npz`` file in the cache.
    kind : str
        What the arrays are, and the version of their layout.
    arrays : mapping of str to array
        Of any shapes and types but objects; ``kind`` and ``checksum`` may not be used as names.
    """
    head = {"kind": np.array(kind), "checksum": np.array(_of_arrays(kind, arrays))}
    with suppress(PipelineError, OSError), replacing(path) as stream:
        np.savez(stream, **{**arrays, **head})  # type: ignore[arg-type]


def recall_values(path: Path, kind: str) -> Any:
    """Give the plain values that `path` remembers; None where it has none of this kind.

    Parameters
    ----------
    path : Path
        A ``.json`` file of :func:`remember_values`.
    kind : str
        As it was remembered.
    """
    try:
        saved = json.loads(path.read_bytes())
        values = saved["values"]
        sound = saved["kind"] == kind and saved["checksum"] == _of_values(kind, values)
    except Exception:  # missing or damaged: also nested beyond the interpreter's limit
        return None
    return values if sound else None


def remember_values(path: Path, kind: str, values: Any) -> None:
    """Replace what `path` remembers; without effect where it cannot be written.

    Parameters
    ----------
    path : Path
        A ``.json`` file in the cache.
    kind : str
        What the values are, and the version of their layout.
    values : value
        Fit for JSON: finite numbers, texts, lists, mappings from texts.
    """
    with suppress(PipelineError, OSError):
        write_json(path, {"kind": kind, "checksum": _of_values(kind, values), "values": values})


def _of_arrays(kind: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(kind.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name}\0{array.dtype.descr}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _of_values(kind: str, values: Any) -> str:
    return hashlib.sha256(f"{kind}\0{canonical_json(values)}".encode()).hexdigest()
