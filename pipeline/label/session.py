"""One data set being labelled: what a page asks for, what people do, and what the heads think.

Everything that a page asks for comes from here, and every change goes through here to the file of
corrections first. Heads follow on a thread of their own; a page never waits for them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest
from ..datasets.corrections import Correction, State
from ..errors import DataError
from . import queues
from .estimate import estimate
from .images import TEST, Conflict, Image, Images
from .learner import FOLDS, Known, Learner, Opinion, assign_folds
from .queues import Board
from .shown import columns, counts, described

log = logging.getLogger("cnn_codes.label")
NEAR_MOST = 500  # pairs that are shown
_WORDS = 200  # characters of a class, a group, a name


class Session:
    """A data set being labelled.

    Parameters
    ----------
    manifest : Manifest
        Without corrections.
    codes : float32 (N, D)
        Of its images.
    path : Path
        The file of corrections.
    xy : float (N, 2)
        Places on the map.
    pairs : sequence of (str, str, float)
        Near-duplicates: two paths and their likeness.
    seed : int
        Of folds and random orders.
    jobs : int
        Threads of the heads.

    Attributes
    ----------
    images : Images
        With their labels, and the file of corrections.
    failure : str
        What went wrong last; empty: nothing.
    """

    def __init__(
        self,
        manifest: Manifest,
        codes: NDArray[np.float32],
        *,
        path: Path,
        xy: NDArray[np.floating[Any]],
        pairs: Sequence[tuple[str, str, float]] = (),
        seed: int = 0,
        jobs: int = 1,
    ) -> None:
        self.name = manifest.name
        self.root = manifest.root
        self.images = Images(manifest, path)
        self.failure = ""
        self._seed = seed
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._judged = 0
        self._ending = False
        self._opinion: Opinion | None = None
        self._orders: dict[tuple[Any, ...], NDArray[np.int64]] = {}
        self._boards: dict[tuple[Any, ...], Board | None] = {}
        self._skipped: set[int] = set()
        self._copies = np.empty(0, np.int64)
        self._xy = np.asarray(xy, np.float32)
        self._pairs = list(pairs)
        self._learner = Learner(codes, assign_folds(manifest.groups, seed), jobs)
        self.images.take(self.images.log.entries)
        self._thread = threading.Thread(target=self._follow, name="heads", daemon=True)

    # What there is.

    def start(self) -> None:
        """Let the heads follow."""
        self._thread.start()

    def close(self) -> None:
        """End the heads' thread."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(120)

    def status(self) -> dict[str, Any]:
        """Say how things stand: classes, counts, the estimate, and how far the heads are."""
        with self._lock:
            self._refresh()
            opinion = self._opinion
            return {
                "name": self.name,
                "version": self.images.version,
                "judged": self._judged,
                **counts(self.images),
                "seconds": None if opinion is None else round(opinion.seconds, 3),
                "estimate": opinion and estimate(self.images, opinion.probabilities),
                "failure": self.failure,
            }

    def columns(self) -> bytes:
        """Give what the map needs of all images, as :func:`.shown.columns`."""
        with self._lock:
            return columns(self.images, self._board(), self._xy)

    def queue(self, kind: str, *, test: bool = False, label: str = "") -> NDArray[np.int64]:
        """Give the rows of one list, the first the one worth looking at first.

        Parameters
        ----------
        kind : str
            ``doubtful``, ``mistakes``, ``near``, ``unlabelled``, ``random``, ``changed``, ``all``.
        test : bool
            List test images too, where a model has a say in the order.
        label : str
            Only images of this class.
        """
        with self._lock:
            self._refresh()
            key = (kind, test, self.images.version, self._judged)
            if key not in self._orders:
                for old in [one for one in self._orders if one[2:] != key[2:]]:
                    del self._orders[old]
                order = self._order(kind, test)
                if kind not in ("all", "changed") and self._skipped:
                    last = np.isin(order, list(self._skipped))
                    order = np.concatenate([order[~last], order[last]])
                self._orders[key] = order
            rows = self._orders[key]
            if label:
                rows = np.array(
                    [r for r in rows.tolist() if self.images[r].state.label == label], np.int64
                )
            return rows

    def _order(self, kind: str, test: bool) -> NDArray[np.int64]:
        n = len(self.images)
        if kind == "all":
            return np.arange(n)
        if kind == "changed":
            changed = [r for r in range(n) if self.images[r].version]
            changed.sort(key=lambda r: -self.images[r].version)
            return np.array(changed, np.int64)
        if kind == "near":
            flat = [
                self.images.by_path[path]
                for pair in self._pairs
                for path in pair[:2]
                if path in self.images.by_path
            ]
            return np.array(list(dict.fromkeys(flat)), np.int64)
        board = self._board(test)
        if board is None:
            return np.empty(0, np.int64)
        if kind == "doubtful":
            return queues.doubtful(board)
        if kind == "mistakes":
            return queues.mistakes(board)
        if kind == "random":
            return queues.shuffled(board, self._seed)
        unlabelled = np.array(
            [one.state.label is None and not one.state.excluded for one in self.images]
        )
        return queues.to_label(board, unlabelled, self._learner.z, self._seed)

    def describe(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Give what a page shows of some images, as :func:`.shown.described`."""
        with self._lock:
            return described(self.images, rows, self._board(), self._pairs)

    # What people do.

    def act(
        self, rows: Sequence[int], what: str, *, value: str = "", who: str = "", source: str = ""
    ) -> list[int]:
        """Correct, confirm, skip, exclude, include or group some images; it is on the disk then.

        Parameters
        ----------
        rows : sequence of int
            Images; those of equal bytes change with them.
        what : str
            ``label``, ``confirm``, ``skip``, ``exclude``, ``include`` or ``group``.
        value : str
            A class, which may be new, or a group.
        who, source : str
            For the record.

        Returns
        -------
        list of int
            The images that changed.

        Raises
        ------
        Conflict
            No such image or action, or a value that is none.
        NoSpaceError, CacheError
            It could not be written; nothing has changed.
        """
        value = " ".join(value.split())
        if what not in ("label", "confirm", "skip", "exclude", "include", "group"):
            raise Conflict(f"There is no action {what!r}.")
        if (what == "label" and not value) or len(value) > _WORDS or not value.isprintable():
            raise Conflict("A class is a text of 1 to 200 characters that can be shown.")
        if value.startswith("."):
            raise Conflict("A class must not begin with a dot: its folder would be hidden.")
        with self._changed:
            self._refresh()
            wanted = {self.images[row].sha256 for row in rows} if what != "group" else set()
            chosen = set(rows)
            if wanted:
                chosen |= {
                    r for r, one in enumerate(self.images)
                    if one.sha256 in wanted and (what != "confirm" or r in chosen)
                }  # fmt: skip
            lines = []
            for row in sorted(chosen):
                one = self.images[row]
                before, after = one.state, one.after(what, value)
                if after == before and what not in ("skip", "confirm", "label"):
                    continue
                lines.append(one.correction(what, after, source))
            self._write(lines, who)
            self._skipped -= chosen
            if what == "skip":
                self._skipped |= chosen
            return sorted(chosen)

    def undo(self, who: str) -> list[int]:
        """Take back the last thing that `who` did, all its images; give them.

        Raises
        ------
        Conflict
            There is nothing to take back, or somebody else has changed it since.
        """
        with self._changed:
            self._refresh()
            undone: set[str] = set()
            for one in reversed(self.images.log.entries):
                if one.who != who or one.what == "add":
                    continue
                if one.what == "undo":
                    undone.add(one.source)
                    continue
                if one.when in undone:
                    continue
                batch = [
                    entry for entry in self.images.log.entries
                    if (entry.who, entry.when) == (who, one.when)
                    and (entry.path, entry.sha256) in self.images.row
                ]  # fmt: skip
                lines = []
                for entry in batch:
                    image = self.images[self.images.row[(entry.path, entry.sha256)]]
                    if image.state != entry.after:
                        raise Conflict(f"{entry.path} was changed by somebody else since.")
                    lines.append(image.correction("undo", entry.before, entry.when))
                self._write(lines, who)
                return [self.images.row[(entry.path, entry.sha256)] for entry in batch]
            raise Conflict("There is nothing to undo.")

    def add(
        self,
        files: Sequence[Path],
        shas: Sequence[str],
        codes: NDArray[np.float32],
    ) -> list[int]:
        """Take unlabelled images with their codes (n, D); those known already are passed over."""
        with self._changed:
            folder = self.images.log.path.parent.resolve()
            known = {one.sha256 for one in self.images}
            fresh = [at for at, sha in enumerate(shas) if sha not in known]
            if not fresh:
                return []
            rows = []
            for at in fresh:
                file = files[at].resolve()
                inside = file.is_relative_to(folder)
                path = file.relative_to(folder).as_posix() if inside else file.as_posix()
                state = State()
                rows.append(len(self.images))
                train = SPLITS.index("train")
                self.images.put(Image(path, shas[at], file, train, state, state, added=True))
            some = codes[fresh]
            z_before = self._learner.z
            folds = np.array([int(shas[at][:8], 16) % FOLDS for at in fresh], np.int8)
            self._learner.extend(some, folds)
            nearest = (self._learner.z[len(z_before) :] @ z_before.T).argmax(axis=1)
            self._xy = np.concatenate([self._xy, self._xy[nearest]])
            self.images.take(self.images.log.entries)
            self._touch()
            return rows

    # How it works.

    def _write(self, lines: Sequence[Correction], who: str) -> None:
        if lines:
            self.images.take(self.images.log.append(lines, who))
            self._touch()

    def _refresh(self) -> None:
        """Take what another process has written."""
        try:
            new = self.images.log.refresh()
        except DataError as error:
            self.failure = str(error)
            return
        if new:
            self.images.take(new)
            self._touch()

    def _touch(self) -> None:
        with self._changed:
            self.images.version += 1
            self._changed.notify_all()

    def _board(self, test: bool = True) -> Board | None:
        key = (test, self.images.version, self._judged)
        if key not in self._boards:
            for old in [one for one in self._boards if one[1:] != key[1:]]:
                del self._boards[old]
            self._boards[key] = self._new_board(test)
        return self._boards[key]

    def _new_board(self, test: bool) -> Board | None:
        opinion = self._opinion
        if opinion is None:
            return None
        n, k = len(self.images), len(self.images.classes)
        p = np.zeros((n, k))
        done = opinion.probabilities
        p[: len(done), : done.shape[1]] = done
        p[len(done) :] = 1.0 / k
        if len(self._copies) != n:
            shas = np.array([one.sha256 for one in self.images])
            self._copies = np.unique(shas, return_inverse=True)[1].astype(np.int64)
        open_ = [not (one.state.checked or one.state.excluded) for one in self.images]
        return Board(
            labels=self.images.labels(),
            open=np.array(open_),
            shown=np.array([test or one.split != TEST for one in self.images]),
            probabilities=p,
            copies=self._copies,
        )

    def _follow(self) -> None:
        """Fit the heads after each change, for ever."""
        while True:
            with self._changed:
                while not self._ending and self._judged == self.images.version:
                    self._changed.wait()
                if self._ending:
                    return
                version = self.images.version
                test = np.array([one.split == TEST for one in self.images])
                known = Known(self.images.labels(), test, len(self.images.classes))
            trained = known.labels[(known.labels >= 0) & ~test]
            opinion: Opinion | None = None
            if len(np.unique(trained)) >= 2:
                stop = self._newer(version)
                try:
                    opinion = self._learner.judge(known, stop=stop)
                except Exception as error:
                    self.failure = f"The heads cannot be fitted: {error}"
                    log.exception("fit")
                if opinion is None and stop() and not self._ending:
                    continue
            with self._changed:
                if opinion is not None:
                    self._opinion = opinion
                self._judged = version

    def _newer(self, version: int) -> Callable[[], bool]:
        """Say whether a fit is out of date; not at once, so that heads follow a steady hand too."""
        began = time.monotonic()
        return lambda: (
            self._ending or (self.images.version != version and time.monotonic() - began < 0.05)
        )
