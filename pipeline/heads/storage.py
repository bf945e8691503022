"""Heads on disk: ``<stem>.safetensors`` (arrays) and ``<stem>.model.json`` (everything else).

Loading cannot run code: safetensors holds bare arrays, JSON holds bare values, and both are
checked against what a head of that method must have before anything is built from them. The
JSON is written last and holds the SHA-256 of the arrays, so a pair that does not belong together
is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as make_safetensors

from ..errors import HeadError
from ..files import write_atomic, write_json
from .model import ARRAYS, Head
from .output import Output

SCHEMA = 1
JSON_LIMIT_BYTES = 64 * 2**20
STANDARDISATION = {"mean": ("float64", "D"), "scale": ("float64", "D")}


def save_head(path_stem: Path, head: Head, meta: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write a head, completely or not at all.

    Parameters
    ----------
    path_stem : Path
        Folder and name without a suffix.
    head : Head
        What :func:`cnn_codes.heads.fit_head` gave.
    meta : mapping
        What prediction must know along with the head, kept as it is: the codes' fingerprint, the
        network, layers, views, size, preprocessing, versions. Must be fit for JSON.

    Returns
    -------
    tuple of Path
        The arrays' file and the description's.
    """
    arrays_path, json_path = _paths(path_stem)
    arrays = {"mean": head.mean, "scale": head.scale, **head.arrays}
    data = make_safetensors({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    description = {
        "schema": SCHEMA,
        "kind": "head",
        "method": head.method,
        "classes": list(head.classes),
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
        "parameters": dict(head.parameters),
        "views": head.views,
        **head.output.as_dict(),
        "calibration": dict(head.calibration),
        "chosen": dict(head.chosen),
        "warnings": list(head.warnings),
        "times_s": dict(head.times_s),
        "arrays_sha256": hashlib.sha256(data).hexdigest(),
        "meta": dict(meta),
    }
    write_atomic(arrays_path, data)
    write_json(json_path, description)
    return arrays_path, json_path


def load_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """Rebuild a head and its `meta`.

    Parameters
    ----------
    path : Path
        Either file of the pair, or their stem.

    Raises
    ------
    HeadError
        A file is missing, damaged, of another schema, or holds arrays of other shapes or types,
        numbers that are not finite, or not the arrays the description was written with.
    """
    arrays_path, json_path = _paths(path)
    description = _read_description(json_path)
    try:
        head, meta = _build(description, arrays_path)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # A description of this schema always has these; which one is wrong is in the message.
        raise _refusal(json_path, f"{type(error).__name__}: {error}") from error
    except _Mismatch as error:
        raise _refusal(arrays_path if error.arrays else json_path, str(error)) from error
    return head, meta


class _Mismatch(Exception):
    """What is wrong with a model file; `arrays` says in which of the two."""

    def __init__(self, text: str, *, arrays: bool = False) -> None:
        super().__init__(text)
        self.arrays = arrays


def _paths(path: Path) -> tuple[Path, Path]:
    name = path.name
    for suffix in (".safetensors", ".model.json"):
        name = name.removesuffix(suffix)
    return path.with_name(name + ".safetensors"), path.with_name(name + ".model.json")


def _refusal(path: Path, found: str) -> HeadError:
    return HeadError(
        f"{path} is not a head that can be used: {found}.",
        expected=f"a head of schema {SCHEMA}, as save_head writes it, next to its other file",
        todo="train the head again, or fetch both files again",
    )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > JSON_LIMIT_BYTES:
            raise _refusal(path, f"it is larger than {JSON_LIMIT_BYTES >> 20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(path, str(error)) from error
    if not isinstance(found, dict):
        raise _refusal(path, "it holds no JSON object")
    if found.get("schema") != SCHEMA or found.get("kind") != "head":
        raise _refusal(
            path, f"its schema is {found.get('schema')!r}, its kind {found.get('kind')!r}"
        )
    return found


def _build(description: dict[str, Any], arrays_path: Path) -> tuple[Head, dict[str, Any]]:
    method, classes = description["method"], description["classes"]
    if method not in ARRAYS:
        raise _Mismatch(f"method {method!r} is not known")
    if (
        not isinstance(classes, list)
        or len(classes) < 2
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) != len(classes)
    ):
        raise _Mismatch("its classes are not at least two different names")
    arrays = _read_arrays(arrays_path, str(description["arrays_sha256"]))
    _check_arrays(arrays, method, n_classes=len(classes))
    _check_values(arrays, description, n_classes=len(classes))
    mean, scale = arrays.pop("mean"), arrays.pop("scale")
    head = Head(
        method=method,
        classes=tuple(classes),
        mean=mean,
        scale=scale,
        arrays=arrays,
        parameters=dict(description["parameters"]),
        views=description["views"],
        output=_output(description, len(classes)),
        calibration=dict(description["calibration"]),
        chosen=dict(description["chosen"]),
        warnings=tuple(map(str, description["warnings"])),
        times_s=dict(description["times_s"]),
    )
    return head, dict(description["meta"])


def _output(description: Mapping[str, Any], n_classes: int) -> Output:
    try:
        return Output.from_dict(description, n_classes)
    except ValueError as error:
        raise _Mismatch(str(error)) from error


def _read_arrays(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _Mismatch(str(error), arrays=True) from error
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise _Mismatch(
            f"its SHA-256 is {found[:12]}…, the description's {digest[:12]}…", arrays=True
        )
    try:
        arrays: dict[str, NDArray[Any]] = parse_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _Mismatch(f"it is no safetensors file ({error})", arrays=True) from error
    return arrays


def _check_arrays(arrays: Mapping[str, NDArray[Any]], method: str, *, n_classes: int) -> None:
    """Compare names, types and shapes with the method's, and refuse what is not finite."""
    wanted = {**STANDARDISATION, **ARRAYS[method]}
    if arrays.keys() != wanted.keys():
        raise _Mismatch(
            f"it holds {', '.join(sorted(arrays))}, and a head of method {method} has "
            f"{', '.join(sorted(wanted))}",
            arrays=True,
        )
    sizes = {"K": n_classes, "J": n_classes - 1, "P": n_classes * (n_classes - 1) // 2}
    for name, (dtype, axes) in wanted.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != len(axes) or array.size == 0:
            raise _Mismatch(f"{name} is {array.dtype} {array.shape}", arrays=True)
        for axis, length in zip(axes, array.shape, strict=True):
            # The first array to have an axis sets its length; K, J and P follow from the classes.
            if sizes.setdefault(axis, length) != length:
                raise _Mismatch(
                    f"{name} has shape {array.shape}; {sizes[axis]} where it has {length} would "
                    "fit the others",
                    arrays=True,
                )
        if not np.isfinite(array).all():
            raise _Mismatch(f"{name} holds numbers that are not finite", arrays=True)


def _check_values(
    arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any], *, n_classes: int
) -> None:
    """Refuse values that prediction would stumble over."""
    parameters = description["parameters"]
    if not (arrays["scale"] > 0).all():
        raise _Mismatch("scale is not positive throughout", arrays=True)
    if description["views"] not in ("mean", "all"):
        raise _Mismatch(f"its views are {description['views']!r}")
    if description["method"] == "knn":
        labels, k = arrays["example_labels"], parameters["k"]
        if labels.min() < 0 or labels.max() >= n_classes:
            raise _Mismatch("example_labels holds a class that there is not", arrays=True)
        if type(k) is not int or not 1 <= k <= len(labels):
            raise _Mismatch(f"its k is {k!r}, with {len(labels)} examples")
        if parameters["metric"] not in ("euclidean", "cosine"):
            raise _Mismatch(f"its metric is {parameters['metric']!r}")
    if description["method"] == "rbf":
        n_support, gamma = arrays["n_support"], parameters["gamma"]
        if (n_support < 0).any() or int(n_support.astype(np.int64).sum()) != len(arrays["support"]):
            raise _Mismatch("n_support does not count the support vectors", arrays=True)
        if not isinstance(gamma, int | float) or not 0 < gamma < math.inf:
            raise _Mismatch(f"its gamma is {gamma!r}")
