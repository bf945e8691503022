"""Two runs side by side: what differs between them, and whether one is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ResultError
from ..notation import number, p_equals, percent, signed, signed_interval
from ..results.measures import ALPHA
from ..results.records import FIGURES
from ..results.tables import Table, aligned
from ..runs.columns import flattened
from ..runs.listing import Run
from ..runs.words import cell

_IDENTITY = ("data", "method", "model", "layers", "views", "size", "seed", "kind")
_SAID = (*_IDENTITY, "methods")  # settings that the identity tells already
_LONG = ("curve", "trials", "each")  # of what was chosen: series, not settings


def side_by_side(a: Run, b: Run) -> dict[str, Any]:
    """Compare two runs setting by setting, and test whether one is better.

    Returns
    -------
    dict
        ``figures``: list of (name, a's, b's) for all figures of the test split (or val, of an
        interrupted training); ``differences``: title to list of (name, a's, b's) of what is not
        equal, for ``settings``, ``splits``, ``chosen``, ``times_s``, ``versions`` and
        ``machine``; ``equal``: title to the number of names on which both agree; ``warnings``:
        those of a alone and of b alone; ``paired``: the paired test on the shared test
        images (over groups where a run has groups), or None; ``sentences``.
    """
    figures = [(name, a.columns[name], b.columns[name]) for name in ("on", "n_images", *FIGURES)]
    differences: dict[str, list[tuple[str, Any, Any]]] = {}
    equal: dict[str, int] = {}
    for title, left, right in (
        ("settings", _settings(a), _settings(b)),
        ("splits", flattened(a.record["splits"]), flattened(b.record["splits"])),
        ("chosen", _chosen(a), _chosen(b)),
        ("times_s", flattened(a.record["times_s"]), flattened(b.record["times_s"])),
        ("versions", a.record["versions"], b.record["versions"]),
        ("machine", _of(a, "machine"), _of(b, "machine")),
    ):
        names = dict.fromkeys([*left, *right])
        pairs = [(name, left.get(name), right.get(name)) for name in names]
        differences[title] = [pair for pair in pairs if pair[1] != pair[2]]
        equal[title] = len(pairs) - len(differences[title])
    ours, theirs = list(map(str, a.record["warnings"])), list(map(str, b.record["warnings"]))
    try:
        paired = _paired(a, b)
        sentences = _sentences(paired)
    except ResultError as error:
        paired, sentences = None, [f"No paired test: {error.found}"]
    if a.record["fingerprint"] == b.record["fingerprint"]:
        sentences.append("Both have the same fingerprint: everything that changes a number agrees.")
    return {
        "figures": figures,
        "differences": differences,
        "equal": equal,
        "warnings": (
            [text for text in ours if text not in theirs],
            [text for text in theirs if text not in ours],
        ),
        "paired": paired,
        "sentences": sentences,
    }


def _of(run: Run, key: str) -> dict[str, Any]:
    found = run.record.get("provenance", {}).get(key, {})
    return flattened(found) if isinstance(found, Mapping) else {}


def _settings(run: Run) -> dict[str, Any]:
    """Give what the run is of, and its settings."""
    own = {key: run.columns[key] for key in _IDENTITY}
    asked = {key: value for key, value in _of(run, "settings").items() if key not in _SAID}
    return own | asked


def _chosen(run: Run) -> dict[str, Any]:
    return flattened({k: v for k, v in run.record["chosen"].items() if k not in _LONG})


def _paired(a: Run, b: Run) -> dict[str, Any]:
    """Test the two on the test images that both have."""
    from .aligned import aligned_predictions, recorded_groups
    from .flips import accuracy_difference
    from .paired import discordance, rate_limit, required_images

    if a.record["data"] != b.record["data"]:
        raise ResultError(f"{a.record['data']} and {b.record['data']} are different data sets.")
    on = {str(run.columns["on"]) for run in (a, b)}
    if on != {"test"}:
        raise ResultError("an interrupted training has not looked at test.")
    found = [a.predictions(), b.predictions()]
    counts = [len(one.labels) for one in found]
    left, right = aligned_predictions(found)
    hits = [one.predicted == one.labels for one in (left, right)]
    split = discordance(*hits)
    groups = recorded_groups([a.record, b.record], left.paths, found)
    p, ends = accuracy_difference(hits[0], hits[1], groups)
    _, wide = accuracy_difference(hits[0], hits[1], groups, level=1 - 2 * ALPHA)
    return {
        "n_shared": split.n,
        "n_a": counts[0],
        "n_b": counts[1],
        "accuracy_a": float(np.mean(hits[0])),
        "accuracy_b": float(np.mean(hits[1])),
        "only_a": split.only_a,
        "only_b": split.only_b,
        "difference": split.difference,
        "difference_ci95": ends,
        "p": p,
        "n_groups": None if groups is None else len(np.unique(groups)),
        "images_for_one_point": None if groups is not None else required_images(rate_limit(split)),
        # one-sided 95 % limit of how much worse the less accurate run may be
        "at_most": max(0.0, wide[1] if split.difference >= 0 else -wide[0]),
    }


def _sentences(found: Mapping[str, Any]) -> list[str]:
    n, n_groups = found["n_shared"], found["n_groups"]
    low, high = found["difference_ci95"]
    same = found["n_a"] == found["n_b"] == n
    of = "" if same else f" that both have ({found['n_a']:,} and {found['n_b']:,} in total)"
    points = 100 * found["difference"]
    tested = f"sign-flip test over {n_groups} groups" if n_groups else "exact McNemar"
    said = [
        f"On the {n:,} test images{of}, only A is correct on {found['only_a']:,} and only B on "
        f"{found['only_b']:,}: a difference of {signed(points, 2)} points (A minus B; 95 % "
        f"confidence interval {signed_interval(low, high, 2)}), {tested} "
        f"{p_equals(found['p'])}."
    ]
    better, other = ("A", "B") if points >= 0 else ("B", "A")
    if found["p"] <= ALPHA:
        said.append(f"{better} is significantly more accurate (\u03b1 = {ALPHA:g}).")
        return said
    said.append(
        f"The difference is not significant (\u03b1 = {ALPHA:g}): {other} is at most "
        f"{percent(found['at_most'])} points worse than {better} (95 % confidence)."
    )
    if n_groups:
        return said
    said.append(
        f"To detect a difference of one point (power 80 %, upper 95 % limit of the rate of "
        f"disagreement), about {found['images_for_one_point']:,} test images are needed."
    )
    return said


def side_by_side_parts(a: Run, b: Run, found: Mapping[str, Any]) -> list[str]:
    """Lay out two runs: figures, then what differs, then the paired test.

    Parameters
    ----------
    found : mapping
        From :func:`side_by_side`.
    """
    parts = [f"A  {a.path}\nB  {b.path}\n", _pairs("", found["figures"], numbers=True), ""]
    for title, pairs in found["differences"].items():
        equal = found["equal"][title]
        if pairs:
            parts += [_pairs(f"{title} ({equal} more are equal)", pairs), ""]
        else:
            parts.append(f"{title}: no difference in {equal}\n")
    warnings = [
        f"warning of {name} alone: {text}"
        for name, texts in zip("AB", found["warnings"], strict=True)
        for text in texts
    ]
    return [*parts, *warnings, *([""] if warnings else []), *found["sentences"]]


def _pairs(title: str, pairs: Sequence[tuple[str, Any, Any]], *, numbers: bool = False) -> Table:
    lines = [[title, "A", "B", *(["A - B"] if numbers else [])]]
    for name, left, right in pairs:
        both = all(isinstance(value, float) for value in (left, right))
        last = [signed(left - right, 4) if both else ""] if numbers else []
        shown = _figure if both and numbers else cell
        lines.append([f"  {name}", shown(left), shown(right), *last])
    return aligned(lines, text_columns=3)


def _figure(value: Any) -> str:
    return number(value, 4)
