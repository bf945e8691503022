"""What a network is, as digests: of its numbers, and of the structure that computes with them."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from typing import Any

import torch
from torch import nn


def state_digest(network: nn.Module) -> str:
    """SHA-256 of the names, shapes and bytes of everything the network's output depends on."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def structure_digest(network: nn.Module) -> str:
    """SHA-256 of what the modules are, not of their numbers.

    Classes, what they say of themselves (eps, strides, dropout), plain attributes, and the code of
    their forward passes without comments, docstrings and layout. A library release that changes
    any of these changes the digest.
    """
    total = hashlib.sha256()
    forwards: dict[str, str] = {}
    for name, module in network.named_modules():
        kind: Any = type(module)
        if kind.__qualname__ not in forwards:
            forwards[kind.__qualname__] = _forward_of(kind)
        forward = forwards[kind.__qualname__]
        plain = {
            key: repr(value)
            for key, value in sorted(vars(module).items())
            if not key.startswith("_")
            and key not in ("training", "pretrained_cfg", "default_cfg")
            and isinstance(value, int | float | str | bool | tuple | None)
        }
        own = "" if len(module._modules) else module.extra_repr()
        total.update(f"{name}:{kind.__qualname__}:{own}:{plain}:{forward};".encode())
    return total.hexdigest()


def _forward_of(kind: Any) -> str:
    """Give a class's forward pass as a syntax tree, which comments and layout are not part of."""
    forward: Any = getattr(kind, "forward", None)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
