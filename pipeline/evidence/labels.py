"""Images that are likely mislabelled, most suspicious first.

Every labelled image, those of test too, is judged by a softmax head that never saw it: folds
over all images, copies of equal bytes in one fold, ``C`` chosen on the held-out images, one
temperature. Byte-identical images under different labels (contradictions) come first, in a block
of their own: there at least one label is certainly wrong. As many others as were asked for follow
by the margin of confident learning. How many flipped
labels this finds is measured in ``benchmarks/mislabelled.md``.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..context import Context
from ..datasets import SPLITS
from ..datasets.phrases import few, plural
from ..heads.rows import Rows
from ..notation import number, share
from ..results.tables import Table, aligned
from ..settings import LabelsSettings
from .confident import class_thresholds, confident_classes, label_margin, other_class
from .record import Request

VERSION = 3
METHOD = "softmax"


def find_mislabelled(context: Context, codes: Codes, settings: LabelsSettings) -> dict[str, Any]:
    """List the images whose label is most suspicious, or take the list that is there.

    Parameters
    ----------
    context : Context
        The images; its seed cuts the folds or draws the sample.
    codes : Codes
        Current for the images; several layers are used side
        by side.
    settings : LabelsSettings
        Folds, and the share of the images that is listed.

    Returns
    -------
    dict
        ``n_images``; ``n_certain`` (images with copies under another label); ``n_suspects``
        (confidently of another class than their label); ``n_listed``; ``images``, each with
        ``path``, ``split``, ``label``, ``suggested``, ``p_label``, ``p_suggested``, ``score``
        (0 to 1, the lowest the most suspicious; the probabilities are None where no fold held the
        image out), ``certain``, ``suspect``, ``copies`` (paths of
        the same bytes under another label); ``accuracy`` held out; ``C``, ``folds``;
        ``thresholds`` (a class); ``reused`` where it was there.

    Raises
    ------
    HeadError
        A class has fewer than two different images.
    """
    request = Request("mislabelled", VERSION, context, codes, settings, extra=METHOD)
    known = request.known()
    if known is not None:
        return known
    rows, names = request.rows, context.manifest.class_names
    judged = _judged(context, codes, rows, settings)
    labels, p = rows.labels, judged.probabilities
    thresholds = class_thresholds(p, labels)
    confident = confident_classes(p, thresholds)
    suspect = (confident >= 0) & (confident != labels)
    suggested = np.where(suspect, confident, other_class(p, labels))
    score = label_margin(p, labels)
    copies = _contradicting(labels, np.unique(rows.sha256, return_inverse=True)[1])
    certain = np.zeros(len(labels), dtype=bool)
    certain[list(copies)] = True
    for row, others in copies.items():  # of the classes that its copies bear, the most probable
        suggested[row] = max((int(labels[other]) for other in others), key=lambda k: p[row, k])
    order = np.lexsort((score, ~certain))
    n_listed = min(len(order), math.ceil(settings.share * len(order)) + int(certain.sum()))
    images = [
        {
            "path": rows.paths[row],
            "split": SPLITS[rows.split[row]],
            "label": names[labels[row]],
            "suggested": names[suggested[row]],
            "p_label": float(p[row, labels[row]]) if judged.held[row] else None,
            "p_suggested": float(p[row, suggested[row]]) if judged.held[row] else None,
            "score": float(score[row]),
            "certain": bool(certain[row]),
            "suspect": bool(suspect[row]),
            "copies": [rows.paths[other] for other in copies.get(row, ())],
        }
        for row in order[:n_listed].tolist()
    ]
    body = {
        "method": METHOD,
        "layers": list(codes.layers),
        "n_images": len(labels),
        "n_certain": int(certain.sum()),
        "n_suspects": int(suspect.sum()),
        "n_listed": n_listed,
        "accuracy": judged.accuracy,
        "C": judged.C,
        "folds": judged.n_folds,
        "thresholds": dict(zip(names, thresholds.tolist(), strict=True)),
        "images": images,
        "warnings": judged.warnings,
    }
    pairs = Counter(
        zip(labels[suspect].tolist(), suggested[suspect].tolist(), strict=True)
    ).most_common(3)
    said = [f"labelled {names[a]}, looks like {names[b]}: {n:,}" for (a, b), n in pairs]
    body["sentences"] = _sentences(body, said)
    return request.write(body)


@dataclass(frozen=True, eq=False)
class _Judged:
    """What heads say of images that they never saw.

    Attributes
    ----------
    probabilities : float64 (N, K)
    held : bool (N,)
        Which images were held out; the others, of a class that cannot be held out, count as
        correctly labelled.
    """

    probabilities: NDArray[np.float64]
    held: NDArray[np.bool_]
    accuracy: float
    C: float
    n_folds: int
    warnings: list[str]


def _judged(context: Context, codes: Codes, rows: Rows, settings: LabelsSettings) -> _Judged:
    """Judge every image by a head that never saw its group."""
    from ..heads.folds import cut_folds
    from ..heads.held_out import held_out

    labels, names = rows.labels, context.manifest.class_names
    folds, notes = cut_folds(
        labels, rows.groups, folds=settings.folds, seed=context.seed, class_names=names
    )
    found = held_out(
        codes.matrix(), labels, folds, method=METHOD, n_classes=len(names), jobs=settings.jobs,
        progress=context.progress,
    )  # fmt: skip
    held = np.zeros(len(labels), dtype=bool)
    held[found.rows] = True
    p = np.eye(len(names))[labels]  # (N, K)
    p[found.rows] = found.probabilities()
    warnings = [*notes, *found.warnings]
    return _Judged(p, held, found.accuracy, found.C, len(folds), warnings)


def _contradicting(
    labels: NDArray[np.int32], groups: NDArray[np.int64]
) -> dict[int, tuple[int, ...]]:
    """Rows that have copies of the same bytes under another label, each with these copies."""
    n_groups = int(groups.max()) + 1
    lowest, highest = np.full(n_groups, labels.max() + 1), np.full(n_groups, -1)
    np.minimum.at(lowest, groups, labels)
    np.maximum.at(highest, groups, labels)
    found: dict[int, tuple[int, ...]] = {}
    for group in np.flatnonzero(lowest < highest).tolist():
        members = np.flatnonzero(groups == group)
        for row in members.tolist():
            found[row] = tuple(members[labels[members] != labels[row]].tolist())
    return found


def _sentences(body: dict[str, Any], pairs: list[str]) -> list[str]:
    """Say what was found; every word follows from the numbers."""
    said = []
    if body["n_certain"]:
        first = body["images"][0]
        said.append(
            f"{plural(body['n_certain'], 'image has', 'images have')} byte-identical copies under "
            "another label: at least one label of each such group is wrong "
            f"({few([' = '.join([first['path'], *first['copies']])])})."
        )
    part = share(body["n_suspects"] / body["n_images"])
    how = (
        f"a softmax head that never saw them ({body['folds']}-fold cross-validation, accuracy "
        f"{share(body['accuracy'])})"
    )
    if not body["n_suspects"]:
        said.append(f"No label of {body['n_images']:,} images is contradicted by {how}.")
        return said
    said.append(
        f"{body['n_suspects']:,} of {body['n_images']:,} labels ({part}) "
        f"{'is' if body['n_suspects'] == 1 else 'are'} contradicted with "
        f"confidence by {how}; {', '.join(pairs)}."
    )
    said.append(
        "These are suspects, not errors: an image that is merely hard looks the same to the head."
    )
    return said


def contradictions(record: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Give the images of equal bytes under several labels, a list for each set of copies."""
    sets: dict[frozenset[str], list[dict[str, Any]]] = {}
    found = {one["path"]: one for one in record["images"] if one["certain"]}
    seen: set[str] = set()
    for path, one in found.items():
        if path in seen:
            continue
        others = {other for name in one["copies"] for other in found[name]["copies"]}
        paths = sorted({path, *one["copies"], *others} & set(found))
        seen |= set(paths)
        sets[frozenset(paths)] = [found[name] for name in paths]
    return list(sets.values())


