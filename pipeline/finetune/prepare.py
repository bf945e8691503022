"""From settings to a task: the network, what of it is trained, and where its batches come from.

Where the trunk is frozen it runs once, on stage one's engine and into stage one's cache, as
codes of the boundary that are not pooled; training then starts from those. Where that cannot be,
the trunk runs at every step, and the result says why.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..backbones.card import Card
from ..backbones.preprocess import Preprocessing, Views, read_views
from ..codes.extract import Extraction, extract
from ..context import Context
from ..datasets.images import read_as
from ..errors import BackboneError, NoSpaceError, SettingsError, TrainingError
from ..heads.costs import asked_costs
from ..notation import size
from ..settings import CodesSettings, FinetuneSettings
from .augment import Augmentation
from .batches import Images, Source, Trunk
from .feasible import check_batches, check_size
from .footprint import check_room
from .freeze import Plan, plan_of
from .late import Late, Whole, cut
from .rows import Rows
from .spread import World
from .task import Task, norms_of

_GPU_READERS = 8
_PROBED_IMAGES = 4  # real images that the cut is checked on


@dataclass(frozen=True, eq=False, kw_only=True)
class Setup:
    """What all phases share besides the context: the network, the rows, the device."""

    context: Context
    card: Card
    preprocessing: Preprocessing
    rows: Rows
    device: str
    world: World

    def costs(self, settings: FinetuneSettings) -> NDArray[np.float64] | None:
        """Read COST, (K, K); None where it is not given."""
        return asked_costs(settings.cost, self.context.manifest.class_names)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task, and what the result says of how it was had.

    Attributes
    ----------
    trunk : str
        ``cached`` or ``loop``.
    why : str
        Why not cached; empty where it is, or where there is no frozen trunk.
    fingerprints : tuple of str
        Of the files of activations.
    codes_s : float
        What stage one took for them.
    trunk_views : str
        What the trained network saw of each training image.
    """

    task: Task
    trunk: str
    why: str = ""
    way: str = ""
    fingerprints: tuple[str, ...] = ()
    codes_s: float = 0.0
    trunk_views: str = ""
    warnings: tuple[str, ...] = field(default=())


def preprocessing_of(card: Card, codes: CodesSettings, settings: FinetuneSettings) -> Preprocessing:
    """Adapt the weights' preprocessing to SIZE, RESIZE and NORMALISE."""
    adapted = card.preprocessing.adapted(size=codes.size, resize=codes.resize)
    if not settings.normalise:
        return adapted
    try:
        mean, std = (float(part) for part in settings.normalise.split(","))
        if not std > 0:
            raise ValueError("the standard deviation is not positive")
    except ValueError as error:
        raise SettingsError(
            f"NORMALISE={settings.normalise}: {error}.", expected="'mean,std', such as 0.5,0.25"
        ) from error
    return replace(adapted, mean=(mean,) * 3, std=(std,) * 3)


