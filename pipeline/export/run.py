"""Exporting a run: its model, a script that needs little, and its card, into one folder."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .. import __version__
from ..backbones.quantise import weight_bits_of
from ..errors import BackboneError, SettingsError
from ..files import write_atomic
from ..predict.classifier import Classifier
from ..predict.description import need_one_network
from ..predict.models import HeadModel, Model
from ..predict.runs import Run, find_run
from ..progress import Progress, silent
from ..settings import MachineSettings, PlaceSettings
from .assemble import Parts, assemble, network_graph
from .card import model_card
from .int8 import effect_of, images_of, quantised
from .web import write_web

SIZES = ((320, 240), (150, 200), (640, 480))  # px, of the images of the check
TOLERANCE = 1e-3  # of probabilities, beyond which an export is refused
INT8 = "int8 (the network without its first layers; the head is not quantised)"
_NO_EFFECT = (
    "What int8 changes in the accuracy was not measured: the run has no test images that it was "
    "not trained on."
)
_CPU = MachineSettings(device="cpu", engine="onnx")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    folder : Path
        Where it lies.
    files : tuple of Path
        The model first.
    difference : float
        Largest difference from the run's own probabilities, on smooth noise of several sizes.
    n_checked : int
        How many images that was measured on.
    notes : tuple of str
        What its user should know.
    """

    folder: Path
    files: tuple[Path, ...]
    difference: float
    n_checked: int
    notes: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)


