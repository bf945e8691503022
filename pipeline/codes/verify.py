"""Is the cache what it says? Every image hashed again, every code checked against its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..backbones.graph import is_sound
from ..context import Context
from ..datasets import Manifest
from ..errors import CacheError
from .parts import read_part
from .reader import open_codes


@dataclass(frozen=True)
class Verdict:
    """What was found of one file.

    Attributes
    ----------
    path : Path
        The file.
    n_rows : int
        Rows that were checked.
    faults : tuple of str
        What is wrong with it; a damaged file.
    remarks : tuple of str
        What the next `make features` will bring up to date; not a fault.
    """

    path: Path
    n_rows: int
    faults: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def verify(context: Context) -> list[Verdict]:
    """Check every file of codes of a data set, its parts, and the exported networks.

    Parameters
    ----------
    context : Context
        Its manifest loaded with ``rehash=True``, so that it tells what the images are now.
    """
    manifest = context.manifest
    folder = context.cache / manifest.name
    files = sorted(folder.glob("*.h5"))
    trunks = sorted(folder.glob("trunk/*.h5"))
    parts = sorted(folder.glob("**/*.parts/*.part"))
    graphs = sorted((context.cache / "backbones").glob("*.onnx"))
    verdicts = []
    n_files = len(files) + len(trunks) + len(parts) + len(graphs)
    with context.progress("verify", n_files, "files") as meter:
        for path in files:
            verdicts.append(_codes_file(path, manifest))
            meter.advance()
        for path in trunks:
            verdicts.append(_codes_file(path, None))
            meter.advance()
        for path in parts:
            verdicts.append(_part(path))
            meter.advance()
        for path in graphs:
            fault = () if is_sound(path) else ("its bytes are not those that were exported",)
            verdicts.append(Verdict(path, 0, fault))
            meter.advance()
    return verdicts


def _codes_file(path: Path, manifest: Manifest | None) -> Verdict:
    """Check one file; without a manifest, its rows alone."""
    try:
        codes = open_codes(path)
    except CacheError as error:
        return Verdict(path, 0, (error.found,))
    faults = [f"{codes.paths[row]}: its codes are damaged" for row in codes.damaged_rows().tolist()]
    if set(codes.sha256.tolist()) & {sha.encode() for sha in codes.rejects}:
        faults.append("an image is both among the rows and among the rejected")
    if codes.columns_fault:
        faults.append(codes.columns_fault)
    if manifest is None:
        return Verdict(path, len(codes), tuple(faults))
    now = dict(zip(manifest.paths, manifest.sha256.tolist(), strict=True))
    held = np.isin(codes.sha256, manifest.sha256)
    rows = list(zip(codes.paths, codes.sha256.tolist(), strict=True))
    changed = [path for path, sha in rows if path in now and now[path] != sha]
    gone = [path for path, _ in rows if path not in now]
    remarks = []
    if changed:
        faults.append(
            f"{len(changed)} images have other bytes than when it was made (first {changed[0]}); "
            "make features makes their rows again"
        )
    if gone:
        remarks.append(
            f"{len(gone)} images moved or are gone since it was made (first {gone[0]}); "
            f"{int(held.sum())} of {len(codes)} rows are of images that are still there"
        )
    new = int(np.sum(~np.isin(manifest.sha256, codes.sha256))) - len(codes.rejects)
    if new > 0:
        remarks.append(f"{new} images have no row yet")
    return Verdict(path, len(codes), tuple(faults), tuple(remarks))


def _part(path: Path) -> Verdict:
    try:
        arrays, _ = read_part(path)
        return Verdict(path, len(arrays["sha256"]), ())
    except FileNotFoundError:  # another run has published it meanwhile
        return Verdict(path, 0, (), ("published by another run meanwhile",))
    except CacheError as error:
        return Verdict(path, 0, (f"damaged part ({error}); the next run makes its rows again",))
