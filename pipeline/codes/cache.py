"""The cache of codes: keyed by all that changes a number, killed at any moment, never a row lost.

A row belongs to the bytes of an image (their SHA-256), so renaming, moving, relabelling or
splitting again runs nothing again. Work in progress lies in parts next to the published file, each
complete and flushed to the disk before it counts. The published file is made from the parts and
from its predecessor, under a temporary name, and takes its name in one step. Rows that the data
set has no use for any more stay behind as parts: an image that comes back is not run again.

::

    cache/<data>/<stem>.h5          published: complete, immutable, replaced as a whole
    cache/<data>/<stem>.h5.parts/   lock, parts in progress, rows without an image
"""

from __future__ import annotations

import glob
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..datasets import Manifest
from ..datasets.images import decoder_version
from ..errors import CacheBusyError, CacheError
from ..files import explained, make_folder, sync_folder, write_atomic
from .columns import columns_of, same_column
from .format import row_digests, text_column
from .hdf5 import SEAL
from .keys import Key
from .known import Known, Source
from .parts import DamagedPartError, read_part, rejects_of, write_part
from .publication import Publication
from .reader import Codes, fingerprint_of, open_codes

PART_ROWS = 512
PART_BYTES = 64_000_000  # a part is cut short at this size: large activations make fewer rows


