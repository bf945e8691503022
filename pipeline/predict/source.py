"""Codes of images for scikit-learn's estimators: network, reading and cache behind one function.

Estimators hold nothing but their parameters, so that they can be cloned and pickled. What those
mean (the network's description, its open engine, the file of its codes) is kept here for the life
of the process and shared by all estimators of the same parameters: a fold of a cross-validation
opens no session.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from ..backbones import load_card
from ..backbones.engine import Engine, n_cores
from ..backbones.preprocess import Views
from ..codes.agreement import probe_codes
from ..codes.cache import CacheFile
from ..codes.engine import engine_of
from ..codes.keys import Key, Spec, codes_key
from ..codes.store import CodeStore
from ..codes.stream import Batch, Stream
from ..codes.work import as_stored
from ..errors import DataError, ImageError
from ..heads.examples import mean_view
from ..settings import CodesSettings, MachineSettings
from .items import Item, load_item, name_of

_FOLDER = "transformer"  # in the cache
_KEPT = 4  # networks that stay open
_OPENING = threading.Lock()


def user_cache() -> Path:
    """Give the user's cache folder: ``~/.cache/cnn-codes`` on Linux, or what the system has."""
    return Path(platformdirs.user_cache_dir("cnn-codes", appauthor=False))


def open_source(
    codes: CodesSettings,
    machine: MachineSettings,
    *,
    cache: str | os.PathLike[str] | None,
    seed: int,
    offline: bool,
) -> Source:
    """Give the source of codes that some settings mean, the open one if there is one.

    Parameters
    ----------
    codes, machine : settings
        What the codes are, and what runs the network.
    cache : path or None
        The cache folder; None: :func:`user_cache`.
    seed : int
        Of random views, and of a random start.
    offline : bool
        Fetch nothing.

    Raises
    ------
    SettingsError, BackboneError, DownloadError
        The network or a setting is not available.
    """
    folder = (user_cache() if cache is None else Path(cache)).absolute()
    weights = Path(codes.weights)
    stamp = 0
    if weights.is_file():  # a file may be replaced by another of its name
        codes_file = weights.stat()
        stamp = hash((codes_file.st_mtime_ns, codes_file.st_size, codes_file.st_ino))
    with _OPENING:
        return _opened(codes, machine, folder, seed, offline, stamp)


@functools.lru_cache(maxsize=_KEPT)
def _opened(
    codes: CodesSettings,
    machine: MachineSettings,
    cache: Path,
    seed: int,
    offline: bool,
    stamp: int,
) -> Source:
    return Source(codes, machine, cache=cache, seed=seed, offline=offline)


