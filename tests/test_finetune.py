"""Stage three as a whole, on a few real images and a real, small network."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cnn_codes.backbones.card import load_network
from cnn_codes.backbones.preprocess import Views, read_views
from cnn_codes.codes.extract import extract
from cnn_codes.codes.reader import Codes
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest
from cnn_codes.errors import (
    BackboneError,
    DataError,
    NoSpaceError,
    SettingsError,
    TrainingError,
)
from cnn_codes.finetune import load_checkpoint, predict_proba
from cnn_codes.finetune.rows import rows_of
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.run import fit_heads
from cnn_codes.notation import size
from cnn_codes.results.metrics import measure
from cnn_codes.results.predictions import read_predictions
from cnn_codes.results.runs import read_record
from cnn_codes.settings import (
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    HeadSettings,
    MachineSettings,
    PlaceSettings,
    from_mapping,
)
from safetensors.torch import load_file
from tuning import USUAL, Tuning, few_images


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few")


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one cache for all of these tests: they are about what comes after the codes."""
    return tmp_path_factory.mktemp("codes") / "cache"


@pytest.fixture
def tuning(images: Path, codes: Path, tmp_path: Path) -> Tuning:
    """Give stage three with results of the test's own."""
    return Tuning(images, PlaceSettings(cache=str(codes), results=str(tmp_path / "results")))


@pytest.fixture
def fresh(images: Path, cache: Path, tmp_path: Path) -> Tuning:
    """Give stage three with a cache of the test's own."""
    return Tuning(images, PlaceSettings(cache=str(cache), results=str(tmp_path / "results")))


@dataclass(frozen=True)
class Done:
    """A run that several tests look at, and none changes."""

    tuning: Tuning
    record: dict[str, Any]

    def file(self, suffix: str) -> Path:
        return self.tuning.results / f"{self.record['run']}{suffix}"


