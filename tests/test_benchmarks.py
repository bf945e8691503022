"""Measurements call the package as it is: every call fits the signature of what it calls."""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest
from cnn_codes.settings import PlaceSettings
from pictures import write_set

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MODULES = sorted(p.stem for p in BENCHMARKS.glob("*.py") if not p.stem.startswith("__init"))
ANY = object()


def _names(module: ModuleType, tree: ast.Module) -> dict[str, object]:
    """Give what the module took from the package or its siblings, also within functions."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in ("cnn_codes", "benchmarks"):
                source = importlib.import_module(node.module)
                for one in node.names:
                    found[one.asname or one.name] = getattr(source, one.name)
    own = {name: one for name, one in vars(module).items() if inspect.isfunction(one)}
    return own | found


@pytest.mark.parametrize("name", MODULES)
def test_calls_fit_their_signatures(name: str) -> None:
    tree = ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"))
    module = importlib.import_module(f"benchmarks.{name}")
    names = _names(module, tree)
    n_checked = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        called = names.get(node.func.id)
        spread = any(isinstance(one, ast.Starred) for one in node.args)
        if not callable(called) or spread or any(one.arg is None for one in node.keywords):
            continue
        keywords = {str(one.arg): ANY for one in node.keywords}
        try:
            inspect.signature(called).bind(*[ANY] * len(node.args), **keywords)
        except TypeError as error:
            pytest.fail(f"benchmarks/{name}.py:{node.lineno}: {node.func.id}: {error}")
        n_checked += 1
    assert n_checked


def test_a_set_is_opened_as_the_stages_open_it(tmp_path: Path) -> None:
    from cnn_codes.settings import CodesSettings

    from benchmarks.sets import codes_of, opened

    write_set(tmp_path / "set" / "train", 4)
    write_set(tmp_path / "set" / "test", 2)
    places = PlaceSettings(cache=str(tmp_path / "cache"), results=str(tmp_path / "results"))
    asked = CodesSettings(model="test_resnet", weights="none", size=64)
    context = opened(str(tmp_path / "set"), places, asked, seed=3)
    assert context.seed == 3
    assert codes_of(context).matrix().shape[0] == context.manifest.n_images
