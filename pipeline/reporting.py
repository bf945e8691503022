"""What a report shows, brought up to date: the comparison, and a record per kind of evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import SettingsError
from .preparation import coded
from .settings import (
    METHODS,
    AdviseSettings,
    CompareSettings,
    CurveSettings,
    LabelsSettings,
    LayersSettings,
    MapSettings,
    ReportSettings,
    from_mapping,
)
from .stages import STAGES, Chosen

if TYPE_CHECKING:
    from .compare.runs import Network
    from .context import Context

# What a report compares and draws where there is no comparison or curve yet: it takes seconds.
COMPARED_HEADS = tuple(one for one in CompareSettings().methods if one in METHODS)
QUICK_CURVE = CurveSettings(methods=("svm",), draws=5)


def left_out(context: Context, network: Network, asked: Sequence[str]) -> list[str]:
    """Name the evidence that would take many minutes, of which there is none yet; it is said."""
    from .heads.linear import is_large

    codes, n_classes = network.codes, context.manifest.n_classes
    per_image = codes.matrix_bytes // (4 * max(1, len(codes)) * int(codes.config["n_views"]))
    if not is_large(len(codes), per_image, n_classes):
        return []
    kinds = {"labels": "mislabelled", "layers": "layers", "curve": "curve", "advise": "advise"}
    left = [
        one
        for one, kind in kinds.items()
        if one in asked and not list(context.folder.glob(f"{kind}-*.json"))
    ]
    if left:
        context.say(
            f"left out: {', '.join(left)}. On {len(codes):,} images of {n_classes:,} classes each "
            "of them takes minutes of fitting. "
            f"{context.command_for(left[0])} measures the first; the next report takes it in."
        )
    return left


def current_comparison(chosen: Chosen, context: Context, networks: Sequence[Network]) -> str:
    """Bring the comparison up to date, with the methods it has unless others are asked for."""
    from .compare.compare import compare, comparison_name
    from .results.names import named

    asked = chosen[CompareSettings]
    usual = comparison_name(context, networks, splits=asked.splits, test=asked.test)
    name, _ = named(context, usual)
    if asked.methods == COMPARED_HEADS:
        try:
            text = (context.folder / f"{name}.json").read_text(encoding="utf-8")
            origin = json.loads(text)["provenance"]
            asked = replace(asked, methods=tuple(origin["settings"]["methods"]))
            context = replace(context, command=str(origin["command"]))  # it names the methods
        except (OSError, ValueError, KeyError, TypeError):
            context.say(
                "There is no comparison yet: linear and other heads are compared first. "
                f"{context.command_for('compare')} also fine-tunes the network and trains it from "
                "scratch, which takes minutes or hours."
            )
    return str(compare(context, networks, asked)["name"])


def makers(
    chosen: Chosen, context: Context, network: Network, comparison: str
) -> dict[str, Callable[[], dict[str, Any] | None]]:
    """Give, for each kind of evidence, what makes its record or takes the one that is there."""
    every = replace(context.codes, layers=("all",))

    def look() -> None:
        from .audit import audit as audited
        from .report.gather import find_audit

        found = find_audit(context.folder)
        if found is None or found.get("n_images") != context.manifest.n_images:
            audited(context)

    def doubtful() -> dict[str, Any]:
        from .evidence.labels import find_mislabelled

        return find_mislabelled(
            context, network.codes, _as_before(context, "mislabelled", LabelsSettings())
        )

    def probed() -> dict[str, Any]:
        from .evidence.layers import probe_layers

        found, codes = coded(replace(context, codes=every))
        return probe_layers(found, codes, _as_before(context, "layers", LayersSettings()))

    def placed() -> dict[str, Any]:
        from .evidence.map import map_codes

        return map_codes(context, network.codes, _as_before(context, "map", MapSettings()))

    def grown() -> dict[str, Any]:
        from .curve.curve import curve

        return curve(context, network, _as_before(context, "curve", QUICK_CURVE))

    def advised() -> dict[str, Any]:
        settings = _as_before(context, "advise", AdviseSettings(budget="0"))
        call = STAGES["advise"].run(chosen.replaced(every, settings))
        found: dict[str, Any] = call.record
        return found

    def explained() -> dict[str, Any]:
        from .explain.mistakes import explain_mistakes
        from .report.gather import best_run

        best, most = best_run(context, comparison), chosen[ReportSettings].gallery
        return explain_mistakes(context, best.path, best.record, best.predictions, most)

    return {
        "audit": look, "labels": doubtful, "layers": probed, "map": placed, "curve": grown,
        "advise": advised, "explain": explained,
    }  # fmt: skip


def _as_before(context: Context, kind: str, usual: Any) -> Any:
    """Give the settings of the latest record of a kind, so that a report keeps it; else `usual`."""
    found = []
    for path in context.folder.glob(f"{kind}-*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["kind"] == kind and record["seed"] == context.seed:
                used = record["provenance"]["settings"]
                found.append((str(record["provenance"]["date"]), path.name, used))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    try:
        return from_mapping(type(usual), max(found)[2]) if found else usual
    except SettingsError:  # of another version
        return usual
