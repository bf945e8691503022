"""What a report shows of the images: their map, the mistakes, doubtful labels, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..compare.words import label
from ..notation import count, number, share
from .blocks import (
    Block,
    Bullets,
    Chart,
    Folded,
    Gallery,
    Heat,
    Missing,
    Picture,
    Projection,
    Section,
    Text,
)
from .gather import Evidence
from .maps import projection

_PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_COPIES = ("leaks", "val-leaks", "contradictions", "near-duplicates")
_TITLES = {
    "leaks": "Test images that are also in train",
    "val-leaks": "Val images that are also in train",
    "contradictions": "Identical images with different labels",
    "near-duplicates": "Near-duplicates across splits",
    "copies-in-train": "Duplicates within train",
    "copies-in-val": "Duplicates within val",
    "copies-in-test": "Duplicates within test",
}


def embedding(evidence: Evidence) -> Section:
    """Draw the codes in two dimensions."""
    record = evidence.found["map"]
    title = "Map of the codes"
    if record is None:
        text = "Not computed: a two-dimensional map of the codes."
        return Section("map", title, [Missing(text, evidence.context.command_for("map"))])
    images = record["images"]
    labels = np.array([one["label"] for one in images], dtype=np.int64)
    drawn: list[Chart] = []
    for kind, one in record["projections"].items():
        caption = ""
        if one.get("explained"):
            caption = f"The two axes explain {share(sum(one['explained'][:2]), 0)} of the variance."
        drawn.append(
            projection(
                np.array(one["xy"], dtype=np.float64), labels, record["class_names"],
                key=f"map-{kind}", title=_PROJECTIONS.get(kind, kind), caption=caption,
            )
        )  # fmt: skip
    n_shown, n_images = len(images), record.get("n_images", len(images))
    of = f"{count(n_shown)} of {count(n_images)}" if n_shown < n_images else count(n_shown)
    text = (
        f"Two-dimensional projections of the codes of layer {record.get('layer', 'final')}, {of} "
        "images. Nearby points are images with similar codes. Point at one, or move with the "
        "arrow keys, to see the image."
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
    """Show the wrong predictions of the best method, highest confidence first."""
    best = evidence.best
    found, name = best.predictions, label(best.entry, evidence.comparison)
    wrong = found.most_confident_errors()
    title = "Most confident errors"
    if not wrong:
        text = f"{name} predicts all {count(len(found.labels))} test images correctly."
        return Section("mistakes", title, [Text(text)])
    others = [_called_right(run.predictions.paths, run.predictions) for run in evidence.runs]
    explained = evidence.found["explained"]
    if explained is not None and explained["run_fingerprint"] != best.record["fingerprint"]:
        explained = None  # of another run
    maps = {one["path"]: one for one in (explained or {}).get("images", ())}
    pictures = []
    for row in wrong[:shown]:
        path = found.paths[row]
        n_wrong = sum(not right.get(path, True) for right in others)
        lines = [f"label: {found.class_names[found.labels[row]]}"]
        if len(others) > 1:
            lines.append(f"wrong by {n_wrong} of {len(others)} methods")
        called = found.class_names[found.predicted[row]]
        title_ = f"{called} {share(float(found.probabilities[row].max()))}"
        one = maps.get(path)
        heat = Heat(one["evidence"], one["box"]) if one and one["explained"] == called else None
        pictures.append(Picture([path], title_, [*lines, path], heat))
    n = len(wrong)
    text = (
        f"{name} is wrong on {count(n)} of {count(len(found.labels))} test images. "
        f"{f'The {shown} of highest confidence are shown' if n > shown else 'They are shown'}, "
        "the most confident first. Each picture: the predicted class and its probability, the "
        "label, and how many methods are wrong. Where all methods are wrong, check the label first."
    )
    blocks: list[Block] = [Text(text)]
    if any(one.heat for one in pictures) and explained is not None:
        sums = "less the mean logit of all classes"
        blocks.append(
            Text(
                "The second copy of each picture shows which regions speak for the predicted "
                f"class, the brightest the most ({explained['method']})."
                f"{f' Each map sums to the logit, {sums}.' if explained['exact'] else ''}"
            )
        )
    blocks.append(Gallery(pictures))
    if explained is None and not best.record.get("cv"):
        command = evidence.context.command_for("report", {"evidence": ("explain",)})
        lacking = "Not computed: which regions speak for the predicted class."
        blocks.append(Missing(lacking, command))
    return Section("mistakes", title, blocks)


def _called_right(paths: tuple[str, ...], found: Any) -> dict[str, bool]:
    return dict(zip(paths, (found.predicted == found.labels).tolist(), strict=True))


def doubtful_labels(evidence: Evidence, *, shown: int) -> Section:
    """Show the images whose label is likely to be wrong."""
    record = evidence.found["mislabelled"]
    title = "Likely label errors"
    if record is None:
        text = "Not computed: which labels are likely to be wrong."
        return Section("labels", title, [Missing(text, evidence.context.command_for("labels"))])
    images = [one for one in record["images"] if not one["certain"]]
    pictures = [
        Picture(
            [one["path"]],
            f"label: {one['label']}; suggested: {one['suggested']}",
            [
                f"{share(one['p_label'])} against {share(one['p_suggested'])}",
                f"{one['split']}: {one['path']}",
            ],
        )
        for one in images[:shown]
    ]
    blocks: list[Block] = [Bullets(record.get("sentences", ()))]
    if len(images) > shown:
        blocks.append(Text(f"The {shown} most suspicious of {count(len(images))} listed.", "note"))
    return Section("labels", title, [*blocks, Gallery(pictures)])


def copies(evidence: Evidence, *, shown: int) -> Section:
    """Show leaks and near-duplicates, and pass on what else the audit found."""
    title = "Duplicates, leaks and data quality"
    audit = evidence.audit
    if audit is None:
        text = "Not checked: duplicates, leaks between splits, damaged images."
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
        many = f"{count(len(pairs))} {'pair' if len(pairs) == 1 else 'pairs'}"
        if len(pairs) > shown:
            many += f", {shown} shown"
        note = Text(f"{many}. {finding.get('text', '')}", "note")
        title_ = _TITLES.get(kind, kind)
        found = [_pair(one) for one in pairs[:shown]]
        if kind in _COPIES:
            blocks += [Gallery(found, title_), note]
        else:  # does not change the test figures
            folded.append(Folded(f"{title_}: {many}", [note, Gallery(found)]))
    if audit.get("near_duplicates") is None:
        blocks.append(Text("Not checked: near-duplicates, because there were no codes.", "note"))
    said = any(one.get("kind") == "leaks" for one in audit["findings"])
    rest = [text for text in rest if not (said and text.endswith("(leaks)."))]
    blocks += [*([Bullets(rest)] if rest else []), *folded]
    if not blocks:
        blocks.append(Text("The audit found no problems."))
    return Section("copies", title, blocks)


def _pair(one: Any) -> Picture:
    """Make a picture of a pair as the audit writes it: two paths, or a mapping with a likeness."""
    if isinstance(one, Mapping):
        same = "same label" if one.get("same_label") else "different labels"
        paths = [str(one["path"]), str(one["like"])]
        return Picture(paths, f"cosine {number(one['similarity'], 2)}, {same}", paths)
    paths = [str(path) for path in one][:2]
    return Picture(paths, "byte-identical", [str(path) for path in one])
