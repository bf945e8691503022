"""What a training batch takes on the CPU: counted, said, and refused where it can never fit."""

import numpy as np
import pytest
import torch
from cnn_codes.cli import main
from cnn_codes.finetune import footprint
from cnn_codes.finetune.footprint import bytes_per_image
from pictures import write_set
from torch import nn


def test_what_the_backward_pass_needs_is_counted_once():
    x = torch.rand(2, 100)
    network = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    assert bytes_per_image(network, x) == 4 * (100 + 50)  # the input, and what the ReLU gives
    frozen = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    frozen[0].requires_grad_(False)
    assert bytes_per_image(frozen, x) == 4 * 50


def test_counting_changes_neither_statistics_nor_the_random_state():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    assert bytes_per_image(network, x) > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("share", "code"), [(2, 0), (0.7, 0), (0.3, 2)])
def test_a_batch_that_may_not_fit_is_said_and_one_that_cannot_is_refused(
    tmp_path, cache, capsys, monkeypatch, share, code
):
    root = write_set(tmp_path / "mine", 24, size=(40, 40))
    each: list[float] = []

    def counted(model, x):
        each.append(bytes_per_image(model, x))
        return each[-1]

    monkeypatch.setattr(footprint, "bytes_per_image", counted)
    monkeypatch.setattr(footprint, "available_bytes", lambda: share * 8 * each[-1])
    line = ["finetune", f"DATA={root}", f"CACHE={cache}", f"RESULTS={tmp_path / 'results'}",
            "OFFLINE=1", "MODEL=test_efficientnet", "WEIGHTS=none", "SIZE=32", "UNFREEZE=all",
            "INIT=random", "EPOCHS=1", "BATCH_SIZE=8", "REFIT=0"]  # fmt: skip
    assert main(line) == code
    told = capsys.readouterr().err
    assert ("The system may end this process" in told) == (share == 0.7)
    assert ("A training batch of 8 images takes about" in told) == (share < 1)
    if share < 1:
        fits = int(0.8 * share * 8)
        assert f"BATCH_SIZE={fits}" in told
    assert np.all(np.array(each) == each[0])
