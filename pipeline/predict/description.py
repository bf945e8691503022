"""What a run's description says it is: a head or a network, on the codes of how many networks.

The file may be a stranger's: what it says is checked, and nothing is opened here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BackboneError, HeadError, command_line
from .runs import Run

_KIND_LIMIT_BYTES = 64 * 2**20
_MOST_NETWORKS = 64


def kind_of(path: Path) -> str:
    """Give a description's kind, ``head`` or ``network``; the loaders refuse what is wrong."""
    try:
        if path.stat().st_size > _KIND_LIMIT_BYTES:
            return ""
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def networks_in(meta: Any) -> list[dict[str, Any]]:
    """Split what a head was saved with (`meta`) by its networks; empty where it has one.

    Raises
    ------
    ValueError
        Its networks cannot be read.
    """
    codes = meta.get("codes") if isinstance(meta, Mapping) else None
    if not isinstance(codes, Mapping) or "networks" not in codes:
        return []
    configs, prints = codes["networks"], codes.get("fingerprints")
    if not (isinstance(configs, list) and isinstance(prints, list)):
        raise ValueError("its networks are no lists")
    if len(configs) != len(prints) or not 2 <= len(configs) <= _MOST_NETWORKS:
        raise ValueError("its networks have no fingerprints")
    return [
        {"codes": config, "codes_fingerprint": one}
        for config, one in zip(configs, prints, strict=True)
    ]


def need_one_network(run: Run, what: str) -> None:
    """Refuse a run on the codes of several networks before any of them is opened.

    Parameters
    ----------
    run : Run
        Its files.
    what : str
        What needs one network, as the subject of a sentence.

    Raises
    ------
    BackboneError
        The run uses several.
    """
    description = run.file(".model.json")
    if kind_of(description) != "head":
        return
    try:
        several = networks_in(json.loads(description.read_text(encoding="utf-8")).get("meta"))
    except ValueError as error:
        raise unreadable(description, error) from error
    if several:
        models = [
            str(one["codes"].get("model")) for one in several if isinstance(one["codes"], dict)
        ]
        raise several_refused(run, models, what)


def several_refused(run: Run, models: Sequence[str], what: str) -> BackboneError:
    """Make the error of what takes a run on one network only."""
    try:
        record = run.record or {}
        data, method = record["provenance"]["settings"]["data"], record["method"]
    except (KeyError, TypeError):
        data, method = run.data, "svm"
    settings = {"DATA": str(data), "MODEL": models[0] if models else ""}
    if method not in ("svm", "softmax"):
        settings["METHODS"] = str(method)
    return BackboneError(
        f"{run.name} uses the codes of {len(models)} networks side by side; {what} takes a run on "
        "one network.",
        expected="a run on one network; make predict and make serve take this one",
        todo=command_line("heads" if "METHODS" in settings else str(method), settings),
    )


def unreadable(path: Path, error: object) -> HeadError:
    """Make the error of a description that does not say what its codes are."""
    return HeadError(
        f"{path} does not say what its codes are ({error}).",
        expected="a head that make svm, softmax or heads wrote",
        todo="train the head again",
    )
