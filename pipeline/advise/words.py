"""What the advice says, in sentences and tables; every word follows from the record's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.words import listed
from ..results.tables import Table, aligned
from .cases import ALIKE, LARGE

__all__ = ["network_label", "options_table", "ranking_table", "sentences"]

RULES = {
    1: "the codes of the last layer with a linear head",
    2: "fine-tuning",
    3: "codes of earlier layers with a linear SVM, or late layers trained",
    4: "training all, from the pretrained weights",
}


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Say what to do, why, what it gains and costs, and how certain that is."""
    said = [_what(record), _gain(record), _size(record), _likeness(record), _rule(record)]
    said += _linear(record)
    said += _training(record)
    if len(record["ranking"]) > 1:
        said += _networks(record)
    said.append("Nothing of the test split was used for this.")
    return said


def network_label(one: Mapping[str, Any]) -> str:
    """Name a network, and its weights where they are not the published ones."""
    weights = one["weights"]
    if weights == "default":
        return str(one["model"])
    return f"{one['model']} ({'random start' if weights == 'none' else weights})"


def _what(record: Mapping[str, Any]) -> str:
    one = record["strategy"]
    network = network_label(record["ranking"][0])
    if one["method"] == "finetune":
        return f"Train {network} ({one['strategy']}): {one['command']}"
    layers = {
        "last layer": "the codes of the last layer",
        "late layers": f"the codes of the late layers ({', '.join(one['layers'])})",
        "all layers": "the codes of all layers together",
    }[one["strategy"]]
    return f"Use {layers} of {network} with a linear head ({one['method']}): {one['command']}"


def _gain(record: Mapping[str, Any]) -> str:
    one, base = record["strategy"], record["options"][0]
    cost = f"Cost: about {_duration(one['cost_s'])} with nothing cached ({one['cost_from']})"
    if one["command"] == base["command"]:
        accuracy = 100 * one["accuracy"]
        return f"Expected accuracy: {accuracy:.1f} % (cross-validated on train). {cost}."
    low, high = one["interval"]
    gain = f"{one['gain_points']:+.1f} points over {base['method']} on the last layer"
    test = f", p = {one['p']:.2g}" if one["p"] is not None else ""
    return (
        f"Gain: {gain} (95 % interval {low:+.1f} to {high:+.1f}{test}; {one['gain_from']}). {cost}."
    )


def _size(record: Mapping[str, Any]) -> str:
    evidence = record["evidence"]
    size = evidence["images_a_class"]
    large = record["case"] in (2, 4)
    return (
        f"Size: {size:,.0f} training images per class on average, {'large' if large else 'small'} "
        f"(large from {LARGE:,})."
    )


def _likeness(record: Mapping[str, Any]) -> str:
    evidence = record["evidence"]
    alike = record["case"] in (1, 2)
    word = "like" if alike else "unlike"
    text = f"Likeness: {word} what the network was trained on: "
    if evidence["likeness_by"] == "confidence":
        than = "at least" if alike else "below"
        text += (
            f"the mean confidence of its own classifier is {evidence['confidence']:.2f}, {than} "
            f"{ALIKE:g}"
        )
    else:
        text += (
            "it has no classifier of its own; by LogME, the layer of the best codes is "
            f"{evidence['best_layer_log_me']}"
        )
    over = evidence["last_over_middle"]
    if over is not None:
        text += (
            f"; a linear probe of the last layer is {abs(over):.1f} points "
            f"{'above' if over >= 0 else 'below'} one of the middle layer"
        )
    return f"{text}."


def _rule(record: Mapping[str, Any]) -> str:
    """Name the case and its rule of thumb."""
    case = record["case"]
    return (
        f"By the rule of thumb this is case {case}, {record['case_name']}: {RULES[case]}. The "
        "advice follows the measurements above and below, not the rule."
    )


