"""One method on one network, run or taken from the results: the one seam to heads and training.

A method is a head of stage two, ``finetune`` (the late layers, as stage three does it by
default), ``scratch`` (the whole network from a random start), or a recipe's name. Every one is
run on the same splits and writes the same records, so the comparison need not know which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..codes.reader import Codes
from ..datasets import Manifest
from ..errors import ResultError, SettingsError
from ..files import digest_of, write_json
from ..heads.run import probe, redrawn, rows_of
from ..progress import Progress, silent
from ..results.runs import read_record, summarise
from ..settings import (
    METHODS,
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    FitSettings,
    HeadSettings,
    MachineSettings,
    PlaceSettings,
    as_dict,
    from_mapping,
)

__all__ = ["Job", "Network", "head_settings", "is_head", "run_method", "train", "training_of"]

SCRATCH = "hotdog-scratch"  # the recipe behind the method 'scratch'


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is compared: what was asked for, and its codes of this data set."""

    asked: CodesSettings
    codes: Codes

    @property
    def model(self) -> str:
        """Its name."""
        return self.asked.model

    @property
    def seconds_per_image(self) -> float:
        """What stage one took for an image, from the file to its codes."""
        return self.codes.extraction_s / max(1, len(self.codes))


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """What all runs of a comparison share."""

    manifest: Manifest
    data: DataSettings
    machine: MachineSettings
    places: PlaceSettings
    fit: FitSettings
    splits: int = 1
    warnings: tuple[str, ...] = ()
    command: str = ""
    on_wait: Callable[[str], None] | None = None
    progress: Progress = silent
    say: Callable[[str], None] = field(default=lambda text: None)

    @property
    def folder(self) -> Path:
        """Where the results of this data set are."""
        return Path(self.places.results) / self.manifest.name


def is_head(method: str) -> bool:
    """Whether it is a head of stage two, which trains no layer of the network."""
    return method in METHODS


def head_settings(fit: FitSettings, method: str, *, splits: int = 1) -> HeadSettings:
    """Give the settings of stage two for one method."""
    settings: HeadSettings = from_mapping(
        HeadSettings, vars(fit) | {"methods": (method,), "splits": splits, "seeds": 1}
    )
    return settings


def training_of(method: str) -> FinetuneSettings:
    """Give the settings of a method that trains the network.

    Raises
    ------
    SettingsError
        No head, not ``finetune`` or ``scratch``, and no recipe of that name.
    """
    if method == "finetune":
        return FinetuneSettings()
    from ..finetune import load_recipe, recipe_names

    name = SCRATCH if method == "scratch" else method
    if name not in recipe_names():
        raise SettingsError(
            f"METHODS: {method} is no method.",
            expected=", ".join([*METHODS, "finetune", "scratch", *recipe_names()]),
        )
    recipe = load_recipe(name)
    if recipe["stage"] != "finetune":
        raise SettingsError(
            f"METHODS: the recipe {method} trains heads.",
            todo=f"METHODS={','.join(recipe.get('methods', METHODS))}",
        )
    settings: FinetuneSettings = from_mapping(FinetuneSettings, recipe)
    return settings


def run_method(
    job: Job, network: Network, method: str, *, earlier: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    """Run one method on one network, or find that it was run before.

    Parameters
    ----------
    job, network
        What to run it on.
    method : str
        See the module's text.
    earlier : mapping, optional
        The entry of this method and network in an earlier comparison: where it was asked the
        same, its run is taken without building the network to find that out.

    Returns
    -------
    record : dict
        Of the run, or, with several splits, of their summary; ``reused`` is set where nothing
        had to be run.
    asked : str
        Digest of all that was asked for.
    """
    if is_head(method):
        settings = head_settings(job.fit, method, splits=job.splits)
        (record,) = probe(
            job.manifest,
            network.codes,
            job.data,
            settings,
            results=Path(job.places.results),
            asked=as_dict(network.asked),
            warnings=job.warnings,
            command=job.command,
            progress=job.progress,
        )
        return record, str(record["fingerprint"])
    training = training_of(method)
    asked = _asked(job, network, training)
    known = _known(job, earlier, asked)
    if known is not None:
        return known, asked
    if job.splits == 1:
        return train(job, network, training, job.manifest, job.places), asked
    runs = [
        train(job, network, training, manifest, replace(job.places, results=str(folder)))
        for manifest, folder in _drawn(job, network)
    ]
    name = f"{runs[0]['run']}-{job.splits}splits"
    summary = summarise(runs, run=name)
    write_json(job.folder / f"{name}.json", summary)
    return summary | {"reused": all(run.get("reused") for run in runs)}, asked


def train(
    job: Job,
    network: Network,
    training: FinetuneSettings,
    manifest: Manifest,
    places: PlaceSettings,
) -> dict[str, Any]:
    """Train the network on a manifest: stage three, as its own command would have it."""
    from ..finetune import finetune

    record: dict[str, Any] = finetune(
        manifest,
        job.data,
        network.asked,
        training,
        job.machine,
        places,
        warnings=job.warnings,
        command=job.command,
        on_wait=job.on_wait,
        progress=job.progress,
        say=job.say,
    )
    return record


def _asked(job: Job, network: Network, training: FinetuneSettings) -> str:
    """Digest of what a training depends on, without building the network."""
    manifest = job.manifest
    config = network.codes.config
    return digest_of(
        {
            "version": __version__,
            "weights": config["weights_digest"],
            "preprocessing": config["preprocessing"],
            "codes": as_dict(network.asked),
            "settings": as_dict(training),
            "data": as_dict(job.data, affects="bytes"),
            "classes": manifest.class_names,
            "images": digest_of(manifest.sha256.tobytes().hex()),
            "labels": manifest.labels.tolist(),
            "split": manifest.split.tolist(),
            "splits": job.splits,
        }
        | ({"groups": manifest.groups_digest} if manifest.grouping else {})
    )


def _known(job: Job, earlier: Mapping[str, Any] | None, asked: str) -> dict[str, Any] | None:
    """Give the run of an earlier comparison if it was asked the same and is still what it was."""
    if earlier is None or earlier.get("asked") != asked:
        return None
    try:
        record = read_record(job.folder / f"{earlier['run']}.json", verify=True)
    except (ResultError, KeyError):
        return None
    same = record["fingerprint"] == earlier.get("fingerprint")
    return record | {"reused": True} if same else None


def _drawn(job: Job, network: Network) -> Sequence[tuple[Manifest, Path]]:
    """Give the manifest of each random split, the very ones of the heads, and its folder."""
    manifest = job.manifest
    rejects = np.array(list(network.codes.rejects), "S64")
    kept = np.flatnonzero(~np.isin(manifest.sha256, rejects))
    rows = rows_of(manifest, network.codes)
    drawn = []
    for r in range(job.splits):
        split = manifest.split.copy()
        split[kept] = redrawn(rows, manifest, job.data.seed + r).split
        one = replace(manifest, split=split, val_from="none", split_from="cut")
        drawn.append((one, job.folder / f"split{r + 1}of{job.splits}"))
    return drawn
