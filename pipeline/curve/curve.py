"""Learning curves: a figure against labelled images per class, and where one method overtakes.

Heads are fitted on the codes that are there; methods that train the network go through stage
three on a manifest of the draw, whose trunk runs once for each image, whatever draws it is in.
Everything is chosen within the draw; test is looked at once for each fit. All images that are not
test can be drawn, those of a val of the set's own too: they are labels that somebody made.

Every fit is kept when it is done (:mod:`cnn_codes.curve.pieces`), so a curve that was killed
goes on where it was, and one of more sizes or draws adds to what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare.compare import comparison_name
from ..compare.runs import Network, is_head
from ..context import Context
from ..datasets import Manifest
from ..errors import SettingsError
from ..files import digest_of
from ..results.frame import framed, known, write_framed
from ..results.names import named
from ..results.records import plain
from ..results.resampling import resampled, resamples
from ..settings import CurveSettings, as_dict
from .crossing import Curve, covariance_of_means, crossing, interval_of_means
from .fits import fit_heads, train_networks
from .pieces import Piece, Pieces
from .plan import Plan, plan_of
from .power_law import FEWEST_SIZES, extrapolated
from .words import draw_picture, sentences

SCHEMA = 1


def curve(context: Context, network: Network, settings: CurveSettings) -> dict[str, Any]:
    """Measure every method at every size on every draw, or take the fits that are there.

    Parameters
    ----------
    context : Context
        The images and the machine.
    network : Network
        With its codes, current for the data.
    settings : CurveSettings
        Methods, sizes, draws.

    Returns
    -------
    dict
        The record as written to ``results/<data>/curve-....json``: ``sizes``, ``n_train_total``,
        ``n_test``, ``draws``, ``metric``, ``methods`` (its value of each draw at each size, mean,
        sd, interval, seconds), ``crossings`` (:func:`cnn_codes.curve.crossing.crossing`),
        ``sentences`` and so on; next to it the picture, ``.svg``. ``reused`` is set where it was
        there already, and ``n_new`` is the number of fits that had to be made.

    Raises
    ------
    SettingsError
        An unknown method, or sizes that are none.
    DataError
        A class with fewer than two different training images.
    HeadError, TrainingError
        A fit that cannot be made; those made before are kept.
    """
    if not settings.methods:
        raise SettingsError("METHODS is empty.", expected="at least one method")
    plan = plan_of(context, network, settings)
    fingerprint = digest_of(
        {"schema": SCHEMA, "keys": [task.key for task in plan.tasks], "sizes": plan.sizes}
    )
    name, subject = named(context, curve_name(context, network), fingerprint=fingerprint)
    path = context.folder / f"{name}.json"
    earlier = known(path, fingerprint, kind="curve")
    if earlier is not None and path.with_suffix(".svg").is_file():
        return earlier | {"n_new": 0}
    pieces = Pieces(context.folder / f"{name}.pieces.jsonl")
    missing = set(pieces.missing(task.key for task in plan.tasks))
    todo = [task for task in plan.tasks if task.key in missing]
    heads = [task for task in todo if is_head(task.method)]
    fit_heads(context, network, plan, heads, pieces, jobs=settings.jobs)
    train_networks(context, network, plan, [one for one in todo if one not in heads], pieces)
    record = framed(
        context, "curve", name, {"subject": subject} | _body(context, network, plan, pieces),
        fingerprint=fingerprint,
        settings=as_dict(settings) | as_dict(context.data) | as_dict(network.asked),
    )  # fmt: skip
    draw_picture(path.with_name(f"{name}.svg"), record)
    return write_framed(path, record) | {"n_new": len(todo)}


def curve_name(context: Context, network: Network) -> str:
    """Name a curve by what it is of; methods, sizes and draws are not in it."""
    return "curve" + comparison_name(context, [network]).removeprefix("compare")


def _body(context: Context, network: Network, plan: Plan, pieces: Pieces) -> dict[str, Any]:
    manifest, sizes = context.manifest, plan.sizes
    curves: dict[str, Curve] = {}
    methods: dict[str, Any] = {}
    warnings = dict.fromkeys(context.warnings)
    groups = manifest.groups_at(plan.rows.at[plan.test])
    counts = resamples(
        len(plan.test), groups=groups, n_classes=manifest.n_classes, seed=context.seed
    )
    for method, n_draws in plan.n_draws.items():
        found = list(_pieces_of(plan, pieces, method, n_draws))  # R lists of S
        one = curves[method] = _curve(plan, found, counts, manifest.n_classes)
        methods[method] = {
            "model": network.model,
            "sizes": sizes,
            "values": one.values.T,
            "mean": one.values.mean(axis=0),
            "sd": one.values.std(axis=0, ddof=1) if n_draws > 1 else None,
            "ci95": interval_of_means(one, seed=context.seed),
            "forecast": _forecast(one, plan),
            "fit_s": np.mean([[piece.fit_s for piece in draw] for draw in found], axis=0),
            "chosen": [[draw[at].chosen for draw in found] for at in range(len(sizes))],
        }
        told = [text for draw in found for piece in draw for text in piece.warnings]
        warnings |= dict.fromkeys(f"{method}: {text}" for text in told[:1])
    warnings |= dict.fromkeys(_remarks(manifest, plan))
    body: dict[str, Any] = {
        "model": network.model,
        "layers": list(network.asked.layers),
        "views": network.asked.views,
        "size": int(network.codes.config["size"]),
        "seed": context.seed,
        "class_names": list(manifest.class_names),
        "sizes": sizes,
        "n_train_total": [len(plan.draws[0].rows(plan.pool, size)) for size in sizes],
        "n_test": len(plan.test),
        "draws": max(plan.n_draws.values()),
        "metric": plan.measure.key,
        "methods": methods,
        "crossings": [
            crossing(
                curves[a],
                curves[b],
                sizes,
                names=(a, b),
                sign=plan.measure.sign,
                seed=context.seed,
            )
            for a, b in combinations(methods, 2)
        ],
        "warnings": list(warnings),
    }
    whole: dict[str, Any] = plain(body)
    whole["sentences"] = sentences(whole | {"data": manifest.name})
    return whole


def _curve(
    plan: Plan, found: Sequence[Sequence[Piece]], counts: NDArray[np.int32], n_classes: int
) -> Curve:
    """Measure the pieces of one method, draws (outer) by sizes (inner)."""
    key = plan.measure.key
    if key == "accuracy":
        hits = np.stack([[piece.right() for piece in draw] for draw in found])
        return Curve.of_hits(hits, counts)
    labels = plan.rows.labels[plan.test]
    once = np.ones((1, len(labels)), np.int32)
    values, samples = (
        np.array(
            [
                [
                    resampled(
                        labels, piece.table(n_classes), some, predicted=piece.classes(),
                        costs=plan.costs,
                    )[key]
                    for piece in draw
                ]
                for draw in found
            ]
        )
        for some in (once, counts)
    )  # fmt: skip
    return Curve(values[:, :, 0], samples.astype(np.float32))


def _forecast(one: Curve, plan: Plan) -> list[dict[str, float]] | None:
    """Extrapolate to twice and four times the largest size; None with few draws or sizes.

    Only figures from 0 to 1: the power law is one of the distance to 1.
    """
    covariance = covariance_of_means(one)
    if covariance is None or len(plan.sizes) < FEWEST_SIZES or plan.measure.lower:
        return None
    found = extrapolated(
        plan.sizes, one.values.mean(axis=0), covariance,
        [plan.sizes[-1] * factor for factor in (2, 4)],
        one_draw=float(one.values[:, -1].var(ddof=1)),
    )  # fmt: skip
    return [vars(point) for point in found]


def _pieces_of(plan: Plan, pieces: Pieces, method: str, n_draws: int) -> Iterator[list[Piece]]:
    """Give the pieces of one method, draw by draw, in the order of the sizes."""
    keys = {(t.draw, t.size): t.key for t in plan.tasks if t.method == method}
    for draw in range(n_draws):
        yield [pieces[keys[draw, size]] for size in plan.sizes]


def _remarks(manifest: Manifest, plan: Plan) -> list[str]:
    """Say where a size means less than it says."""
    counts = plan.pool.counts(manifest.n_classes)
    short = [
        f"{name} ({count:,})"
        for name, count in zip(manifest.class_names, counts.tolist(), strict=True)
        if count < plan.sizes[-1]
    ]
    remarks = []
    if short:
        shown = ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
        remarks.append(
            f"Some classes have fewer images than the largest size, {plan.sizes[-1]:,}; there they "
            f"give all they have: {shown}."
        )
    if plan.sizes[-1] >= counts.max() and max(plan.n_draws.values()) > 1:
        remarks.append(
            f"At {plan.sizes[-1]:,} images per class all draws contain the same images: the spread "
            "there is that of the seeds (folds of heads, training of networks) alone."
        )
    return remarks
