"""What a run is called: a name for people that never stands for two different data sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..errors import ResultError
from .frame import read_framed
from .records import SCHEMA
from .runs import settle


def run_name(
    *,
    method: str,
    model: str,
    layers: Sequence[str],
    views: str,
    size: int,
    seed: int,
    extra: str = "",
) -> str:
    """Name a run by what was asked for, fit to be a file's name.

    `extra` tells apart runs that differ otherwise: a split's number, a digest of the settings.
    """
    parts = [method, model, "+".join(layers), views, str(size), f"seed{seed}", extra]
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "_", part) for part in parts if part)


def subject_of(
    class_names: Sequence[str], sha256: NDArray[np.bytes_], *columns: NDArray[Any]
) -> str:
    """Digest of what a run is about: its classes, its images, their labels and their split.

    Parameters
    ----------
    class_names : sequence of str
        In the order of the labels.
    sha256 : array of shape (N,), S64
        Digests of the images' bytes.
    columns : arrays of shape (N,)
        Labels and split.

    Returns
    -------
    str
        16 hexadecimal digits; the order of the images is immaterial.
    """
    order = np.lexsort((*columns, sha256))
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for column in (sha256, *columns):
        digest.update(np.ascontiguousarray(column[order]).tobytes())
    return digest.hexdigest()[:16]


def name_for(folder: Path, name: str, *, subject: str, fingerprint: str) -> str:
    """Give the name under which a run can be written without replacing one of other data.

    Parameters
    ----------
    folder : Path
        Where it is to be written.
    name : str
        From :func:`run_name`: what it is called if no other run has that name.
    subject : str
        From :func:`subject_of`.
    fingerprint : str
        Of the run. A record of an earlier version, which holds no subject, is of the same data
        only if its fingerprint is the same.

    Returns
    -------
    str
        `name`; if a run of other images, labels or classes has it, followed by the first digits
        of the subject.
    """
    names = (name, f"{name}-{subject[:6]}", f"{name}-{subject}")
    found = [_about(folder, one, subject, fingerprint) for one in names]
    for state in ("same", "free"):
        if state in found:
            return names[found.index(state)]
    return names[-1]


def named(context: Context, usual: str, *, fingerprint: str = "") -> tuple[str, str]:
    """Give the name of a record that replaces none of other data, and what it is about.

    For what is made of all images of a context: comparisons, curves, advice, evidence.

    Parameters
    ----------
    context : Context
        The images, and the folder of their results.
    usual : str
        What it is called if no record of other data has that name.
    fingerprint : str
        Of the record, see :func:`name_for`.

    Returns
    -------
    name : str
    subject : str
        Goes into the record as ``subject``.
    """
    of = context.manifest
    subject = subject_of(of.class_names, of.sha256, of.labels, of.split)
    return name_for(context.folder, usual, subject=subject, fingerprint=fingerprint), subject


def _about(folder: Path, name: str, subject: str, fingerprint: str) -> str:
    """Tell whether a name is ``free``, or taken by a run of the ``same`` or of ``other`` data.

    A run that was interrupted takes the name too; a damaged record does not.
    """
    states = set()
    for path in (folder / f"{name}.json", folder / f"{name}.interrupted.json"):
        with suppress(OSError):
            settle(path)
        try:
            record = read_framed(path)
        except ResultError:
            continue
        if record.get("schema") != SCHEMA:
            continue  # as damaged: it is made again
        own = record.get("subject")
        same = record.get("fingerprint") == fingerprint if own is None else own == subject
        states.add("same" if same else "other")
    return next((state for state in ("other", "same") if state in states), "free")
