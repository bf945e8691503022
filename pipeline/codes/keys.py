"""What codes are, and which file holds them: a name for people, a fingerprint for certainty.

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


@dataclass(frozen=True)
class Spec:
    """What codes are: a network, what is taken of it, and how it reads an image.

    Attributes
    ----------
    card : Card
        The network.
    layers : tuple of str
        Resolved layer names.
    preprocessing : Preprocessing
        As adapted to SIZE, RESIZE and the range of the images.
    views : Views
        What is read of an image.
    asked : CodesSettings
        The settings; pooling, precision and dtype are taken from them.
    calibration : str
        Digest of the images that a network in int8 was calibrated on; empty for other precisions.
    """

    card: Card
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    views: Views
    asked: CodesSettings
    calibration: str = ""

    @property
    def pool(self) -> str:
        """How maps become codes."""
        return self.card.pooling(self.asked.pool)

    def matters(self) -> dict[str, Any]:
        """Give everything that changes a number of the codes: what the fingerprint is taken of."""
        found: dict[str, Any] = {
            "backbone": [self.card.library, self.card.arch],
            "weights_digest": self.card.weights_digest,
            "layers": list(self.layers),
            "pool": self.pool,
            "views": [self.views.kind, self.views.count, self.views.seed],
            "preprocessing": self.preprocessing.as_dict(),
            "precision": self.asked.precision,
            "dtype": self.asked.dtype,
        }
        if self.calibration:
            found["calibration"] = self.calibration
        if self.card.refound:  # earlier versions took codes from another layer under this name
            found["final"] = self.card.final
        return found

    def stem(self) -> str:
        """Name the codes for people: network, layers, views and size."""
        asked = "+".join(self.asked.layers)
        parts = (
            self.card.model,
            asked if len(asked) <= _LONGEST else f"{len(self.asked.layers)}layers",
            self.asked.views.replace(":", ""),
            str(self.preprocessing.size),
        )
        return "-".join(safe_name(part) for part in parts)

    def is_usual(self) -> bool:
        """Whether the stem says all: whatever it does not name is the default."""
        usual = CodesSettings(model=self.asked.model)
        return (
            all(
                getattr(self.asked, name) == getattr(usual, name)
                for name in ("weights", "precision", "dtype")
            )
            and self.pool == self.card.pooling(usual.pool)
            and self.preprocessing.resize == self.card.preprocessing.resize
            and not self.views.seed
            and len("+".join(self.asked.layers)) <= _LONGEST
        )


def codes_key(data: str, spec: Spec, *, cache: Path) -> Key:
    """Name the file of these codes and take its fingerprint.

    Parameters
    ----------
    data : str
        The data set's name: the folder in the cache.
    spec : Spec
        What the codes are.
    cache : Path
        The cache folder.
    """
    matters, card, preprocessing = spec.matters(), spec.card, spec.preprocessing
    fingerprint = digest_of(matters)
    plain = {k: v for k, v in preprocessing.as_dict().items() if k != "colours"}
    before = digest_of(matters | {"preprocessing": plain}) if preprocessing.colours else ""
    config = {
        **matters,
        "model": card.model,
        "weights": card.origin,
        "size": preprocessing.size,
        "n_views": spec.views.count,
        "structure_digest": card.structure_digest,
        "resizer": resizer_name(),
        "asked": as_dict(spec.asked),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    path = _path(cache / data, spec.stem(), spec.is_usual(), fingerprint)
    return Key(path, fingerprint, config, before)


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
