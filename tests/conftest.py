"""What the tests share: real images, a small network, one folder of exports.

Where ``../shared/data`` is not there, pieces of photographs that packages bring stand in for its
images; the few tests that are about those very images skip. ``SHARED_DATA=/nowhere`` tries that.

Exporting a network costs seconds, so all tests of a session keep cards and graphs in one folder;
each has its own cache beside it.
"""

import contextlib
import ctypes
import importlib.util
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsing import driven

# Tests share the cores with each other: threads that wait must not spin. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from cnn_codes.cli import main
from cnn_codes.codes.extract import Extraction, extract
from cnn_codes.codes.reader import Codes, open_codes
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.settings import (
    CodesSettings,
    DataSettings,
    MachineSettings,
    PlaceSettings,
    from_mapping,
)
from costs import LONG_S, read_costs
from filelock import FileLock
from pictures import write_pieces

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))

needs_elpv = pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="pip install elpv-dataset"
)

# A network of timm of a third of a million parameters, with batch normalisation, at 32 px.
SMALL: dict[str, Any] = {"model": "test_efficientnet", "weights": "none", "size": 32}

# Fixtures that train, serve or build for 2 s and more: `make test-fast` leaves their tests out.
COSTLY = {"archives", "client", "late", "larger", "made", "page", "probe", "small", "trained",
          "tuned", "usual"}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--quick``: leave out what ``costs.txt`` names and what needs a costly fixture."""
    parser.addoption("--quick", action="store_true", help="leave out what takes 0.2 s and more")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the long functions; with ``--quick``, deselect those that cost 0.2 s and more."""
    listed, dropped = read_costs(), []
    for item in items:
        seconds = listed.get(f"{item.path.name}::{getattr(item, 'originalname', item.name)}", 0.0)
        if seconds >= LONG_S:
            item.add_marker("long")
        costly = seconds or not COSTLY.isdisjoint(getattr(item, "fixturenames", ()))
        if costly and config.getoption("--quick"):
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C reach the processes that tests start; a shell's background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stand_in(
    factory: pytest.TempPathFactory, name: str, kinds: dict[str, list[str]], splits: dict[str, int]
) -> Path:
    """Give a folder of pieces of photographs that packages bring, the same for all processes."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / f"{name}.lock"):
        if not (base / name).is_dir():
            write_pieces(base / f"{name}.tmp", kinds, splits)
            (base / f"{name}.tmp").rename(base / name)
    return base / name


@pytest.fixture(scope="session")
def real_hotdog() -> Path:
    """Give the hotdog images themselves; skips where they are not."""
    if not (SHARED / "hotdog").is_dir():
        pytest.skip("../shared/data/hotdog is not there")
    return SHARED / "hotdog"


@pytest.fixture(scope="session")
def real_ants_bees() -> Path:
    """Give the images of ants and bees themselves; skips where they are not."""
    if not (SHARED / "ants-bees").is_dir():
        pytest.skip("../shared/data/ants-bees is not there")
    return SHARED / "ants-bees"


@pytest.fixture(scope="session")
def hotdog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the hotdog images, or pieces of photographs in folders of the same names."""
    if (SHARED / "hotdog").is_dir():
        return SHARED / "hotdog"
    kinds = {"hotdog": ["flower"], "not-hotdog": ["china", "portrait"]}
    return _stand_in(tmp_path_factory, "hotdog", kinds, {"train": 260, "test": 240})


@pytest.fixture(scope="session")
def ants_bees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the images of ants and bees, or pieces of photographs in folders of the same names."""
    if (SHARED / "ants-bees").is_dir():
        return SHARED / "ants-bees"
    pytest.importorskip("elpv_dataset", reason="pip install elpv-dataset: its cells stand in")
    kinds = {"ants": ["cells"], "bees": ["cells"]}  # unlike what stands in for hotdog
    return _stand_in(tmp_path_factory, "ants-bees", kinds, {"train": 240, "val": 150})


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of cards and exported graphs that all tests share, in all processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    (base / "backbones").mkdir(exist_ok=True)
    return base / "backbones"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give a browser to the tests of a module."""
    yield from driven(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def cache(tmp_path: Path, backbones: Path) -> Path:
    """Give an empty cache of the test's own, with the shared exports."""
    backbones.mkdir(exist_ok=True)
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "backbones").symlink_to(backbones)
    return folder


