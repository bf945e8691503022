"""GROUP=auto: images of one thing found by their codes, and kept on one side of every cut."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from cnn_codes import api
from cnn_codes.audit.clusters import near_groups
from cnn_codes.errors import DataError
from conftest import SMALL, StageOne
from pictures import jpeg
from PIL import Image, ImageEnhance


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Give 2 classes of 12 photographs, each in 4 versions of other brightness."""
    for k, name in enumerate(("cat", "dog")):
        folder = tmp_path / "series" / name
        folder.mkdir(parents=True)
        for i in range(12):
            photo = Image.open(BytesIO(jpeg(100 * k + i)))
            for version, light in enumerate((1.0, 0.97, 1.03, 1.06)):
                ImageEnhance.Brightness(photo).enhance(light).save(folder / f"{i:02}_{version}.png")
    return tmp_path / "series"


def test_versions_of_one_photograph_are_one_group(stage_one: StageOne, series: Path) -> None:
    codes = stage_one(series).codes
    found = near_groups(codes, codes.labels, seed=0)
    true = np.array([path.rpartition("_")[0] for path in codes.paths])
    own = np.where(found.groups < 0, 10_000 + np.arange(len(codes)), found.groups)
    same = true[:, None] == true[None, :]
    said = own[:, None] == own[None, :]
    assert np.mean(said[same]) > 0.9
    sizes = np.bincount(found.groups[found.groups >= 0])
    assert sizes.max() <= max(2, 0.05 * len(codes))
    assert found.n_joined == sum(found.groups >= 0)


def test_one_class_says_nothing_of_strangers(stage_one: StageOne, series: Path) -> None:
    codes = stage_one(series).codes
    with pytest.raises(DataError, match="two classes"):
        near_groups(codes, np.zeros(len(codes)), seed=0)


def test_no_group_is_on_two_sides_of_the_cut(series: Path, cache: Path, tmp_path: Path) -> None:
    answer = api.features(
        data=series, group="auto", cache=cache, results=tmp_path / "results", **SMALL
    )
    manifest = answer.manifest
    assert manifest.grouping.startswith("auto")
    sides = {
        group: set(manifest.split[manifest.groups == group].tolist())
        for group in np.unique(manifest.groups).tolist()
    }
    assert all(len(split) == 1 for split in sides.values())
    assert len(sides) < manifest.n_images
    assert not manifest.leaks.any()