class CacheFile:
    """One published file, its parts and its lock.

    Parameters
    ----------
    key : Key
        Which file and which fingerprint.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self._parts = key.path.with_name(key.path.name + ".parts")
        self._untidy = self._parts / "untidy"  # there while published rows may lie in parts too
        self.probe: dict[str, NDArray[Any]] = {}  # codes of the fixed batch by the engine in use

    def fills_a_part(self, n_rows: int, n_bytes: int) -> bool:
        """Whether so much is worth a part, and so a flush to the disk."""
        return n_rows >= PART_ROWS or n_bytes >= PART_BYTES

    def current(self, manifest: Manifest) -> Codes | None:
        """Open the published file if it holds exactly this manifest's rows, sound, else None.

        Raises
        ------
        CacheError
            Something else lies under that name.
        """
        codes = self._published()
        if codes is None:
            return None
        if codes.rejects and codes.decoder != decoder_version():
            return None  # other decoders may read what these refused
        columns = columns_of(manifest, codes.rejects)
        no_column = ("codes/", "probe/", SEAL)
        held = {name for name in codes.contents.fields if not name.startswith(no_column)}
        same = (
            codes.class_names == manifest.class_names
            and held == {*columns, "images/row_digest"}
            and all(same_column(codes.contents.array(name), one) for name, one in columns.items())
        )
        sound = same and not codes.columns_fault and not len(codes.damaged_rows())
        return codes if sound else None

    def holding(self, sha256: NDArray[np.bytes_]) -> Codes | None:
        """Open the published file if it knows all these images, sound, else None.

        Parameters
        ----------
        sha256 : S64 (n,)
            Digests; each must have a row or be among the rejected images.
        """
        codes = self._published()
        if codes is None:
            return None
        rejects = np.array(list(codes.rejects), "S64")
        held = np.isin(sha256, np.concatenate([codes.sha256, rejects])).all()
        return codes if held and not len(codes.damaged_rows()) else None

    @contextmanager
    def locked(self, on_wait: Callable[[str], None] | None) -> Iterator[None]:
        """Hold this cache file alone; released by the system even when the process is killed.

        Parameters
        ----------
        on_wait : callable or None
            Told once, in words, who holds the file, before waiting. None: do not wait.

        Raises
        ------
        CacheBusyError
            Another run holds it, and `on_wait` is None.
        """
        with explained(self._parts):
            make_folder(self._parts)
            lock = FileLock(self._parts / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                if on_wait is None:
                    raise CacheBusyError(
                        f"{self.key.path.name} is held by {self._holder()}.",
                        todo="wait until it is done, or stop it; nothing of it is lost",
                    ) from error
                on_wait(self._holder())
                lock.acquire(poll_interval=0.2)
        try:
            holder = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime("%H:%M:%S"),
            }
            self._sweep()
            write_atomic(self._parts / "holder.json", json.dumps(holder).encode())
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what killed runs left half-written; the lock is held, so nobody writes it."""
        folder, name = self.key.path.parent, glob.escape(self.key.path.name)
        for left in (*folder.glob(f".{name}.*.tmp"), *self._parts.glob(".*.tmp")):
            left.unlink()

    def _holder(self) -> str:
        try:
            value = json.loads((self._parts / "holder.json").read_text())
            return f"process {value['pid']} on {value['host']}, since {value['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def known(self, converts: NDArray[np.bytes_] | None = None) -> Known:
        """Gather the rows of this fingerprint from the published file and the parts.

        A part whose bytes are not those that were written is moved to the folder ``damaged`` and
        named; one of another fingerprint is left alone. Rows of the published file that do not
        match their digests are left out, and so are made again. Refusals by other decoders than
        those here are left out too.

        Parameters
        ----------
        converts : array of S64, optional
            Images whose colour profile changes their colours: rows of all others are taken over
            from a file under the predecessor of the fingerprint, where there is one.

        Raises
        ------
        CacheError
            A part cannot be read just now: for want of permission or memory, or an error of the
            disk. It is left where it is.
        """
        known = Known()
        for path in sorted(self._parts.glob("*.part")):
            try:
                arrays, attributes = read_part(path)
            except DamagedPartError as error:
                known.notes.append(self._quarantined(path, error))
                continue
            if attributes["fingerprint"] != self.key.fingerprint:
                continue
            known.sources.append(
                Source(
                    path,
                    arrays["sha256"],
                    is_part=True,
                    seconds=float(attributes["seconds"]),
                    probe=self._probe_of(arrays),
                )
            )
            if attributes.get("decoder") == decoder_version():
                known.rejects |= rejects_of(arrays)
        codes = self._published()
        if codes is not None:
            known.sources.append(Source.of(codes))
            if codes.decoder == decoder_version():
                known.rejects |= codes.rejects
        elif converts is not None and self.key.predecessor:
            known.sources += self._inherited(converts)
        return known

    def _probe_of(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [(layer, f"probe/{i}") for i, layer in enumerate(self.layers)]
        return {layer: arrays[name] for layer, name in names if name in arrays}

    def _quarantined(self, path: Path, error: CacheError) -> str:
        """Move a damaged part out of the way, and say so."""
        goal = self._parts / "damaged" / path.name
        with explained(goal):
            goal.parent.mkdir(exist_ok=True)
            path.replace(goal)
        return (
            f"{path} is damaged ({error.found}) and was moved to {goal}; its rows are made again."
        )

    def _inherited(self, converts: NDArray[np.bytes_]) -> list[Source]:
        """Take over rows of a file under the predecessor of the fingerprint."""
        stem = self.key.path.stem.removesuffix(f"-{self.key.fingerprint[:8]}")
        for name in (f"{stem}.h5", f"{stem}-{self.key.predecessor[:8]}.h5"):
            path = self.key.path.with_name(name)
            if path.is_file() and fingerprint_of(path) == self.key.predecessor:
                source = Source.of(open_codes(path))
                source.sha256[np.isin(source.sha256, converts)] = b""
                return [replace(source, inherited=True)]
        return []

    def part_names(self) -> set[str]:
        """Give the names of the parts that are there."""
        return {path.name for path in self._parts.glob("*.part")}

    def done_in(self, names: Iterable[str]) -> set[bytes]:
        """Give the digests of the images, with a row or refused, in parts of this fingerprint."""
        done: set[bytes] = set()
        for name in names:
            try:
                arrays, attributes = read_part(self._parts / name)
            except (CacheError, FileNotFoundError):
                continue  # damaged: found, and said, when the file is published
            if attributes["fingerprint"] == self.key.fingerprint:
                done.update(arrays["sha256"].tolist(), arrays["reject_sha256"].tolist())
        return done

    def set_aside(self) -> Path | None:
        """Keep the published file and the parts under other names, so that new ones can begin.

        Returns
        -------
        Path or None
            Where the file is now.
        """
        goal = None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        with explained(self.key.path):
            if self.key.path.exists():
                goal = self.key.path.with_name(f"{self.key.path.name}.before-{stamp}")
                self.key.path.replace(goal)
            for path in sorted(self._parts.glob("*.part")):
                kept = self._parts / f"before-{stamp}" / path.name
                kept.parent.mkdir(exist_ok=True)
                path.replace(kept)
            sync_folder(self.key.path.parent)
        return goal

    def _published(self) -> Codes | None:
        """Open the published file if there is one and it is of this fingerprint."""
        if not self.key.path.exists():
            return None
        codes = open_codes(self.key.path)
        return codes if codes.fingerprint == self.key.fingerprint else None

    def add_part(
        self,
        sha256: Sequence[str],
        blocks: Sequence[NDArray[Any]],
        rejects: Mapping[str, str],
        seconds: float,
    ) -> str:
        """Write finished rows, complete and flushed, so that they count.

        Parameters
        ----------
        sha256 : sequence of str, length n
            Digests of the images.
        blocks : sequence of array of shape (n, ...)
            Codes, one per layer of the key's layers, in their order and final dtype.
        rejects : mapping of str to str
            Digests of images that cannot be used, to the reason.
        seconds : float
            What these rows took.

        Returns
        -------
        str
            The part's name.
        """
        arrays = {f"codes/{i}": block for i, block in enumerate(blocks)}
        arrays["sha256"] = np.array(list(sha256), "S64")
        arrays["row_digest"] = row_digests(list(blocks)) if sha256 else np.empty(0, np.uint64)
        arrays["reject_sha256"] = np.array(list(rejects), "S64")
        arrays["reject_reason"] = text_column(rejects.values())
        for i, layer in enumerate(self.layers):
            if layer in self.probe:
                arrays[f"probe/{i}"] = self.probe[layer]
        attributes = {
            "fingerprint": self.key.fingerprint,
            "seconds": float(seconds),
            "decoder": decoder_version(),
        }
        return write_part(self._parts, arrays, attributes)

    def publish(self, manifest: Manifest, known: Known) -> Codes:
        """Make the file of this manifest from rows that are all there, and put it in place.

        Rows of its predecessor that the manifest has no use for are kept as parts; parts whose
        rows are all in the new file are removed.

        Parameters
        ----------
        manifest : Manifest
            Its readable images become the rows, in its order.
        known : Known
            Holds every one of them.
        """
        there = fingerprint_of(self.key.path) if self.key.path.exists() else ""
        if there not in ("", self.key.fingerprint):
            raise CacheError(
                f"{self.key.path} holds codes of another fingerprint, which are not replaced.",
                todo=f"mv {self.key.path} {self.key.path}.other",
            )
        new = Publication(self.key, manifest, known, self.probe)

        def before_swap() -> None:
            self._retire(known, new.sha256)
            self._untidy.touch()

        new.write(before_swap)
        self._tidy(known, new.sha256)
        return open_codes(self.key.path)

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self._parts

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the codes, in order."""
        return tuple(self.key.config["layers"])

    def _retire(self, known: Known, kept: NDArray[np.bytes_]) -> None:
        """Keep, as parts, the rows of the published file that its successor will not have."""
        for source in known.sources:
            if source.is_part or source.inherited:
                continue
            rows = np.flatnonzero(~np.isin(source.sha256, kept) & (source.sha256 != b""))
            blocks, _ = source.read(self.layers)
            for start in range(0, len(rows), PART_ROWS):
                some = rows[start : start + PART_ROWS]
                digests = [digest.decode() for digest in source.sha256[some].tolist()]
                seconds = source.seconds * len(some) / len(source.sha256)
                self.add_part(digests, [block[some] for block in blocks], {}, seconds)

    def _tidy(self, known: Known, kept: NDArray[np.bytes_]) -> None:
        """Remove parts whose rows are all published."""
        for source in known.sources:
            if source.is_part and np.isin(source.sha256, kept).all():
                source.path.unlink()
        self._untidy.unlink(missing_ok=True)

    def tidy(self, published: Codes) -> None:
        """Remove what a run that was killed right after publishing left; mostly, nothing.

        Without effect while another run holds the file, or where the cache cannot be written.
        """
        if self._untidy.exists():
            with suppress(CacheError), self.locked(None):
                self._tidy(self.known(), published.sha256)
