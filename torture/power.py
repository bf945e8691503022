"""Loss of power: a command's writes are replayed up to each flush, and what no flush kept is gone.

The shim writes down every call that changes files, with its bytes. A disk is modelled as POSIX has
it: the bytes of a file survive from its last fsync, a name (made, renamed or removed) from the last
fsync of its folder. Before each flush, and at the end, three disks are made: one that lost all that
was not flushed, one that kept the names and lost the bytes (as a journal of metadata alone does),
and one that kept the bytes and lost the names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .world import World

__all__ = ["LOST", "Disk", "entries", "power", "written"]

LOST = ("both", "bytes", "names")


class Node:
    """A file, a folder or a link: as it is now, and as the last flush left it."""

    def __init__(self, now: bytearray | dict[str, Node] | str) -> None:
        self.now = now
        self.kept: bytes | dict[str, Node] | str = now if isinstance(now, str) else type(now)()
        if isinstance(now, bytearray):
            self.kept = b""

    def flush(self) -> None:
        """Keep it as it is."""
        if isinstance(self.now, bytearray):
            self.kept = bytes(self.now)
        elif isinstance(self.now, dict):
            self.kept = dict(self.now)


def entries(journal: bytes) -> Iterator[tuple[str, int, int, str, str, bytes]]:
    """Read the shim's journal: what, inode, place, path, other path, bytes."""
    at = 0
    while at < len(journal):
        end = journal.index(b"\n", at)
        what, node, place, *lengths = journal[at:end].split()
        at, parts = end + 1, []
        for n in map(int, lengths):
            parts.append(journal[at : at + n])
            at += n
        yield what.decode(), int(node), int(place), os.fsdecode(parts[0]), os.fsdecode(parts[1]), \
            parts[2]  # fmt: skip


