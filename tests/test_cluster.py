"""Stage one, prediction and heads on a local Ray of two workers; workers and drivers are killed."""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from cnn_codes.cluster import Chunk, Pool, connected
from cnn_codes.codes.reader import open_codes
from cnn_codes.errors import ClusterError, SettingsError
from cnn_codes.settings import ClusterSettings
from conftest import SMALL, arrays
from pictures import jpeg, write_set
from spreading import Spread, needs_ray

slow = pytest.mark.slow


def published(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*/*.h5") if path.is_file())


def parts(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.parts/*.part"))


def spread(data: Path, cache: Path, **settings: Any) -> Spread:
    return Spread("features", data=data, cache=cache, **SMALL | settings)


def test_settings_of_the_cluster():
    for good in ("", "local", "auto", "ray://10.0.0.1:10001", "ray://[::1]:10001"):
        assert ClusterSettings(cluster=good).cluster == good
    for bad in ("here", "10.0.0.1", "ray:/x", "http://x"):
        with pytest.raises(SettingsError, match="CLUSTER"):
            ClusterSettings(cluster=bad)


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    from cnn_codes.cluster import connection

    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match="needs the package ray") as caught:
        connection.connected("local").__enter__()
    assert "pip install 'cnn-codes[cluster]'" in caught.value.todo


class Killer:
    """Adds up numbers; a negative one ends its process."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def greet(self) -> str:
        return "hello"

    def work(self, number: int, items: list[int]) -> int:
        for item in items:
            if item < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            (self.folder / str(item)).touch()
        return len(items)


@needs_ray
@slow
def test_an_item_that_kills_every_worker_is_found_and_given_up(tmp_path):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    given_up: list[int] = []
    chunks = [Chunk(k, list(range(10 * k, 10 * k + 10))) for k in range(4)]
    chunks[2].items[6] = -1
    with connected("local", cores=2):
        pool = Pool(
            Killer,
            (str(tmp_path),),
            n=2,
            died=lambda chunk: [i for i in chunk.items if not (tmp_path / str(i)).exists()],
            given_up=given_up.append,
        )
        assert sum(count for _, count in pool.run(chunks)) <= 39
    assert {int(path.name) for path in tmp_path.iterdir()} == {*range(40)} - {26}
    assert given_up == [-1]


@needs_ray
@slow
def test_arrays_are_those_of_one_process_and_a_bad_image_is_a_row(tmp_path, stage_one):
    folder = write_set(tmp_path / "set", 60)
    (folder / "cat" / "bad.jpg").write_bytes(jpeg(1)[:300])
    (folder / "dog" / "text.jpg").write_text("no image")
    alone = stage_one(folder)
    out = spread(folder, tmp_path / "other", views="flip").end()
    assert "2 Ray workers" in out
    assert "2 images cannot be used" in out
    flipped = stage_one(folder, views="flip")
    (path,) = published(tmp_path / "other")
    assert arrays(open_codes(path)) == arrays(flipped.codes)
    assert len(alone.codes) == 60
    assert not parts(tmp_path / "other")


@needs_ray
@slow
@pytest.mark.timeout(600)
def test_workers_killed_at_ten_moments(tmp_path, hotdog, stage_one):
    alone = stage_one(hotdog, layers=("all",))
    choice = random.Random(0)
    killed = n_runs = 0
    while killed < 10:  # a fast machine is through before ten kills
        cache = tmp_path / f"other{n_runs}"
        run = spread(hotdog, cache, layers="all")
        n_parts, before = 0, killed
        while killed < 10 and run.process.poll() is None:
            if len(parts(cache)) > n_parts or killed == before:  # some work was done since
                time.sleep(choice.uniform(0, 0.6))
                n_parts = len(parts(cache))
                if workers := run.workers():
                    os.kill(choice.choice(workers).pid, signal.SIGKILL)
                    killed += 1
            time.sleep(0.02)
        out = run.end()
        assert killed > before, "the run ended before a kill"
        assert "ended before their work was done" in out
        (path,) = published(cache)
        assert arrays(open_codes(path)) == arrays(alone.codes)
        assert not parts(cache)
        n_runs += 1


@needs_ray
@slow
@pytest.mark.timeout(900)
def test_drivers_killed_at_five_moments(tmp_path, hotdog, stage_one):
    alone = stage_one(hotdog, layers=("all",))
    cache = tmp_path / "other"
    choice = random.Random(1)
    before = 0
    for moment in range(5):
        run = spread(hotdog, cache, layers="all")
        while run.process.poll() is None and len(parts(cache)) < before + 1 + moment % 2:
            time.sleep(0.02)
        time.sleep(choice.uniform(0, 0.3))
        workers = run.workers()
        run.process.kill()
        run.process.communicate()
        psutil.wait_procs(workers, timeout=20)
        assert len(parts(cache)) >= before, "a part was lost"
        before = len(parts(cache))
        assert not published(cache) or moment == 4
    n_rows = sum(len(_rows(path)) for path in parts(cache))
    assert n_rows == len(np.unique(np.concatenate([_rows(path) for path in parts(cache)])))
    out = spread(hotdog, cache, layers="all").end()
    whole = n_rows == len(alone.codes)  # a fast machine is done by the last kill
    assert (f"All {n_rows} images were there" if whole else f"{n_rows} were there") in out
    (path,) = published(cache)
    assert arrays(open_codes(path)) == arrays(alone.codes)


def without_times(value: Any) -> Any:
    """Leave out what is measured in seconds."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "time" not in k and not k.endswith("_s")}
        return {k: without_times(v) for k, v in kept.items()}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def _rows(part: Path) -> Any:
    from cnn_codes.codes.parts import read_part

    return read_part(part)[0]["sha256"]


@needs_ray
@slow
def test_heads_curves_and_predictions_are_those_of_one_process(tmp_path, cache, command):
    folder = write_set(tmp_path / "set", 80)
    (tmp_path / "new").mkdir()
    for i in range(40):
        (tmp_path / "new" / f"{i}.jpg").write_bytes(jpeg(1000 + i))
    (tmp_path / "new" / "bad.jpg").write_text("no image")
    small = {**SMALL, "data": folder, "workers": 2}
    for name, where in (("alone", ""), ("spread", "local")):
        results = tmp_path / name
        shared = {"results": results, "cluster": where}
        done = command("heads", methods="svm,ridge", splits=2, **small, **shared)
        assert done.returncode == 0, done.stderr
        done = command("curve", methods="ridge", sizes="8,16", draws=2, **small, **shared)
        assert done.returncode == 0, done.stderr
        done = command("compare", methods="svm,ridge", **small, **shared)
        assert done.returncode == 0, done.stderr
        (run,) = (results / "set").glob("svm*split1of2_????????.json")
        done = command(
            "predict",
            images=tmp_path / "new",
            run=run,
            out=results / "out.csv",
            workers=2,
            **shared,
        )
        assert done.returncode == 0, done.stderr
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    names = [path.relative_to(alone) for path in sorted(alone.rglob("*.csv"))]
    assert len(names) >= 5
    for name in names:
        assert (alone / name).read_bytes() == (spread / name).read_bytes(), name
    for path in sorted((alone / "set").glob("*.json")):
        one, other = (json.loads((at / "set" / path.name).read_text()) for at in (alone, spread))
        for key in ("metrics", "chosen", "pairs", "methods", "crossings"):
            assert without_times(one.get(key)) == without_times(other.get(key)), (path.name, key)


@needs_ray
@pytest.mark.timeout(30)
def test_an_address_where_nothing_answers_is_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"ray://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=address) as caught:
        connected(address).__enter__()
    assert "RAY_AUTH_TOKEN" in str(caught.value.expected)
    monkeypatch.setenv("RAY_ADDRESS", address.removeprefix("ray://"))
    with pytest.raises(
        ClusterError, match=r"CLUSTER=auto.*127\.0\.0\.1"
    ):  # at once, not in minutes
        connected("auto").__enter__()


@needs_ray
@slow
def test_no_cluster_to_join_is_said(tmp_path, command):
    folder = write_set(tmp_path / "set", 40)
    done = command("features", data=folder, cluster="auto", **SMALL)
    assert done.returncode == 2
    assert "there is no Ray to connect to" in done.stderr
    assert "CLUSTER=local" in done.stderr
