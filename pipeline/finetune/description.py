"""A trained network's description, ``<run>.model.json``, read and checked without torch.

Prediction with an exported network needs no more than this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..backbones.preprocess import Preprocessing
from ..errors import TrainingError
from ..heads.output import Output

SCHEMA = 1
_JSON_LIMIT_BYTES = 16 * 2**20
_NEEDED = {"model", "final", "classes", "preprocessing", "views", "temperature_scale"}


def checkpoint_paths(path: Path) -> tuple[Path, Path]:
    """Give the weights' file and the description's, from either of them or their stem."""
    name = path.name
    for suffix in (".safetensors", ".model.json"):
        name = name.removesuffix(suffix)
    return path.with_name(name + ".safetensors"), path.with_name(name + ".model.json")


def read_description(path: Path) -> dict[str, Any]:
    """Read what is stored with the weights.

    Parameters
    ----------
    path : Path
        Either file of the checkpoint, or their common stem.

    Returns
    -------
    dict
        As it was saved; ``preprocessing`` as a
        :class:`~cnn_codes.backbones.preprocess.Preprocessing`, ``output`` as an
        :class:`~cnn_codes.heads.output.Output`, and
        ``tensors_sha256``, the digest of the weights' file.

    Raises
    ------
    TrainingError
        It is missing, damaged or of another schema.
    """
    _, json_path = checkpoint_paths(path)
    try:
        if json_path.stat().st_size > _JSON_LIMIT_BYTES:
            raise ValueError("it is larger than any description")
        meta: dict[str, Any] = json.loads(json_path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or meta.get("kind") != "network":
            raise ValueError("it describes no network")
        if meta.get("schema") != SCHEMA or not meta.keys() >= _NEEDED:
            raise ValueError(f"its schema is {meta.get('schema')!r}")
        classes = meta["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("its classes are not names")
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("its classes are not at least two different names")
        meta["preprocessing"] = Preprocessing.from_dict(meta["preprocessing"])
        meta["output"] = Output.from_dict(meta, len(classes))
        meta["tensors_sha256"] = str(meta["tensors_sha256"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise refusal(json_path, str(error)) from error
    return meta


def refusal(path: Path, found: str) -> TrainingError:
    """Make the error of a file that is no usable part of a checkpoint."""
    return TrainingError(
        f"{path} is not a network that can be used: {found}.",
        expected=f"a network of schema {SCHEMA}, as make finetune writes it with its other file",
        todo="fine-tune again, or fetch both files again",
    )
