"""How good a linear probe of each layer is: where in the network the classes come apart.

Cross-validated on train alone, with the same folds for all layers; test is never looked at, so
the choice of a layer may rest on these figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..context import Context
from ..datasets import SPLITS
from ..notation import number, share
from ..settings import LayersSettings
from .record import Request

VERSION = 2
TRAIN, VAL, TEST = range(len(SPLITS))


def probe_layers(context: Context, codes: Codes, settings: LayersSettings) -> dict[str, Any]:
    """Measure a linear probe of every layer of the codes, or take the record that is there.

    Parameters
    ----------
    context : Context
        The images; its seed cuts the folds or draws the sample.
    codes : Codes
        Current for the images: with ``LAYERS=all`` those of
        all stages of the network, first to last.
    settings : LayersSettings
        Which head, and how many folds.

    Returns
    -------
    dict
        ``layers``, in the order of the codes: each with ``layer``, ``code_dim``, ``depth`` (0
        for the first of its network, 1 for the last), ``accuracy`` (held out, 0 to 1), ``sd``
        (over the folds), ``log_loss``, ``C`` (chosen on all held-out images; the figures of each
        fold are at the C that the other folds choose); ``best`` (its name), ``n_train``,
        ``folds``, ``method``; ``reused`` where it was there.

    Raises
    ------
    HeadError
        A class has fewer than two different training images.
    """
    request = Request("layers", VERSION, context, codes, settings)
    known = request.known()
    if known is not None:
        return known
    rows = request.rows
    # What stage two trains on: val too, unless the data set brings its own.
    train = rows.split == TRAIN if context.manifest.val_from == "data" else rows.split != TEST
    layers, folds, warnings = _probed(request, train)
    best = max(layers, key=lambda one: (one["accuracy"], one["depth"]))
    body = {
        "method": settings.probe,
        "n_train": int(train.sum()),
        "folds": folds,
        "layers": layers,
        "best": best["layer"],
        "warnings": warnings,
    }
    return request.write(body | {"sentences": _sentences(body, len(codes.networks))})


def _probed(
    request: Request, train: NDArray[np.bool_]
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Search every layer's C on the same folds: figures, number of folds, warnings."""
    import joblib

    from ..heads.folds import cut_folds
    from ..heads.held_out import held_out
    from ..heads.search import quiet_solvers

    context, codes, settings, rows = request.context, request.codes, request.settings, request.rows
    labels, names = rows.labels[train], context.manifest.class_names
    folds, notes = cut_folds(
        labels, rows.groups[train], folds=settings.folds, seed=context.seed, class_names=names
    )

    def one_layer(layer: str) -> tuple[dict[str, Any], list[str]]:
        block = codes.matrix([layer])[train]  # (n, V, D)
        found = held_out(block, labels, folds, method=settings.probe, n_classes=len(names), jobs=1)
        figures = {
            "layer": layer,
            "code_dim": int(block.shape[2]),
            "accuracy": found.accuracy,
            "sd": found.sd,
            "log_loss": found.log_loss,
            "C": found.C,
        }
        return figures, [f"{layer}: {text}" for text in found.warnings]

    codes.damaged_rows()  # looked for once, before the threads ask
    depths = {
        layer: at / max(1, len(some) - 1)
        for some in codes.networks.values()
        for at, layer in enumerate(some)
    }
    layers: list[dict[str, Any]] = []
    # A thread a layer: they share the memory map, and no solver holds the interpreter. Warnings'
    # filters are the process's, so they are set here, around the threads, and not in each alone.
    with quiet_solvers():
        tasks = (joblib.delayed(one_layer)(layer) for layer in codes.layers)
        jobs = settings.jobs or joblib.cpu_count()
        with context.progress("layers", len(codes.layers), "layers") as meter:
            for figures, texts in joblib.Parallel(jobs, prefer="threads", return_as="generator")(
                tasks
            ):
                layers.append(figures | {"depth": depths[figures["layer"]]})
                notes += texts
                meter.advance()
    return layers, len(folds), notes


def _sentences(body: dict[str, Any], n_networks: int) -> list[str]:
    layers = body["layers"]
    best = next(one for one in layers if one["layer"] == body["best"])
    how = f"{body['folds']}-fold cross-validation on {body['n_train']:,} training images"
    said = [
        f"Of {len(layers)} layers, a linear probe ({body['method']}) of {best['layer']} is the "
        f"most accurate: {share(best['accuracy'])} ({how})."
        if len(layers) > 1
        else f"A linear probe ({body['method']}) of {best['layer']} reaches "
        f"{share(best['accuracy'])} ({how})."
    ]
    if len(layers) > 1 and n_networks == 1:
        first, last = layers[0], layers[-1]
        gain = 100 * (last["accuracy"] - first["accuracy"])
        said.append(
            f"From the first layer ({first['layer']}, {share(first['accuracy'])}) to the last "
            f"({last['layer']}, {share(last['accuracy'])}) it "
            f"{'gains' if gain >= 0 else 'loses'} {number(abs(gain), 1)} points."
        )
    return said
