"""What a report shows of the images: their map, the mistakes, doubtful labels, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..compare.words import label
from .blocks import (
    Block,
    Bullets,
    Chart,
    Folded,
    Gallery,
    Missing,
    Picture,
    Projection,
    Section,
    Text,
)
from .gather import Evidence
from .maps import projection
from .numbers import mistakes, percent

__all__ = ["copies", "doubtful_labels", "embedding", "worst_mistakes"]

_PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_COPIES = ("leaks", "val-leaks", "contradictions", "near-duplicates")
_TITLES = {
    "leaks": "Test images that train has too",
    "val-leaks": "Val images that train has too",
    "contradictions": "The same image in several classes",
    "near-duplicates": "Nearly the same image on both sides",
    "copies-in-train": "Copies within train",
    "copies-in-val": "Copies within val",
    "copies-in-test": "Copies within test",
}


def embedding(evidence: Evidence) -> Section:
    """Draw the codes in two dimensions."""
    record = evidence.found["map"]
    title = "The images as the network sees them"
    if record is None:
        text = "The codes have not been laid out in two dimensions."
        return Section("map", title, [Missing(text, evidence.context.command_for("map"))])
    images = record["images"]
    labels = np.array([one["label"] for one in images], dtype=np.int64)
    drawn: list[Chart] = []
    for kind, one in record["projections"].items():
        caption = ""
        if one.get("explained"):
            caption = (
                f"The two axes hold {percent(sum(one['explained'][:2]), 0)} % of the variance."
            )
        drawn.append(
            projection(
                np.array(one["xy"], dtype=np.float64), labels, record["class_names"],
                key=f"map-{kind}", title=_PROJECTIONS.get(kind, kind), caption=caption,
            )
        )  # fmt: skip
    n_shown, n_images = len(images), record.get("n_images", len(images))
    of = f"{n_shown:,} of {n_images:,} images" if n_shown < n_images else f"{n_shown:,} images"
    text = (
        f"The codes of layer {record.get('layer', 'final')} of {of} in two dimensions: images "
        "near each other look alike to the network. Point at one, or move among them with the "
        "arrow keys, to see it."
    )
    block = Projection(
        drawn,
        [one["path"] for one in images],
        labels.tolist(),
        [one["split"] for one in images],
        record["class_names"],
    )
    return Section("map", title, [Text(text), block])


def worst_mistakes(evidence: Evidence, *, shown: int) -> Section:
    """Show the images that the best method was surest about and wrong."""
    best = evidence.best
    found, name = best.predictions, label(best.entry, evidence.comparison)
    wrong = mistakes(found)
    title = "The most confident mistakes"
    if not len(wrong):
        text = f"{name} calls every one of the {len(found.labels):,} test images rightly."
        return Section("mistakes", title, [Text(text)])
    others = [_called_right(run.predictions.paths, run.predictions) for run in evidence.runs]
    pictures = []
    for row in wrong[:shown].tolist():
        path = found.paths[row]
        n_wrong = sum(not right.get(path, True) for right in others)
        lines = [f"labelled {found.class_names[found.labels[row]]}"]
        if len(others) > 1:
            lines.append(f"wrong by {n_wrong} of {len(others)} methods")
        called = found.class_names[found.predicted[row]]
        title_ = f"{called} {100 * found.probabilities[row].max():.1f} %"
        pictures.append(Picture([path], title_, [*lines, path]))
    n = len(wrong)
    text = (
        f"{name} is wrong on {n:,} of {len(found.labels):,} test images"
        f"{f'; the {shown} it was surest about' if n > shown else ', surest first'}. Where every "
        "method errs, look at the label first."
    )
    return Section("mistakes", title, [Text(text), Gallery(pictures)])


def _called_right(paths: tuple[str, ...], found: Any) -> dict[str, bool]:
    return dict(zip(paths, (found.predicted == found.labels).tolist(), strict=True))


def doubtful_labels(evidence: Evidence, *, shown: int) -> Section:
    """Show the images whose label the codes speak against."""
    record = evidence.found["mislabelled"]
    title = "Labels to look at again"
    if record is None:
        text = "Which labels are likely wrong has not been looked into."
        return Section("labels", title, [Missing(text, evidence.context.command_for("labels"))])
    images = record["images"]
    pictures = [
        Picture(
            [one["path"]],
            f"{one['suggested']} rather than {one['label']}?",
            [
                f"{100 * one['p_suggested']:.1f} % against {100 * one['p_label']:.1f} %",
                f"{one['split']}: {one['path']}",
            ],
        )
        for one in images[:shown]
    ]
    blocks: list[Block] = [Bullets(record.get("sentences", ()))]
    if len(images) > shown:
        blocks.append(Text(f"The {shown} most suspicious of {len(images):,} listed.", "note"))
    return Section("labels", title, [*blocks, Gallery(pictures)])


def copies(evidence: Evidence, *, shown: int) -> Section:
    """Show leaks and near-duplicates, and pass on what else the audit found."""
    title = "Copies, leaks and other findings"
    audit = evidence.audit
    if audit is None:
        text = "The images have not been searched for copies, leaks and damage."
        command = evidence.context.command_for("audit", codes=False)
        return Section("copies", title, [Missing(text, command)])
    blocks: list[Block] = []
    folded: list[Block] = []
    rest = []
    for finding in audit["findings"]:
        kind = finding.get("kind", "")
        pairs = finding.get("pairs") or []
        if (kind not in _COPIES and not kind.startswith("copies-in-")) or not pairs:
            rest.append(str(finding.get("text", "")))
            continue
        many = f"{len(pairs):,} {'pair' if len(pairs) == 1 else 'pairs'}"
        if len(pairs) > shown:
            many += f", {shown} shown"
        note = Text(f"{many}. {finding.get('text', '')}", "note")
        title_ = _TITLES.get(kind, kind)
        found = [_pair(one) for one in pairs[:shown]]
        if kind in _COPIES:
            blocks += [Gallery(found, title_), note]
        else:  # harmless to the test figure, so not spread out
            folded.append(Folded(f"{title_}: {many}", [note, Gallery(found)]))
    if audit.get("near_duplicates") is None:
        blocks.append(Text("Near-duplicates were not searched for: there were no codes.", "note"))
    said = any(one.get("kind") == "leaks" for one in audit["findings"])
    rest = [text for text in rest if not (said and text.endswith("(leaks)."))]
    blocks += [*([Bullets(rest)] if rest else []), *folded]
    if not blocks:
        blocks.append(Text("The audit found nothing amiss."))
    return Section("copies", title, blocks)


def _pair(one: Any) -> Picture:
    """Make a picture of a pair as the audit writes it: two paths, or a mapping with a likeness."""
    if isinstance(one, Mapping):
        same = "same label" if one.get("same_label") else "different labels"
        paths = [str(one["path"]), str(one["like"])]
        return Picture(paths, f"likeness {one['similarity']:.2f}, {same}", paths)
    paths = [str(path) for path in one][:2]
    return Picture(paths, "byte-identical", [str(path) for path in one])
