"""Advice: which strategy, which layers, which network, what it gains and costs, and why.

Places the data set in the four cases (:mod:`cnn_codes.advise.cases`), ranks the networks whose
codes are there without training them, cross-validates the linear options on train, and tries
training on a part of it (:mod:`.trial`). Nothing of the test split is used, not even for the
ranking: what runs measured on test is only set next to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import load_card
from ..compare.compare import comparison_name
from ..compare.runs import Network
from ..context import Context
from ..datasets import SPLITS, resplit, uncut
from ..errors import ResultError
from ..files import digest_of, digest_of_arrays
from ..heads.examples import mean_view
from ..heads.rows import rows_of
from ..results.frame import framed, known, write_framed
from ..results.names import named
from ..results.records import plain
from ..settings import AdviseSettings, LayersSettings, as_dict
from .cases import place
from .likeness import familiarity, source_probabilities
from .options import choose, linear_options
from .ranking import agreement, measured_of, order
from .sample import Sample
from .trial import tried_options
from .words import sentences

VERSION = 6  # of how the figures are made; part of the fingerprint
MOST_IMAGES = 3000  # that scores and probes are taken of: a minute on two cores
TRAIN, VAL, TEST = range(len(SPLITS))


def advise(
    context: Context, networks: Sequence[Network], settings: AdviseSettings
) -> dict[str, Any]:
    """Advise on one data set.

    Parameters
    ----------
    context : Context
        The images and the machine.
    networks : sequence of Network
        At least one, with codes current for the data; those with all layers can be advised to be
        used so.
    settings : AdviseSettings
        ``folds`` and ``jobs`` matter here.

    Returns
    -------
    dict
        The record as written to ``results/<data>/advise-....json``: ``case``, ``case_name``,
        ``evidence`` (size and likeness), ``layers`` (accuracy of each, cross-validated),
        ``ranking`` (networks, best first), ``agreement``, ``options`` (each with what it is
        gains and costs), ``strategy``, ``expected``, ``sentences``. ``reused`` is set
        where it was there already.

    Raises
    ------
    HeadError
        A class with fewer than two different training images.
    """
    sample = _sample(context, networks[0], settings)
    fingerprint = _fingerprint(context, networks, settings, sample)
    name, subject = named(context, _name(context, networks), fingerprint=fingerprint)
    path = context.folder / f"{name}.json"
    measured = [measured_of(context.folder, _identity(context, network)) for network in networks]
    earlier = known(path, fingerprint, kind="advise")
    if earlier is not None and _same_runs(earlier, measured):
        return earlier
    scored = []
    with context.progress("scores", len(networks), "networks") as meter:
        for network, found in zip(networks, measured, strict=True):
            scored.append(_scored(context, network, sample, settings) | {"measured": found})
            meter.advance()
    ranking = order(scored)
    chosen = networks[scored.index(ranking[0])]
    layers = _layers(context, chosen, sample, settings)
    case = place(
        images_a_class=sample.images_a_class,
        confidence=ranking[0]["confidence"],
        log_me={one["layer"]: one["log_me"] for one in layers},
    )
    options = linear_options(context, chosen, sample, settings)
    options += tried_options(context, chosen, sample, options[0], settings)
    best = choose(options)
    body: dict[str, Any] = {
        "subject": subject,
        "model": chosen.model,
        "seed": context.seed,
        "class_names": list(context.manifest.class_names),
        "case": case.number,
        "case_name": case.name,
        "evidence": {
            "n_train": sample.n_train,
            "n_classes": sample.n_classes,
            "images_a_class": sample.images_a_class,
            "n_used": len(sample.rows),
            "confidence": ranking[0]["confidence"],
            "entropy": ranking[0]["entropy"],
            "likeness_by": case.by,
            "last_over_middle": _last_over_middle(layers),
            "best_layer": max(layers, key=lambda one: one["accuracy"])["layer"],
            "best_layer_log_me": max(layers, key=lambda one: one["log_me"])["layer"],
        },
        "layers": layers,
        "ranking": ranking,
        "agreement": agreement(scored),
        "options": [asdict(one) for one in options],
        "strategy": asdict(best),
        "expected": {
            "gain_points": best.gain_points,
            "interval": best.interval,
            "cost_s": best.cost_s,
        },
        "warnings": list(context.warnings),
    }
    body = plain(body)
    body["sentences"] = sentences(body | {"data": context.manifest.name})
    record = framed(
        context, "advise", name, body, fingerprint=fingerprint,
        settings=as_dict(settings) | as_dict(context.data),
    )  # fmt: skip
    return write_framed(path, record)


def _name(context: Context, networks: Sequence[Network]) -> str:
    """Name the advice by the networks it is on; a digest tells apart other weights."""
    name = "advise" + comparison_name(context, networks).removeprefix("compare")
    weights = [network.asked.weights for network in networks[1:]]
    return name if set(weights) <= {"default"} else f"{name}-{digest_of(weights)[:6]}"


def _sample(context: Context, network: Network, settings: AdviseSettings) -> Sample:
    manifest = context.manifest
    rows = rows_of(manifest, network.codes)
    # What stage two trains on: val too, unless the data set brings its own.
    train = rows.split == TRAIN if manifest.val_from == "data" else rows.split != TEST
    used = np.flatnonzero(train)
    n_train = len(used)
    if n_train > MOST_IMAGES:
        cut = resplit(
            rows.labels[used],
            rows.keys[used],
            MOST_IMAGES / n_train,
            context.seed,
            class_names=manifest.class_names,
        )
        thin = uncut(rows.labels[used], rows.keys[used], 2)  # of one image: they stay in train
        used = used[(cut == TEST) | np.isin(rows.labels[used], thin)]  # the share asked for
    return Sample(
        rows=used,
        labels=rows.labels[used],
        groups=rows.groups[used],
        n_folds=settings.folds,
        seed=context.seed,
        n_train=n_train,
        images_a_class=n_train / manifest.n_classes,
        names=manifest.class_names,
    )


def _fingerprint(
    context: Context, networks: Sequence[Network], settings: AdviseSettings, sample: Sample
) -> str:
    images = networks[0].codes.sha256[sample.rows]
    return digest_of(
        {
            "version": VERSION,
            "codes": [network.codes.fingerprint for network in networks],
            "rows": digest_of_arrays(images, sample.labels),
            "n_train": sample.n_train,
            "classes": sample.names,
            "settings": as_dict(settings, affects="bytes"),
            "seed": context.seed,
        }
        | context.manifest.group_fields
    )


def _same_runs(record: Mapping[str, Any], measured: Sequence[Mapping[str, float]]) -> bool:
    """Whether the runs that a record shows are those that are there now."""
    shown = [one["measured"] for one in record["ranking"]]
    return sorted(map(digest_of, shown)) == sorted(map(digest_of, measured))


def _identity(context: Context, network: Network) -> dict[str, Any]:
    """Name a network as the records of its runs do."""
    return {
        "model": network.model,
        "weights": network.asked.weights,
        "views": network.asked.views,
        "size": int(network.codes.config["size"]),
        "seed": context.seed,
    }


def _scored(
    context: Context, network: Network, sample: Sample, settings: AdviseSettings
) -> dict[str, Any]:
    """Score one network by the codes of its last layer, without training it."""
    from ..heads.held_out import held_out
    from .transfer import log_me

    codes = network.codes
    layer = "final" if "final" in codes.layers else codes.layers[-1]
    if len(codes.damaged_rows()):
        raise ResultError(f"{codes.path} is damaged.", todo="make features repairs it")
    block = _rows(network, layer, sample)  # (N, V, D)
    final = mean_view(block)
    source = source_probabilities(context, network, final) if layer == "final" else None
    known = familiarity(source) if source is not None else None
    probe = held_out(
        block, sample.labels, sample.folds, method="softmax", n_classes=sample.n_classes,
        jobs=settings.jobs, balanced=settings.class_weight == "balanced", progress=context.progress,
    )  # fmt: skip
    card = load_card(network.asked, **context.source)
    return _identity(context, network) | {
        "log_me": log_me(final, sample.labels),
        "probe": probe.accuracy,
        "confidence": known.confidence if known else None,
        "entropy": known.entropy if known else None,
        "code_dim": final.shape[1],
        "n_parameters": card.n_parameters,
        "seconds_per_image": network.seconds_per_image,
    }


def _rows(network: Network, layer: str, sample: Sample) -> NDArray[np.float32]:
    """Codes (N, V, D) of one layer."""
    block = network.codes[layer]
    shape = (len(sample.rows), int(network.codes.config["n_views"]), -1)
    return np.asarray(block[sample.rows], np.float32).reshape(shape)


def _layers(
    context: Context, network: Network, sample: Sample, settings: AdviseSettings
) -> list[dict[str, Any]]:
    """Judge each layer that there are codes of, first to last: a linear probe, and LogME.

    The probe's record is that of ``make layers``, where advice rests on the same images.
    """
    from ..evidence.layers import probe_layers
    from ..heads.held_out import held_out
    from .transfer import log_me

    layers = network.codes.layers
    if len(sample.rows) == sample.n_train:
        asked = LayersSettings(folds=settings.folds, jobs=settings.jobs)
        found = probe_layers(context, network.codes, asked)
        accuracy = {one["layer"]: float(one["accuracy"]) for one in found["layers"]}
    else:
        accuracy = {
            layer: held_out(
                _rows(network, layer, sample), sample.labels, sample.folds, method="softmax",
                n_classes=sample.n_classes, jobs=settings.jobs,
            ).accuracy
            for layer in layers
        }  # fmt: skip
    out = []
    for at, layer in enumerate(layers):
        block = mean_view(_rows(network, layer, sample))
        out.append(
            {
                "layer": layer,
                "depth": at / max(1, len(layers) - 1),
                "code_dim": block.shape[1],
                "accuracy": accuracy[layer],
                "log_me": log_me(block, sample.labels),
            }
        )
    return out


def _last_over_middle(layers: Sequence[Mapping[str, Any]]) -> float | None:
    """By how many points a probe of the last layer beats one of the middle layer."""
    if len(layers) < 3:
        return None
    return 100 * float(layers[-1]["accuracy"] - layers[len(layers) // 2]["accuracy"])
