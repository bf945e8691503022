"""The pages: the tree is the real one, tutorials run as they stand, the build has no warning."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, ran

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
MODULE = re.compile(r"`((?:[a-z]+/)+[a-z_]+\.py)`")


def commands(page: Path) -> list[str]:
    """Give the lines of a page's shell blocks."""
    blocks = re.findall(r"^```shell\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_tree_names_every_folder_and_module_and_nothing_else():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    shown = set(re.findall(r"^      ([a-z_]+(?:/|\.py)) ", text, re.MULTILINE))
    there = {
        path.name if path.is_file() else f"{path.name}/"
        for path in (ROOT / "pipeline").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    } - {"__init__.py", "__main__.py"}
    assert shown == there


@pytest.mark.parametrize("page", ["methods.md", "architecture.md", "../CONTRIBUTING.md"])
def test_every_module_that_a_page_names_is_there(page):
    for name in MODULE.findall((ROOT / "docs" / page).read_text()):
        folder = ROOT if name.startswith(("tests/", "docs/")) else ROOT / "pipeline"
        assert (folder / name).is_file(), name


def test_every_figure_of_a_record_is_in_the_methods_page():
    text = (ROOT / "docs" / "methods.md").read_text().lower()
    for word in ("accuracy", "macro-f1", "auroc", "log-loss", "brier", "ece", "mcnemar", "holm",
                 "bonett", "nadeau", "signed-rank", "temperature", "confident learning",
                 "near-duplicate", "crossing", "balanced accuracy", "leak", "logme"):  # fmt: skip
        assert word in text, word


def web_runtime_folder() -> Path:
    """Give the user's folder of onnxruntime-web, which tests of the browser fill too."""
    from cnn_codes.predict.source import user_cache

    folder = user_cache() / "web"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_tutorials_have_commands():
    assert len(TUTORIALS) >= 5
    assert all(commands(page) for page in TUTORIALS if page.name != "notebook.md")


def run(line: str, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a page in `folder`: make's targets by the command that they are."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        words = [sys.executable, "-m", "pipeline", *words[1:], *extra]
        words[5:5] = [f"{k}={folder / k.lower()}" for k in ("CACHE", "RESULTS", "DATA_ROOT")]
        words = [
            re.sub(r"^(DATA|IMAGES|OUT|LABELS)=(?!elpv)", rf"\1={folder}/", word) for word in words
        ]
    else:
        there = [str(folder / one) if (folder / one).exists() else one for one in words[1:-1]]
        words = [sys.executable, *there, str(folder / words[-1])]
    if words[3:4] == ["label"]:
        return corrected(words)
    return ran(words, timeout=600)


def corrected(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Do on the labelling page what the reader is asked to: correct the twelve most doubtful."""
    from serving import Client

    server = subprocess.Popen([*words, "PORT=0"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    said = next(line for line in server.stderr if "http://127.0.0.1:" in line)
    client = Client(int(said.split("127.0.0.1:")[1].split("/")[0]))
    try:
        for _ in range(12):
            while (found := client.get("/api/status").json)["judged"] != found["version"]:
                time.sleep(0.02)
            first = client.get("/api/queue/doubtful?count=1").json["images"][0]
            truth = Path(first["path"]).name.partition("-")[0]
            body = {"rows": [first["row"]], "what": "label", "value": truth}
            done = client("POST", "/api/act", json.dumps(body), Content_Type="application/json")
            assert done.status == 200
        assert client.get("/api/status").json["n_changed"] == 6, "all that the page promises"
    finally:
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=60)
    return subprocess.CompletedProcess(words, server.returncode, "", told)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["photographs", "whole-way", "groups", "different", "solar-cells"])
def test_a_tutorial_runs_as_it_stands(page, tmp_path, backbones):
    if page == "solar-cells":
        pytest.importorskip("elpv_dataset")
    backbones.mkdir(exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "backbones").symlink_to(backbones)
    if page == "whole-way":
        pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
        (tmp_path / "cache" / "web").symlink_to(web_runtime_folder())
    accuracy = {}
    for line in commands(ROOT / "docs" / "tutorials" / f"{page}.md"):
        done = run(line, tmp_path)
        if "FORMAT=web" in line and "onnxruntime-web" in done.stderr:
            pytest.skip("onnxruntime-web cannot be had here; all lines before it have run")
        wanted = 2 if line.endswith("# exit code 2") else 0
        assert done.returncode == wanted, (line, done.stdout, done.stderr)
        if page == "different" and line.startswith("make data") and not wanted:
            assert ": 24 images of 2 classes" in done.stdout, (line, done.stdout)
        if found := re.search(r"svm +(?:final +)?(\d+\.\d) ", done.stdout):
            accuracy[line] = float(found.group(1))
    if page == "groups":
        without, with_groups = accuracy.values()
        assert without > with_groups + 10, "what the page says of the figure without groups"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="make docs installs it")
    done = ran(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path / "html"],
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "over 5 folds of 120 images" in (tmp_path / "html/tutorials/notebook.html").read_text()
