"""Stage one: images through the frozen network, into the cache.

What is not in the cache is read and run in order (:mod:`.stream`); finished rows go to disk
in parts of some 500. Memory does not grow with the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..backbones import load_card
from ..context import Context
from ..datasets import Manifest
from ..datasets.remaining import check_remaining, classes_without
from ..errors import BackboneError
from .cache import CacheFile
from .joined import join_codes
from .keys import codes_key
from .making import Job, completed
from .reader import Codes
from .wanted import Wanted, wanted
from .work import Work, refused


@dataclass(frozen=True)
class Extraction:
    """What stage one did.

    Attributes
    ----------
    codes : Codes
        The published file.
    n_new : int
        Images that went through the network now.
    n_kept : int
        Images whose codes were there.
    rejects : dict of str to str
        Path of each image that cannot be used, to the reason.
    engine : str
        What ran; empty where nothing had to.
    start_s, run_s : float
        Seconds until the engine stood ready, and for the new images from then on.
    notes : tuple of str
        How images of more than 8 bits were read, and other things that a user should know.
    parts : dict of str to Extraction
        Of several networks, what was done for each.
    """

    codes: Codes
    n_new: int
    n_kept: int
    rejects: dict[str, str]
    engine: str = ""
    start_s: float = 0.0
    run_s: float = 0.0
    notes: tuple[str, ...] = ()
    parts: dict[str, Extraction] = field(default_factory=dict)


def extract(
    context: Context,
    rows: NDArray[np.int64] | None = None,
    *,
    calibrated_on: Manifest | None = None,
) -> Extraction:
    """Bring the cached codes of the images up to date; run only what is not there.

    Several networks have a file each, under its own key; their codes are then read side by side.

    Parameters
    ----------
    context : Context
        The images, what the codes are, what runs the network, where the cache is.
    rows : int64 (n,) or None
        None: all images, published under the name that ``make features`` gives them. Else codes
        of these rows of the manifest, to be found by digest: from the published file where it
        holds them, else from a file of their own in ``trunk/``, which keeps what it had.
    calibrated_on : Manifest, optional
        The data set whose training images calibrate a network in int8; default: the context's.

    Raises
    ------
    ImageError
        ``data.strict`` is set and an image cannot be used.
    CacheError, NoSpaceError, CacheBusyError
        The cache cannot be used; what was finished is kept.
    BackboneError, DeviceError, DownloadError
        The network or the machine cannot do what was asked.
    """
    if len(context.codes.models) == 1:
        return _extracted(context, rows, calibrated_on)
    each = [replace(context, codes=codes) for codes in context.codes.of_each()]
    _check_networks(each)
    parts = {one.codes.model: _extracted(one, rows, calibrated_on) for one in each}
    codes = join_codes(context.codes, [part.codes for part in parts.values()])
    rejects = {path: why for part in parts.values() for path, why in part.rejects.items()}
    notes = [
        note if all(note in other.notes for other in parts.values()) else f"{model}: {note}"
        for model, part in parts.items()
        for note in part.notes
    ]
    if rows is None and context.manifest.n_classes > 1:  # each network may refuse other images
        check_remaining(context.manifest, codes.rejects, command=context.command)
        notes += classes_without(context.manifest, codes.rejects)
    return Extraction(
        codes,
        n_new=sum(part.n_new for part in parts.values()),
        n_kept=sum(part.n_kept for part in parts.values()),
        rejects=rejects,
        notes=tuple(dict.fromkeys(notes)),
        parts=parts,
    )


def _check_networks(contexts: Sequence[Context]) -> None:
    """Look every network and its layers up, before any of them runs.

    Raises
    ------
    BackboneError
        There is no such network or layer, or two names mean one network.
    """
    names: dict[tuple[str, str], str] = {}
    for context in contexts:
        card = load_card(context.codes, **context.source)
        card.resolve(context.codes.layers)
        card.pooling(context.codes.pool)
        same = names.setdefault((card.arch, card.weights_digest), card.model)
        if same != card.model:
            raise BackboneError(
                f"{same} and {card.model} are the same network with the same weights.",
                expected="different networks, joined by '+'",
                todo=f"MODEL={same}",
            )


def _extracted(
    context: Context, rows: NDArray[np.int64] | None, calibrated_on: Manifest | None
) -> Extraction:
    """Bring the cached codes of one network up to date; see :func:`extract`."""
    began = time.perf_counter()
    asked = wanted(context, calibrated_on or context.manifest, is_part=rows is not None)
    manifest = context.manifest
    file = CacheFile(codes_key(manifest.name, asked.spec, cache=context.cache))
    if rows is not None:
        manifest = manifest.take(rows)
        published = file.holding(manifest.sha256)
        if published is not None:
            return _outcome(asked, manifest, published)
        file = CacheFile(file.key.apart("trunk"))

    def current() -> Codes | None:
        return file.current(manifest) if rows is None else file.holding(manifest.sha256)

    codes = current()
    if codes is not None:
        file.tidy(codes)
        return _outcome(asked, manifest, codes)
    job = Job(manifest, Work(manifest.root, asked.spec), context.data.strict)
    with file.locked(context.messages.waiting):
        codes = current()  # made meanwhile by another
        if codes is None:
            known = completed(asked, file, job, began)
            codes = file.publish(manifest if rows is None else known.manifest(), known)
    return _outcome(asked, manifest, codes, job)


def _outcome(asked: Wanted, manifest: Manifest, codes: Codes, job: Job | None = None) -> Extraction:
    """Say what was done; `job` is what ran for it."""
    context = asked.context
    notes = [*asked.notes, *(job.notes if job else ()), *asked.near()]
    bad = np.isin(manifest.sha256, np.array(list(codes.rejects), "S64"))
    rejects = {  # every path, also where several have the same bytes
        manifest.paths[i]: codes.rejects[manifest.sha256[i].decode()]
        for i in np.flatnonzero(bad).tolist()
    }
    if rejects and context.data.strict:
        raise refused(*next(iter(rejects.items())))
    if manifest.n_images == context.manifest.n_images and manifest.n_classes > 1:
        check_remaining(manifest, codes.rejects, command=context.command)
        notes += classes_without(manifest, codes.rejects)
    n_new = job.n_new if job else 0
    return Extraction(
        codes,
        n_new=n_new,
        n_kept=len(np.unique(manifest.sha256)) - n_new,
        rejects=rejects,
        engine=job.name if job else "",
        start_s=job.start_s if job else 0.0,
        run_s=job.run_s if job else 0.0,
        notes=tuple(notes),
    )
