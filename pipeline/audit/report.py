"""The audit as a whole: what is found, told on the terminal, listed in JSON, drawn as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..context import Context
from ..datasets import Manifest
from ..datasets.facts import read_facts
from ..datasets.listing import Remark
from ..datasets.phrases import plural
from ..files import write_atomic, write_json
from ..progress import Progress, silent
from .classes import class_findings, copy_findings
from .findings import LEFT_OUT, Finding, image_findings
from .kin import find_kin, kin_cost, kin_finding
from .near import Near, find_near, near_finding, search_cost, within_finding
from .shortcuts import shift_findings, shortcut_findings

_LOOKED = 60  # images that are decoded in full before a figure is made
_CHEAP = 1e10  # multiplications: what header_findings may spend on near-duplicates, once


@dataclass(frozen=True)
class Report:
    """What the audit found of a data set.

    Attributes
    ----------
    data : str
        The data set's name.
    n_images : int
        Images, all of which were decoded in full.
    findings : tuple of Finding
        Problems first.
    near : Near or None
        The search for near-duplicates; None where there are no codes yet.
    json_path, picture_path : Path
        The full lists, and the grid of samples a class.
    """

    data: str
    n_images: int
    findings: tuple[Finding, ...]
    near: Near | None
    json_path: Path
    picture_path: Path

    def lines(self) -> list[str]:
        """Say it on the terminal, one line per finding."""
        lines = [
            f"{'problem' if one.is_problem else 'remark '}  {one.text}" for one in self.findings
        ]
        n_problems = sum(one.is_problem for one in self.findings)
        if self.near is None:
            lines.append(
                "Near-duplicates were not looked for: there are no codes of layer final yet "
                "(make features, then make audit again)."
            )
        lines += [f"full lists: {self.json_path}", f"the classes: {self.picture_path}"]
        decoded = f"{plural(self.n_images, 'image', 'images')} decoded in full"
        if self.findings:
            remarks = plural(len(self.findings) - n_problems, "remark", "remarks")
            lines.append(f"{decoded}: {plural(n_problems, 'problem', 'problems')}, {remarks}.")
        else:
            lines.append(f"{decoded}: nothing found.")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Give all lists in full, fit for JSON."""
        return {
            "schema": 1,
            "data": self.data,
            "n_images": self.n_images,
            "near_duplicates": None
            if self.near is None
            else {
                "codes": self.near.codes,
                "n_searched": self.near.n_searched,
                "n_found": self.near.n_found,
                "n_pairs": self.near.n_pairs,
            },
            "findings": [
                {
                    "kind": one.kind,
                    "level": "problem" if one.is_problem else "remark",
                    "text": one.text,
                    "n_paths": len(one.paths),
                    "paths": list(one.paths),
                    **one.details,
                }
                for one in self.findings
            ],
        }


def header_findings(
    manifest: Manifest, *, cache: Path, workers: int = 0, progress: Progress = silent
) -> list[str]:
    """Say what belongs into a result's warnings, decoding few images; problems first.

    What the manifest says is among it, unless a finding says it more fully. Reads headers that are
    not remembered, and decodes some 60 images. Near-duplicates are among the findings where the
    codes are there and the search is short or has been done. Images that are left out are not:
    stage one says so itself, with the reasons.

    Parameters
    ----------
    manifest : Manifest
        The images.
    cache : Path
        Remembers facts; may be read-only.
    workers : int
        Threads; 0: one per core.
    progress : Progress
        Counts images.

    Raises
    ------
    DataError
        An image changed since the manifest was loaded.
    """
    facts = read_facts(manifest, cache, looked=_some(manifest), workers=workers, progress=progress)
    findings = image_findings(manifest, facts) + copy_findings(manifest) + class_findings(manifest)
    if search_cost(manifest, cache) <= _CHEAP:
        near = find_near(manifest, cache)
        findings += _near_findings(near, manifest.grouping)
    if kin_cost(manifest, cache) <= _CHEAP:
        kin = find_kin(manifest, cache)
        findings += [kin_finding(kin)] if kin else []
    said = {*LEFT_OUT, "leaks"}
    if not facts.rows["decoded"].all():  # of single images all are to be known, or none
        said |= {one.kind for one in findings if one.kind.startswith("empty-")}
    findings = [finding for finding in findings if finding.kind not in said]
    findings = _problems_first([*findings, *_told(manifest, findings)])
    return [Remark(finding.text, finding.kind) for finding in findings]


def _some(manifest: Manifest) -> list[int]:
    """Pick images (rows), evenly of each class: few, for their being blank to be noticed."""
    each = max(1, _LOOKED // manifest.n_classes)
    picked: list[int] = []
    for one in range(min(manifest.n_classes, _LOOKED)):
        rows = np.flatnonzero(manifest.labels == one)
        picked += rows[np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int)].tolist()
    return picked


def _told(manifest: Manifest, findings: list[Finding]) -> list[Finding]:
    """Give what the manifest says and no finding does."""
    kinds = {one.kind for one in findings}
    return [
        Finding(kind or "reading", kind == "leaks", str(text))
        for text in manifest.warnings
        if not (kind := getattr(text, "kind", "")) or kind not in kinds
    ]


def _near_findings(near: Near | None, grouping: str) -> list[Finding]:
    both = [near_finding(near, grouping), within_finding(near, grouping)] if near else []
    return [finding for finding in both if finding]


def audit(context: Context) -> Report:
    """Find what is wrong with a data set, and write lists and a picture of it.

    Parameters
    ----------
    context : Context
        The images, each of which is decoded in full, once. ``audit.json`` and ``audit.png`` go to
        the results of the data set; near-duplicates are found by the codes in the cache.

    Raises
    ------
    DataError
        An image changed since the manifest was loaded.
    CacheError, NoSpaceError
        The results cannot be written.
    """
    from .gallery import draw_gallery

    manifest, cache, progress = context.manifest, context.cache, context.progress
    facts = read_facts(
        manifest, cache, full=True, workers=context.machine.workers, progress=progress
    )
    findings = image_findings(manifest, facts) + copy_findings(manifest) + class_findings(manifest)
    near = find_near(manifest, cache, progress=progress)
    findings += _near_findings(near, manifest.grouping)
    kin = find_kin(manifest, cache, seed=context.seed)
    findings += [kin_finding(kin)] if kin else []
    findings += shift_findings(manifest, facts, None if kin else cache, seed=context.seed)
    findings += shortcut_findings(manifest, facts, seed=context.seed)
    findings += _told(manifest, findings)
    folder = context.folder
    report = Report(
        manifest.name,
        manifest.n_images,
        tuple(_problems_first(findings)),
        near,
        folder / "audit.json",
        folder / "audit.png",
    )
    write_atomic(
        report.picture_path, draw_gallery(manifest, readable=facts.readable, seed=context.seed)
    )
    write_json(report.json_path, report.as_dict())
    return report


def _problems_first(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: not one.is_problem)
