"""Images of one thing that no ``GROUP`` keeps together: by their names, columns, folders or codes.

Photographs of one patient, frames of one film and augmented copies are alike beyond their class.
Where they lie on both sides of a cut, figures are too high. Each way of grouping that the data
set offers is measured on the cached codes: how often the nearest neighbour has the right class,
where images of the same group are left out, and where equally many other images of the same class
are left out instead. The difference is what knowing the thing, and not the class, is worth.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..datasets import Manifest
from ..datasets.phrases import plural
from ..datasets.split_words import TEST, TRAIN
from ..errors import DataError
from ..files import digest_of
from ..memory import recall_values, remember_values
from ..notation import share
from .clusters import near_groups
from .findings import Finding
from .near import mean_code, telling_codes, unit_codes

PATTERNS = (  # on the path; the match is the group
    r"[^/]+(?=\.rf\.[0-9a-f]+\.\w+$)",  # name_jpg.rf.<digest>.jpg: versions of one upload
    r"[^/]+(?=[ _.-]+\(?\d+\)?\.\w+$)",  # plant_3.jpg, plant (3).jpg
    r"[^/]+(?=[_-][^/_-]+\.\w+$)",  # all but the last word: scan_07_left.png
    r"[^/_-]+(?=[_-][^/]*$)",  # the first word: person12_bacteria_34.jpeg
    r"[A-Za-z]+\d+(?=[A-Za-z]+\d+\.\w+$)",  # patient12slice3.png
)
LARGEST = 0.1  # share of the images that one group may hold; beyond, it is no thing
JOINED = 0.1  # share of the images that must have another one in their group
PER_CLASS = 5  # groups that each class must have; with fewer it is the class that they name
LEAST_DROP = 0.03  # of the accuracy of the nearest neighbour
ERRORS = 3.0  # standard errors, over groups
AS_GOOD = 0.01  # a named grouping goes before one by codes that shows this little more
_MOST_QUERIES = 4000
_MOST_WORK = 4e11  # multiplications, some ten seconds on two cores
_ROWS = 512
_KIND = "groupings 1"
_MOST_KEPT = 20  # answers in the memory file: other seeds, splits and codes


@dataclass(frozen=True)
class Kin:
    """A grouping that the data set offers, and what it changes.

    Attributes
    ----------
    setting, how : str
        To be given as ``GROUP=``, and what images of a group have in common.
    n_groups, n_joined, n_images : int
        Groups of two training images or more, the images in them, and all training images that
        have codes.
    n_across : int
        Groups with images in train and in test.
    kept, left_out : float
        Share of the images whose nearest neighbour has the right class: without equally many
        other images of the class, and without the images of the group. In [0, 1].
    error : float
        Standard error of their difference, over groups.
    """

    setting: str
    how: str
    n_groups: int
    n_joined: int
    n_images: int
    n_across: int
    kept: float
    left_out: float
    error: float

    @property
    def drop(self) -> float:
        """What images of the same group add to the accuracy of the nearest neighbour."""
        return self.kept - self.left_out


def kin_cost(manifest: Manifest, cache: Path, *, seed: int = 0) -> float:
    """Multiplications that :func:`find_kin` takes; 0 where it need not search or cannot."""
    codes = None if manifest.grouping else telling_codes(manifest, cache)
    if codes is None or _key(manifest, codes, seed) in _recall(manifest, cache):
        return 0.0
    n, d = float(np.sum(manifest.split == TRAIN)), float(codes["final"].shape[-1])
    return min(n, _MOST_QUERIES) * n * d + n * n * d / 2


def find_kin(manifest: Manifest, cache: Path, *, seed: int = 0) -> Kin | None:
    """Find the grouping of the training images that changes most.

    Parameters
    ----------
    manifest : Manifest
        The images. Where groups are given already, nothing is searched.
    cache : Path
        The cache folder, with codes of layer ``final``. What was found is remembered in
        ``<cache>/<name>/kin.json``.
    seed : int
        Draws the images that are left out for comparison.

    Returns
    -------
    Kin or None
        None where there are no codes, or no grouping lowers the accuracy of the nearest
        neighbour by at least 3 points and 3 standard errors.
    """
    codes = None if manifest.grouping else telling_codes(manifest, cache)
    if codes is None:
        return None
    key, held = _key(manifest, codes, seed), _recall(manifest, cache)
    if key in held:
        return held[key] and Kin(**held[key])
    kin = _search(manifest, codes, seed)
    kept = {**dict(list(held.items())[1 - _MOST_KEPT :]), key: kin and asdict(kin)}
    remember_values(cache / manifest.name / "kin.json", _KIND, kept)
    return kin


def _key(manifest: Manifest, codes: Codes, seed: int) -> str:
    """Digest of all that an answer depends on."""
    digest = hashlib.sha256()
    for column in (
        manifest.sha256,
        manifest.split,
        manifest.labels,
        codes.sha256,
        codes.contents.array("images/row_digest"),
    ):
        digest.update(np.ascontiguousarray(column).tobytes())
    extra = {name: list(map(str, column.tolist())) for name, column in manifest.extra.items()}
    names = [list(manifest.paths), list(manifest.class_names), extra]
    return digest_of([seed, codes.fingerprint, digest.hexdigest(), names])


def _recall(manifest: Manifest, cache: Path) -> dict[str, Any]:
    return recall_values(cache / manifest.name / "kin.json", _KIND) or {}


def _search(manifest: Manifest, codes: Codes, seed: int) -> Kin | None:
    """Measure every grouping on offer."""
    where = {digest: row for row, digest in enumerate(codes.sha256.tolist())}
    has = [row for row, digest in enumerate(manifest.sha256.tolist()) if digest in where]
    train = np.array([row for row in has if manifest.split[row] == TRAIN], np.int64)
    _, first = np.unique(manifest.sha256[train], return_index=True)
    train = train[np.sort(first)]  # copies would be nearest whatever the grouping
    if len(train) < 20 or len(np.unique(manifest.labels[train])) < 2:
        return None
    at = np.array([where[manifest.sha256[row]] for row in train.tolist()], np.int64)
    unit = unit_codes(codes, at, mean_code(codes, at))  # (n, D)
    found = []
    for setting, how, values in _offers(manifest, codes, np.array(has, np.int64), where, seed):
        groups = values[train]
        if _is_plausible(groups, manifest.labels[train]):
            across = set(groups[groups >= 0].tolist()) & set(
                values[manifest.split == TEST].tolist()
            )
            kept, left_out, error = _measured(unit, manifest.labels[train], groups, seed)
            sizes = np.bincount(groups[groups >= 0])
            found.append(
                Kin(
                    setting=setting,
                    how=how,
                    n_groups=int(np.sum(sizes > 1)),
                    n_joined=int(sizes[sizes > 1].sum()),
                    n_images=len(train),
                    n_across=len(across),
                    kept=kept,
                    left_out=left_out,
                    error=error,
                )
            )
    found = [one for one in found if one.drop >= max(LEAST_DROP, ERRORS * one.error)]
    if not found:
        return None
    most = max(one.drop for one in found)
    named = [one for one in found if one.setting != "auto" and one.drop >= most - AS_GOOD]
    return max(named or found, key=lambda one: one.drop)


def kin_finding(kin: Kin) -> Finding:
    """Say what was found, what it costs, and the setting to add."""
    across = (
        f" {plural(kin.n_across, 'group has', 'groups have')} images in train and in test."
        if kin.n_across
        else ""
    )
    text = (
        f"{kin.n_joined:,} of {kin.n_images:,} training images have {kin.how} "
        f"({plural(kin.n_groups, 'group', 'groups')}): the nearest neighbour by the codes has the "
        f"right class for {share(kin.kept)} of the images, but for {share(kin.left_out)} "
        f"without the images of the same group.{across} If a group is one thing (a patient, a "
        "part, a scene, a photograph), figures of cross-validation and random splits are likely to "
        f"be too high: add GROUP={shlex.quote(kin.setting)} to keep each group on one side of "
        "every split."
    )
    details = {
        "group": kin.setting,
        "n_groups": kin.n_groups,
        "n_joined": kin.n_joined,
        "n_across": kin.n_across,
        "nearest_neighbour": {"kept": kin.kept, "left_out": kin.left_out, "error": kin.error},
    }
    return Finding("groups", True, text, (), details)


def _offers(
    manifest: Manifest,
    codes: Codes,
    has: NDArray[np.int64],
    where: dict[bytes, int],
    seed: int,
) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Give each setting, what its groups share, and the groups (N,); -1: an image of its own."""
    for name, column in manifest.extra.items():
        yield (
            name,
            f"a value of the column {name} in common",
            _numbered(["" if value != value else str(value) for value in column.tolist()]),
        )
    for pattern in PATTERNS:
        expression = re.compile(pattern)
        matches = (expression.search(path) for path in manifest.paths)
        yield (
            pattern,
            "a part of their names in common",
            _numbered(["" if one is None else one[0] for one in matches]),
        )
    folders = [path.rpartition("/")[0].rpartition("/")[2] for path in manifest.paths]
    if not set(folders) & set(manifest.class_names):
        yield "parent", "a folder in common", _numbered(folders)
    if len(codes) ** 2 / 2 * float(codes["final"].shape[-1]) > _MOST_WORK:
        return
    labels = np.full(len(codes), -1, np.int64)
    at = np.array([where[manifest.sha256[row]] for row in has.tolist()], np.int64)
    labels[at] = manifest.labels[has]
    try:
        clusters = near_groups(codes, labels, seed=seed)
    except DataError:  # one class
        return
    values = np.full(manifest.n_images, -1, np.int64)
    values[has] = clusters.groups[at]
    yield "auto", "nearly equal codes", values


