"""The order worth labelling."""

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.errors import DataError
from cnn_codes.next.judged import probabilities
from cnn_codes.next.order import by_margin, by_typicality, choose_next
from cnn_codes.next.stage import find_next
from cnn_codes.settings import NextSettings
from conftest import SMALL
from pictures import jpeg, write_set


def clusters(n: int, k: int, dim: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    return (3 * random.normal(size=(k, dim))[labels] + random.normal(size=(n, dim))), labels


def test_few_labels_are_spread_over_all_clusters():
    codes, labels = clusters(400, 8)
    rows = by_typicality(codes, codes[:0], 8)
    assert len(set(rows.tolist())) == 8
    assert len(set(labels[rows].tolist())) >= 7
    random = np.random.default_rng(0)
    by_chance = np.mean([len(set(labels[random.permutation(400)[:8]])) for _ in range(200)])
    assert len(set(labels[rows].tolist())) > by_chance


def test_clusters_that_have_a_label_come_last():
    codes, labels = clusters(400, 4)
    have = np.flatnonzero(labels < 2)[:40]
    rest = np.setdiff1d(np.arange(400), have)
    rows = rest[by_typicality(codes[rest], codes[have], 4)]
    assert (labels[rows] >= 2).sum() >= 3


def test_small_margins_come_first_and_are_spread():
    random = np.random.default_rng(1)
    codes = random.normal(size=(500, 10))
    p = random.dirichlet((1, 1, 1), 500)
    p[:40] = [0.34, 0.33, 0.33]
    codes[1:30] = codes[0] + 1e-6 * random.normal(size=(29, 10))  # one image thirty times
    rows = by_margin(codes, p, 10)
    assert len(set(rows.tolist())) == 10
    assert sum(row < 30 for row in rows.tolist()) <= 2
    margins = np.sort(p, axis=1)
    margin = margins[:, -1] - margins[:, -2]
    assert margin[rows].mean() < margin.mean() / 2


@pytest.mark.parametrize("n", [0, 1, 3])
def test_less_than_asked_for_is_all_there_is(n):
    codes, _ = clusters(max(n, 1), 1)
    codes = codes[:n]
    p = np.full((n, 2), 0.5)
    for counts in ((0, 0), (20, 20)):
        rows, how = choose_next(codes, codes[:0], np.array(counts), p, 50)
        assert sorted(rows.tolist()) == list(range(n))
        assert how == ("margin" if min(counts) else "typicality")


def test_ten_labels_of_every_class_turn_to_margins():
    codes, _ = clusters(60, 2)
    p = np.full((60, 2), 0.5)
    for counts, how in (((10, 9), "typicality"), ((10, 10), "margin"), ((50,), "typicality")):
        assert choose_next(codes, codes[:5], np.array(counts), p[:, : len(counts)], 5)[1] == how


def test_a_class_without_an_image_has_probability_0():
    codes, labels = clusters(60, 2)
    p = probabilities(codes, labels, codes, 3)
    assert np.allclose(p.sum(axis=1), 1)
    assert (p[:, 2] == 0).all()
    assert (p.argmax(axis=1) == labels).mean() > 0.9
    assert (probabilities(codes, labels * 0, codes, 2)[:, 0] == 1).all()


def test_the_stage_names_new_images_once_and_runs_only_new_ones(tmp_path, cache, stage_one, capsys):
    data = write_set(tmp_path / "pets", 40)
    new = tmp_path / "new"
    new.mkdir()
    for i in range(6):
        (new / f"{i}.jpg").write_bytes(jpeg(5000 + i // 2))  # each twice
    (new / "known.jpg").write_bytes((data / "cat" / "0000.jpg").read_bytes())
    (new / "bad.jpg").write_bytes(b"no picture")
    context = stage_one.context(data)
    found = find_next(context, NextSettings(images=str(new), count=50))
    assert len(found.paths) == found.n_unlabelled == 3
    assert all(path.startswith(str(new)) for path in found.paths)
    assert len(found.rejects) == 1
    assert set(found.predicted) <= {"cat", "dog"}
    assert find_next(context, NextSettings(images=str(new), count=2)).paths == found.paths[:2]
    with pytest.raises(DataError, match="labelled already"):
        find_next(context, NextSettings(images=str(data)))
    values = {**SMALL, "data": data, "cache": cache, "images": new, "count": 2}
    line = [f"{name.upper()}={value}" for name, value in values.items()]
    out = tmp_path / "next.csv"
    assert main(["next", *line]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["next", *line, f"OUT={out}"]) == 0
    assert out.read_text().splitlines()[0] == "path,predicted,margin"
    assert len(out.read_text().splitlines()) == 3