def prepare(
    setup: Setup,
    network: nn.Module,
    settings: FinetuneSettings,
    *,
    phase: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    touched: Set[str],
) -> Prepared:
    """Make the task of one phase.

    Parameters
    ----------
    network : nn.Module
        On the CPU.
    settings : FinetuneSettings
        Of this phase.
    train, val : int64 (n,)
        Rows of the manifest.
    touched : set of str
        Parameters and buffers that are not those of the published weights any more.

    Raises
    ------
    BackboneError, TrainingError
        As :func:`cnn_codes.finetune.freeze.plan_of`; ``TRUNK=cached`` where that cannot be.
    NoSpaceError
        The activations would take more than DISK.
    """
    command, side = setup.context.command, setup.preprocessing.size
    usual = setup.card.preprocessing.size
    check_size(network, side, model=setup.card.model, usual=usual, command=command)
    plan = plan_of(network, setup.card, settings.unfreeze, size=side)
    check_batches(
        network, plan, norms_of(settings), size=side, n_images=len(train),
        batch_size=settings.batch_size, n_processes=setup.world.size, command=command,
    )  # fmt: skip
    setup.context.say(plan.summary())
    common: dict[str, Any] = {
        "network": network,
        "plan": plan,
        "labels": setup.context.manifest.labels.astype(np.int64),
        "groups": setup.context.manifest.groups,
        "train": train,
        "val": val,
        "n_classes": setup.context.manifest.n_classes,
        "settings": settings,
        "seed": setup.context.seed + settings.repeat,
        "phase": phase,
        "device": setup.device,
        "costs": setup.costs(settings),
        "mixed": setup.context.codes.precision == "mixed",
        "world": setup.world,
    }
    why = _why_not(setup, plan, settings, touched)
    late: Late | None = None
    if not why and plan.boundary:
        late, difference = cut(network, plan, _some_images(setup, train))
        if late is None:
            why = f"{plan.boundary} is no place to cut (scores differ by {difference:.1g})"
    if settings.trunk == "cached" and late is None:
        raise TrainingError(
            f"TRUNK=cached cannot be: {why or 'nothing is frozen'}.",
            todo="leave TRUNK out, or UNFREEZE from another layer",
        )
    if late is not None:
        try:
            return _cached(setup, late, settings, common)
        except BaseException:
            late.release()
            raise
    if plan.boundary and settings.trunk == "auto":
        setup.context.say(f"the frozen trunk runs at every step: {why}")
    source, augmented = _images(setup, settings)
    _to_device(network, setup.device)
    task = Task(model=Whole(network), source=source, **common)
    check_room(task, side, setup.context.say)
    return Prepared(task, "loop", why, trunk_views=augmented)


def _why_not(setup: Setup, plan: Plan, settings: FinetuneSettings, touched: Set[str]) -> str:
    """Say why the trunk cannot run once; nothing where it can."""
    frozen = set(plan.frozen)
    if plan.boundary is None:
        return "nothing is frozen"
    if settings.trunk == "loop":
        return "TRUNK=loop"
    if settings.trunk == "auto" and settings.augment != ("auto",):
        return "AUGMENT is drawn again at every step"
    if settings.bn == "update":
        return "BN=update changes it"
    if settings.normalise:
        return "NORMALISE is not the weights' own"
    if frozen & touched:
        return "it is not as published any more"
    if plan.boundary not in setup.card.layers:
        return f"{plan.boundary} runs more than once"
    return ""