class Disk:
    """A folder as a disk would have it, after some calls.

    Parameters
    ----------
    root : Path
        Its files and folders at the beginning are taken for flushed.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.nodes: dict[int, Node] = {}
        self.top = self._scanned(root)

    def _scanned(self, path: Path) -> Node:
        if path.is_symlink():
            node = Node(str(path.readlink()))
        elif path.is_dir():
            node = Node({one.name: self._scanned(one) for one in path.iterdir()})
        else:
            node = Node(bytearray(path.read_bytes()))
        node.flush()
        self.nodes[path.lstat().st_ino] = node
        return node

    def _folder(self, path: str) -> tuple[dict[str, Node], str]:
        """Find the folder that a path is in, through links that lead to folders here."""
        parts = os.path.relpath(path, self.root).split("/")
        here = self.top
        for part in parts[:-1]:
            assert isinstance(here.now, dict)
            here = here.now[part]
            if isinstance(here.now, str):
                folder, name = self._folder(here.now)
                here = folder[name]
        assert isinstance(here.now, dict)
        return here.now, parts[-1]

    def do(self, what: str, inode: int, place: int, path: str, other: str, data: bytes) -> None:
        """Take one call."""
        if not path.startswith(self.root) and not other.startswith(self.root):
            return
        if path == self.root:
            if what == "f":
                self.top.flush()
            return
        if what == "r":
            node = Node(bytearray())
            if path.startswith(self.root):
                folder, name = self._folder(path)
                node = folder.pop(name)
            if other.startswith(self.root):
                folder, name = self._folder(other)
                folder[name] = node
            return
        if what in "ls":
            folder, name = self._folder(other)
            folder[name] = Node(path) if what == "s" else self.nodes[inode]
            return
        folder, name = self._folder(path)
        if what == "u":
            folder.pop(name, None)
        elif what == "m":
            folder[name] = self.nodes[inode] = Node({})
        elif what in "oO":
            if name not in folder:
                folder[name] = self.nodes[inode] = Node(bytearray())
            self.nodes[inode] = folder[name]
            if what == "O" and isinstance(folder[name].now, bytearray):
                folder[name].now = bytearray()
        elif what == "f":
            if inode in self.nodes:
                self.nodes[inode].flush()
        else:
            node = self.nodes.setdefault(inode, Node(bytearray()))
            if name not in folder and not path.endswith(" (deleted)"):
                folder[name] = node
            assert isinstance(node.now, bytearray)
            if what == "t":
                del node.now[place:]
                node.now.extend(bytes(place - len(node.now)))
            else:
                node.now.extend(bytes(max(0, place - len(node.now))))
                node.now[place : place + len(data)] = data

    def tree(self, lost: str, node: Node | None = None) -> dict[str, Any] | bytes | str:
        """Give what is on the disk after the loss, as nested folders.

        Parameters
        ----------
        lost : str
            ``both``, ``bytes``, ``names`` or ``nothing``.
        """
        node = node or self.top
        if isinstance(node.now, dict):
            names = node.kept if lost in ("both", "names") else node.now
            assert isinstance(names, dict)
            return {name: self.tree(lost, one) for name, one in sorted(names.items())}
        if isinstance(node.now, str):
            return node.now
        return bytes(node.now) if lost in ("names", "nothing") else bytes(node.kept)  # type: ignore[arg-type]


def _digest(tree: Any) -> str:
    """Digest of a tree; equal trees are tried once."""
    total = hashlib.sha256()
    if isinstance(tree, dict):
        for name, one in tree.items():
            total.update(os.fsencode(name) + b"\0" + _digest(one).encode())
    else:
        total.update(b"f" + tree if isinstance(tree, bytes) else b"l" + tree.encode())
    return total.hexdigest()


def written(tree: Any, place: Path) -> None:
    """Write a tree of :meth:`Disk.tree` into a folder."""
    if isinstance(tree, dict):
        place.mkdir(exist_ok=True)
        for name, one in tree.items():
            written(one, place / name)
    elif isinstance(tree, bytes):
        place.write_bytes(tree)
    else:
        place.symlink_to(tree)


def power(world: World, commands: list[str], step: int) -> None:
    """Cut the power before every `step`-th flush of each command, and at its end."""
    if world.machine.shim is None:
        world.tick("losses of power skipped (no C compiler)")
        return
    live = world.work / "live"
    for what in commands:
        cache, results = world.fresh()
        line = world.line(what, cache, results)
        journal = world.work / "journal"
        journal.unlink(missing_ok=True)
        disk = Disk(live)
        rc, _ = world.run(line, f"{what}, written down", root=str(live), journal=str(journal))
        calls = list(entries(journal.read_bytes()))
        there = Disk(live).tree("nothing")
        flushes = sum(one[0] == "f" for one in calls)
        world.count[f"flushes of {what}"] = flushes
        seen: set[str] = set()
        number = 0
        for call in [*calls, None]:
            if call is None or call[0] == "f":
                number += 1
                at_end = call is None
                if at_end or number % step == world.seed % step:
                    for lost in LOST:
                        if not world.left():
                            world.tick("losses of power not reached")
                            continue
                        tree = disk.tree(lost)
                        known = _digest(tree)
                        if known not in seen:
                            about = f"{what}, {number} of {flushes + 1}: {lost} lost"
                            _cut(world, what, line, tree, about, at_end=at_end and rc == 0)
                        seen.add(known)
            if call is not None:
                disk.do(*call)
        off = list(_differing(disk.tree("nothing"), there))
        if off:  # written past the shim, as by mmap: the bytes of these are not replayed
            world.tick("files that the journal does not know", len(off))
            print(f"  the journal of {what} does not know {off[:5]}", flush=True)


def _cut(world: World, what: str, line: list[str], tree: Any, about: str, *, at_end: bool) -> None:
    live = world.work / "live"
    shutil.rmtree(live)
    written(tree, live)
    cache, results = live / "cache", live / "results"
    for place in (cache, results):
        place.mkdir(exist_ok=True)
    world.tick("losses of power")
    world.torn(results, about)
    if at_end:  # it had said that it was done
        world.same(what, cache, results, f"{about}, after its end")
    held = world.kept({}, cache, about)
    world.let_through(what, line, cache, results, held, f"{about}, then again")


def _differing(one: Any, two: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted({*one, *two}):
            yield from _differing(one.get(name), two.get(name), f"{path}/{name}")
    elif one != two:
        yield path