def _linear(record: Mapping[str, Any]) -> list[str]:
    base = record["options"][0]
    others = [one for one in record["options"][1:] if one["method"] != "finetune"]
    wider = [one for one in others if one["strategy"] != "last layer"]
    if not wider:
        return ["Only the last layer's codes are there: LAYERS=all would show what others add."]
    best = max(wider, key=lambda one: one["gain_points"])
    low, high = best["interval"]
    sure = low > 0 or high < 0
    return [
        f"Of the wider linear options the best is {best['method']} on {best['strategy']}: "
        f"{best['gain_points']:+.1f} points ({low:+.1f} to {high:+.1f}) against "
        f"{base['method']} on the last layer, {'significant' if sure else 'not significant'}."
    ]


def _training(record: Mapping[str, Any]) -> list[str]:
    said = []
    base = record["options"][0]["method"]
    for one in record["options"]:
        if one["method"] != "finetune" or one["command"] == record["strategy"]["command"]:
            continue
        name = one["strategy"].capitalize()
        if one["gain_points"] is None:
            said.append(f"{name}: {one['gain_from']}. To measure it: {one['command']}")
            continue
        low, high = one["interval"]
        verdict = "significantly" if one["p"] <= 0.05 else "not significantly"
        word = "better" if one["gain_points"] >= 0 else "worse"
        said.append(
            f"{name}: {one['gain_points']:+.1f} points against {base} ({low:+.1f} to {high:+.1f}; "
            f"{one['gain_from']}), {verdict} {word} (p = {one['p']:.2g})."
        )
    return said


def _networks(record: Mapping[str, Any]) -> list[str]:
    ranking = record["ranking"]
    names = [network_label(one) for one in ranking]
    said = [
        f"Of the networks whose codes are here, LogME ranks {listed(names)} in this order, best "
        "first."
    ]
    found = [one for one in record["agreement"] if one["score"] == "log_me"]
    for one in found:
        if one["weighted"] is not None:
            said.append(
                f"Against the measured test accuracy ({one['method']}, {one['n_networks']} "
                f"networks) that order has a weighted Kendall tau of {one['weighted']:.2f}."
            )
    if not found:
        said.append(
            "How well that foretells test accuracy is shown once two of them have been run: make "
            f"compare MODELS={','.join(dict.fromkeys(one['model'] for one in ranking))}."
        )
    return said


def options_table(record: Mapping[str, Any]) -> Table:
    """Lay the options out as an aligned plain-text table, ``*`` at the one advised."""
    lines = [["", "strategy", "method", "held out", "gain", "interval", "cost s"]]
    for one in record["options"]:
        base = one is record["options"][0]
        tried = one["gain_points"] is not None and not base
        low, high = one["interval"] or (0.0, 0.0)
        lines.append(
            [
                "*" if one["command"] == record["strategy"]["command"] else "",
                one["strategy"],
                one["method"],
                f"{one['accuracy']:.4f}" if one["accuracy"] is not None else "-",
                f"{one['gain_points']:+.1f}" if tried else "-",
                f"{low:+.1f} to {high:+.1f}" if tried else "-",
                f"{one['cost_s']:.0f}",
            ]
        )
    return aligned(lines, text_columns=3)


def ranking_table(record: Mapping[str, Any]) -> Table:
    """Lay the networks out as an aligned plain-text table, best score first."""
    ranking = record["ranking"]
    methods = sorted({method for one in ranking for method in one["measured"]})
    lines = [["network", "LogME", "probe", "confidence", "images/s", *methods]]
    for one in ranking:
        rate = one["seconds_per_image"]
        lines.append(
            [
                network_label(one),
                f"{one['log_me']:.4f}",
                f"{one['probe']:.4f}",
                _number(one["confidence"], 2),
                f"{1 / rate:.0f}" if rate else "-",
                *(_number(one["measured"].get(method), 4) for method in methods),
            ]
        )
    return aligned(lines, text_columns=1)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
