"""What the advice says, in sentences and tables; every word follows from the record's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.words import listed
from ..notation import (
    DASH,
    count,
    duration,
    number,
    p_equals,
    share,
    signed,
    signed_interval,
)
from ..results.measures import ALPHA
from ..results.tables import Cell, Column, Figures, Table, number_cell, percent_cell
from .cases import ALIKE, LARGE

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
    said.append("The test split was not used.")
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
    cost = f"Cost: about {duration(one['cost_s'])} with nothing cached ({one['cost_from']})"
    if one["command"] == base["command"]:
        return f"Expected accuracy: {share(one['accuracy'])} (cross-validated on train). {cost}."
    gain = f"{signed(one['gain_points'])} points over {base['method']} on the last layer"
    test = f", {p_equals(one['p'])}" if one["p"] is not None else ""
    return (
        f"Gain: {gain} (95 % confidence interval {_ends(one)}{test}; {one['gain_from']}). {cost}."
    )


def _ends(one: Mapping[str, Any]) -> str:
    """Write the interval of a gain."""
    low, high = one["interval"]
    return signed_interval(low / 100, high / 100)


def _size(record: Mapping[str, Any]) -> str:
    evidence = record["evidence"]
    size = evidence["images_a_class"]
    large = record["case"] in (2, 4)
    return (
        f"Size: {count(size)} training images per class on average, "
        f"{'large' if large else 'small'} (large from {LARGE:,})."
    )


def _likeness(record: Mapping[str, Any]) -> str:
    evidence = record["evidence"]
    alike = record["case"] in (1, 2)
    word = "similar to" if alike else "different from"
    text = f"Similarity: {word} the images that the network was trained on. "
    if evidence["likeness_by"] == "confidence":
        than = "at least" if alike else "below"
        text += (
            f"The mean confidence of its own classifier is {number(evidence['confidence'], 2)}, "
            f"{than} {ALIKE:g}"
        )
    else:
        text += (
            "It has no classifier of its own. The layer with the highest LogME is "
            f"{evidence['best_layer_log_me']}"
        )
    over = evidence["last_over_middle"]
    if over is not None:
        text += (
            f". A linear probe of the last layer is {number(abs(over), 1)} points "
            f"{'above' if over >= 0 else 'below'} one of the middle layer"
        )
    return f"{text}."


def _rule(record: Mapping[str, Any]) -> str:
    """Name the case and its rule of thumb."""
    case = record["case"]
    return (
        f"The usual rule for this case (case {case}, {record['case_name']}): {RULES[case]}. The "
        "advice follows the measurements, not the rule."
    )


def _linear(record: Mapping[str, Any]) -> list[str]:
    base = record["options"][0]
    others = [one for one in record["options"][1:] if one["method"] != "finetune"]
    wider = [one for one in others if one["strategy"] != "last layer"]
    if not wider:
        return [
            "Only the codes of the last layer were compared; LAYERS=all compares the others too."
        ]
    best = max(wider, key=lambda one: one["gain_points"])
    low, high = best["interval"]
    sure = low > 0 or high < 0
    return [
        f"Best linear head on more layers: {best['method']} on {best['strategy']}, "
        f"{signed(best['gain_points'])} points ({_ends(best)}) against "
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
        verdict = "significantly" if one["p"] <= ALPHA else "not significantly"
        word = "better" if one["gain_points"] >= 0 else "worse"
        said.append(
            f"{name}: {signed(one['gain_points'])} points against {base} ({_ends(one)}; "
            f"{one['gain_from']}), {verdict} {word} ({p_equals(one['p'])})."
        )
    return said


def _networks(record: Mapping[str, Any]) -> list[str]:
    ranking = record["ranking"]
    names = [network_label(one) for one in ranking]
    said = [f"Networks by LogME, best first: {listed(names)}."]
    found = [one for one in record["agreement"] if one["score"] == "log_me"]
    for one in found:
        if one["weighted"] is not None:
            said.append(
                f"Against the measured test accuracy ({one['method']}, {one['n_networks']} "
                "networks) this ranking has a weighted Kendall tau of "
                f"{number(one['weighted'], 2)}."
            )
    if not found:
        said.append(
            "How well LogME predicts test accuracy is shown once two of them have been run: make "
            f"compare MODELS={','.join(dict.fromkeys(one['model'] for one in ranking))}."
        )
    return said


def options_table(record: Mapping[str, Any]) -> Table:
    """Lay the options out as an aligned plain-text table, ``*`` at the one advised."""
    return options_figures(record).plain()


def options_figures(record: Mapping[str, Any]) -> Figures:
    """Give the strategies that were weighed, what each is expected to gain and what it costs."""
    rows = []
    for at, one in enumerate(record["options"]):
        advised = one["command"] == record["strategy"]["command"]
        tried = at > 0 and one["gain_points"] is not None
        low, high = one["interval"] or (0.0, 0.0)
        rows.append(
            [
                Cell(str(one["strategy"]), mark="advised" if advised else ""),
                Cell(str(one["method"])),
                percent_cell(one["accuracy"]),
                Cell(signed(one["gain_points"]), one["gain_points"]) if tried else Cell(DASH),
                Cell(signed_interval(low / 100, high / 100), low) if tried else Cell(DASH),
                Cell(duration(one["cost_s"]), one["cost_s"]),
            ]
        )
    columns = [
        Column("Strategy", numeric=False),
        Column("Method", numeric=False),
        Column("Held out, %", "cross-validated accuracy on train"),
        Column("Gain", "expected difference from the first row, in points"),
        Column("95 % CI", "confidence interval of the gain"),
        Column("Cost", "estimated time with nothing cached, extraction of the codes included"),
    ]
    return Figures(columns, rows)


def ranking_table(record: Mapping[str, Any]) -> Table:
    """Lay the networks out as an aligned plain-text table, best score first."""
    return ranking_figures(record).plain()


def ranking_figures(record: Mapping[str, Any]) -> Figures:
    """Give the networks with their scores, and the accuracy on test where it was measured."""
    ranking = record["ranking"]
    methods = sorted({method for one in ranking for method in one.get("measured", {})})
    rows = []
    for one in ranking:
        seconds = one.get("seconds_per_image")
        rate = 1 / seconds if seconds else None
        measured = one.get("measured", {})
        rows.append(
            [
                Cell(network_label(one)),
                number_cell(one.get("log_me")),
                percent_cell(one.get("probe")),
                number_cell(one.get("confidence"), 2),
                number_cell(rate, 0),
                *(percent_cell(measured.get(method)) for method in methods),
            ]
        )
    columns = [
        Column("Network", numeric=False),
        Column("LogME", "log maximum evidence per image; higher is better"),
        Column("Probe, %", "cross-validated accuracy of a linear probe on train"),
        Column("Confidence", "mean confidence of the network's own classifier"),
        Column("Images/s", "rate of extraction"),
        *(Column(f"{method}, %", "accuracy on test") for method in methods),
    ]
    return Figures(columns, rows)
