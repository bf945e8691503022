"""A folder for any browser: page, runtime, model and the codes that tell what is unlike.

Model and runtime are text in scripts (gzip, base64), since a page opened from a file may load
scripts but no other files. A page served by any static host loads the same ones.
"""

from __future__ import annotations

import base64
import gzip
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CacheError
from ..files import write_atomic
from ..predict.classifier import Classifier
from .runtime import VERSION, web_runtime

MOST_IMAGES = 1000  # of the training images whose codes come along
SHARE = 0.99
_SAMPLE = 1000
_BLOCK = 128


def write_web(
    classifier: Classifier,
    model: bytes,
    about: dict[str, str],
    folder: Path,
    *,
    cache: Path,
    offline: bool,
) -> tuple[list[Path], list[str]]:
    """Write the folder.

    Parameters
    ----------
    classifier : Classifier
        Of the run; gives the training images' codes.
    model : bytes
        The ONNX model without the geometry, which the page computes.
    about : dict
        The model's metadata.
    folder : Path
        Where the files go.
    cache, offline
        Where the runtime is kept; fetch nothing.

    Returns
    -------
    files : list of Path
        What was written, the page first.
    notes : list of str
        What the folder lacks.

    Raises
    ------
    DownloadError
        The runtime is neither in the cache nor to be fetched.
    """
    runtime = web_runtime(cache, offline=offline)
    training, notes = _training(classifier)
    wasm = _packed(runtime["ort-wasm-simd-threaded.wasm"])
    glue = runtime["ort-wasm-simd-threaded.mjs"].decode()
    page = resources.files(__package__)
    written = {
        "index.html": page.joinpath("web.html").read_bytes(),
        "web.css": page.joinpath("web.css").read_bytes(),
        "web.js": page.joinpath("web.js").read_bytes(),
        "about.js": _assignment("ABOUT", _facts(classifier, about)),
        "ort.js": runtime["ort.wasm.min.js"].partition(b"\n//# sourceMappingURL")[0] + b"\n",
        "runtime.js": _assignment("RUNTIME", {"script": glue, "wasm": wasm}),
        "model.js": _assignment("MODEL", _packed(model)),
        "training.js": _assignment("TRAINING", training),
    }
    for name, data in written.items():
        write_atomic(folder / name, data)
    return [folder / name for name in written], notes


def _assignment(name: str, value: Any) -> bytes:
    """Spell ``window.NAME = value;`` so that a browser reads it as nothing else."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return f'"use strict";\nwindow.{name} = {text};\n'.encode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _facts(classifier: Classifier, about: dict[str, str]) -> dict[str, Any]:
    preprocessing = classifier.model.preprocessing
    colour = np.clip(np.round(np.array(preprocessing.mean) * 255), 0, 255)
    network = about["kind"] == "network"
    head = "fine-tuned" if network else f"{about['method']} on the codes of"
    return {
        "classes": list(classifier.classes),
        "data": about["data"],
        "run": about["run"],
        "what": f"{about['model']}, fine-tuned" if network else f"{head} {about['model']}",
        "size": preprocessing.size,
        "crop_ratio": preprocessing.crop_ratio,
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "colour": colour.astype(int).tolist(),
        "runtime": f"onnxruntime-web {VERSION}",
    }


def _training(classifier: Classifier) -> tuple[dict[str, Any] | None, list[str]]:
    """Give codes of training images, 8 bits a number, and the distance that is unlike them."""
    try:
        found = classifier.neighbours(SHARE)
    except CacheError as error:
        return None, [f"The page cannot say what is unlike the training images: {error.found}"]
    units = found.units
    order = np.random.default_rng(0).permutation(len(units))
    kept = np.sort(order[:MOST_IMAGES])
    scales = np.abs(units[kept]).max(axis=1) / 127  # (M,)
    codes = np.round(units[kept] / scales[:, None]).astype(np.int8)
    limit = _limit(units, kept, codes * scales[:, None].astype(np.float32))
    notes = []
    if len(kept) < len(units):
        notes.append(
            f"The page compares images with {len(kept)} of the {len(units)} training images."
        )
    return {
        "codes": _packed(codes.tobytes()),
        "scales": scales.astype(float).tolist(),
        "limit": limit,
    }, notes


def _limit(
    units: NDArray[np.float32], kept: NDArray[np.int64], stored: NDArray[np.float32]
) -> float:
    """Measure the distance to the nearest other kept image that 99 % of the images keep."""
    if len(units) < 2:
        return 2.0
    rows = np.sort(np.random.default_rng(1).permutation(len(units))[:_SAMPLE])
    distances = []
    squares = (stored.astype(np.float64) ** 2).sum(axis=1)
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        likeness = units[some].astype(np.float64) @ stored.T.astype(np.float64)
        gaps = 1 + squares - 2 * likeness
        gaps[kept[None, :] == some[:, None]] = np.inf
        distances.append(np.sqrt(np.maximum(gaps.min(axis=1), 0)))
    return float(np.quantile(np.concatenate(distances), SHARE))
