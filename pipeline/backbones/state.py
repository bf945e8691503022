"""State dicts as they are found, read without running code.

Training frameworks save the same tensors in many ways: at the top of a file or inside other
mappings (``state_dict``, ``model``, ``net``, ``model_ema``). :mod:`.matching` finds a network's
tensors among those of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BackboneError, first_line

_OTHERS = (
    (b"\x89hdf", "an HDF5 file (Keras or the like)"),
    (b"gguf", "a GGUF file"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-", "a Git LFS pointer: git lfs pull fetches the file itself"),
)
DEPTH = 4  # of mappings inside mappings
SHOWN = 4  # names in a sentence


def read_state(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read all mappings of tensors in a file, without running any code in it.

    Parameters
    ----------
    path : Path
        A safetensors file, or what ``torch.save`` wrote.

    Returns
    -------
    dict
        Where in the file each mapping was found (``state_dict``, ``model_ema``; empty for the
        top), to its tensors by name.

    Raises
    ------
    BackboneError
        There is no such file, it cannot be read, it holds no tensors, or it names code.
    """
    if not path.is_file():
        raise BackboneError(
            f"There is no weights file {path}.",
            expected="a safetensors file or a state dict (.pth, .pt, .bin, .ckpt)",
            todo="check the spelling of the path given with WEIGHTS=",
        )
    if other := _other_format(path):
        raise BackboneError(
            f"{path} is {other}, not a state dict.",
            expected="a safetensors file or a state dict (.pth, .pt, .bin, .ckpt)",
            todo="fetch the file again where it is a page or a pointer; else save the tensors with "
            "the program that wrote it: torch.save(network.state_dict(), 'own.pth')",
        )
    saved = _saved(path)
    found: dict[str, dict[str, Tensor]] = {}
    for place, tensors in _mappings(saved, "", DEPTH):
        if tensors:
            found[place] = tensors
    if not found:
        raise BackboneError(
            f"{path} holds no state dict.",
            expected="a mapping from names to tensors, at the top or inside another mapping",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        )
    return found


def _other_format(path: Path) -> str:
    """Name what a file is by its first bytes, where it holds no tensors of torch's; else empty."""
    with path.open("rb") as stream:
        head = stream.read(400)
        stream.seek(-min(100_000, path.stat().st_size), 2)
        tail = stream.read()
    if not head:
        return "empty (0 bytes)"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:20].lower()
    for mark, name in _OTHERS:
        if start.startswith(mark):
            return name
    if path.suffix.lower() in (".onnx", ".tflite", ".pb", ".engine", ".mlmodel"):
        return f"a {path.suffix.lower()[1:].upper()} model"
    if head[:2] == b"PK" and b"/code/" in tail:
        return "a TorchScript program (torch.jit)"
    return ""


def _saved(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise BackboneError(
            f"{path} is not a safetensors file: {error}",
            expected="a complete safetensors file",
            todo="fetch or save it again",
        ) from error
    except Exception as error:  # torch raises many kinds, UnpicklingError for code in the file
        names = _code_in(path)
        if names:
            raise BackboneError(
                f"{path} is not loaded: besides tensors it names code ({listed(names)}), and "
                "loading that could run anything.",
                expected="tensors in plain mappings",
                todo="if you trust the file, save the tensors alone with the program that wrote "
                'it: torch.save(torch.load(path, weights_only=False)["state_dict"], "own.pth")',
            ) from error
        raise BackboneError(
            f"{path} cannot be loaded as a state dict: {first_line(error)}",
            expected="tensors only; a file with code in it is not loaded",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        ) from error


def _code_in(path: Path) -> list[str]:
    """Name the classes and functions that the file wants imported; nothing is imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a file of torch's at all, or an old format
        return []


def _mappings(value: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give each mapping's own tensors, and those of the mappings inside it."""
    if not isinstance(value, Mapping):
        return
    yield (
        place,
        {
            str(k): v.dequantize() if v.is_quantized else v
            for k, v in value.items()
            if isinstance(v, Tensor)
        },
    )
    if depth:
        for key, inner in value.items():
            yield from _mappings(inner, f"{place}.{key}" if place else str(key), depth - 1)


def listed(names: list[str]) -> str:
    """Name the first few, and say how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
