"""What in a folder is no image, or was not read: counted by reason, and named."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from ..errors import DataError
from .arrays import array_problem, is_pickle
from .beside import files_beside
from .containers import most_of, step_for
from .file_kinds import archive_stem, is_archive
from .folder_reading import EXPECTED
from .formats import extra_for
from .listing import Listing
from .phrases import few, nature, plural, quoted
from .split_words import UNSPLIT
from .tree import Node, Tree


def name_what_was_not_read(listing: Listing, tree: Tree) -> None:
    """Name files that seem to say which images are of which split or class."""
    said = " ".join(listing.warnings)
    naming, _ = files_beside(tree.root)
    naming = [one for one in naming if Path(one).name not in said]
    if not naming:
        return
    cut = set(listing.split.tolist()) == {UNSPLIT}
    listing.warnings.append(
        f"{few(naming)}, next to the images, {'names' if len(naming) == 1 else 'name'} images or "
        f"splits and {'was' if len(naming) == 1 else 'were'} not read: the classes are those of "
        f"the folders{', and the splits are cut here' if cut else ''}."
    )


def no_images(path: Path, tree: Tree) -> DataError:
    """Say what was found in a folder without an image that is read."""
    nodes = list(tree.root.walk())
    arrays = [str(Path(node.path) / name) for node in nodes for name in node.arrays]
    if not arrays and not tree.root.n_images:
        arrays = [one for one in _loose(nodes) if is_pickle(one)]
    archives = _archives(tree.root)
    others = sum((node.others for node in nodes), start=type(tree.foreign)())
    if tree.foreign:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in tree.foreign.most_common())
        return DataError(
            f"{path} holds no images that can be read, but {kinds}.",
            expected="JPEG, PNG and the like",
            todo=extra_for(tree.foreign.most_common(1)[0][0]),
        )
    if arrays:
        return array_problem(path, arrays)
    loose = [Path(one) for one in _loose(nodes)]
    if not any(is_archive(one.name) and not step_for(one) for one in loose) and (
        step := most_of(loose, path)
    ):
        return DataError(
            f"{path} holds no images that can be read, but {step[0]}.",
            expected="JPEG, PNG and the like; or a .zip or .tar archive of them",
            todo=step[1],
        )
    found = f", but {nature(others)}" if others else ""
    todo = "point DATA= at the folder that holds the class folders"
    if len(archives) == 1:
        todo = f"give the archive: make data DATA={quoted(str(Path(tree.root.path) / archives[0]))}"
        found = f", but an archive: {archives[0]}"
    elif archives:
        steps = " && ".join(
            f"python3 -m {'zipfile' if name.lower().endswith('.zip') else 'tarfile'} -e "
            f"{shlex.quote(name)} {shlex.quote(archive_stem(name))}"
            for name in archives[:6]
        )
        here = shlex.quote(tree.root.path)
        todo = f"unpack them: cd {here} && {steps}; then give the command again"
        found = f", but archives: {few(archives)}"
    return DataError(f"{path} holds no images{found}.", expected=EXPECTED, todo=todo)


def _loose(nodes: list[Node]) -> list[str]:
    """Paths of some files of any kind."""
    paths: list[str] = []
    for node in nodes[:20]:
        with contextlib.suppress(OSError):
            paths += sorted(str(one) for one in Path(node.path).iterdir() if one.is_file())[:50]
    return paths


def _archives(node: Node) -> list[str]:
    try:
        return sorted(one.name for one in Path(node.path).iterdir() if is_archive(one.name))
    except OSError:
        return []


def say_what_was_left(listing: Listing, tree: Tree) -> None:
    """Count what is in no row: files that are no images, formats not read, repeated links."""
    others = sum((node.others for node in tree.root.walk()), start=type(tree.foreign)())
    for node in tree.root.walk():
        for name in (*node.texts, *node.arrays) if listing.by_folder else ():
            others[Path(name).suffix.lower()] += 1
    n_others = sum(others.values())
    if n_others:
        listing.warnings.append(
            f"{plural(n_others, 'file is no image and was', 'files are no images and were')} "
            f"ignored: {nature(others)}."
        )
    tree.odd.sort()
    if tree.odd:
        used = set(listing.paths)
        prefix = len(os.path.relpath(listing.root, tree.root.path)) + 1
        inner = os.path.realpath(listing.root) != tree.root.path
        odd = [one for one in tree.odd if (one[prefix:] if inner else one) in used]
        if odd:
            listing.warnings.append(
                f"{plural(len(odd), 'file was', 'files were')} recognised as images by their "
                f"content, whatever the suffix: {few(odd, 3)}."
            )
    for kind, count in tree.foreign.most_common():
        listing.warnings.insert(
            0,
            f"{plural(count, f'{kind} image is', f'{kind} images are')} left out: "
            f"{extra_for(kind)}.",
        )
    if tree.repeated:
        listing.warnings.append(
            f"{plural(len(tree.repeated), 'link leads', 'links lead')} to a folder that was read "
            f"already and was not followed: {few(tree.repeated, 3)}."
        )