def export_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "onnx",
    precision: str = "float32",
    results: str | os.PathLike[str] = "results",
    cache: str | os.PathLike[str] = "cache",
    data_root: str | os.PathLike[str] = "data",
    weights: str = "",
    offline: bool = False,
    progress: Progress = silent,
) -> Exported:
    """Write a run's model into a folder.

    Parameters
    ----------
    run : str or path
        Path of ``<run>.json``, or the run's name.
    out : path
        The folder; made where it is missing. Equal runs give equal bytes.
    format : str
        ``onnx``, ``openvino`` or ``web``.
    precision : str
        ``float32``; or ``int8``: the network in 8-bit integers, calibrated on training images and
        compared on test images, so the run's data set is opened. A run on codes in int8 keeps
        its network in any case.
    data_root : path
        Folder of the data sets, for ``int8``.
    results, cache, weights, offline, progress
        As :meth:`cnn_codes.Classifier.load`.

    Raises
    ------
    SettingsError
        The run's views are random crops; `out` is a file; OpenVINO is not installed.
    HeadError
        A head of neighbours or support vectors too large for one file.
    DataError
        ``int8``, and the run's data set is not here.
    BackboneError
        The network cannot be exported or quantised, or the exported model does not agree with
        the run.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"OUT={folder} is a file.", expected="a folder, or a new name")
    found = find_run(run, Path(results))
    need_one_network(found, "export")
    classifier = Classifier.load(
        run,
        results=results,
        cache=cache,
        machine=_CPU,
        weights=weights,
        offline=offline,
        progress=progress,
    )
    model = classifier.model
    about = metadata(found, model)
    parts = network_graph(model)
    notes = (*classifier.notes, *_notes(model, parts))
    shrink = precision == "int8" and about["precision"] == "float32"
    if shrink:
        places = PlaceSettings(data_root=str(data_root), cache=str(cache), results=str(results))
        manifest = images_of(found, places, progress=progress)
        parts, about = quantised(parts, model, manifest), about | {"precision": INT8}
    data = assemble(model, parts, about).SerializeToString(deterministic=True)
    difference = _difference(classifier, data, refuse=not shrink)
    if shrink:
        effect = effect_of(found, model, session_of(data), manifest, progress=progress)
        notes = (*notes, effect or _NO_EFFECT)
    if format == "web":
        bare = assemble(model, parts, about, geometry=False).SerializeToString(deterministic=True)
        files, lacks = write_web(
            classifier, bare, about, folder, cache=Path(cache), offline=offline
        )
        notes = (*notes, *lacks)
    elif format == "openvino":
        files = _openvino(data, folder)
    else:
        files = [folder / "model.onnx"]
        write_atomic(files[0], data)
        script = resources.files(__package__).joinpath("script.txt").read_bytes()
        write_atomic(folder / "predict.py", script)
        files.append(folder / "predict.py")
    card = model_card(found.record, about, limits=notes)
    write_atomic(folder / "card.md", card.encode())
    return Exported(folder, (*files, folder / "card.md"), difference, len(SIZES), notes)


def metadata(run: Run, model: Model) -> dict[str, str]:
    """Say in the model what it is: plain strings, equal for equal runs."""
    record = run.record or {}
    common = {
        "format_version": "1",
        "producer": f"cnn-codes {__version__}",
        "run": run.name,
        "data": run.data,
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "preprocessing": json.dumps(model.preprocessing.as_dict(), sort_keys=True),
        "size": str(model.preprocessing.size),
        "views": f"{model.views.kind}, {model.views.count}",
        "precision": INT8 if _in_int8(model) else "float32",
        "fingerprint": str(record.get("fingerprint", "")),
        "temperature_scale": repr(model.output.temperature_scale),
        "prediction_sets": json.dumps(dict(model.output.sets), sort_keys=True),
    }
    if isinstance(model, HeadModel):
        head = model.head
        return common | {
            "kind": "head",
            "method": head.method,
            "model": model.card.model,
            "weights": model.card.origin,
            "weights_digest": model.card.weights_digest,
            "layers": ", ".join(model.layers),
            "pool": model.pool,
            "codes_fingerprint": model.key.fingerprint,
        }
    return common | {
        "kind": "network",
        "method": str(record.get("method", "finetune")),
        "model": model.card.model,
        "weights": "fine-tuned in this run",
        "weights_digest": model.weights_digest,
        "layers": "scores",
        "pool": "its own",
        "codes_fingerprint": "",
    }


def _in_int8(model: Model) -> bool:
    return isinstance(model, HeadModel) and model.asked.precision == "int8"


def _notes(model: Model, parts: Parts) -> list[str]:
    notes = [
        "JPEG files of more than twice the input size are decoded at full size by other "
        "programs, at reduced size by make predict: their probabilities can differ in the "
        "third digit.",
    ]
    if isinstance(model, HeadModel) and model.head.method in ("knn", "rbf"):
        notes.append("It holds codes of training images, as its method needs them.")
    if weight_bits_of(parts.graph) == 8:
        notes.append(
            "Its weights take eight bits, as its codes were made: on x86 CPUs without VNNI "
            "instructions (most before 2019) sums saturate, and its probabilities are others."
        )
    return notes


def session_of(model: bytes | Path) -> Any:
    """Open a model in ONNX Runtime on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _difference(classifier: Classifier, data: bytes, *, refuse: bool) -> float:
    """Compare with the run itself on smooth noise of several sizes.

    Raises
    ------
    BackboneError
        They differ by more than the tolerance.
    """
    session = session_of(data)
    worst = 0.0
    for pixels in _samples():
        own = classifier.predict_proba(pixels)[0]
        (exported,) = session.run(["probabilities"], {"image": pixels})
        worst = max(worst, float(np.abs(own - exported).max()))
    if refuse and not worst <= TOLERANCE:
        raise BackboneError(
            f"The exported model differs from {classifier.run} by {worst:.2g} in a probability.",
            expected=f"at most {TOLERANCE:g}",
            todo="report this: it is a defect of the export",
        )
    return worst


def _samples() -> list[NDArray[np.uint8]]:
    from PIL import Image

    random = np.random.default_rng(0)
    found = []
    for width, height in SIZES:
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        found.append(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    return found


def _openvino(data: bytes, folder: Path) -> list[Path]:
    """Convert by OpenVINO's own converter, weights in float32.

    Its CPU plugin computes float64 as float32, so a resized pixel that lies on a half may be one
    level of 255 off; ONNX Runtime is exact there.

    Raises
    ------
    SettingsError
        It is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise SettingsError(
            "FORMAT=openvino needs the package openvino, which is not installed.",
            expected="the extra 'openvino'",
            todo=".venv/bin/python -m pip install -c constraints.txt -e '.[openvino]'",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        given = Path(name) / "model.onnx"
        given.write_bytes(data)
        converted = openvino.convert_model(given)
        openvino.save_model(converted, Path(name) / "model.xml", compress_to_fp16=False)
        files = []
        for suffix in (".xml", ".bin"):
            path = folder / f"model{suffix}"
            write_atomic(path, (Path(name) / f"model{suffix}").read_bytes())
            files.append(path)
    return files