@dataclass
class StageOne:
    """Stage one with a cache of the test's own; settings by their names."""

    cache: Path

    def manifest(self, data: Path, **settings: Any) -> Manifest:
        places = PlaceSettings(data_root=str(self.cache.parent / "data"), cache=str(self.cache))
        return load_manifest(from_mapping(DataSettings, {"data": str(data), **settings}), places)

    def __call__(self, data: Path | Manifest, **settings: Any) -> Extraction:
        """Extract the codes of a folder or manifest with the small network, unless told."""
        return extract(self.context(data, **settings))

    def context(self, images: Path | Manifest, **settings: Any) -> Context:
        """Make the context of a folder or manifest; ``messages`` and settings by their names."""
        extra = {k: settings.pop(k) for k in ("messages", "warnings", "command") if k in settings}
        named = {key: value for key, value in settings.items() if key != "data"}
        manifest = images if isinstance(images, Manifest) else self.manifest(images, **named)
        settings = SMALL | settings
        settings.setdefault("results", str(self.cache.parent / "results"))
        return Context(
            manifest=manifest,
            data=from_mapping(DataSettings, settings),
            codes=from_mapping(CodesSettings, settings),
            machine=from_mapping(MachineSettings, settings),
            places=PlaceSettings(cache=str(self.cache), results=str(settings["results"])),
            **extra,
        )


@pytest.fixture
def stage_one(cache: Path) -> StageOne:
    """Give stage one, with a cache of the test's own."""
    return StageOne(cache)


def ran(line: Sequence[Any], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in the project's folder, and keep what it says."""
    usual = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120, "check": False}
    return subprocess.run(line, **usual | more)


def python(code: str, *arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of Python in a process of its own."""
    return ran([sys.executable, "-c", code, *arguments], **more)


@dataclass
class Command:
    """``python -m pipeline`` in a process of its own."""

    cache: Path

    def line(self, stage: str, *arguments: str, **settings: Any) -> list[str]:
        """Spell the command: settings become NAME=value."""
        values = {"cache": self.cache, "data_root": self.cache.parent / "data"} | settings
        values.setdefault("results", self.cache.parent / "results")
        named = [f"{name.upper()}={value}" for name, value in values.items()]
        return [sys.executable, "-m", "pipeline", stage, *arguments, *named]

    def __call__(
        self, stage: str, *arguments: str, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return ran(self.line(stage, *arguments, **settings))


@pytest.fixture
def command(cache: Path) -> Command:
    """Give the command line, with a cache of the test's own."""
    return Command(cache)


class Inside(Command):
    """The same command in this process: what it says is kept, and libraries are loaded once."""

    def __call__(
        self, stage: str, *arguments: str, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        line = self.line(stage, *arguments, **settings)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(line[line.index(stage) :])
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


@pytest.fixture
def inside(cache: Path) -> Inside:
    """Give the command line as a function, with a cache of the test's own."""
    return Inside(cache)


def _without_override() -> None:
    """Take from a child the power of root to write where permissions forbid it."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE; at the next exec


def as_user(line: list[str], read_only: Path) -> subprocess.CompletedProcess[str]:
    """Run a command for which `read_only`, a folder, is that, also where the tests are root's."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")

    def run(line: list[str]) -> subprocess.CompletedProcess[str]:
        return ran(line, preexec_fn=_without_override)

    if run(["touch", str(read_only / "probe")]).returncode == 0:
        pytest.skip("this user writes where permissions forbid it")
    return run(line)


def arrays(codes: Codes) -> dict[str, bytes]:
    """Give the bytes of every dataset of a published file, but for the seal.

    The seal is a digest of the attributes too, and these say how long it took.
    """
    contents = open_codes(codes.path).contents
    return {name: contents.array(name).tobytes() for name in contents.fields if name != "seal"}
