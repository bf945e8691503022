import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.advise import trial
from cnn_codes.advise.advise import advise
from cnn_codes.advise.cached import cached_networks, named_networks
from cnn_codes.advise.cases import place
from cnn_codes.advise.likeness import familiarity, source_probabilities
from cnn_codes.advise.options import Option, choose
from cnn_codes.advise.ranking import agreement, order
from cnn_codes.advise.words import options_table, ranking_table
from cnn_codes.codes.extract import extract
from cnn_codes.compare.runs import Network
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest
from cnn_codes.errors import SettingsError
from cnn_codes.settings import (
    AdviseSettings,
    CodesSettings,
    from_mapping,
)
from conftest import SMALL, StageOne
from tuning import few_images

TEST = 2
QUICK = AdviseSettings(folds=3, jobs=1, budget="0")


@pytest.mark.parametrize(
    ("size", "confidence", "case"), [(120, 0.7, 1), (900, 0.7, 2), (120, 0.2, 3), (900, 0.2, 4)]
)
def test_four_cases_by_size_and_confidence(size: int, confidence: float, case: int) -> None:
    assert place(images_a_class=size, confidence=confidence, log_me={}).number == case


def test_without_a_classifier_of_its_own_the_layers_decide() -> None:
    late = place(images_a_class=50, confidence=None, log_me={"a": -0.6, "b": -0.5})
    early = place(images_a_class=50, confidence=None, log_me={"a": -0.5, "b": -0.6})
    assert (late.number, early.number, late.by) == (1, 3, "layers")


def option(
    strategy: str,
    gain: float | None,
    error: float = 0.0,
    method: str = "svm",
    p: float | None = None,
) -> Option:
    return Option(
        strategy=strategy, method=method, model="m", layers=[], unfreeze="", command=strategy,
        accuracy=0.9, gain_points=gain, interval=None, error_points=error, gain_from="",
        cost_s=1.0, cost_from="", p=p,
    )  # fmt: skip


def test_another_linear_option_is_chosen_only_if_surely_better() -> None:
    base, unsure, sure = option("a", 0), option("b", 2, error=1.5), option("c", 1, error=0.4)
    assert choose([base, unsure]) is base
    assert choose([base, unsure, sure]) is sure


def test_training_is_chosen_only_if_its_own_test_says_so() -> None:
    base = option("a", 0)
    assert choose([base, option("t", 4, method="finetune", p=0.2)]) is base
    assert choose([base, option("t", None, method="finetune")]) is base
    tune = option("t", 4, method="finetune", p=0.01)
    assert choose([base, tune]) is tune
    assert choose([base, option("c", 5, error=0.4), tune]).strategy == "c"
    assert choose([base, option("t", -4, method="finetune", p=0.01)]) is base


