"""Images of one thing that no GROUP keeps together: found, measured, and named with the setting."""

from dataclasses import replace

import numpy as np
import pytest
from cnn_codes.audit import kin as kin_module
from cnn_codes.audit.kin import find_kin, kin_cost, kin_finding
from cnn_codes.datasets.split_words import TEST, TRAIN
from test_audit import coded, made_up

EACH = 4  # images of one thing


def things(cache, *, worth: float, names: str = "plant_{thing}_{image}.jpg", n: int = 60, **more):
    """Publish codes in which the thing, by `worth`, and the class a little, are seen."""
    random = np.random.default_rng(5)
    thing = np.repeat(np.arange(n), EACH)
    image = np.tile(np.arange(EACH), n)
    labels = (thing % 2).tolist()
    split = [TRAIN if one < 0.8 * n else TEST for one in thing.tolist()]
    paths = [
        names.format(thing=f"{a:03}", image=b, row=f"{row:04}")
        for row, (a, b) in enumerate(zip(thing.tolist(), image.tolist(), strict=True))
    ]
    manifest = made_up(labels, split, names=("a", "b"), paths=tuple(paths), **more)
    codes = random.normal(size=(len(thing), 32))
    codes += worth * random.normal(size=(n, 32))[thing]
    codes[:, 0] += 0.7 * np.array(labels)
    coded(cache, manifest, codes)
    return manifest, thing


@pytest.mark.parametrize(
    "names",
    ["plant_{thing}_{image}.jpg", "a/scan{thing}-{image}.png", "p{thing} ({image}).jpg",
     "{thing}_jpg.rf.0a{row}.jpg", "pat{thing}slice{image}.jpg"],
)  # fmt: skip
def test_stems_that_share_a_thing_are_found_with_the_setting_that_groups_them(cache, names):
    import re

    manifest, thing = things(cache, worth=2.0, names=names)
    kin = find_kin(manifest, cache)
    assert kin is not None
    assert (kin.n_groups, kin.n_joined, kin.n_images) == (48, 192, 192)
    assert kin.kept > 0.9
    assert kin.left_out < 0.7
    texts = [re.search(kin.setting, path)[0] for path in manifest.paths]
    assert len(set(texts)) == len(set(thing.tolist()))
    finding = kin_finding(kin)
    assert finding.is_problem
    assert f"GROUP={kin.setting}" in finding.text.replace("'", "")
    assert "48 groups" in finding.text


def test_a_column_goes_before_a_grouping_by_codes(cache):
    column = np.repeat([f"lot {i}" for i in range(60)], EACH)
    manifest, _ = things(cache, worth=2.0, names="{row}.jpg", extra={"lot": column})
    kin = find_kin(manifest, cache)
    assert kin is not None
    assert (kin.setting, kin.n_across) == ("lot", 0)


def test_without_names_the_codes_themselves_show_it(cache):
    manifest, _ = things(cache, worth=6.0, names="{row}.jpg")
    kin = find_kin(manifest, cache)
    assert kin is not None
    assert kin.setting == "auto"


@pytest.mark.parametrize("seed", range(3))
def test_stems_that_share_no_thing_are_no_finding(cache, seed):
    manifest, _ = things(cache, worth=0.0)
    assert find_kin(manifest, cache, seed=seed) is None


def test_where_groups_are_given_nothing_is_searched(cache):
    manifest, thing = things(cache, worth=2.0)
    keys = np.array([f"{one:064}" for one in thing.tolist()], "S64")
    given = replace(manifest, group_keys=keys, grouping="column plant")
    assert find_kin(given, cache) is None


@pytest.mark.parametrize(
    "names", ["{kind}_{row}.jpg", "{kind}/{kind}-{row}.png", "{kind} ({row}).jpg"]
)
def test_names_that_say_the_class_are_no_things(cache, names):
    """As beagle_12.jpg of a set of breeds: its stem is the class, not one dog."""
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(12), 20)
    paths = tuple(names.format(kind=f"kind{k}", row=i) for i, k in enumerate(labels.tolist()))
    classes = tuple(f"kind{k}" for k in range(12))
    manifest = made_up(labels.tolist(), [TRAIN] * 240, names=classes, paths=paths)
    codes = random.normal(size=(240, 24)) + 2 * random.normal(size=(12, 24))[labels]
    coded(cache, manifest, codes)
    assert find_kin(manifest, cache) is None


def test_the_search_is_remembered_until_anything_it_depends_on_changes(cache, monkeypatch):
    searched = []
    search = kin_module._search
    monkeypatch.setattr(kin_module, "_search", lambda *all: searched.append(1) or search(*all))
    manifest, _ = things(cache, worth=2.0)
    first = find_kin(manifest, cache)
    assert kin_cost(manifest, cache) == 0 < kin_cost(manifest, cache, seed=1)
    assert find_kin(manifest, cache) == first is not None
    assert len(searched) == 1
    swapped = manifest.labels.copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    split = manifest.split.copy()
    split[0] = TEST - split[0]
    paths = (*manifest.paths[1:], "another.jpg")
    column = {"lot": np.arange(len(paths)) % 7}
    others = [
        replace(manifest, **change)
        for change in ({"labels": swapped}, {"split": split}, {"paths": paths}, {"extra": column})
    ]
    for n, other in enumerate(others, 2):
        found = find_kin(other, cache)
        assert len(searched) == n
        assert find_kin(other, cache) == found
    find_kin(manifest, cache, seed=1)
    assert len(searched) == 6
    (cache / "set" / "net.h5").unlink()
    things(cache, worth=0.0)  # the same images, other codes under the same name
    assert find_kin(manifest, cache) is None
    assert find_kin(manifest, cache) is None  # no grouping is an answer too
    assert len(searched) == 7
