"""The exported page in a real browser, opened from a file: it predicts as ``make predict`` does."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import needs_browser
from cnn_codes import Classifier
from cnn_codes.errors import DownloadError
from cnn_codes.export import Exported, export_run
from cnn_codes.export.runtime import VERSION, web_runtime
from explaining import crops, workshop
from PIL import Image
from predicting import REAL, Workshop


def test_without_the_runtime_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match="OFFLINE=1") as refusal:
        web_runtime(tmp_path, offline=True)
    assert f"npm pack onnxruntime-web@{VERSION} --pack-destination" in refusal.value.todo
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match="npm is not installed"):
        web_runtime(tmp_path, offline=False)
    archive = tmp_path / "web" / f"onnxruntime-web-{VERSION}.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(DownloadError, match="is not the package"):
        web_runtime(tmp_path, offline=True)


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "web" / f"onnxruntime-web-{VERSION}"
    folder.mkdir(parents=True)
    for name in (
        "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    ):  # fmt: skip
        (folder / name).write_bytes(b"another")
    with pytest.raises(DownloadError, match="is not the file"):
        web_runtime(tmp_path, offline=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return workshop(tmp_path_factory.mktemp("web"), backbones)


@pytest.fixture(scope="module")
def runtime() -> Path:
    """Give a folder that has the runtime: it is fetched once, and kept for later sessions."""
    from cnn_codes.predict.source import user_cache

    cache = user_cache()
    try:
        web_runtime(cache, offline=shutil.which("npm") is None)
    except DownloadError as error:
        pytest.skip(f"onnxruntime-web cannot be had here: {error.found}")
    return cache / "web"


def exported(shop: Workshop, runtime: Path, out: Path, **settings: Any) -> tuple[Path, Exported]:
    if not (shop.cache / "web").exists():
        (shop.cache / "web").symlink_to(runtime)
    (run,) = shop.heads("softmax", **settings)
    return run, export_run(run, out, format="web", cache=shop.cache, offline=True)


def opened(browser: Any, folder: Path, *, width: int = 1400, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get((folder / "index.html").as_uri())
    until(browser, "return document.body.dataset.ready", "yes")


def until(browser: Any, script: str, wanted: Any, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while (found := browser.execute_script(script)) != wanted:
        assert time.monotonic() < end, (found, browser.get_log("browser"))
        time.sleep(0.1)


def given(browser: Any, paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Choose files on the page and read what it says of them."""
    browser.execute_script("document.getElementById('results').replaceChildren()")
    browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))
    until(browser, "return document.querySelectorAll('article').length", len(paths))
    rows = browser.execute_script(
        "return [...document.querySelectorAll('article')].map((a) => [a.dataset.name, "
        "a.dataset.predicted, a.dataset.probabilities, !!a.querySelector('.warning'), "
        "!!a.querySelector('button'), a.dataset.distance ?? 'NaN'])"
    )
    return {
        name: {
            "predicted": predicted,
            "probabilities": np.array(json.loads(told)),
            "unlike": unlike,
            "distance": float(distance),
            "heat": heat,
        }
        for name, predicted, told, unlike, heat, distance in rows
    }


@needs_browser
def test_the_page_predicts_as_the_run_does(
    shop: Workshop, runtime: Path, browser: Any, tmp_path: Path
) -> None:
    run, made = exported(shop, runtime, tmp_path / "site", views="flip", size=128)
    assert made.files[0].name == "index.html"
    again = export_run(run, tmp_path / "again", format="web", cache=shop.cache, offline=True)
    for one, other in zip(made.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    images = tmp_path / "images"
    images.mkdir()
    pieces, _ = crops(25, seed=7, sides=(60, 400))
    paths = [images / f"{index:02}.png" for index in range(len(pieces))]
    for path, pixels in zip(paths, pieces, strict=True):
        Image.fromarray(pixels).save(path)
    opened(browser, tmp_path / "site")
    found = given(browser, paths)
    expected = Classifier.load(run, cache=shop.cache, offline=True).predict_proba(paths)
    for path, one in zip(paths, expected, strict=True):
        assert np.abs(found[path.name]["probabilities"] - one).max() < 1e-5
        assert found[path.name]["predicted"] == made_classes(run)[int(one.argmax())]
        assert found[path.name]["heat"]
    classifier = Classifier.load(run, cache=shop.cache, offline=True)
    nearest = classifier.classify(paths, neighbours=classifier.neighbours())
    for path, one in zip(paths, nearest, strict=True):
        assert found[path.name]["distance"] == pytest.approx(one.nearest[0].distance, abs=0.02)
    said = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert said == []
    asked = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}
    (images / "bad.png").write_bytes(b"no image")
    browser.find_element("id", "files").send_keys(str(images / "bad.png"))
    until(browser, "return document.getElementById('status').className", "wrong")
    for width in (360, 1400):
        for dark in (False, True):
            opened(browser, tmp_path / "site", width=width, dark=dark)
            given(browser, paths[:2])
            over = "return document.documentElement.scrollWidth - innerWidth"
            assert browser.execute_script(over) <= 0


def made_classes(run: Path) -> list[str]:
    names: list[str] = json.loads(run.read_text())["class_names"]
    return names


@needs_browser
@pytest.mark.slow
def test_lite0_fits_into_25_mb_and_answers_in_300_ms(
    shop: Workshop, runtime: Path, browser: Any, tmp_path: Path
) -> None:
    run, made = exported(shop, runtime, tmp_path / "site", **REAL)
    assert made.n_bytes <= 25e6
    opened(browser, tmp_path / "site")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert given(browser, [tmp_path / "noise.png"])["noise.png"]["unlike"]
    paths = shop.test_images()
    given(browser, paths)
    found = given(browser, paths)
    expected = Classifier.load(run, cache=shop.cache, offline=True).predict_proba(paths)
    for path, one in zip(paths, expected, strict=True):
        assert np.abs(found[path.name]["probabilities"] - one).max() < 1e-5
    times = []
    for path in paths:
        given(browser, [path])
        told = browser.execute_script("return document.getElementById('status').textContent")
        times.append(int(told.rpartition(": ")[2].removesuffix(" ms")))
    assert np.median(times) < 300
