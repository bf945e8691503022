"""The Python API: one function for each make target, with the settings as keyword arguments.

>>> from cnn_codes import api  # doctest: +SKIP
>>> answer = api.svm(data="photos", layers="all")  # doctest: +SKIP
>>> answer.metrics["test"]["accuracy"]  # doctest: +SKIP

Joins the stages. Every function takes plain values, named as the settings in lower case, and gives
an answer (:mod:`cnn_codes.answers`) with figures, arrays, ``table()`` and a view for notebooks.
The command line does nothing but call these functions and print their answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .answers import (
    Advised,
    Answer,
    Audited,
    Compared,
    Features,
    Fitted,
    Images,
    Measured,
    Told,
    Verified,
    Written,
)
from .errors import (
    BackboneError,
    CacheError,
    DataError,
    DownloadError,
    HeadError,
    SettingsError,
    command_line,
)
from .notation import duration, number, size
from .settings import (
    METHODS,
    AdviseSettings,
    ClusterSettings,
    CodesSettings,
    CompareSettings,
    CurveSettings,
    DataSettings,
    ExplainSettings,
    ExportSettings,
    FinetuneSettings,
    HeadSettings,
    LabelSettings,
    LabelsSettings,
    LayersSettings,
    MachineSettings,
    MapSettings,
    NextSettings,
    PlaceSettings,
    PredictSettings,
    ReportSettings,
    RunsSettings,
    ServeSettings,
    TableSettings,
    from_mapping,
)
from .stages import STAGES, Chosen, stage

if TYPE_CHECKING:
    from .codes.reader import Codes
    from .compare.runs import Network
    from .context import Context
    from .predict.run import Predicted

__all__ = [
    "STAGES", "advise", "audit", "clean_cache", "compare", "curve", "data", "demo", "explain",
    "export",
    "features", "finetune", "heads", "label", "labels", "layers", "map_", "next_", "predict",
    "report", "runs", "serve", "softmax", "svm", "verify",
]  # fmt: skip

# What a report compares and draws where there is no comparison or curve yet: it takes seconds.
COMPARED_HEADS = tuple(one for one in CompareSettings().methods if one in METHODS)
QUICK_CURVE = CurveSettings(methods=("svm",), draws=5)
STAGE_ONE = (DataSettings, CodesSettings, MachineSettings, PlaceSettings)
STAGE_TWO = (DataSettings, CodesSettings, HeadSettings, MachineSettings, PlaceSettings)


# What the stages have in common


def context_of(chosen: Chosen, *, rehash: bool = False) -> Context:
    """Load the data set of a call, and join its settings to a context."""
    from .context import Context
    from .datasets import load_manifest
    from .heads.decide import check_decision

    given = chosen.settings
    machine = given.get(MachineSettings, MachineSettings())
    manifest = load_manifest(
        chosen[DataSettings],
        chosen[PlaceSettings],
        workers=machine.workers,
        rehash=rehash,
        progress=chosen.messages.progress,
    )
    context = Context(
        manifest=manifest,
        data=chosen[DataSettings],
        codes=given.get(CodesSettings, CodesSettings()),
        machine=machine,
        places=chosen[PlaceSettings],
        cluster=given.get(ClusterSettings, ClusterSettings()),
        messages=chosen.messages,
        command=chosen.command,
    )
    for one in given.values():
        check_decision(one, manifest.class_names)
    if context.data.group == "auto" and CodesSettings in given:
        return _grouped(context)
    return context


def _grouped(context: Context) -> Context:
    """Find the groups of GROUP=auto by the codes of the last layer, and cut the splits by them."""
    from .audit.clusters import near_groups
    from .codes.extract import extract

    first = context.codes.of_each()[0]  # of several networks, one is enough
    final = replace(first, layers=("final",))
    codes = extract(replace(context, codes=final)).codes
    manifest = context.manifest
    found = near_groups(codes, codes.labels, seed=context.seed, progress=context.progress)
    groups = np.full(manifest.n_images, -1)
    groups[~np.isin(manifest.sha256, np.array(list(codes.rejects), "S64"))] = found.groups
    context.say(
        f"GROUP=auto: {found.n_joined:,} of {len(codes):,} images form {found.n_groups:,} groups "
        f"of two or more (cosine of the codes above {number(found.threshold, 2)})."
    )
    return replace(context, manifest=manifest.with_groups(groups, found.how))


def coded(context: Context) -> tuple[Context, Codes]:
    """Bring the codes up to date and say what that took; the context then has all warnings."""
    from .audit import header_findings
    from .codes.extract import extract

    manifest, done = context.manifest, extract(context)
    for model, one in (done.parts or {"": done}).items():
        start = f"{model}: " if model else ""
        if one.n_new:
            rate = one.n_new / one.run_s
            context.say(
                f"{start}{one.n_new} images in {duration(one.run_s)} ({number(rate, 0)} images/s, "
                f"{one.engine}); {duration(one.start_s)} to start; {one.n_kept} were there."
            )
        else:
            text = f"{len(one.codes)} images were there; nothing to run."
            context.say(f"{start}all {text}" if model else f"All {text}")
    seen = header_findings(manifest, cache=context.cache)
    warnings = [*seen, *done.notes]
    rejects = [f"{reject.path}: {reject.reason}" for reject in manifest.rejects]
    rejects += [f"{path}: {reason}" for path, reason in done.rejects.items()]
    if rejects:
        warnings = [one for one in warnings if getattr(one, "kind", "") != "left-out"]
        shown = "; ".join(rejects[:5]) + ("; ..." if len(rejects) > 5 else "")
        warnings.append(f"{len(rejects)} images cannot be used and were left out: {shown}.")
    return replace(context, warnings=tuple(warnings)), done.codes


def networks_of(
    context: Context,
    asked: Sequence[CodesSettings],
    optional: Sequence[CodesSettings] = (),
    *,
    class_weight: str = "none",
) -> tuple[Context, list[Network]]:
    """Bring the codes of every network up to date; gather the warnings in the context.

    One of the `optional` networks that cannot be had is left out, and that is said. Who weighs the
    classes is not advised to do so.
    """
    from .audit.classes import followed
    from .compare.runs import Network

    networks: list[Network] = []
    warnings: dict[str, None] = {}
    for one in [*asked, *optional]:
        try:
            found, codes = coded(replace(context, codes=one))
        except (BackboneError, DownloadError, CacheError) as error:
            if one in asked:
                raise
            context.say(f"{one.model} is left out: {error.found}")
            continue
        networks.append(Network(one, codes))
        warnings |= dict.fromkeys(found.warnings)
    heeded = followed(tuple(warnings), class_weight)
    return replace(context, codes=asked[0], warnings=heeded), networks


def _need_one(chosen: Chosen, stage: str, what: str) -> None:
    """Refuse several networks before any work.

    Raises
    ------
    BackboneError
        MODEL names several.
    """
    codes, typed = chosen[CodesSettings], chosen.command
    first, named = codes.models[0], f" MODEL={codes.model}"
    todo = command_line(stage, {"DATA": chosen[DataSettings].data, "MODEL": first})
    if named in typed and not any("/" in layer for layer in codes.layers):
        todo = typed.replace(named, f" MODEL={first}")
    codes.need_one(what, todo)


def _reused(record: dict[str, Any]) -> str:
    return " (was there already)" if record.get("reused") else ""


# Data and codes


@stage(DataSettings, TableSettings, PlaceSettings, example="data DATA=hotdog OUT=labels.csv")
def data(chosen: Chosen) -> Images:
    """Fetch a data set, or read one of your own, and count its images."""
    context = context_of(chosen)
    for reject in context.manifest.rejects:
        context.say(f"left out: {reject.path}: {reject.reason}")
    if out := chosen[TableSettings].out:
        from .datasets.tables import write_table

        write_table(context.manifest, Path(out))
        context.say(out)
    return Images(context.manifest)


@stage(DataSettings, MachineSettings, PlaceSettings, example="audit DATA=photos")
def audit(chosen: Chosen) -> Audited:
    """Find what is wrong with the images."""
    from .audit import audit

    context = context_of(chosen)
    return Audited(context.manifest, audit(context))


@stage(*STAGE_ONE, ClusterSettings, example="features DATA=hotdog LAYERS=all VIEWS=flip")
def features(chosen: Chosen) -> Features:
    """Run the frozen network and cache the codes of every image."""
    context, codes = coded(context_of(chosen))
    return Features(context.manifest, codes, context.warnings)


@stage(DataSettings, PlaceSettings, example="verify DATA=hotdog")
def verify(chosen: Chosen) -> Verified:
    """Check the cache against the images and its own digests."""
    from .codes.verify import verify

    context = context_of(chosen, rehash=True)
    verdicts = verify(context)
    if not any(verdict.n_rows for verdict in verdicts):
        context.say(f"There are no codes of {context.manifest.name} in {context.cache}.")
    return Verified(tuple(verdicts))


@stage(PlaceSettings, example="clean-cache")
def clean_cache(chosen: Chosen) -> Told:
    """Remove all of the cache: codes, graphs, weights."""
    from .codes.clean import clear_cache

    cache = chosen[PlaceSettings].cache
    return Told((f"{cache}: removed {size(clear_cache(Path(cache)))}",))


# Heads and fine-tuning


def _fitted(context: Context, settings: HeadSettings) -> tuple[Context, list[dict[str, Any]]]:
    from .audit.classes import followed
    from .heads.run import fit_heads

    context, codes = coded(context)
    context = replace(context, warnings=followed(context.warnings, settings.class_weight))
    return context, fit_heads(context, codes, settings)


def _heads(chosen: Chosen) -> Fitted:
    context, records = _fitted(context_of(chosen), chosen[HeadSettings])
    if context.codes.precision == "int8":
        _say_effect(context, records)
    return Fitted(records, context.manifest, context.folder)


@stage(*STAGE_TWO, ClusterSettings, example="svm DATA=hotdog", fixed={"methods": ("svm",)})
def svm(chosen: Chosen) -> Fitted:
    """Fit a linear SVM on the codes."""
    return _heads(chosen)


@stage(*STAGE_TWO, ClusterSettings, example="softmax DATA=hotdog", fixed={"methods": ("softmax",)})
def softmax(chosen: Chosen) -> Fitted:
    """Fit softmax regression on the codes."""
    return _heads(chosen)


@stage(
    *STAGE_TWO, ClusterSettings, example="heads DATA=hotdog METHODS=svm,ridge,knn", methods=METHODS
)
def heads(chosen: Chosen) -> Fitted:
    """Fit every classical head on the codes."""
    return _heads(chosen)


def _say_effect(context: Context, records: Sequence[dict[str, Any]]) -> None:
    """Say what int8 changed in the accuracy of single runs."""
    from .compare.precision import precision_effect

    for record in records:
        if record.get("kind") != "summary":
            more = {"methods": (record["method"],), "precision": None}
            command = context.command_for("heads", more)
            context.say(precision_effect(context.folder, record, command))


def _trained(context: Context, settings: FinetuneSettings) -> dict[str, Any]:
    from .audit import header_findings
    from .audit.classes import followed
    from .finetune import finetune

    found = followed(header_findings(context.manifest, cache=context.cache), settings.class_weight)
    record: dict[str, Any] = finetune(replace(context, warnings=found), settings)
    return record


@stage(
    DataSettings, FinetuneSettings, CodesSettings, MachineSettings, PlaceSettings, ClusterSettings,
    example="finetune DATA=hotdog UNFREEZE=2",
)  # fmt: skip
def finetune(chosen: Chosen) -> Fitted:
    """Train the late layers, or the whole network, starting from the fitted probe."""
    if cluster := chosen[ClusterSettings].cluster:
        raise SettingsError(
            f"CLUSTER={cluster}: fine-tuning runs on one machine only.",
            expected="make finetune without CLUSTER, on all GPUs of this machine",
            todo=chosen.command.replace(f" CLUSTER={cluster}", "") or "leave CLUSTER out",
        )
    _need_one(chosen, "finetune", "fine-tuning")
    context = context_of(chosen)
    record = _trained(context, chosen[FinetuneSettings])
    return Fitted([record], context.manifest, context.folder)


@stage(
    *STAGE_TWO, FinetuneSettings, example="demo",
    data="elpv", methods=("svm", "softmax"), trunk_views="random:3", epochs=6, deepen=False,
)  # fmt: skip
def demo(chosen: Chosen) -> Fitted:
    """Fit SVM and softmax and fine-tune on the solar cells that a package brings."""
    _need_one(chosen, "demo", "the demo, which fine-tunes,")
    context, records = _fitted(context_of(chosen), chosen[HeadSettings])
    records.append(_trained(context, chosen[FinetuneSettings]))
    return Fitted(records, context.manifest, context.folder)


# Which method


def _compared(
    chosen: Chosen, context: Context, networks: Sequence[Network], settings: CompareSettings
) -> Compared:
    from .compare.compare import compare
    from .compare.words import comparison_table, legend

    record = compare(context, networks, settings)
    path = context.folder / f"{record['name']}.json"
    n_reused = sum(one["reused"] for one in record["entries"])
    said = list(record["sentences"])
    said += [
        f"Left out: {one['method']} on {one['model']}: {one['why']}" for one in record["left_out"]
    ]
    said.append(f"\n{path} ({n_reused} of {len(record['entries'])} runs reused)")
    return Compared(record, path, (comparison_table(record),), tuple(said), legend(record))


def _models(chosen: Chosen) -> list[CodesSettings]:
    usual = chosen[CodesSettings]
    models = chosen[CompareSettings].models or (usual.model,)
    return [replace(usual, model=one) for one in dict.fromkeys(models)]


@stage(
    DataSettings, CompareSettings, CodesSettings, MachineSettings, PlaceSettings, ClusterSettings,
    example="compare DATA=hotdog METHODS=svm,softmax,finetune",
)  # fmt: skip
def compare(chosen: Chosen) -> Compared:
    """Compare methods on the same test images, with paired tests."""
    if not any(method in METHODS for method in chosen[CompareSettings].methods):
        for one in _models(chosen):
            _need_one(chosen.replaced(one), "compare", "a method that trains the network")
    context, networks = networks_of(
        context_of(chosen), _models(chosen), class_weight=chosen[CompareSettings].class_weight
    )
    return _compared(chosen, context, networks, chosen[CompareSettings])


@stage(
    DataSettings, CurveSettings, CodesSettings, MachineSettings, PlaceSettings, ClusterSettings,
    example="curve DATA=hotdog METHODS=svm,softmax SIZES=10,50,all",
)  # fmt: skip
def curve(chosen: Chosen) -> Measured:
    """Measure accuracy against labelled images per class, and where two methods cross."""
    settings = chosen[CurveSettings]
    if not all(method in METHODS for method in settings.methods):
        _need_one(chosen, "curve", "a method that trains the network")
    context, (network,) = networks_of(
        context_of(chosen), [chosen[CodesSettings]], class_weight=settings.class_weight
    )
    return _curve(context, network, settings)


def _curve(context: Context, network: Network, settings: CurveSettings) -> Measured:
    from .curve.curve import curve
    from .curve.words import curve_table

    record = curve(context, network, settings)
    path = context.folder / f"{record['name']}.json"
    new = f"{record['n_new']} fits made now" if record["n_new"] else "was there already"
    files = f"\n{path} ({new})\n{path.with_suffix('.svg')}"
    return Measured(record, path, (curve_table(record),), (*record["sentences"], files))


@stage(
    DataSettings, AdviseSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="advise DATA=photos", layers=("all",),
)  # fmt: skip
def advise(chosen: Chosen) -> Advised:
    """Say which strategy, layers and network suit a data set, and why."""
    from .advise.advise import advise
    from .advise.cached import cached_networks, named_networks
    from .advise.words import options_table, ranking_table

    settings, usual = chosen[AdviseSettings], chosen[CodesSettings]
    asked, others = named_networks(settings.models, usual), []
    for one in asked or [usual]:
        _need_one(chosen.replaced(one), "advise", "advice on layers and training")
    context = context_of(chosen)
    if not asked:
        asked = [usual]
        others = cached_networks(context.cache / context.manifest.name, usual)
    context, networks = networks_of(context, asked, others, class_weight=settings.class_weight)
    record = advise(context, networks, settings)
    path = context.folder / f"{record['name']}.json"
    tables = options_table(record), ranking_table(record)
    return Advised(record, path, tables, (*record["sentences"], f"{path}{_reused(record)}"))


# What the codes say of the data


def _evidence(context: Context, record: dict[str, Any], *tables: Any, legend: str = "") -> Measured:
    path = context.folder / f"{record['name']}.json"
    words = (*record["sentences"], f"{path}{_reused(record)}")
    return Measured(record, path, tuple(tables), words, legend)


@stage(
    DataSettings, LabelsSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="labels DATA=photos TOP=50",
)  # fmt: skip
def labels(chosen: Chosen) -> Measured:
    """List the images whose label is likely to be wrong."""
    from .evidence.labels import find_mislabelled, labels_tables

    context, codes = coded(context_of(chosen))
    settings = chosen[LabelsSettings]
    record = find_mislabelled(context, codes, settings)
    tables, legends = labels_tables(record, settings.top)
    found = _evidence(context, record, *tables, legend=legends[0])
    return replace(found, said=(*legends[1:], *found.said))


@stage(
    DataSettings, LayersSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="layers DATA=photos", layers=("all",),
)  # fmt: skip
def layers(chosen: Chosen) -> Measured:
    """Measure a linear probe of every layer."""
    from .evidence.layers import probe_layers
    from .evidence.words import layers_table

    context, codes = coded(context_of(chosen))
    record = probe_layers(context, codes, chosen[LayersSettings])
    return _evidence(context, record, layers_table(record))


@stage(
    DataSettings, MapSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="map DATA=photos",
)  # fmt: skip
def map_(chosen: Chosen) -> Measured:
    """Place the images in two dimensions by their codes."""
    from .evidence.map import map_codes

    context, codes = coded(context_of(chosen))
    return _evidence(context, map_codes(context, codes, chosen[MapSettings]))


# Reading results, and using them


@stage(
    DataSettings, CompareSettings, ReportSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="report DATA=hotdog", methods=COMPARED_HEADS,
)  # fmt: skip
def report(chosen: Chosen) -> Written:
    """Write all that is known of a data set into one HTML file, and the same in Markdown."""
    from .report import write_report

    context, networks = networks_of(
        context_of(chosen), _models(chosen), class_weight=chosen[CompareSettings].class_weight
    )
    name = _current_comparison(chosen, context, networks)
    known = {}
    asked = chosen[ReportSettings].evidence
    left = _left_out(context, networks[0], asked)
    for kind, make in _makers(chosen, context, networks[0], name).items():
        if kind in asked and kind not in left:
            try:
                record = make()
            except (BackboneError, DataError, HeadError) as error:  # the rest still counts
                context.say(f"{kind} is left out: {error.found}")
                continue
            if record is not None:
                known[record["kind"]] = record
    return Written(write_report(context, name, chosen[ReportSettings], known))


def _left_out(context: Context, network: Network, asked: Sequence[str]) -> list[str]:
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


def _current_comparison(chosen: Chosen, context: Context, networks: Sequence[Network]) -> str:
    """Bring the comparison up to date, with the methods it has unless others are asked for."""
    from .compare.compare import comparison_name
    from .results.runs import named

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
    return str(_compared(chosen, context, networks, asked).record["name"])


def _makers(
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
        return _curve(context, network, _as_before(context, "curve", QUICK_CURVE)).record

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


@stage(
    PredictSettings, MachineSettings, PlaceSettings, ClusterSettings,
    example="predict IMAGES=new/ RUN=results/hotdog/svm-....json",
)  # fmt: skip
def predict(chosen: Chosen) -> Predicted:
    """Classify new images with a trained run."""
    return predicted(chosen)


def predicted(chosen: Chosen, stream: IO[bytes] | None = None) -> Predicted:
    """Predict; with a stream, write each row to it as soon as it is known and keep none."""
    from .predict.run import predict

    return predict(
        chosen[PredictSettings],
        chosen[MachineSettings],
        chosen[PlaceSettings],
        messages=chosen.messages,
        cluster=chosen[ClusterSettings].cluster,
        stream=stream,
    )


@stage(
    ExplainSettings, MachineSettings, PlaceSettings,
    example="explain IMAGES=new/ RUN=results/hotdog/svm-....json",
)  # fmt: skip
def explain(chosen: Chosen) -> Told:
    """Show which regions of images speak for the predicted class."""
    from .errors import ImageError
    from .explain import Explainer
    from .explain.write import write_explanations
    from .predict.inputs import gathered

    settings, places, messages = chosen[ExplainSettings], chosen[PlaceSettings], chosen.messages
    with gathered(settings.images, progress=messages.progress) as inputs:
        explainer = Explainer.load(
            settings.run,
            results=places.results,
            cache=places.cache,
            machine=chosen[MachineSettings],
            weights=settings.weights,
            offline=settings.offline,
            progress=messages.progress,
        )
        for text in (*inputs.remarks, *explainer.classifier.notes):
            messages.say(f"note: {text}")
        found = write_explanations(
            explainer, inputs, Path(settings.out), progress=messages.progress
        )
    if not found.n_explained:
        raise ImageError(
            f"None of the {found.n_refused} images can be used; the first: {found.first_error}.",
            expected="at least one image that can be read",
        )
    if found.n_refused:
        messages.say(f"warning: {found.n_refused} cannot be used; the first: {found.first_error}.")
    sums = "; each map sums to the logit" if explainer.exact else ""
    text = f"{found.n_explained} images explained by {explainer.method}{sums}"
    return Told((text, str(found.path)))


@stage(
    ExportSettings, PlaceSettings,
    example="export RUN=results/hotdog/svm-....json OUT=exported",
)  # fmt: skip
def export(chosen: Chosen) -> Told:
    """Write a run as one model file that predicts anywhere, or as a page for any browser."""
    from .export import export_run

    settings, places, messages = chosen[ExportSettings], chosen[PlaceSettings], chosen.messages
    found = export_run(
        settings.run,
        settings.out,
        format=settings.format,
        precision=settings.precision,
        results=places.results,
        cache=places.cache,
        data_root=places.data_root,
        weights=settings.weights,
        offline=settings.offline,
        progress=messages.progress,
    )
    for text in found.notes:
        messages.say(text if text.startswith("warning: ") else f"note: {text}")
    files = [f"{file}  {size(file.stat().st_size)}" for file in found.files]
    difference = (
        f"largest difference from make predict, in a probability: {found.difference:.1g} "
        f"({found.n_checked} images)"
    )
    return Told((*files, difference))


@stage(
    NextSettings, DataSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="next DATA=photos IMAGES=unlabelled/ COUNT=50",
)  # fmt: skip
def next_(chosen: Chosen) -> Told:
    """List the unlabelled images that are most worth a label."""
    from .next.stage import find_next, next_table, write_next

    settings, context = chosen[NextSettings], context_of(chosen)
    found = find_next(context, settings)
    for reject in found.rejects:
        context.say(f"left out: {reject}")
    if settings.out:
        write_next(found, Path(settings.out))
    context.say(found.words())
    return Told((settings.out or next_table(found),))


@stage(
    LabelSettings, DataSettings, CodesSettings, MachineSettings, PlaceSettings,
    example="label DATA=photos",
)  # fmt: skip
def label(chosen: Chosen) -> Told:
    """Correct labels on a page; the head follows each correction at once."""
    from .serve.extra import need_extra

    need_extra()
    from .label.running import label

    uncorrected = chosen.replaced(replace(chosen[DataSettings], labels=""))
    label(chosen[LabelSettings], lambda: context_of(uncorrected))
    return Told(("The server has stopped.",))


@stage(
    ServeSettings, MachineSettings, PlaceSettings, example="serve RUN=results/hotdog/svm-....json"
)
def serve(chosen: Chosen) -> Told:
    """Predict over HTTP with trained runs, and show a page for people."""
    from .serve.extra import need_extra

    need_extra()
    from .serve.running import serve

    settings, places = chosen[ServeSettings], chosen[PlaceSettings]
    serve(settings, places, chosen[MachineSettings], say=chosen.messages.say)
    return Told(("The server has stopped.",))


@stage(RunsSettings, PlaceSettings, example="runs WHERE='accuracy>0.9' SORT=-accuracy")
def runs(chosen: Chosen) -> Answer:
    """List what has been run, set two runs side by side, or export them."""
    from .compare.side_by_side import side_by_side, side_by_side_parts
    from .errors import ResultError
    from .runs import find, list_runs
    from .runs.words import list_parts, run_parts

    settings, results = chosen[RunsSettings], Path(chosen[PlaceSettings].results)
    listing = list_runs(results, data=settings.data, where=settings.where, sort=settings.sort)
    for text in listing.told():
        chosen.messages.say(text)
    if not listing.n_found and not Path(settings.run).is_file():
        raise ResultError(
            f"There are no runs in {results}.",
            expected="results of svm, heads, finetune or compare",
            todo="make svm DATA=...; or RESULTS=<the folder they are in>",
        )
    picked = [find(name, listing) for name in (settings.run, settings.against) if name]
    if not (picked or listing.runs):
        return Told((f"No run of {listing.n_found} matches.",))
    if settings.export:
        from .runs.export import export

        done = export(picked or listing.runs, settings.export, Path(settings.out))
        there = f", {done.n_there:,} were there" if done.n_there else ""
        text = f"{done.n_written:,} runs written to {settings.out}{there}."
        return Told((text, f"To look at them: {done.look}"))
    if len(picked) == 2:
        return Told(tuple(side_by_side_parts(picked[0], picked[1], side_by_side(*picked))))
    return Told(tuple(run_parts(picked[0]) if picked else list_parts(listing, settings.limit)))