def labels_tables(record: dict[str, Any], top: int) -> tuple[list[Table], list[str]]:
    """Lay out the contradictions and the first `top` suspects (0: all that are listed).

    Parameters
    ----------
    record : dict
        From :func:`find_mislabelled`.
    top : int
        Suspects that are shown; contradictions are not counted among them, and as many sets of
        copies are shown at most.

    Returns
    -------
    tables : list of Table
        The contradictions, where there are any; the suspects.
    legends : list of str
        What stands below each.
    """
    tables, legends = [], []
    sets = contradictions(record)
    if sets:
        shown = sets[: top or None]
        lines = [["copies", "labels", "images"]]
        for one in shown:
            labels = sorted({image["label"] for image in one})
            paths = [f"{image['path']} ({image['label']})" for image in one]
            lines.append([str(len(one)), few(labels, 4), few(paths, 4)])
        legend = "Contradictions: the same bytes under several labels; at least one label is wrong"
        legends.append(f"{legend}{_more(len(sets) - len(shown), 'sets')}.")
        tables.append(aligned(lines, text_columns=3))
    suspects = [one for one in record["images"] if not one["certain"]]
    shown_suspects = suspects[: top or None]
    lines = [["", "path", "split", "label", "suggested", "p(label)", "p(suggested)"]]
    for one in shown_suspects:
        words = [one[key] for key in ("path", "split", "label", "suggested")]
        mark = "?" if one["suspect"] else ""
        lines.append([mark, *words, number(one["p_label"]), number(one["p_suggested"])])
    tables.append(aligned(lines, text_columns=5))
    more = _more(len(suspects) - len(shown_suspects), "")
    legends.append(f"? contradicted with confidence{more}")
    return tables, legends


def _more(n_more: int, what: str) -> str:
    if n_more <= 0:
        return ""
    return f"; {n_more:,} more{f' {what}' if what else ''} in the record (TOP=0 prints all)"
