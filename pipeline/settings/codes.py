"""Settings of the images, of the codes that are extracted of them, and of the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import BackboneError, SettingsError
from .fields import LARGEST, Settings, setting

VIEWS = "center|flip|dihedral|random:([1-9]|[1-5][0-9]|6[0-4])"
_OF_ALL = ("final", "all")  # layers that every network has
NUMBER = r"\s*-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*"


@dataclass(frozen=True, kw_only=True)
class PlaceSettings(Settings):
    """Where things lie."""

    data_root: str = setting("data", "folder of the data sets", affects="place")
    cache: str = setting("cache", "folder of the cached codes", affects="place")
    results: str = setting("results", "folder of the results", affects="place")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Which images, and how they are split."""

    data: str = setting(
        "hotdog",
        "a registered data set's name, a path, or an address (s3://, gs://, hf://datasets/, https://)",
        affects="place",
    )
    seed: int = setting(
        0, "seed of every random choice: splits, folds, random crops, new layers", high=LARGEST
    )
    offline: bool = setting(False, "no downloads", affects="place")
    strict: bool = setting(False, "stop at the first image that cannot be read", affects="place")
    leaks: str = setting(
        "drop",
        "test images whose bytes or group are in train too: left out of the test figure, or kept "
        "in it",
        choices=("drop", "keep"),
    )
    group: str = setting(
        "",
        "images of one thing, kept on one side of every split: a column's name, 'parent' (the "
        "folder of the image), a regular expression whose match on the path is the group, 'auto' "
        "(near-duplicates) or 'none'; empty: what the data set brings",
        affects="place",  # what it changes, the groups, is in the fingerprints
    )
    layout: str = setting(
        "auto",
        "what the folders of DATA are: 'classes', 'inner' (things that hold class folders), "
        "'names' (classes at the beginning of file names); auto: decided by evidence",
        affects="place",
        choices=("auto", "classes", "inner", "names"),
    )
    label: str = setting(
        "",
        "images with several labels: 'first' (use the first), 'drop' (leave them out), 'combine' "
        "(each combination is a class); empty: stop",
        affects="place",
        choices=("", "first", "drop", "combine"),
    )
    label_column: str = setting(
        "", "column of the labels in a table or list: a name or a number", affects="place"
    )
    path_column: str = setting(
        "", "column of the files in a table or list: a name or a number", affects="place"
    )
    split_column: str = setting(
        "",
        "column of the splits in a table; where its words are not train, val and test: "
        "NAME:train=0,val=1,test=2 (with test=0 alone, all others are train); none: it is not used",
        affects="place",
    )
    labels: str = setting(
        "",
        "a file of corrections, as make label writes it, laid over the data set",
        affects="place",
    )