@pytest.fixture(scope="module")
def usual(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Give the run of the usual settings, with caches of its own."""
    folder = tmp_path_factory.mktemp("usual")
    tuning = Tuning(
        images, PlaceSettings(cache=str(folder / "cache"), results=str(folder / "results"))
    )
    return Done(tuning, tuning())


@pytest.fixture(scope="module")
def probe(images: Path, codes: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Give the run that trains nothing: the probe as a network."""
    folder = tmp_path_factory.mktemp("probe")
    tuning = Tuning(images, PlaceSettings(cache=str(codes), results=str(folder / "results")))
    return Done(tuning, tuning(epochs=0))


def _weights(tuning: Tuning, record: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(tuning.results / f"{record['run']}.safetensors")
    return tensors


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _losses(record: dict[str, Any]) -> list[float]:
    return [row["train_loss"] for row in record["curve"][1:]]


def test_the_result_can_be_recomputed_from_its_predictions(usual: Done) -> None:
    tuning, record = usual.tuning, usual.record
    path = tuning.results / f"{record['run']}.json"
    assert read_record(path, verify=True) == record
    predictions = read_predictions(path.with_name(f"{record['run']}.predictions.csv"))
    assert len(predictions.paths) == 12
    found = measure(predictions.labels, predictions.probabilities)
    assert found == record["metrics"]["test"]
    assert record["method"] == "finetune"
    assert record["splits"]["train"] == {"hotdog": 10, "not-hotdog": 9}
    assert record["splits"]["val"] == {"hotdog": 2, "not-hotdog": 3}
    assert [row["epoch"] for row in record["curve"]] == [0, 1, 2]
    assert all(row["seconds"] > 0 and row["lr"] > 0 for row in record["curve"][1:])
    assert record["peak_memory_bytes"] > 50e6
    assert {"val_accuracy", "val_loss"} <= record["chosen"]["score"].keys()
    assert "<svg" in (tuning.results / f"{record['run']}.curve.svg").read_text()
    assert not list(tuning.results.glob(".*.state"))
    phase = record["phases"][0]
    assert phase["trunk"] == "cached"
    assert phase["boundary"] == "layer3"
    assert len(phase["trained"]) == 11
    assert any("layer3" in line for line in tuning.said)


def test_the_same_command_again_trains_nothing(usual: Done) -> None:
    tuning = Tuning(usual.tuning.data, usual.tuning.places)
    again = tuning()
    assert again.pop("reused") is True
    assert again == usual.record
    assert not any("epoch" in line for line in tuning.said)
    assert "reused" not in tuning(seed=1)


@pytest.mark.parametrize("trunk", ["cached", "loop"])
def test_frozen_layers_and_their_buffers_stay_bit_identical(tuning: Tuning, trunk: str) -> None:
    record = tuning(trunk=trunk, optimizer="adamw", weight_decay=0.1, lr=1e-2, choose="last")
    _, network = load_network(
        from_mapping(CodesSettings, USUAL), cache=Path(tuning.places.cache), seed=0, offline=True
    )
    before, after = network.state_dict(), _weights(tuning, record)
    late = {name for name in after if name.startswith(("layer4", "fc"))}
    for name in after.keys() - late:
        assert torch.equal(before[name], after[name]), name
    assert all(
        not torch.equal(before[name], after[name]) for name in late if name.startswith("layer4")
    )
    assert record["phases"][0]["trunk"] == trunk


@pytest.mark.parametrize(("init", "moves"), [("probe", False), ("pretrained", True)])
def test_batch_norm_keeps_what_the_probe_was_fitted_with(
    tuning: Tuning, init: str, moves: bool
) -> None:
    settings: dict[str, Any] = {"init": init, "bn": "auto", "choose": "last", "epochs": 1}
    after = _weights(tuning, tuning(**settings))
    before = _weights(tuning, tuning(**settings | {"epochs": 0}))
    means = [name for name in after if name.startswith("layer4.") and "running_mean" in name]
    assert len(means) == 3
    assert all(torch.equal(after[name], before[name]) is not moves for name in means)
    assert not torch.equal(after["fc.weight"], before["fc.weight"])


def test_batch_norm_of_the_trunk_moves_when_asked_to(tuning: Tuning) -> None:
    record = tuning(bn="update", choose="last", epochs=1)
    _, network = load_network(
        from_mapping(CodesSettings, USUAL), cache=Path(tuning.places.cache), seed=0, offline=True
    )
    before, after = network.state_dict(), _weights(tuning, record)
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert torch.equal(before["bn1.weight"], after["bn1.weight"])
    assert record["phases"][0]["trunk"] == "loop"
    assert "BN=update" in record["phases"][0]["why"]


@pytest.mark.parametrize("views", ["random:3", "flip", "center"])
def test_the_cached_trunk_trains_as_the_trunk_in_the_loop(tuning: Tuning, views: str) -> None:
    """Within what float16 activations and the engine's rounding leave: 2 % of the loss."""
    cached = tuning(trunk_views=views, trunk="cached", bn="eval")
    loop = tuning(trunk_views=views, trunk="loop", bn="eval")
    assert cached["run"] != loop["run"]
    assert _losses(cached) == pytest.approx(_losses(loop), rel=2e-2)
    for ours, theirs in zip(cached["curve"], loop["curve"], strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=2e-2)


def test_late_layers_are_the_only_difference_that_views_make(tuning: Tuning) -> None:
    one = tuning(trunk_views="center", epochs=1)
    other = tuning(trunk_views="random:3", epochs=1)
    assert len(_losses(one)) == 1
    assert _losses(one) != _losses(other)


def _stage_two(tuning: Tuning, manifest: Manifest, method: str) -> tuple[Any, Any, Any]:
    """Fit the head of stage two on the very rows that stage three trains on."""
    from cnn_codes.codes.extract import extract
    from cnn_codes.settings import MachineSettings

    context = Context(
        manifest=manifest,
        data=DataSettings(data=str(tuning.data)),
        codes=from_mapping(CodesSettings, USUAL),
        machine=from_mapping(MachineSettings, USUAL),
        places=tuning.places,
    )
    codes: Codes = extract(context).codes
    rows = rows_of(context, (), FinetuneSettings())
    assert codes.paths == manifest.paths  # so rows of the one are rows of the other
    matrix = codes.matrix()
    train = Examples(matrix[rows.train], manifest.labels[rows.train], manifest.groups[rows.train])
    head = fit_head(
        method,
        train,
        None,
        HeadSettings(),
        n_classes=2,
        seed=0,
        class_names=manifest.class_names,
    )
    return head, matrix, rows


@pytest.mark.parametrize("method", ["softmax", "svm"])
def test_epoch_0_is_the_probe(tuning: Tuning, method: str) -> None:
    record = tuning(epochs=0, probe=method)
    manifest = tuning.manifest()
    head, matrix, rows = _stage_two(tuning, manifest, method)
    predictions = read_predictions(tuning.results / f"{record['run']}.predictions.csv")
    ours, probes = predictions.probabilities, head.predict_proba(matrix[rows.test])
    assert predictions.predicted.tolist() == probes.argmax(1).tolist()
    accuracy = float(np.mean(head.predict(matrix[rows.val]) == manifest.labels[rows.val]))
    assert record["curve"][0]["val_accuracy"] == accuracy
    # Before the calibration on val the probabilities are the head's own.
    scale = record["calibration"]["scale"]
    odds = np.log(ours[:, 1] / ours[:, 0]) / scale
    expected = np.log(probes[:, 1] / probes[:, 0])
    np.testing.assert_allclose(odds, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


def test_a_random_last_layer_is_no_probe(tuning: Tuning, probe: Done) -> None:
    plain = tuning(epochs=0, init="pretrained")
    assert "probe" not in plain["chosen"]
    assert probe.record["curve"][0]["val_loss"] != plain["curve"][0]["val_loss"]


def test_the_test_split_never_enters_a_choice(tuning: Tuning, usual: Done) -> None:
    """Other labels in test: the very same weights, and another test figure."""
    manifest = tuning.manifest()
    honest = usual.record
    labels = manifest.labels.copy()
    test = manifest.split == 2
    labels[test] = 1 - labels[test]
    turned = Manifest(
        **{f: getattr(manifest, f) for f in manifest.__dataclass_fields__ if f != "labels"},
        labels=labels,
    )
    before = _weights(usual.tuning, honest)
    other = tuning(turned)
    assert "reused" not in other
    assert _same(before, _weights(tuning, other))
    assert other["chosen"]["epoch"] == honest["chosen"]["epoch"]
    accuracies = [r["metrics"]["test"]["accuracy"] for r in (honest, other)]
    assert accuracies[0] == pytest.approx(1 - accuracies[1])


class Stopped(Exception):
    """Thrown where a process might be killed."""


# All that is carried from step to step: moments, means, the schedule, what is drawn at random.
STEPWISE: dict[str, Any] = {
    "epochs": 3, "ema": 0.9, "mixup": 0.2, "optimizer": "adamw", "schedule": "cosine",
    "warmup": 0.5, "label_smoothing": 0.1, "choose": "last",
}  # fmt: skip


@pytest.fixture(scope="module", params=["cached", "loop"])
def undisturbed(
    request: pytest.FixtureRequest,
    images: Path,
    codes: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], Done]:
    """Give the settings of a run that nothing stopped, and the run."""
    settings = STEPWISE | {"trunk": request.param}
    if request.param == "loop":
        settings |= {"augment": ("resized-crop", "hflip", "color:0.2")}
    folder = tmp_path_factory.mktemp("undisturbed")
    tuning = Tuning(images, PlaceSettings(cache=str(codes), results=str(folder)))
    return settings, Done(tuning, tuning(**settings))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_stopped_and_continued_ends_bit_for_bit_as_undisturbed(
    tuning: Tuning, undisturbed: tuple[dict[str, Any], Done], after: int
) -> None:
    settings, whole = undisturbed

    def stop(text: str) -> None:
        if text.startswith(f"epoch {after}"):
            raise Stopped

    with pytest.raises(Stopped):
        tuning(**settings, say=stop)
    assert list(tuning.results.glob(".*.state"))
    continued = tuning(**settings)
    assert any(line == f"continued after epoch {after}" for line in tuning.said)
    assert _same(_weights(whole.tuning, whole.record), _weights(tuning, continued))
    assert _losses(continued) == _losses(whole.record)
    ours, theirs = (
        (folder / f"{record['run']}.predictions.csv").read_bytes()
        for folder, record in ((tuning.results, continued), (whole.tuning.results, whole.record))
    )
    assert ours == theirs


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from cnn_codes.settings import PlaceSettings
from tuning import Tuning
tuning = Tuning(Path({data!r}), PlaceSettings(cache={cache!r}, results={results!r}))
tuning(epochs=4, say=lambda text: print(text, flush=True), **{settings!r})
"""


def _child(tuning: Tuning, **settings: Any) -> subprocess.Popen[str]:
    code = CHILD.format(
        tests=str(Path(__file__).parent),
        data=str(tuning.data),
        cache=tuning.places.cache,
        results=tuning.places.results,
        settings=settings,
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(child: subprocess.Popen[str], start: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(start):
            return
    raise AssertionError("the child ended early")


def test_killed_amid_an_epoch_it_continues(tuning: Tuning) -> None:
    child = _child(tuning)
    _wait_for(child, "epoch 2")
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not list(tuning.results.glob("*.json"))
    killed = tuning(epochs=4)
    assert any(line.startswith("continued after epoch") for line in tuning.said)
    weights = _weights(tuning, killed)
    for path in tuning.results.glob("*"):
        path.unlink()
    assert _same(weights, _weights(tuning, tuning(epochs=4)))


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(
    "moment", ["epoch 1", pytest.param("training again", marks=pytest.mark.slow)]
)
def test_control_c_leaves_the_best_network_so_far(tuning: Tuning, moment: str) -> None:
    settings: dict[str, Any] = {"refit": moment == "training again", "choose": "last"}
    child = _child(tuning, **settings)
    _wait_for(child, moment)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    (path,) = tuning.results.glob("*.interrupted.json")
    record = read_record(path, verify=True)
    assert record["interrupted"] is True
    assert "test" not in record["metrics"]
    network, meta = load_checkpoint(path.with_name(path.name.removesuffix(".json")))
    assert meta["classes"] == ["hotdog", "not-hotdog"]
    assert not network.training
    finished = tuning(epochs=4, **settings)
    assert any(line.startswith("continued after epoch") for line in tuning.said)
    assert finished["interrupted"] is False
    assert not list(tuning.results.glob("*.interrupted.*"))


@pytest.mark.parametrize("moment", ["before the refit", "in the refit", "after training"])
def test_interrupted_once_the_epoch_is_chosen_it_keeps_that_epoch(
    tuning: Tuning, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    settings: dict[str, Any] = {"refit": moment != "after training", "choose": "last"}
    if moment == "before the refit":
        settings["say"] = lambda text: stop() if text.startswith("training again") else None
    elif moment == "in the refit":
        said: list[str] = []
        settings["say"] = lambda text: (
            stop() if any("training again" in one for one in said) else said.append(text)
        )
    else:
        monkeypatch.setattr("cnn_codes.finetune.run.codes_of", stop)
    with pytest.raises(KeyboardInterrupt):
        tuning(**settings)
    (path,) = tuning.results.glob("*.interrupted.json")
    record = read_record(path, verify=True)
    assert [row["epoch"] for row in record["curve"]] == [0, 1, 2]
    assert record["chosen"]["epochs"] == [2]
    assert len(record["phases"]) == 1
    assert "val" in record["metrics"]


def test_a_checkpoint_predicts_with_no_other_file(tuning: Tuning, tmp_path: Path) -> None:
    record = tuning(lr=1e-2, views="flip")
    for suffix in (".safetensors", ".model.json"):
        source = tuning.results / f"{record['run']}{suffix}"
        (tmp_path / f"moved{suffix}").write_bytes(source.read_bytes())
    network, meta = load_checkpoint(tmp_path / "moved.safetensors")
    stored = read_predictions(tuning.results / f"{record['run']}.predictions.csv")
    views = Views.parse(meta["views"], meta["seed"])
    pixels = np.stack(
        [
            read_views((tuning.data / path).read_bytes(), meta["preprocessing"], views, "")
            for path in stored.paths
        ]
    )
    found = predict_proba(network, meta, pixels)
    np.testing.assert_allclose(found, stored.probabilities, atol=5e-3)
    np.testing.assert_allclose(found.sum(1), 1)


def _edit(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | changes))


def test_damaged_and_foreign_checkpoints_are_refused(probe: Done, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".model.json"):
        shutil.copy(probe.file(suffix), tmp_path / f"damaged{suffix}")
    weights, description = tmp_path / "damaged.safetensors", tmp_path / "damaged.model.json"
    good = description.read_text()
    for changes in (
        {"model": "resnet34"},
        {"classes": ["a", "b", "c"]},
        {"classes": ["a", "a"]},
        {"schema": 99},
        {"kind": "head"},
        {"temperature_scale": -1},
        {"preprocessing": {"size": 3}},
        {"tensors_sha256": "0" * 64},
    ):
        _edit(description, **changes)
        with pytest.raises(TrainingError):
            load_checkpoint(description)
        description.write_text(good)
    load_checkpoint(description)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(TrainingError, match="description"):
        load_checkpoint(weights)
    description.unlink()
    with pytest.raises(TrainingError):
        load_checkpoint(weights)


def test_a_damaged_state_is_named_and_not_continued_from(tuning: Tuning) -> None:
    def stop(text: str) -> None:
        if text.startswith("epoch 1"):
            raise Stopped

    with pytest.raises(Stopped):
        tuning(say=stop)
    (state,) = tuning.results.glob(".*.state")
    data = bytearray(state.read_bytes())
    data[-100] ^= 255
    state.write_bytes(data)
    with pytest.raises(TrainingError, match="cannot be continued"):
        tuning()
    state.unlink()
    tuning()


def test_disk_use_is_said_and_limited(fresh: Tuning) -> None:
    tuning = fresh
    tuning(epochs=0)
    # 24 images x 3 views to train on, 36 x 1 to measure on, 192 x 4 x 4 float16.
    expected = (24 * 3 + 36) * 192 * 4 * 4 * 2
    assert any(f"{size(expected)} in the cache" in line for line in tuning.said)
    with pytest.raises(NoSpaceError, match="DISK=1e-06") as raised:
        tuning(epochs=0, disk=1e-6, trunk_views="random:4")
    assert "TRUNK=loop" in raised.value.todo


def test_a_diverging_loss_stops_and_says_which_rate_to_try(tuning: Tuning) -> None:
    with pytest.raises(TrainingError, match="not finite") as raised:
        tuning(lr=1e12, schedule="constant", momentum=0.0)
    assert "LR=1e+11" in raised.value.todo
    assert list(tuning.results.glob(".*.state"))  # the last good epoch is kept


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"unfreeze": "layer9"}, BackboneError),
        ({"trunk": "cached", "unfreeze": "all"}, TrainingError),
        ({"trunk": "cached", "bn": "update"}, TrainingError),
        ({"normalise": "0.5,0.25"}, SettingsError),
        ({"normalise": "0.5", "init": "pretrained"}, SettingsError),
        ({"augment": ("swirl",)}, SettingsError),
        ({"augment": ("resize:80",)}, SettingsError),
        ({"tune": 2, "phases": ("epochs=1",)}, SettingsError),
        ({"phases": ("epochs",)}, SettingsError),
        ({"phases": ("init=random",)}, SettingsError),
        ({"phases": ("epochs=many",)}, SettingsError),
        ({"fresh": ("layer9",)}, BackboneError),
        ({"precision": "mixed"}, SettingsError),
    ],
)
def test_mistakes_are_answered(
    tuning: Tuning, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        tuning(**settings)


def test_a_class_too_small_to_be_split_is_named(tuning: Tuning, tmp_path: Path) -> None:
    lone = few_images(tuning.data, tmp_path / "lone", 0, 0)
    for split, n in (("train", 4), ("test", 2)):
        for kind in ("hotdog", "not-hotdog"):
            source = sorted((tuning.data / split / kind).iterdir())
            for path in source[: 1 if (kind, split) == ("hotdog", "train") else n]:
                (lone / split / kind / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="hotdog"):
        Tuning(lone, tuning.places)()


def test_unreadable_images_are_left_out_whatever_the_start(tuning: Tuning, tmp_path: Path) -> None:
    for init in ("probe", "pretrained"):
        data = Path(shutil.copytree(tuning.data, tmp_path / init))
        broken = sorted((data / "train" / "hotdog").iterdir())[0]
        broken.write_bytes(broken.read_bytes()[:300])
        record = Tuning(data, tuning.places)(init=init, epochs=1)
        assert sum(record["splits"][s]["hotdog"] for s in ("train", "val")) == 11


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("harm", ["other bytes", "another image", "gone"])
def test_an_image_that_changes_while_training_reads_it_is_named(
    tuning: Tuning, tmp_path: Path, harm: str, readers: int
) -> None:
    tuning.data = Path(shutil.copytree(tuning.data, tmp_path / "harmed"))
    victim = sorted((tuning.data / "train").rglob("*.*"))[0]
    whole, other = victim.read_bytes(), sorted((tuning.data / "train").rglob("*.*"))[1]

    def swap(text: str) -> None:
        if text.startswith("epoch 0") and harm == "gone":
            victim.unlink()
        elif text.startswith("epoch 0"):
            victim.write_bytes(other.read_bytes() if harm == "another image" else whole + b" ")

    settings = {"trunk": "loop", "trunk_views": "center", "epochs": 2, "workers": readers}
    with pytest.raises(DataError, match=re.escape(str(victim))) as found:
        tuning(**settings, say=swap)
    assert "Traceback" not in str(found.value)
    assert "give the same command again" in found.value.todo
    assert not list(tuning.results.glob("finetune*.json"))
    victim.write_bytes(whole)
    assert tuning(**settings)["interrupted"] is False


def test_leaked_test_images_are_left_out_unless_asked(tuning: Tuning, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tuning.data, tmp_path / "leaky"))
    leaked = sorted((data / "train" / "hotdog").iterdir())[0]
    (data / "test" / "hotdog" / "again.png").write_bytes(leaked.read_bytes())
    leaky = Tuning(data, tuning.places)
    dropped, kept = leaky(epochs=0), leaky(epochs=0, leaks="keep")
    assert sum(dropped["splits"]["test"].values()) == 12
    assert sum(kept["splits"]["test"].values()) == 13
    assert any("leaks" in text for text in dropped["warnings"])


def test_refit_trains_on_train_and_val_for_the_chosen_epochs(tuning: Tuning) -> None:
    plain = tuning(lr=1e-2, choose="last")
    refit = tuning(lr=1e-2, choose="last", refit=True)
    assert refit["chosen"]["refit"] is True
    assert refit["chosen"]["epoch"] == plain["chosen"]["epoch"] == 2
    assert _losses(refit) == _losses(plain)  # the curve is that of the choice
    assert not _same(_weights(tuning, plain), _weights(tuning, refit))
    assert "val" not in refit["metrics"]
    images = {}
    for record in (plain, refit):
        codes = load_file(tuning.results / f"{record['run']}.train.safetensors")
        paths = bytes(codes["paths"].numpy()).decode().split("\0")
        splits = record["splits"]
        used = ("train", "val") if record is refit else ("train",)
        assert len(set(paths)) == sum(sum(splits[split].values()) for split in used)
        assert codes["codes"].shape == (len(paths), 96)
        names = [("hotdog", "not-hotdog")[label] for label in codes["labels"].tolist()]
        assert names == [path.split("/")[1] for path in paths]
        images[record["run"]] = set(paths)
    assert images[plain["run"]] < images[refit["run"]]


@pytest.mark.parametrize(
    ("choose", "key"), [("loss", "val_calibrated_loss"), ("accuracy", "val_accuracy")]
)
def test_the_kept_epoch_is_the_best_by_val(tuning: Tuning, choose: str, key: str) -> None:
    record = tuning(choose=choose, epochs=5, lr=3e-3)
    values = [row[key] for row in record["curve"]]
    best = min(values) if choose == "loss" else max(values)
    assert values[record["chosen"]["epoch"]] == best == record["chosen"]["score"][key]
    # The weights are those of that epoch: val, measured anew from the kept network, agrees.
    kept = record["curve"][record["chosen"]["epoch"]]["val_accuracy"]
    assert record["metrics"]["val"]["accuracy"] == pytest.approx(kept)


def test_two_phases_train_one_after_the_other(tuning: Tuning) -> None:
    record = tuning(
        init="pretrained",
        choose="last",
        phases=("unfreeze=head epochs=2 lr=0.01", "unfreeze=layer4 epochs=1 lr=0.001"),
    )
    first, second = record["phases"]
    assert first["trained"] == ["fc.weight", "fc.bias"]
    assert second["boundary"] == "layer3"
    assert first["trunk"] == second["trunk"] == "cached"
    assert [(r["phase"], r["epoch"]) for r in record["curve"]] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1)
    ]  # fmt: skip
    assert record["chosen"]["epochs"] == [2, 1]
    # The second begins where the first ended.
    assert record["curve"][3]["val_loss"] == pytest.approx(record["curve"][2]["val_loss"], rel=1e-2)


def test_a_trunk_that_an_earlier_phase_trained_is_not_taken_from_the_cache(tuning: Tuning) -> None:
    record = tuning(phases=("unfreeze=all epochs=1 lr=0.01", "unfreeze=layer4 epochs=1"))
    assert record["phases"][1]["trunk"] == "loop"
    assert "published" in record["phases"][1]["why"]


def test_tuning_keeps_the_pair_with_the_lowest_loss_on_val(tuning: Tuning) -> None:
    record = tuning(tune=3, epochs=4)
    trials = record["chosen"]["trials"]
    assert len(trials) == 3
    assert trials[0]["lr"] == USUAL["lr"]
    assert len({t["lr"] for t in trials}) == 3
    assert min(t["epochs"] for t in trials) < max(t["epochs"] for t in trials) <= 4
    longest = [t for t in trials if t["epochs"] == max(t["epochs"] for t in trials)]
    best = min(longest, key=lambda t: t["val_loss"])
    assert record["chosen"]["lr"] == best["lr"]
    assert record["chosen"]["weight_decay"] == best["weight_decay"]


def test_a_scratch_run_starts_from_nothing_published(tuning: Tuning) -> None:
    record = tuning(init="random", unfreeze="all", epochs=1, weights="default")
    assert record["method"] == "scratch"
    assert record["phases"][0]["frozen"] == []
    assert record["provenance"]["settings"]["weights"] == "none"


def test_predictions_have_a_row_for_every_test_image(probe: Done) -> None:
    with probe.file(".predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    manifest = probe.tuning.manifest()
    expected = [p for p, s in zip(manifest.paths, manifest.split, strict=True) if s == 2]
    assert [row["path"] for row in rows] == expected


@pytest.mark.parametrize("settings", [{}, {"class_weight": "balanced"}, {"probe": "svm"}])
def test_a_network_that_stays_the_probe_keeps_its_probabilities(
    tuning: Tuning, settings: dict[str, Any]
) -> None:
    """With a handful of images in val, a temperature fitted there would spoil the log-loss."""
    record = tuning(init="probe", epochs=1, lr=1e-12, choose="one_se", refit=True, **settings)
    assert record["chosen"]["epoch"] == 0
    assert record["calibration"]["scale"] == 1.0
    rows = read_predictions(tuning.results / f"{record['run']}.predictions.csv")
    context = Context(
        manifest=tuning.manifest(), data=from_mapping(DataSettings, {"data": str(tuning.data)}),
        codes=from_mapping(CodesSettings, USUAL), places=tuning.places,
        machine=from_mapping(MachineSettings, USUAL),
    )  # fmt: skip
    method = settings.get("probe", "softmax")
    (head,) = fit_heads(
        context, extract(context).codes,
        HeadSettings(methods=(method,), class_weight=settings.get("class_weight", "none")),
    )  # fmt: skip
    probe = read_predictions(tuning.results / f"{head['run']}.predictions.csv")
    order = [probe.paths.index(path) for path in rows.paths]
    np.testing.assert_allclose(rows.probabilities, probe.probabilities[order], atol=2e-3)
    assert np.array_equal(rows.predicted, probe.predicted[order])
