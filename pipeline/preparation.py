"""What a call works on, brought up to date: its images, their codes, its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import BackboneError, CacheError, DownloadError, command_line
from .notation import duration, number
from .settings import (
    METHODS,
    ClusterSettings,
    CodesSettings,
    DataSettings,
    MachineSettings,
    PlaceSettings,
)
from .stages import Chosen

if TYPE_CHECKING:
    from .codes.reader import Codes
    from .compare.runs import Network
    from .context import Context


def context_of(chosen: Chosen, *, rehash: bool = False) -> Context:
    """Load the data set of a call, and join its settings to a context.

    What the settings name is checked here, before any network runs.
    """
    from .context import Context
    from .datasets import load_manifest
    from .heads.decide import check_decision

    given = chosen.settings
    for method in (name for one in given.values() for name in getattr(one, "methods", ())):
        if method not in METHODS:
            from .compare.runs import training_of

            training_of(method)
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


def need_one(chosen: Chosen, stage: str, what: str) -> None:
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