def test_the_budget_is_read_in_seconds_minutes_and_hours() -> None:
    for text, seconds in (("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)):
        assert AdviseSettings(budget=text).seconds == seconds
    with pytest.raises(SettingsError, match="BUDGET"):
        AdviseSettings(budget="soon")


def test_training_is_tried_on_a_part_of_train_and_leaves_nothing_behind(
    stage_one: StageOne, some: Path
) -> None:
    context, network = asked(stage_one, some)
    record = advise(context, [network], replace(QUICK, budget="1h"))
    tried = [one for one in record["options"] if one["method"] == "finetune"]
    assert len(tried) == 3
    for one in tried:
        assert one["gain_points"] is not None, one["gain_from"]
        assert 0 < one["p"] <= 1
        assert one["command"].startswith("make finetune ")
    assert not (context.folder / "advise").exists()
    assert any("points against" in text for text in record["sentences"]) or (
        record["strategy"]["method"] == "finetune"
    )
    untried = advise(context, [network], QUICK)
    assert all(
        one["gain_points"] is None for one in untried["options"] if one["method"] == "finetune"
    )
    assert any("To measure it: make finetune" in text for text in untried["sentences"])


def test_what_would_take_too_long_is_tried_on_fewer_images(
    stage_one: StageOne, hotdog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"trunk": 40.0, "fit": 4000.0, "total": 4040.0}
    monkeypatch.setattr(trial, "training_seconds", lambda *args, **more: seconds)
    data = few_images(hotdog, tmp_path / "few", n_train=160, n_test=6)
    context, network = asked(stage_one, data)
    record = advise(context, [network], replace(QUICK, budget="4500s"))
    tried = [one for one in record["options"] if one["method"] == "finetune"]
    words = [re.match(r"tried on (\d+) training images, measured on (\d+)", one["gain_from"])
             for one in tried]  # fmt: skip
    assert all(words), [one["gain_from"] for one in tried]
    fitted = [int(one[1]) for one in words if one]
    # 4500 s for three that need three quarters of 4040 s each: half of 240 images, then more.
    assert 110 <= fitted[0] <= 130
    assert fitted[0] < fitted[1] <= 240
    base = record["options"][0]["accuracy"]
    for one in tried:
        assert one["accuracy"] == pytest.approx(np.clip(base + one["gain_points"] / 100, 0, 1))


def test_networks_are_named_with_their_weights() -> None:
    usual = CodesSettings(layers=("all",), views="flip")
    first, second = named_networks(("resnet18:none", "resnet18"), usual)
    assert (first.model, first.weights, first.views) == ("resnet18", "none", "flip")
    assert second.weights == "default"
    with pytest.raises(SettingsError):
        named_networks(("resnet18:",), usual)


def test_agreement_is_kendalls_tau() -> None:
    def network(score: float, measured: float) -> dict[str, Any]:
        scores = {"log_me": score, "probe": -score}
        return scores | {"measured": {"svm": measured}}

    entries = [network(0.1, 0.7), network(0.2, 0.8), network(0.3, 0.9)]
    found = {one["score"]: one for one in agreement(entries)}
    assert found["log_me"]["kendall"] == pytest.approx(1.0)
    assert found["probe"]["weighted"] == pytest.approx(-1.0)
    swapped = [network(0.1, 0.7), network(0.2, 0.9), network(0.3, 0.8)]
    assert agreement(swapped)[0]["kendall"] == pytest.approx(1 / 3)
    assert [one["log_me"] for one in order(entries)] == [0.3, 0.2, 0.1]


@pytest.fixture
def some(hotdog: Path, tmp_path: Path) -> Path:
    return few_images(hotdog, tmp_path / "few", n_train=16, n_test=6)


def asked(stage_one: StageOne, data: Path | Manifest, **settings: Any) -> tuple[Context, Network]:
    named = {"data": "few", "offline": True, "device": "cpu", "layers": ("all",), **settings}
    manifest = data if isinstance(data, Manifest) else stage_one.manifest(data)
    context = stage_one.context(manifest, **named)
    done = extract(context)
    values = SMALL | settings | {"layers": ("all",)}
    return context, Network(from_mapping(CodesSettings, values), done.codes)


def test_advice_is_given_with_reasons_kept_and_found_again(stage_one: StageOne, some: Path) -> None:
    context, network = asked(stage_one, some)
    record = advise(context, [network], QUICK)
    assert record["case"] in (1, 3)
    assert record["strategy"]["command"] in record["sentences"][0]
    assert record["strategy"]["command"].startswith("make ")
    assert "MODEL=test_efficientnet WEIGHTS=none SIZE=32" in record["strategy"]["command"]
    assert [one["layer"] for one in record["layers"]] == list(network.codes.layers)
    assert record["evidence"]["confidence"] is None  # a random start knows no classes
    assert options_table(record).count("*") == 1
    assert "test_efficientnet (random start)" in ranking_table(record)
    assert advise(context, [network], QUICK)["reused"]


def test_advice_does_not_depend_on_the_labels_of_test(stage_one: StageOne, some: Path) -> None:
    manifest = stage_one.manifest(some)
    labels = manifest.labels.copy()
    test = np.flatnonzero(manifest.split == TEST)
    labels[test] = 1 - labels[test]
    found = []
    for one in (manifest, replace(manifest, labels=labels)):
        context, network = asked(stage_one, one)
        record = advise(context, [network], QUICK)
        (context.folder / f"{record['name']}.json").unlink()
        ranked = {k: v for k, v in record["ranking"][0].items() if k != "seconds_per_image"}
        kept = [
            {k: v for k, v in option.items() if not k.startswith("cost")}
            for option in record["options"]
        ]
        found.append((record["case"], record["strategy"]["command"], ranked, kept))
    assert found[0] == found[1]


def test_cached_networks_are_those_with_codes_of_the_same_kind(
    stage_one: StageOne, some: Path
) -> None:
    _, network = asked(stage_one, some)
    stage_one(some, layers=("final",))
    stage_one(some, layers=("all",), views="flip")
    folder = network.codes.path.parent
    usual = CodesSettings(layers=("all",), size=32)
    (found,) = cached_networks(folder, usual)
    assert (found.model, found.weights, found.layers) == ("test_efficientnet", "none", ("all",))
    assert cached_networks(folder, found) == []
    assert cached_networks(folder, CodesSettings()) == []  # of another size


def test_the_networks_own_probabilities_follow_from_its_codes(
    stage_one: StageOne, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from cnn_codes.advise import likeness
    from cnn_codes.backbones.card import load_network
    from cnn_codes.backbones.preprocess import Views, read_views

    few = stage_one.manifest(some)
    asked_ = CodesSettings(size=64)
    done = stage_one(few, model="efficientnet_lite0", weights="default", size=64, engine="torch")
    context, _ = asked(stage_one, some)
    network = Network(asked_, done.codes)
    with monkeypatch.context() as patch:  # stage one built the network: it is not built again
        patch.setattr(likeness, "load_network", None)
        source = source_probabilities(context, network, done.codes.matrix()[:, 0])
    assert source is not None
    card, own = load_network(asked_, cache=stage_one.cache, seed=0, offline=True)
    preprocessing = card.preprocessing.adapted(size=64, resize="default")
    data = (few.root / few.paths[3]).read_bytes()
    view = read_views(data, preprocessing, Views("center", 1), few.sha256[3].decode())[0]
    x = torch.from_numpy(view.astype(np.float32)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = own((x - 0.5) / 0.5).softmax(dim=1).numpy()[0]
    assert source[3] == pytest.approx(expected, abs=1e-4)
    known = familiarity(source)
    assert known.n_source == 1000
    assert known.confidence == pytest.approx(source.max(axis=1).mean())
    assert 0 < known.entropy < 1
    for path in (stage_one.cache / "backbones").glob("*.classifier.npz"):
        path.unlink()
    again = source_probabilities(context, network, done.codes.matrix()[:, 0])  # read once more
    assert again == pytest.approx(source, abs=0)


def test_of_surely_better_options_the_one_of_fewest_layers_within_an_error_is_chosen() -> None:
    base, late, all_ = option("a", 0), option("late", 2.9, 1.4), option("all", 3.6, 1.7)
    assert choose([base, late, all_]) is late
    assert choose([base, option("late", 1.5, 0.5), all_]) is all_