class Source:
    """A network, how it reads images, and the file of its codes.

    Attributes
    ----------
    layers : tuple of str
        Resolved layer names.
    fingerprint : str
        Digest of everything that changes a code.
    """

    def __init__(
        self,
        codes: CodesSettings,
        machine: MachineSettings,
        *,
        cache: Path,
        seed: int,
        offline: bool,
    ) -> None:
        codes.need_one("an estimator", "a FeatureUnion of one CodesTransformer per network")
        self._machine = machine
        self._from: dict[str, Any] = {"cache": cache, "seed": seed, "offline": offline}
        card = load_card(codes, **self._from)
        self._spec = Spec(
            card,
            card.resolve(codes.layers),
            card.preprocessing.adapted(size=codes.size, resize=codes.resize),
            Views.parse(codes.views, seed),
            codes,
        )
        self.layers = self._spec.layers
        self._key: Key = codes_key(_FOLDER, self._spec, cache=cache)
        self.fingerprint = self._key.fingerprint
        self._dims: list[int] = []
        self._engine: Engine | None = None
        self._probe: dict[str, NDArray[Any]] | None = None
        self._lock = threading.RLock()

    def codes(self, items: list[Item], digests: list[str]) -> NDArray[np.float32]:
        """Give the codes of images, of each layer with the views apart.

        Parameters
        ----------
        items : list of images, length N, at least 1
            As :func:`cnn_codes.predict.items.as_items` lists them.
        digests : list of str, length N
            From :func:`digests_of`.

        Returns
        -------
        float32 (N, V, D)
            Layers side by side.
        """

        def make(missing: list[int], file: CacheFile) -> None:
            self._make(items, digests, missing, file)

        shape = (len(items), self._spec.views.count, -1)
        blocks = [block.reshape(shape) for block in CodeStore(self._key).get(digests, make)]
        self._dims = [block.shape[2] for block in blocks]
        return np.concatenate([block.astype(np.float32, copy=False) for block in blocks], axis=2)

    def mean_codes(self, items: list[Item], digests: list[str]) -> NDArray[np.float32]:
        """Give the codes averaged over the views, (N, D)."""
        return mean_view(self.codes(items, digests))

    def dims(self) -> list[int]:
        """Numbers that each layer gives an image: known from its codes, or by running a black one.

        They are kept, since naming the columns needs them each time.
        """
        if not self._dims:
            size = self._spec.preprocessing.size
            black = np.zeros((1, size, size, 3), np.uint8)
            self._dims = [int(np.prod(block.shape[1:])) for block in self.engine().run(black)]
        return self._dims

    def engine(self) -> Engine:
        """Open the network at its first use."""
        with self._lock:
            if self._engine is None:
                self._engine = engine_of(self._spec, self._machine, self._from)
            return self._engine

    def _make(
        self, items: list[Item], digests: list[str], missing: list[int], file: CacheFile
    ) -> None:
        """Run some of the images and add their rows to the file."""

        def read(index: int) -> NDArray[np.uint8]:
            loaded = load_item(items[index])
            if loaded.digest != digests[index]:
                raise DataError(
                    f"{name_of(items[index], index)} changed while it was being read.",
                    todo="run the same call again",
                )
            return loaded.views(self._spec.preprocessing, self._spec.views)

        def store(block: NDArray[np.float32]) -> NDArray[Any]:
            stored = as_stored(block, self._spec.asked.dtype)
            return stored[:, 0] if self._spec.views.count == 1 else stored

        began = time.perf_counter()
        pending: list[Batch[int]] = []

        def write() -> None:
            nonlocal began
            columns = zip(*(batch.blocks for batch in pending), strict=True)
            blocks = [np.concatenate(column) for column in columns]
            shas = [digests[index] for batch in pending for index in batch.items]
            pending.clear()
            now = time.perf_counter()
            file.add_part(shas, blocks, {}, now - began)
            began = now

        stream = Stream(
            self.engine(),
            read,
            n_views=self._spec.views.count,
            workers=self._machine.workers,
            store=store,
        )
        # One network, which may run for one caller at a time: two files may want it at once.
        with self._lock:
            if self._probe is None:  # once: the engine stays open
                size = self._spec.preprocessing.size
                self._probe = probe_codes(self.engine(), size, self.layers)
            file.probe = self._probe
            try:
                for batch in stream.batches(missing):
                    if batch.items:
                        pending.append(batch)
                    for index, reason in batch.rejects:
                        raise _refused(items[index], index, reason)
                    n_rows = sum(len(one.items) for one in pending)
                    n_bytes = sum(block.nbytes for one in pending for block in one.blocks)
                    if file.fills_a_part(n_rows, n_bytes):
                        write()
            finally:
                if pending:
                    write()


def digests_of(items: list[Item], workers: int) -> list[str]:
    """Digest the bytes of images, 64 hexadecimal digits each.

    Raises
    ------
    ImageError
        One cannot be read; names it.
    """
    with ThreadPoolExecutor(workers or n_cores()) as pool:
        return list(pool.map(_digest, items, range(len(items))))


def _digest(item: Item, index: int) -> str:
    try:
        return load_item(item).digest
    except ImageError as error:
        raise _refused(item, index, error.found) from error


def _refused(item: Item, index: int, reason: str) -> ImageError:
    return ImageError(
        f"{name_of(item, index)}: {reason}.",
        expected="images that can be read",
        todo="replace the image or remove it from the list; what was finished is kept",
    )
