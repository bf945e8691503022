"""The model card: what a run is, how good, and where not to rely on it, from its records alone.

Headings after Mitchell et al. 2019 (arXiv 1810.03993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..backbones.catalog import PACKAGED
from ..datasets.registry import REGISTRY
from ..notation import number


def model_card(
    record: Mapping[str, Any] | None, about: Mapping[str, str], *, limits: Sequence[str]
) -> str:
    """Write the card.

    Parameters
    ----------
    record : mapping or None
        The run's result; None where only the model's two files are there.
    about : mapping of str to str
        The exported model's metadata.
    limits : sequence of str
        What the export itself found: differences, accuracy at lower precision.

    Returns
    -------
    str
        Markdown.
    """
    record = record or {}
    parts = [
        f"# {about['run']}",
        "An image classifier: " + _what(about) + ".",
        "## Use",
        "    pip install onnxruntime numpy pillow\n    python predict.py image.jpg",
        "Input `image`: uint8 (height, width, 3), RGB, upright, of any size. Output "
        "`probabilities`: one per class, in the order of the list below. Resizing and "
        "normalisation are inside the model.",
        "## Data",
        *_data(record, about),
        "## Accuracy",
        *_accuracy(record),
        "## Calibration",
        *_calibration(record),
        "## Limits",
        *_limits(record, limits),
        "## Origin",
        *_origin(record, about),
    ]
    return "\n\n".join(parts) + "\n"


def _what(about: Mapping[str, str]) -> str:
    if about["kind"] == "network":
        return f"{about['model']}, fine-tuned"
    return f"a head of method {about['method']} on the codes of {about['model']} (frozen)"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(one) for one in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _data(record: Mapping[str, Any], about: Mapping[str, str]) -> list[str]:
    known = REGISTRY.get(about["data"])
    licence = known.licence if known else "not known; ask whoever made the data set"
    found = [f"Data set: {about['data']}. Licence of the data: {licence}."]
    splits = record.get("splits")
    if isinstance(splits, Mapping) and splits:
        names = list(splits)
        rows = [
            [kind, *(splits[split].get(kind, 0) for split in names)]
            for kind in record["class_names"]
        ]
        found.append(_table(["class", *(f"images in {split}" for split in names)], rows))
    groups = record.get("groups")
    if isinstance(groups, Mapping):
        found.append("Groups: " + ", ".join(f"{k} {v}" for k, v in groups.items()) + ".")
    return found


def _accuracy(record: Mapping[str, Any]) -> list[str]:
    test = record.get("metrics", {}).get("test")
    if not test:
        return ["No record of the run's accuracy came with the model."]
    n = sum(sum(row) for row in test["confusion"]) if "confusion" in test else None
    interval = test.get("accuracy_ci95")
    rows: list[list[object]] = [
        [
            "accuracy",
            number(test["accuracy"], 4),
            f"{number(interval[0], 4)} to {number(interval[1], 4)}" if interval else "",
        ]
    ]
    for key, label in (
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_f1", "macro-F1"),
        ("auroc", "AUROC"),
    ):
        if isinstance(test.get(key), float):
            rows.append([label, number(test[key], 4), ""])
    n_groups = test.get("n_groups")
    groups = f" in {n_groups} groups, which the interval counts" if n_groups else ""
    images = f" of {n} images{groups}" if n else ""
    found = [
        f"On the test split{images}, which chose nothing:",
        _table(["metric", "value", "95 % interval"], rows),
    ]
    per_class = test.get("per_class")
    if isinstance(per_class, Mapping):
        kept = {
            name: figures for name, figures in per_class.items() if isinstance(figures, Mapping)
        }
        if kept:
            found.append(
                _table(
                    ["class", "precision", "recall"],
                    [
                        [name, _figure(one.get("precision")), _figure(one.get("recall"))]
                        for name, one in kept.items()
                    ],
                )
            )
    return found


def _figure(value: object) -> str:
    return number(value, 4) if isinstance(value, float) else ""


def _calibration(record: Mapping[str, Any]) -> list[str]:
    test = record.get("metrics", {}).get("test", {})
    figures = [
        f"{label} {number(test[key], 4)}"
        for key, label in (
            ("log_loss", "log-loss (nats)"),
            ("brier", "Brier score"),
            ("ece", "expected calibration error"),
        )
        if isinstance(test.get(key), float)
    ]
    found = "Probabilities are a softmax with one temperature, fitted to held-out scores."
    return [found + (f" On the test split: {', '.join(figures)}." if figures else "")]


def _limits(record: Mapping[str, Any], limits: Sequence[str]) -> list[str]:
    lines = [
        "- It names one of its classes for every image, also for one that shows none of them.",
        "- The accuracy is that of images like the test images. Images from elsewhere (another "
        "camera, place or time) can be harder.",
        *(f"- {text}" for text in limits),
        *(f"- {text}" for text in record.get("warnings", []) if isinstance(text, str)),
    ]
    return ["\n".join(lines)]


def _origin(record: Mapping[str, Any], about: Mapping[str, str]) -> list[str]:
    own = "Apache-2.0" if about["model"] in PACKAGED else "as its publisher states"
    rows: list[list[object]] = [
        ["network", about["model"]],
        ["weights", about["weights"]],
        ["licence of the published weights", own],
        ["SHA-256 of the weights", f"`{about['weights_digest']}`"],
        ["layers, pooling, views", f"{about['layers']}; {about['pool']}; {about['views']}"],
        ["input", f"{about['size']} px"],
        ["precision", about["precision"]],
    ]
    if record.get("fingerprint"):
        rows.append(["fingerprint of the run", f"`{record['fingerprint']}`"])
    chosen = record.get("chosen")
    if isinstance(chosen, Mapping):
        simple = [f"{k} {v}" for k, v in chosen.items() if isinstance(v, str | int | float)]
        rows.append(["chosen", ", ".join(simple)])
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        rows.append(["versions", ", ".join(f"{k} {v}" for k, v in versions.items())])
    return [_table(["", ""], rows)]