@dataclass(frozen=True, kw_only=True)
class CodesSettings(Settings):
    """Which codes are extracted."""

    model: str = setting(
        "efficientnet_lite0",
        "a torchvision or timm network, by its own name; several, joined by '+', give their codes "
        "side by side",
    )
    weights: str = setting(
        "default",
        "'default' (the published ones), 'none' (random initialisation), the name of published "
        "weights, or a file",
    )
    layers: tuple[str, ...] = setting(
        ("final",),
        "'final', 'all', or layers as the network names them, with commas; of several networks "
        "NETWORK/LAYER",
    )
    pool: str = setting(
        "default",
        "pooling of maps and tokens to vectors; cls: the class token; mean: of a transformer, the "
        "mean of its patches; default: the network's own for the final layer, the mean for others",
        form=r"default|mean|max|none|grid:[2-8]|cls|cls\+mean",
        says="default, mean, max, grid:K with K from 2 to 8, cls or cls+mean",
    )
    size: int = setting(0, "input size in pixels; 0: that of the weights", high=4096)
    resize: str = setting(
        "default",
        "from image to square: 'crop' (centre), 'stretch' or 'pad'; default: the weights' own",
        choices=("default", "crop", "stretch", "pad"),
    )
    range: str = setting(
        "auto",
        "values that become black and white, of images of more than 8 bits, for the whole data set",
        form=f"auto|full|(percentile:)?{NUMBER},{NUMBER}",
        says="auto, full (of the type), percentile:LOW,HIGH, or MIN,MAX",
    )
    bands: tuple[str, ...] = setting(
        (),
        "bands of a TIFF of several, counted from 1: one (grey) or three (red, green, blue)",
        form="[1-9][0-9]{0,2}",
        says="one band or three, such as BANDS=4,3,2",
    )
    views: str = setting(
        "center", "views of each image: 'center', 'flip' (2), 'dihedral' (8) or 'random:K'",
        form=VIEWS, says="center, flip, dihedral, or random:K with K from 1 to 64",
    )  # fmt: skip
    precision: str = setting(
        "float32",
        "precision of the network's arithmetic (mixed: GPU only; int8: CPU only, calibrated on "
        "training images)",
        choices=("float32", "mixed", "int8"),
    )
    dtype: str = setting(
        "float32", "number format of the stored codes", choices=("float32", "float16")
    )

    def __post_init__(self) -> None:
        """Refuse bands that are neither grey nor colours, ranges from high to low, odd models."""
        super().__post_init__()
        self._check_models()
        if len(self.bands) not in (0, 1, 3):
            raise SettingsError(
                f"BANDS={','.join(self.bands)} is not allowed.",
                expected="one band (grey) or three (red, green, blue)",
            )
        ends = self.range.rpartition(":")[2].split(",")
        if len(ends) == 2 and not float(ends[0]) < float(ends[1]):
            raise SettingsError(
                f"RANGE={self.range} is not allowed.", expected="LOW below HIGH, MIN below MAX"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the networks: one, or several with ``MODEL=a+b``."""
        return tuple(self.model.split("+"))

    def of_each(self) -> tuple[CodesSettings, ...]:
        """Give the settings of each network alone: its name, and the layers asked of it."""
        if len(self.models) == 1:
            return (self,)
        return tuple(
            replace(self, model=model, layers=self._layers_of(model)) for model in self.models
        )

    def _layers_of(self, model: str) -> tuple[str, ...]:
        """Give the layers that are asked of one of several networks, by its own names."""
        return tuple(
            layer.removeprefix(f"{model}/")
            for layer in self.layers
            if layer in _OF_ALL or layer.startswith(f"{model}/")
        )

    def need_one(self, what: str, todo: str) -> None:
        """Refuse several networks where only one will do.

        Parameters
        ----------
        what : str
            What needs one, as the subject of a sentence.
        todo : str
            A command to run instead.

        Raises
        ------
        BackboneError
            MODEL names several.
        """
        if len(self.models) > 1:
            raise BackboneError(
                f"MODEL={self.model} names {len(self.models)} networks; {what} takes one.",
                expected=f"one of {', '.join(self.models)}",
                todo=todo,
            )

    def _check_models(self) -> None:
        models = self.models
        if len(models) == 1:
            return
        twice = [model for model in dict.fromkeys(models) if models.count(model) > 1]
        if twice or not all(models):
            raise SettingsError(
                f"MODEL={self.model}: "
                + (f"{twice[0]} is there twice." if all(models) else "a name is empty."),
                expected="different networks, joined by '+'",
                todo=f"MODEL={'+'.join(filter(None, dict.fromkeys(models))) or type(self).model}",
            )
        if self.weights not in ("default", "none"):
            raise SettingsError(
                f"WEIGHTS={self.weights} are of one network; MODEL={self.model} names "
                f"{len(models)}.",
                expected="WEIGHTS=default or none with several networks",
                todo="leave WEIGHTS out, or name one network",
            )
        for layer in self.layers:
            if layer not in _OF_ALL and not any(layer.startswith(f"{one}/") for one in models):
                raise SettingsError(
                    f"LAYERS={layer} does not say of which network.",
                    expected="final, all, or NETWORK/LAYER with several networks",
                    todo=f"LAYERS={','.join(f'{model}/{layer}' for model in models)}",
                )
        for model in models:
            if not self._layers_of(model):
                raise SettingsError(
                    f"LAYERS={','.join(self.layers)} names no layer of {model}.",
                    expected=f"a layer of each network of MODEL={self.model}",
                    todo=f"LAYERS={','.join(self.layers)},{model}/final",
                )


@dataclass(frozen=True, kw_only=True)
class MachineSettings(Settings):
    """Device and engine; they change speed, not results beyond the engines' stated tolerance."""

    device: str = setting(
        "auto",
        "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'; a device that is not available is an error",
        affects="speed",
        form=r"auto|cpu|mps|cuda(:\d{1,3})?",
        says="auto, cpu, cuda, cuda:N or mps",
    )
    engine: str = setting(
        "auto",
        "'onnx' (CPU) or 'torch'; auto: the faster one for the device",
        affects="speed",
        choices=("auto", "onnx", "torch"),
    )
    extract_batch: int = setting(
        0,
        "images per batch of extraction; 0: chosen for the engine",
        affects="speed",
        high=65536,
    )
    workers: int = setting(
        0, "threads that read images; 0: one per core", affects="speed", high=1024
    )
    max_pixels: int = setting(
        100_000_000,
        "images of more pixels, once decoded, are refused",
        affects="speed",
        low=1,
    )


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Settings):
    """More than one machine, with Ray; changes speed, not results."""

    cluster: str = setting(
        "",
        "where the work is done: 'local' (Ray on this machine), 'auto' (the Ray cluster that this "
        "machine is part of), 'ray://host:10001' (another one); empty: in this process. WORKERS is "
        "then the number of worker processes",
        affects="speed",
        form=r"local|auto|ray://[\w.:\[\]-]+",
        says="local, auto or ray://host:port",
    )