def _numbered(texts: list[str]) -> NDArray[np.int64]:
    _, number = np.unique(np.array(texts, dtype=str), return_inverse=True)
    values: NDArray[np.int64] = number.astype(np.int64)
    values[np.array([not text for text in texts])] = -1
    return values


def _is_plausible(groups: NDArray[np.int64], labels: NDArray[np.int32]) -> bool:
    """Whether these could be things: several in each class, none a large part of the set."""
    known = groups[groups >= 0]
    sizes = np.bincount(known) if len(known) else np.zeros(1, np.int64)
    several = sizes[sizes > 1]
    if len(several) < 3 or int(several.sum()) < JOINED * len(groups):
        return False
    if int(several.max()) > max(2.0, LARGEST * len(groups)):
        return False
    for k in np.unique(labels):  # names such as beagle_12.jpg say the class, not a thing
        own = groups[labels == k]
        if len(np.unique(own[own >= 0])) + int(np.sum(own < 0)) < min(PER_CLASS, len(own)):
            return False
    return True


def _measured(
    unit: NDArray[np.float32], labels: NDArray[np.int32], groups: NDArray[np.int64], seed: int
) -> tuple[float, float, float]:
    """Accuracy of the nearest neighbour without others of the class, and without the group."""
    random = np.random.default_rng(seed)
    n = len(unit)
    n_queries = int(min(n, _MOST_QUERIES, max(200, _MOST_WORK / (n * unit.shape[1]))))
    queries = np.sort(random.permutation(n)[:n_queries])
    order = random.random(n)  # which others of the class are left out
    gains = np.empty((2, n_queries), np.int64)
    for start in range(0, n_queries, _ROWS):
        rows = queries[start : start + _ROWS]
        likeness = unit[rows] @ unit.T  # (q, n)
        likeness[np.arange(len(rows)), rows] = -math.inf
        mates = (groups[rows][:, None] == groups[None, :]) & (groups[rows] >= 0)[:, None]
        mates[np.arange(len(rows)), rows] = False
        same = labels[rows][:, None] == labels[None, :]
        others = np.zeros_like(mates)
        for i, row in enumerate(rows.tolist()):
            count = int(np.sum(mates[i] & same[i]))
            able = np.flatnonzero(same[i] & ~mates[i])
            able = able[able != row]
            others[i, able[np.argsort((order[able] + order[row]) % 1.0)[:count]]] = True
        for which, left in enumerate((others, mates)):
            nearest = np.where(left, -math.inf, likeness).argmax(axis=1)
            gains[which, start : start + len(rows)] = labels[nearest] == labels[rows]
    difference = gains[0] - gains[1]
    own = groups[queries].copy()
    own[own < 0] = own.max(initial=0) + 1 + np.flatnonzero(own < 0)
    centred = difference - difference.mean()
    sums = np.bincount(np.unique(own, return_inverse=True)[1], weights=centred)
    error = math.sqrt(float((sums**2).sum())) / n_queries
    return float(gains[0].mean()), float(gains[1].mean()), error