def _some_images(setup: Setup, rows: NDArray[np.int64]) -> torch.Tensor:
    """Normalised centre views (B, 3, size, size) of a few training images."""
    views = []
    for row in rows[:: max(1, len(rows) // _PROBED_IMAGES)][:_PROBED_IMAGES].tolist():
        digest = setup.context.manifest.sha256[row].decode()
        data = read_as(setup.context.manifest.root / setup.context.manifest.paths[row], digest)
        views.append(read_views(data, setup.preprocessing, Views("center", 1), digest)[0])
    x = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
    mean = torch.tensor(setup.preprocessing.mean).view(1, 3, 1, 1) * 255
    return (x - mean) / (torch.tensor(setup.preprocessing.std).view(1, 3, 1, 1) * 255)


def _to_device(network: nn.Module, device: str) -> None:
    # Channels last is the faster layout on a CPU too, for depthwise convolutions above all.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _trunk_views(setup: Setup, settings: FinetuneSettings) -> str:
    if settings.trunk_views != "auto":
        return settings.trunk_views
    return "random:4" if setup.context.codes.views == "center" else setup.context.codes.views


def _cached(
    setup: Setup, late: Late, settings: FinetuneSettings, common: dict[str, Any]
) -> Prepared:
    plan: Plan = common["plan"]
    boundary = plan.boundary
    assert boundary is not None
    wanted, evaluation = _trunk_views(setup, settings), setup.context.codes.views
    seed = setup.context.seed
    n_trunk_views = Views.parse(wanted, seed).count
    n_views = Views.parse(evaluation, seed).count
    all_rows = setup.rows.used
    some_rows = all_rows if wanted == evaluation else setup.rows.to_train
    shape = _shape(common["network"], late, setup, plan)
    row_bytes = 2 * math.prod(shape)
    n_bytes = len(all_rows) * n_views * row_bytes
    if wanted != evaluation:
        n_bytes += len(some_rows) * n_trunk_views * row_bytes
    setup.context.say(
        f"the trunk runs once: {n_trunk_views} views of {len(some_rows):,} images to train on and "
        f"{n_views} of {len(all_rows):,} to measure on, {' x '.join(map(str, shape))} float16 at "
        f"{boundary}: {size(n_bytes)} in the cache"
    )
    if n_bytes > settings.disk * 1e9:
        fewer = max(1, int(n_trunk_views * settings.disk * 1e9 / n_bytes))
        raise NoSpaceError(
            f"The activations at {boundary} would take {size(n_bytes)}.",
            expected=f"at most DISK={settings.disk:g} GB",
            todo=f"DISK={math.ceil(n_bytes / 1e9)}, or TRUNK_VIEWS=random:{fewer}, or TRUNK=loop, "
            "or UNFREEZE from a later layer",
        )
    codes = replace(setup.context.codes, layers=(boundary,), pool="none")
    on = extracted(setup, replace(codes, views=evaluation), all_rows)
    use = on
    if wanted != evaluation:
        use = extracted(setup, replace(codes, views=wanted), some_rows)
    layer = on.codes.layers[0]
    source = Trunk(setup.context.manifest, use.codes, on.codes, layer)
    _to_device(common["network"], setup.device)
    late.to(setup.device)
    task = Task(model=late, source=source, **common)
    files = dict.fromkeys((on.codes.fingerprint, use.codes.fingerprint))
    seconds = {e.codes.fingerprint: e.codes.extraction_s for e in (on, use)}
    return Prepared(
        task,
        "cached",
        way=late.way,
        fingerprints=tuple(files),
        codes_s=sum(seconds.values()),
        trunk_views=wanted,
    )


def _shape(network: nn.Module, late: Late, setup: Setup, plan: Plan) -> tuple[int, ...]:
    """Shape of the boundary's output at this size, without the batch."""
    size = setup.preprocessing.size
    if size == setup.card.preprocessing.size:
        return setup.card.layers[str(plan.boundary)]
    shapes: list[tuple[int, ...]] = []
    late.release()
    hook = network.get_submodule(str(plan.boundary)).register_forward_hook(
        lambda m, i, output: shapes.append(tuple(output.shape[1:]))
    )
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    hook.remove()
    late.engage()
    return shapes[0]


def extracted(
    setup: Setup, codes: CodesSettings, rows: NDArray[np.int64] | None = None
) -> Extraction:
    """Run stage one for `codes`; activations as float16, or float32 where they are too large.

    Parameters
    ----------
    codes : CodesSettings
        What is wanted, instead of the codes of the context.
    rows : int64 (n,) or None
        Images that it is wanted of; None: all, published as ``make features`` does.
    """

    def run(dtype: str) -> Extraction:
        with setup.world.in_turn():
            return extract(replace(setup.context, codes=replace(codes, dtype=dtype)), rows)

    if codes.pool != "none":
        return run("float32")
    try:
        return run("float16")
    except BackboneError as error:
        if "float16" not in error.found:
            raise
        setup.context.say(
            "the activations are too large for float16: kept as float32, at twice the size"
        )
        return run("float32")


def _images(setup: Setup, settings: FinetuneSettings) -> tuple[Source, str]:
    """Read images at every step; also say what training images are put through."""
    views = Views.parse(setup.context.codes.views, setup.context.seed)
    on_gpu = setup.device.startswith("cuda")
    options: dict[str, Any] = {
        # On a CPU, reading processes would take training's cores; 1 means none anywhere.
        "readers": setup.context.machine.workers or (_GPU_READERS if on_gpu else 0),
        "pin": on_gpu,
    }
    names = settings.augment
    if names == ("auto",) and settings.trunk_views == "auto":
        fixed = {"flip": ("hflip",), "dihedral": ("dihedral",)}
        names = fixed.get(views.kind, ("resized-crop:0.35", "hflip"))
    if names == ("auto",):
        options["trunk_views"] = Views.parse(settings.trunk_views, setup.context.seed)
        names = (settings.trunk_views,)
    elif names == ("none",):
        options["trunk_views"] = Views("center", 1)
    else:
        options["augmentation"] = Augmentation(names, setup.preprocessing)
    if options["readers"] == 1:
        options["readers"] = 0
    return Images(setup.context.manifest, setup.preprocessing, views, **options), "+".join(names)
