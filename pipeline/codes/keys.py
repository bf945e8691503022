"""Which file holds which codes: a name for people, a fingerprint for certainty.

The fingerprint is a digest of everything that changes a number. What changes only speed (device,
engine, batch, workers) is not in it, nor are library versions, which are kept for the record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..backbones.card import Card, safe_name
from ..backbones.preprocess import Preprocessing, Views
from ..backbones.resize import resizer_name
from ..files import digest_of
from ..settings import CodesSettings, as_dict
from .reader import fingerprint_of

__all__ = ["Key", "codes_key"]

_LIBRARIES = ("torch", "torchvision", "timm", "onnxruntime", "simplejpeg", "pillow", "numpy")
_LONGEST = 48  # characters of the layers' names in a file name


@dataclass(frozen=True)
class Key:
    """Which file, and what its codes depend on.

    Attributes
    ----------
    path : Path
        The published file's name.
    fingerprint : str
        Digest of everything that changes a code.
    config : dict
        The same in words, with the library versions.
    predecessor : str
        Fingerprint under which earlier versions kept the same codes but those of images whose
        colour profile changes their colours; empty where the set has no such image.
    """

    path: Path
    fingerprint: str
    config: dict[str, Any]
    predecessor: str = ""

    def apart(self, folder: str) -> Key:
        """Give the same codes' key for a file in a folder below, of which no user knows."""
        return replace(self, path=self.path.parent / folder / self.path.name)


def codes_key(
    data: str,
    card: Card,
    layers: tuple[str, ...],
    preprocessing: Preprocessing,
    views: Views,
    codes: CodesSettings,
    *,
    cache: Path,
    calibration: str = "",
) -> Key:
    """Name the file of these codes and take its fingerprint.

    Parameters
    ----------
    data : str
        The data set's name: the folder in the cache.
    card, layers, preprocessing, views, codes
        The network, resolved layer names, the adapted preprocessing, the views, the settings.
    cache : Path
        The cache folder.
    calibration : str
        Digest of the images that a network in int8 was calibrated on.
    """
    matters: dict[str, Any] = {
        "backbone": [card.library, card.arch],
        "weights_digest": card.weights_digest,
        "layers": list(layers),
        "pool": card.pooling(codes.pool),
        "views": [views.kind, views.count, views.seed],
        "preprocessing": preprocessing.as_dict(),
        "precision": codes.precision,
        "dtype": codes.dtype,
    }
    if calibration:
        matters["calibration"] = calibration
    if card.refound:  # earlier versions took codes from another layer under this name
        matters["final"] = card.final
    fingerprint = digest_of(matters)
    plain = {k: v for k, v in preprocessing.as_dict().items() if k != "colours"}
    before = digest_of(matters | {"preprocessing": plain}) if preprocessing.colours else ""
    asked = "+".join(codes.layers)
    stem = "-".join(
        safe_name(part)
        for part in (
            card.model,
            asked if len(asked) <= _LONGEST else f"{len(codes.layers)}layers",
            codes.views.replace(":", ""),
            str(preprocessing.size),
        )
    )
    usual = CodesSettings(model=codes.model)
    default = all(
        getattr(codes, name) == getattr(usual, name) for name in ("weights", "precision", "dtype")
    )
    default = default and matters["pool"] == card.pooling(usual.pool)
    default = (
        default
        and preprocessing.resize == card.preprocessing.resize
        and not views.seed
        and len(asked) <= _LONGEST
    )
    config = {
        **matters,
        "model": card.model,
        "weights": card.origin,
        "size": preprocessing.size,
        "n_views": views.count,
        "structure_digest": card.structure_digest,
        "resizer": resizer_name(),
        "asked": as_dict(codes),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    return Key(_path(cache / data, stem, default, fingerprint), fingerprint, config, before)


def _path(folder: Path, stem: str, usual: bool, fingerprint: str) -> Path:
    """Name the file: with a digest, so that no file ever replaces one of another fingerprint.

    Earlier versions left the digest out of the name where all settings were the default; such a
    file is used under its name as long as it is of this fingerprint.
    """
    if usual:
        earlier = folder / f"{stem}.h5"
        if earlier.is_file() and fingerprint_of(earlier) == fingerprint:
            return earlier
    return folder / f"{stem}-{fingerprint[:8]}.h5"
