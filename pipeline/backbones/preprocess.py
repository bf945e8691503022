"""Pixels to a network's input: one geometry for every engine, owned by the weights.

The crop is taken from the decoded image in one antialiased resize (its box in source pixels), so
nothing outside the crop is ever resampled. Normalisation is not done here: engines take bytes
and normalise inside the network's graph.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.images import decode
from ..datasets.ranges import SetReading
from ..datasets.samples import Reading
from ..errors import SettingsError
from .resize import FILTERS, resizer

VERSION = 1  # of this module's arithmetic; part of every fingerprint
_STORED = {"resize": "fit"}  # field to its name in files and fingerprints
_OF_THE_DATA = ("ranges", "bands", "colours")
_MAX_SIZE = 4096  # px; of a description from elsewhere: a view of 50 MB


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the square that a network was made for.

    Attributes
    ----------
    size : int
        Side of the network's input, in pixels.
    crop_ratio : float
        Side of the central crop over the image's shorter side, in (0, 1]; for ``resize="crop"``.
    resize : str
        ``crop`` (central square), ``stretch`` (the whole image, aspect lost) or ``pad`` (the
        whole image, the rest filled with the mean colour).
    interpolation : str
        ``bilinear``, ``bicubic``, ``lanczos``, ``box`` or ``nearest``, antialiased.
    mean, std : tuple of 3 floats
        Of the colours in [0, 1]; applied inside the network's graph.
    ranges, bands
        Of the data set, where its images have more than 8 bits or several bands
        (:class:`cnn_codes.datasets.samples.Reading`).
    colours : str
        ``icc`` where the data set has images whose colour profile changes their colours, which
        earlier versions did not apply; else empty.
    """

    size: int
    crop_ratio: float
    resize: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ranges: tuple[tuple[str, float, float], ...] = ()
    bands: tuple[int, ...] = ()
    colours: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a view: (size, size, 3)."""
        return self.size, self.size, 3

    @property
    def reading(self) -> Reading:
        """How files of more than 8 bits or several bands are read."""
        return Reading(self.ranges, self.bands)

    def adapted(self, *, size: int, resize: str) -> Preprocessing:
        """Change the input size (0: keep it) and how it is reached (``default``: keep it)."""
        return replace(
            self,
            size=size or self.size,
            resize=self.resize if resize == "default" else resize,
        )

    def read_as(self, found: SetReading) -> Preprocessing:
        """Take over how the images of a data set are read."""
        return replace(
            self,
            ranges=found.reading.ranges,
            bands=found.reading.bands,
            colours="icc" if found.converts else "",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the version of this module's arithmetic.

        ``resize`` is called ``fit`` in here: the name that it has in the fingerprints of all codes
        and in the descriptions of all trained networks since the first version.
        """
        values = {
            _STORED.get(name, name): value
            for name, value in asdict(self).items()
            if value or name not in _OF_THE_DATA  # most sets have none, and keep their fingerprint
        }
        return {"version": VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Rebuild what :meth:`as_dict` gave, which may come from a stranger's file.

        Raises
        ------
        ValueError
            A field is missing, unknown, or has a value that no image could be read with.
        """
        if not isinstance(values, Mapping) or values.get("version", VERSION) != VERSION:
            raise ValueError("its preprocessing is of another version")
        named = {stored: name for name, stored in _STORED.items()}
        fields: dict[str, Any] = {
            named.get(k, k): _as_tuple(v) for k, v in values.items() if k != "version"
        }
        try:
            found = cls(**fields)
            sound = (
                type(found.size) is int
                and 1 <= found.size <= _MAX_SIZE
                and 0 < found.crop_ratio <= 1
                and found.resize in ("crop", "stretch", "pad")
                and found.interpolation in FILTERS
                and len(found.mean) == len(found.std) == 3
                and all(-math.inf < one < math.inf for one in found.mean)
                and all(0 < one < math.inf for one in found.std)
                and all(
                    isinstance(kind, str) and -math.inf < low < high < math.inf
                    for kind, low, high in found.ranges
                )
                and all(type(band) is int and 1 <= band <= 1000 for band in found.bands)
                and len(found.bands) in (0, 1, 3)
                and found.colours in ("", "icc")
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"its preprocessing cannot be read ({error})") from error
        if not sound:
            raise ValueError(f"its preprocessing is none: {fields}")
        return found


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class JoinedPreprocessing(Preprocessing):
    """How an image becomes the input of several networks: the bytes of each, one after another.

    What reads images and what batches them need not know of how many networks they are.

    Attributes
    ----------
    parts : tuple of Preprocessing
        One per network; the other fields are those of the first.
    """

    parts: tuple[Preprocessing, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Preprocessing]) -> JoinedPreprocessing:
        """Join the preprocessing of several networks."""
        own = {one.name: getattr(parts[0], one.name) for one in fields(Preprocessing)}
        return cls(**own, parts=tuple(parts))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a view: (P,), the bytes of all networks' views."""
        return (sum(math.prod(part.shape) for part in self.parts),)

    def joined(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Join the views (V, size, size, 3) that each network takes, (V, P)."""
        return np.concatenate([one.reshape(len(one), -1) for one in views], axis=1)

    def parted(self, views: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Give back what :meth:`joined` joined."""
        found, at = [], 0
        for part in self.parts:
            n = math.prod(part.shape)
            block = np.ascontiguousarray(views[:, at : at + n])
            found.append(block.reshape(-1, *part.shape))
            at += n
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"parts": [part.as_dict() for part in self.parts]}


def preprocessing_from(values: Mapping[str, Any]) -> Preprocessing:
    """Rebuild what ``as_dict`` gave; raises as :meth:`Preprocessing.from_dict`."""
    if isinstance(values, Mapping) and "parts" in values:
        return JoinedPreprocessing.of([Preprocessing.from_dict(one) for one in values["parts"]])
    return Preprocessing.from_dict(values)


@dataclass(frozen=True)
class Views:
    """Which readings of an image are taken.

    Attributes
    ----------
    kind : str
        ``center``, ``flip``, ``dihedral`` or ``random``.
    count : int
        Number of views per image: 1, 2, 8 or the K of ``random:K``.
    seed : int
        Of the random crops; each image's crops depend on it and the image's bytes alone.
    """

    kind: str
    count: int
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int) -> Views:
        """Read ``center``, ``flip``, ``dihedral`` or ``random:K`` (K from 1 to 64)."""
        fixed = {"center": 1, "flip": 2, "dihedral": 8}
        if text in fixed:
            return cls(text, fixed[text])
        kind, _, count = text.partition(":")
        if kind == "random" and count.isdecimal() and 1 <= int(count) <= 64:
            return cls("random", int(count), seed)
        raise SettingsError(
            f"VIEWS={text} is not known.",
            expected="center, flip, dihedral, or random:K with K from 1 to 64",
        )


