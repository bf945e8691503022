"""The Python API: one function for each make target, with the settings as keyword arguments.

>>> from cnn_codes import api  # doctest: +SKIP
>>> answer = api.svm(data="photos", layers="all")  # doctest: +SKIP
>>> answer.metrics["test"]["accuracy"]  # doctest: +SKIP

Joins the stages. Every function takes plain values, named as the settings in lower case, and gives
an answer (:mod:`cnn_codes.answers`) with figures, arrays, ``table()`` and a view for notebooks.
The command line does nothing but call these functions and print their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
    DataError,
    HeadError,
)
from .notation import size
from .preparation import coded, context_of, need_one, networks_of
from .reporting import COMPARED_HEADS, current_comparison, left_out, makers
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
)
from .stages import STAGES, Chosen, stage

if TYPE_CHECKING:
    from .compare.runs import Network
    from .context import Context
    from .predict.run import Predicted

__all__ = [
    "STAGES", "advise", "audit", "clean_cache", "compare", "curve", "data", "demo", "explain",
    "export",
    "features", "finetune", "heads", "label", "labels", "layers", "map_", "next_", "predict",
    "report", "runs", "serve", "softmax", "svm", "verify",
]  # fmt: skip

STAGE_ONE = (DataSettings, CodesSettings, MachineSettings, PlaceSettings)
STAGE_TWO = (DataSettings, CodesSettings, HeadSettings, MachineSettings, PlaceSettings)


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
    from .finetune import fine_tuned

    found = followed(header_findings(context.manifest, cache=context.cache), settings.class_weight)
    record: dict[str, Any] = fine_tuned(replace(context, warnings=found), settings)
    return record


@stage(
    DataSettings, FinetuneSettings, CodesSettings, MachineSettings, PlaceSettings, ClusterSettings,
    example="finetune DATA=hotdog UNFREEZE=2",
)  # fmt: skip
def finetune(chosen: Chosen) -> Fitted:
    """Train the late layers, or the whole network, starting from the fitted probe."""
    need_one(chosen, "finetune", "fine-tuning")
    context = context_of(chosen)
    record = _trained(context, chosen[FinetuneSettings])
    return Fitted([record], context.manifest, context.folder)


@stage(
    *STAGE_TWO, FinetuneSettings, example="demo",
    data="elpv", methods=("svm", "softmax"), trunk_views="random:3", epochs=6, deepen=False,
)  # fmt: skip
def demo(chosen: Chosen) -> Fitted:
    """Fit SVM and softmax and fine-tune on the solar cells that a package brings."""
    need_one(chosen, "demo", "the demo, which fine-tunes,")
    context, records = _fitted(context_of(chosen), chosen[HeadSettings])
    records.append(_trained(context, chosen[FinetuneSettings]))
    return Fitted(records, context.manifest, context.folder)


# Which method


def _compared(
    chosen: Chosen, context: Context, networks: Sequence[Network], settings: CompareSettings
) -> Compared:
    from .compare.compare import compare
    from .compare.tables import comparison_table, legend

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
            need_one(chosen.replaced(one), "compare", "a method that trains the network")
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
        need_one(chosen, "curve", "a method that trains the network")
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
        need_one(chosen.replaced(one), "advise", "advice on layers and training")
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
    name = current_comparison(chosen, context, networks)
    known = {}
    asked = chosen[ReportSettings].evidence
    left = left_out(context, networks[0], asked)
    for kind, make in makers(chosen, context, networks[0], name).items():
        if kind in asked and kind not in left:
            try:
                record = make()
            except (BackboneError, DataError, HeadError) as error:  # the rest still counts
                context.say(f"{kind} is left out: {error.found}")
                continue
            if record is not None:
                known[record["kind"]] = record
    return Written(write_report(context, name, chosen[ReportSettings], known))


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
