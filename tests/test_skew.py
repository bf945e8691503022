"""The audit's advice on skewed classes betters the figure that it names, and is given once."""

from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Inside
from pictures import jpeg

from benchmarks.skew import WAYS, figures, skewed_sets


@pytest.mark.parametrize("method", ["svm", "softmax"])
def test_what_the_audit_advises_raises_balanced_accuracy(method: str) -> None:
    gains = []
    for one in skewed_sets():
        if one.train.labels.max() > 1:
            continue  # the larger ones are in benchmarks/skew.md
        plain, advised = (
            figures(one, method, WAYS[way]) for way in ("as it is", "CLASS_WEIGHT=balanced")
        )
        gains.append(advised["balanced_accuracy"] - plain["balanced_accuracy"])
    assert len(gains) == 6
    assert sum(gain > 0 for gain in gains) >= 5
    assert np.mean(gains) > 0.03


def test_the_advice_is_not_given_to_who_follows_it(tmp_path: Path, inside: Inside) -> None:
    for i in range(66):
        path = tmp_path / "set" / ("rare" if i < 6 else "usual") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    settings = SMALL | {"methods": "ridge", "folds": 2, "jobs": 1}
    plain = inside("heads", data=tmp_path / "set", **settings)
    assert "CLASS_WEIGHT=balanced" in plain.stderr
    for stage in ("heads", "compare"):
        done = inside(stage, data=tmp_path / "set", class_weight="balanced", **settings)
        assert done.returncode == 0
        warnings = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
        assert sum("Strong class imbalance" in line for line in warnings) == 1
        assert not any("CLASS_WEIGHT=balanced" in line for line in warnings)
        assert len(set(warnings)) == len(warnings)