def read_views(
    data: bytes, preprocessing: Preprocessing, views: Views, digest: str
) -> NDArray[np.uint8]:
    """Decode an image file and take its views.

    Parameters
    ----------
    data : bytes
        The whole file.
    preprocessing, views
        The geometry and which views.
    digest : str
        SHA-256 of `data`; seeds the random crops.

    Returns
    -------
    array of shape (n_views, size, size, 3), uint8
        For several networks (n_views, P).

    Raises
    ------
    ImageError
        As :func:`cnn_codes.datasets.images.decode`.
    """
    if isinstance(preprocessing, JoinedPreprocessing):
        return preprocessing.joined(
            [read_views(data, part, views, digest) for part in preprocessing.parts]
        )
    ratio = preprocessing.crop_ratio if preprocessing.resize == "crop" else 1.0
    side = round(preprocessing.size / ratio)
    pixels = decode(data, min_side=side, reading=preprocessing.reading)
    return take_views(pixels, preprocessing, views, digest)


def take_views(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, views: Views, digest: str
) -> NDArray[np.uint8]:
    """Take the views of an image whose pixels are at hand, (height, width, 1 or 3) uint8.

    Parameters, what is returned: as :func:`read_views`.
    """
    if isinstance(preprocessing, JoinedPreprocessing):
        return preprocessing.joined(
            [take_views(pixels, part, views, digest) for part in preprocessing.parts]
        )
    if views.kind == "random":
        return _random_crops(pixels, preprocessing, views, digest)
    upright = _square(pixels, preprocessing)
    if views.kind == "flip":
        return np.stack([upright, upright[:, ::-1]])
    if views.kind == "dihedral":
        turned = [np.rot90(upright, quarter) for quarter in range(4)]
        return np.stack([*turned, *(view[:, ::-1] for view in turned)])
    return upright[None]


def _square(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    height, width, _ = pixels.shape
    size = preprocessing.size
    if preprocessing.resize == "stretch":
        return _resized(pixels, (0, 0, width, height), (size, size), preprocessing)
    if preprocessing.resize == "pad":
        scale = size / max(width, height)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        small = _resized(pixels, (0, 0, width, height), inner, preprocessing)
        square = np.empty((size, size, 3), np.uint8)
        square[:] = np.clip(np.round(np.array(preprocessing.mean) * 255), 0, 255)
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        square[top : top + inner[0], left : left + inner[1]] = small
        return square
    side = min(width, height) * preprocessing.crop_ratio
    box = ((width - side) / 2, (height - side) / 2, side, side)
    return _resized(pixels, box, (size, size), preprocessing)


def _random_crops(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, views: Views, digest: str
) -> NDArray[np.uint8]:
    """Random resized crops and flips (Szegedy et al. 2015, as torchvision has them).

    Area 35 to 100 % and aspect 3/4 to 4/3; smaller crops, as for training a whole network, lose
    the object too often for a probe.
    """
    height, width, _ = pixels.shape
    seed = hashlib.sha256(f"{views.seed}:{digest}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(seed[:8], "little"))
    size = preprocessing.size
    crops = np.empty((views.count, size, size, 3), np.uint8)
    for crop in crops:
        area = width * height * random.uniform(0.35, 1.0)
        aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = min(width, np.sqrt(area * aspect)), min(height, np.sqrt(area / aspect))
        left, top = random.uniform(0, width - w), random.uniform(0, height - h)
        view = _resized(pixels, (left, top, w, h), (size, size), preprocessing)
        crop[:] = view[:, ::-1] if random.random() < 0.5 else view
    return crops


def _resized(
    pixels: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    shape: tuple[int, int],
    preprocessing: Preprocessing,
) -> NDArray[np.uint8]:
    """Resample `box` (left, top, width, height in pixels) to `shape` (height, width), RGB."""
    small = resizer()(pixels, box, shape, preprocessing.interpolation)
    return small if small.shape[2] == 3 else np.repeat(small, 3, axis=2)
