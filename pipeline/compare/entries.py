"""From the record of a run to its line in the comparison: figures, costs, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..backbones import load_card
from ..backbones.graph import graph_path
from ..context import Context
from ..results.measures import Measure
from ..results.records import FIGURES, MORE_FIGURES
from ..results.runs import read_record
from .runs import Done, Network

FLOAT_BYTES = 4
_PICTURES = (".predictions.csv", ".train.safetensors", ".svg", ".png")  # not needed to predict


def entry_of(
    context: Context, network: Network, method: str, done: Done, measure: Measure
) -> dict[str, Any]:
    """Sum up a run, or the summary of several, as one line of the comparison.

    Parameters
    ----------
    context, network
        What it was run on.
    method : str
        As it was asked for.
    done : Done
        What came of it.
    measure : Measure
        The figure that is compared.

    Returns
    -------
    dict
        ``method``, ``model``, ``layers``, ``views``, ``size``, ``run``, ``runs`` (each split's),
        the test figures by their names, ``accuracy_ci95`` (one split) or ``values`` (of the
        measure, one per split, or per training seed, whose runs are ``repeats``) and its standard
        deviation (``accuracy_sd``, ``macro_f1_sd`` ...); ``times_s`` (``codes``, ``fit``,
        ``predict``), ``images_per_s`` (file to probabilities, the network at stage one's rate),
        ``disk_bytes`` (all files that prediction reads), ``n_trained`` and ``n_network``
        parameters, ``reused``, ``fingerprint``, ``asked``.
    """
    record = done.record
    test = record["metrics"]["test"]
    summary = record["kind"] == "summary"
    runs = list(record["runs"]) if summary else [record["run"]]
    first = read_record(done.first)
    n_test = sum(first["splits"]["test"].values())
    times = {key: record["times_s"].get(key) for key in ("codes", "fit", "predict")}
    per_image_s = network.seconds_per_image + times["predict"] / n_test
    own_bytes, n_network = _sizes(context, network, done.first, first)
    entry = {
        "method": method,
        "model": record["model"],
        "layers": record["layers"],
        "unfreeze": record.get("unfreeze"),
        "views": record["views"],
        "size": record["size"],
        "run": record["run"],
        "runs": runs,
        **{key: test[key] for key in (*FIGURES, *MORE_FIGURES) if key in test},
        "accuracy_ci95": test.get("accuracy_ci95"),
        "times_s": times,
        "images_per_s": 1 / per_image_s if per_image_s > 0 else None,
        "disk_bytes": own_bytes,
        "n_trained": int(first["n_parameters"]),
        "n_network": n_network,
        "n_test": n_test,
        "reused": bool(record.get("reused")),
        "fingerprint": record["fingerprint"],
        "asked": done.asked,
    }
    if "cv" in record:
        entry["cv"] = {key: record["cv"][key] for key in ("folds", "repeats", "values")}
    if "repeats" in record:
        entry |= {key: record[key] for key in ("repeats", "fingerprints")}
    if "spread" in record:
        spread = record["spread"]["test"]
        entry["values"] = spread[measure.key]["values"]
        entry |= {f"{key}_sd": spread[key]["sd"] for key in ("accuracy", measure.key)}
    return entry


def _sizes(
    context: Context, network: Network, path: Path, record: Mapping[str, Any]
) -> tuple[int, int]:
    """Bytes of the files that prediction reads, and the parameters of the whole network."""
    own = sum(
        (path.parent / name).stat().st_size
        for name in record.get("files", {})
        if not name.endswith(_PICTURES)
    )
    n_network = record.get("n_network_parameters")
    if n_network is not None:  # a trained network's file is whole by itself
        return own, int(n_network)
    backbone, n_parameters = network_bytes(context, network)
    return own + backbone, n_parameters


def network_bytes(context: Context, network: Network) -> tuple[int, int]:
    """Bytes of a frozen network on disk, and its number of parameters; of several, the sums.

    The exported graph where it is there, which is what stage one reads on a CPU; else four
    bytes a parameter.
    """
    n_bytes, n_parameters = 0, 0
    for asked in network.asked.of_each():
        card = load_card(asked, **context.source)
        preprocessing = card.preprocessing.adapted(size=asked.size, resize=asked.resize)
        layers, pool = card.resolve(asked.layers), card.pooling(asked.pool)
        graph = graph_path(card, layers, pool, preprocessing, cache=context.cache)
        n_bytes += graph.stat().st_size if graph.is_file() else FLOAT_BYTES * card.n_parameters
        n_parameters += card.n_parameters
    return n_bytes, n_parameters
