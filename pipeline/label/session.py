"""One data set being labelled: its images, what people have said of them, what the heads think.

Everything that a page asks for comes from here, and every change goes through here to the file of
corrections first. Heads follow on a thread of their own; a page never waits for them.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest
from ..datasets.corrections import Correction, CorrectionLog, State
from ..errors import DataError
from ..files import write_atomic
from ..results.bootstrap import accuracy_interval
from . import queues
from .learner import FOLDS, Known, Learner, Opinion, assign_folds
from .queues import Board

__all__ = ["Conflict", "Session"]

log = logging.getLogger("cnn_codes.label")
TEST = SPLITS.index("test")
NEAR_MOST = 500  # pairs that are shown
_CHOSEN = ("doubtful", "mistakes", "near")  # lists in which a model has a say
_WORDS = 200  # characters of a class, a group, a name
_FOLDER = ".images"  # next to the file of corrections: what was dropped in


class Conflict(Exception):
    """What was asked cannot be done, as things are now."""


@dataclass(eq=False)
class Image:
    """One image, and what is known of it."""

    path: str  # as in the file of corrections
    sha256: str
    file: Path
    split: int
    given: State
    state: State
    added: bool = False
    version: int = 0
    source: str = ""  # of the last correction of its label


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
        self.classes = list(manifest.class_names)
        self.log = CorrectionLog(path)
        self.include_test = False
        self.failure = ""
        self._seed = seed
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._version = 1
        self._judged = 0
        self._ending = False
        self._classes_at = len(self.classes)
        self._images: list[Image] = []
        self._rows: dict[tuple[str, str], int] = {}
        self._by_path: dict[str, int] = {}
        self._opinion: Opinion | None = None
        self._orders: dict[tuple[Any, ...], NDArray[np.int64]] = {}
        self._boards: dict[tuple[Any, ...], Board | None] = {}
        self._skipped: set[int] = set()
        self._copies = np.empty(0, np.int64)
        self._groups = manifest.groups_at(np.arange(manifest.n_images))
        self._xy = np.asarray(xy, np.float32)
        self._pairs = list(pairs)
        for row, name in enumerate(manifest.paths):
            state = State(label=self.classes[manifest.labels[row]])
            sha = manifest.sha256[row].decode()
            self._put(Image(name, sha, self.root / name, int(manifest.split[row]), state, state))
        self._learner = Learner(codes, assign_folds(manifest.groups, seed), jobs)
        self._take(self.log.entries)
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

    @property
    def n_images(self) -> int:
        """All images, unlabelled and excluded ones too."""
        return len(self._images)

    def image(self, row: int) -> Image:
        """Give an image by its number.

        Raises
        ------
        Conflict
            There is none.
        """
        if not 0 <= row < len(self._images):
            raise Conflict(f"There is no image {row}.")
        return self._images[row]

    def status(self) -> dict[str, Any]:
        """Say how things stand: classes, counts, the estimate, and how far the heads are."""
        with self._lock:
            self._refresh()
            labels = self._labels()
            counts = np.bincount(labels[labels >= 0], minlength=len(self.classes))
            states = [one.state for one in self._images]
            opinion = self._opinion
            return {
                "name": self.name,
                "version": self._version,
                "judged": self._judged,
                "classes": list(self.classes),
                "counts": counts.tolist(),
                "n_images": len(states),
                "n_checked": sum(one.checked for one in states),
                "n_excluded": sum(one.excluded for one in states),
                "n_unlabelled": sum(one.label is None and not one.excluded for one in states),
                "n_changed": sum(
                    one.state.label != one.given.label and one.given.label is not None
                    for one in self._images
                ),
                "n_corrections": len(self.log.entries),
                "file": str(self.log.path),
                "seconds": None if opinion is None else round(opinion.seconds, 3),
                "estimate": self._estimate(labels),
                "failure": self.failure,
            }

    def columns(self) -> bytes:
        """Give what the map needs of all images: x and y float32, label, guess and flags.

        Flags: 1 checked, 2 excluded, 4 test, 8 suspect, 16 added.
        """
        with self._lock:
            labels = np.array([self._class(one.state.label) for one in self._images], np.int16)
            board = self._board()
            guess = np.full(len(labels), -1, np.int16)
            suspect = np.zeros(len(labels), bool)
            if board is not None:
                guess = board.probabilities.argmax(axis=1).astype(np.int16)
                suspect = board.suspects
            flags = np.zeros(len(labels), np.uint8)
            for bit, mask in (
                (1, [one.state.checked for one in self._images]),
                (2, [one.state.excluded for one in self._images]),
                (4, [one.split == TEST for one in self._images]),
                (8, suspect),
                (16, [one.added for one in self._images]),
            ):
                flags |= np.asarray(mask, np.uint8) * np.uint8(bit)
            xy = self._xy.astype("<f4")
            return xy.tobytes() + labels.tobytes() + guess.tobytes() + flags.tobytes()

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
            key = (kind, test, self._version, self._judged)
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
                    [r for r in rows.tolist() if self._images[r].state.label == label], np.int64
                )
            return rows

    def _order(self, kind: str, test: bool) -> NDArray[np.int64]:
        n = len(self._images)
        if kind == "all":
            return np.arange(n)
        if kind == "changed":
            changed = [r for r in range(n) if self._images[r].version]
            changed.sort(key=lambda r: -self._images[r].version)
            return np.array(changed, np.int64)
        if kind == "near":
            flat = [
                self._by_path[path]
                for pair in self._pairs
                for path in pair[:2]
                if path in self._by_path
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
            [one.state.label is None and not one.state.excluded for one in self._images]
        )
        return queues.to_label(board, unlabelled, self._learner.z, self._seed)

    def describe(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Give what a page shows of some images."""
        with self._lock:
            board = self._board()
            suggested = None if board is None else board.suggested
            near: dict[str, list[tuple[str, float]]] = {}
            for a, b, likeness in self._pairs:
                near.setdefault(a, []).append((b, likeness))
                near.setdefault(b, []).append((a, likeness))
            found = []
            for row in rows:
                one = self.image(row)
                k = self._class(one.state.label)
                entry: dict[str, Any] = {
                    "row": row,
                    "path": one.path,
                    "sha": one.sha256[:16],
                    "split": "new" if one.added else SPLITS[one.split],
                    "label": one.state.label,
                    "given": one.given.label,
                    "checked": one.state.checked,
                    "excluded": one.state.excluded,
                    "group": one.state.group,
                    "near": [
                        {"row": self._by_path[path], "path": path, "likeness": round(s, 3)}
                        for path, s in near.get(one.path, [])[:5]
                        if path in self._by_path
                    ],
                }
                if board is not None and suggested is not None:
                    p = board.probabilities[row]
                    s = int(suggested[row])
                    entry["suggested"] = self.classes[s]
                    entry["p_suggested"] = round(float(p[s]), 4)
                    if 0 <= k < len(p):
                        entry["p_label"] = round(float(p[k]), 4)
                found.append(entry)
            return found

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
            wanted = {self.image(row).sha256 for row in rows} if what != "group" else set()
            chosen = set(rows)
            if wanted:
                chosen |= {
                    r for r, one in enumerate(self._images)
                    if one.sha256 in wanted and (what != "confirm" or r in chosen)
                }  # fmt: skip
            lines = []
            for row in sorted(chosen):
                one = self.image(row)
                before = one.state
                after = {
                    "label": replace(before, label=value, checked=True, excluded=False),
                    "confirm": replace(before, checked=before.label is not None),
                    "skip": before,
                    "exclude": replace(before, excluded=True),
                    "include": replace(before, excluded=False),
                    "group": replace(before, group=value),
                }[what]
                if after == before and what not in ("skip", "confirm", "label"):
                    continue
                lines.append(self._line(one, what, before, after, source))
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
            for one in reversed(self.log.entries):
                if one.who != who or one.what == "add":
                    continue
                if one.what == "undo":
                    undone.add(one.source)
                    continue
                if one.when in undone:
                    continue
                batch = [e for e in self.log.entries if (e.who, e.when) == (who, one.when)]
                lines = []
                batch = [e for e in batch if (e.path, e.sha256) in self._rows]
                for entry in batch:
                    row = self._rows[(entry.path, entry.sha256)]
                    image = self._images[row]
                    if image.state != entry.after:
                        raise Conflict(f"{entry.path} was changed by somebody else since.")
                    lines.append(self._line(image, "undo", image.state, entry.before, entry.when))
                self._write(lines, who)
                return [self._rows[(entry.path, entry.sha256)] for entry in batch]
            raise Conflict("There is nothing to undo.")

    def new_file(self, data: bytes, suffix: str) -> Path:
        """Keep the bytes of an image that was dropped in, next to the file of corrections."""
        digest = hashlib.sha256(data).hexdigest()
        folder = self.log.path.with_name(self.log.path.stem + _FOLDER)
        file = folder / f"{digest[:32]}{suffix}"
        if not file.is_file():
            write_atomic(file, data)
        return file

    def new_files(self) -> list[Path]:
        """Files of the images that were dropped in before."""
        folder = self.log.path.with_name(self.log.path.stem + _FOLDER)
        return sorted(one for one in folder.glob("*") if not one.name.startswith("."))

    def add(
        self,
        files: Sequence[Path],
        shas: Sequence[str],
        codes: NDArray[np.float32],
    ) -> list[int]:
        """Take unlabelled images with their codes (n, D); those known already are passed over."""
        with self._changed:
            folder = self.log.path.parent.resolve()
            known = {one.sha256 for one in self._images}
            fresh = [at for at, sha in enumerate(shas) if sha not in known]
            if not fresh:
                return []
            rows = []
            for at in fresh:
                file = files[at].resolve()
                inside = file.is_relative_to(folder)
                path = file.relative_to(folder).as_posix() if inside else file.as_posix()
                state = State()
                rows.append(len(self._images))
                train = SPLITS.index("train")
                self._put(Image(path, shas[at], file, train, state, state, added=True))
            some = codes[fresh]
            z_before = self._learner.z
            folds = np.array([int(shas[at][:8], 16) % FOLDS for at in fresh], np.int8)
            self._learner.extend(some, folds)
            nearest = (self._learner.z[len(z_before) :] @ z_before.T).argmax(axis=1)
            self._xy = np.concatenate([self._xy, self._xy[nearest]])
            self._take(self.log.entries)
            self._touch()
            return rows

    # How it works.

    def _put(self, one: Image) -> None:
        self._rows[(one.path, one.sha256)] = len(self._images)
        self._by_path[one.path] = len(self._images)
        self._images.append(one)

    def _line(self, one: Image, what: str, before: State, after: State, source: str) -> Correction:
        return Correction(
            path=one.path, sha256=one.sha256, what=what, before=before, after=after,
            source=source, added=one.added,
        )  # fmt: skip

    def _write(self, lines: Sequence[Correction], who: str) -> None:
        if lines:
            self._take(self.log.append(lines, who))
            self._touch()

    def _refresh(self) -> None:
        """Take what another process has written."""
        try:
            new = self.log.refresh()
        except DataError as error:
            self.failure = str(error)
            return
        if new:
            self._take(new)
            self._touch()

    def _take(self, entries: Sequence[Correction]) -> None:
        for one in entries:
            row = self._rows.get((one.path, one.sha256))
            if row is None:
                continue
            image = self._images[row]
            image.state = one.after
            self._version += 1
            image.version = self._version
            if one.after.label != one.before.label:
                image.source = one.source if one.what != "undo" else ""
            if one.after.label is not None and one.after.label not in self.classes:
                self.classes.append(one.after.label)

    def _touch(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def _class(self, label: str | None) -> int:
        return -1 if label is None else self.classes.index(label)

    def _labels(self) -> NDArray[np.int32]:
        index = {name: k for k, name in enumerate(self.classes)}
        return np.array(
            [
                -1 if one.state.excluded or one.state.label is None else index[one.state.label]
                for one in self._images
            ],
            np.int32,
        )

    def _board(self, test: bool = True) -> Board | None:
        key = (test, self._version, self._judged)
        if key not in self._boards:
            for old in [one for one in self._boards if one[1:] != key[1:]]:
                del self._boards[old]
            self._boards[key] = self._new_board(test)
        return self._boards[key]

    def _new_board(self, test: bool) -> Board | None:
        opinion = self._opinion
        if opinion is None:
            return None
        n, k = len(self._images), len(self.classes)
        p = np.zeros((n, k))
        done = opinion.probabilities
        p[: len(done), : done.shape[1]] = done
        p[len(done) :] = 1.0 / k
        if len(self._copies) != n:
            shas = np.array([one.sha256 for one in self._images])
            self._copies = np.unique(shas, return_inverse=True)[1].astype(np.int64)
        open_ = [not (one.state.checked or one.state.excluded) for one in self._images]
        return Board(
            labels=self._labels(),
            open=np.array(open_),
            shown=np.array([test or one.split != TEST for one in self._images]),
            probabilities=p,
            copies=self._copies,
        )

    def _estimate(self, labels: NDArray[np.int32]) -> dict[str, Any] | None:
        """Accuracy on test images, of which no model has had a say.

        A test image whose label was changed because a model doubted it counts with the label that
        it had before: else the head would be praised for what it asked for. Images have the groups
        of GROUP= and of the page; the interval is then over groups.
        """
        if self._opinion is None:
            return None
        called = self._opinion.probabilities.argmax(axis=1)
        hits: list[bool] = []
        groups: list[str] = []
        n_old = 0
        for row, one in enumerate(self._images[: len(called)]):
            if one.split != TEST or one.state.excluded or one.state.label is None:
                continue
            label = int(labels[row])
            if one.source in _CHOSEN and one.given.label is not None:
                label = self._class(one.given.label)
                n_old += 1
            hits.append(int(called[row]) == label)
            groups.append(self._group(row))
        if not hits:
            return None
        grouped = self._groups is not None or any(one.state.group for one in self._images)
        of = np.array(groups) if grouped else None
        low, high = accuracy_interval(np.array(hits), groups=of, n_classes=len(self.classes))
        return {
            "accuracy": float(np.mean(hits)), "low": low, "high": high, "n": len(hits),
            "n_groups": len(set(groups)) if grouped else None, "n_as_given": n_old,
        }  # fmt: skip

    def _group(self, row: int) -> str:
        """Name the group of an image: that of the page, of GROUP=, or its own."""
        name = self._images[row].state.group
        if name:
            return f"page {name}"
        if self._groups is not None and row < len(self._groups):
            return f"data {self._groups[row]}"
        return f"row {row}"

    def _follow(self) -> None:
        """Fit the heads after each change, for ever."""
        while True:
            with self._changed:
                while not self._ending and self._judged == self._version:
                    self._changed.wait()
                if self._ending:
                    return
                version = self._version
                test = np.array([one.split == TEST for one in self._images])
                known = Known(self._labels(), test, len(self.classes))
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
            self._ending or (self._version != version and time.monotonic() - began < 0.05)
        )
