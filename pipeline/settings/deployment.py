"""Settings of what a trained run is used for: predictions, explanations, export, server."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Which images are predicted by which run, and the output format."""

    images: str = setting(
        "", "an image, a folder (with all below), a glob, a list file, a .zip or .tar",
        affects="place",
    )  # fmt: skip
    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting("", "file to write; empty: standard output", affects="place")
    format: str = setting(
        "auto",
        "output format; auto: by OUT's suffix, else csv",
        affects="place",
        choices=("auto", "csv", "jsonl"),
    )
    top: int = setting(0, "also list the K most probable classes")
    abstain: float = setting(
        0.0, "abstain where the highest probability is below this threshold", high=1
    )
    unlike: float = setting(
        0.99,
        "flag images as out-of-distribution whose distance to the nearest training image exceeds "
        "this quantile of the training images' own; 0: no distances",
        high=1,
    )
    nearest: int = setting(0, "also list the K nearest training images", high=1000)
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class ExplainSettings(Settings):
    """Which images are explained by which run, and where the pictures go."""

    images: str = setting(
        "", "an image, a folder (with all below), a glob, a list file, a .zip or .tar",
        affects="place",
    )  # fmt: skip
    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting(
        "explained", "folder for the pictures and explanations.json", affects="place"
    )
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """What a run is exported to."""

    run: str = setting("", "the run: the path of its .json, or its name", affects="place")
    weights: str = setting(
        "", "file of the network's weights, if it was moved since the run", affects="place"
    )
    out: str = setting("exported", "folder for the model, its script and its card", affects="place")
    format: str = setting(
        "onnx",
        "onnx: one file; openvino: for OpenVINO; web: a folder for any browser",
        affects="place",
        choices=("onnx", "openvino", "web"),
    )
    precision: str = setting(
        "float32",
        "precision of the network; int8: 8-bit integers, calibrated on training images and "
        "compared with float32 on test images",
        choices=("float32", "int8"),
    )
    offline: bool = setting(False, "no downloads", affects="place")


@dataclass(frozen=True, kw_only=True)
class DoorSettings(Settings):
    """Where a server listens, and its access token."""

    host: str = setting(
        "127.0.0.1", "address to listen on; any but this machine's own needs TOKEN", affects="place"
    )
    port: int = setting(8000, "port to listen on; 0: a free one", affects="place", high=65535)
    token: str = setting(
        "", "token that clients must send: 'Authorization: Bearer TOKEN'; '@file' reads it from a "
        "file", affects="place",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServeSettings(DoorSettings):
    """Which runs are served, and where."""

    run: tuple[str, ...] = setting(
        (), "runs with commas, each a path or name, or NAME=RUN to name it; the first is the "
        "default", affects="place",
    )  # fmt: skip
    offline: bool = setting(False, "no downloads", affects="place")
