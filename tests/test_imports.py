"""The order of the modules, held by walking their imports; and what quick commands do not load."""

import ast
import functools
import json
import re
import tomllib
from pathlib import Path

import pytest
from cnn_codes.cli import main
from conftest import SMALL, python
from pictures import write_set

ROOT = Path(__file__).parents[1]

# From left to right: a module or folder of pipeline/ imports only what stands before it here.
ORDER = """
    errors notation cells files memory progress settings datasets context backbones cluster codes
    results audit answers heads finetune evidence runs compare curve advise predict explain export
    report serve next label stages preparation reporting
    api cli __main__
""".split()  # fmt: skip
COMMAND_LINE = ("cli", "__main__")


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Give every module of the package, by its full name."""
    found = {}
    for path in (ROOT / "pipeline").rglob("*.py"):
        name = ".".join(["cnn_codes", *path.relative_to(ROOT / "pipeline").with_suffix("").parts])
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    assert len(found) > 50
    return found


def unit(module: str) -> str:
    """Give the module or package directly below pipeline."""
    return module.split(".")[1] if "." in module else ""


@functools.cache
def imported(module: str, *, typing: bool = True) -> frozenset[str]:
    """Give what a module imports anywhere in it: our own modules by full name, others' by theirs.

    Imports inside the package are relative, so that it works under any name it is installed as.

    With `typing` False, imports for the type checker alone are left out.
    """
    found = set()
    waiting: list[ast.AST] = [modules()[module]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            assert node.level or not base.startswith(("cnn_codes", "pipeline")), module
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in modules() else base)
        waiting.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """Give the full name of what an import names."""
    if not node.level:
        return str(node.module)
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + _is_folder(module)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _is_folder(module: str) -> bool:
    return (ROOT / "pipeline" / Path(*module.split(".")[1:]) / "__init__.py").is_file()


def reached(unit_name: str) -> set[str]:
    """Give the libraries that a folder or module loads, itself or through our other modules."""
    full = f"cnn_codes.{unit_name}"
    waiting = [name for name in modules() if name == full or name.startswith(f"{full}.")]
    assert waiting, f"pipeline/{unit_name} is not there: rename it here too"
    seen, libraries = set(waiting), set()
    while waiting:
        for name in imported(waiting.pop(), typing=False):
            if name not in modules():
                libraries.add(name.partition(".")[0])
            elif name not in seen:
                seen.add(name)
                waiting.append(name)
    return libraries


def test_every_module_has_a_place_in_the_order():
    assert len(ORDER) == len(set(ORDER))
    assert {unit(name) for name in modules()} - {""} == set(ORDER), "ORDER names what is there"


def test_the_wheel_has_every_folder():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name for name in modules() if _is_folder(name)}
    assert set(setup["packages"]) == folders | {"cnn_codes.finetune.recipes"}


def test_nothing_flows_back():
    back = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if unit(name) and unit(other) and other in modules() and unit(other) != unit(name)
        if ORDER.index(unit(other)) > ORDER.index(unit(name))
    ]
    assert back == []


def test_a_name_with_an_underscore_is_its_modules_own():
    taken = [
        f"{name} imports {alias.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert taken == []


def test_no_two_modules_import_each_other():
    graph = {name: {other for other in imported(name) if other in modules()} for name in modules()}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert {name: sorted(others & graph.keys()) for name, others in graph.items()} == {}


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("heads", {"torch", "torchvision", "timm", "h5py"}),
        ("results", {"torch", "h5py", "sklearn"}),
        ("results.metrics", {"torch", "h5py", "sklearn", "scipy"}),
        ("datasets.manifest", {"torch", "h5py", "sklearn", "PIL", "onnxruntime"}),
        ("codes.reader", {"torch", "sklearn", "PIL"}),
        ("codes.cache", {"sklearn", "onnxruntime"}),
        ("report", {"sklearn", "torch", "h5py"}),
    ],
)
def test_what_a_stage_never_loads(name, never):
    assert not reached(name) & never


def test_one_module_alone_touches_hdf5():
    # Besides the cache's own files: a child process that writes a user's arrays out as images.
    touch = {"cnn_codes.codes.hdf5", "cnn_codes.datasets.array_files"}
    assert {name for name in modules() if "h5py" in imported(name)} == touch
    others = {"tables", "netCDF4", "zarr", "pandas"}
    assert not [name for name in modules() if imported(name) & others]


def spoken(tree: ast.Module) -> list[str]:
    """List what in a module prints, asks, parses arguments or ends the process."""
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    raised = [
        ast.unparse(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc
    ]
    ends = ("print", "input", "exit", "quit", "sys.exit", "os._exit", "os.abort")
    found = [call for call in calls if call in ends or call.startswith("sys.std")]
    found += [one for one in raised if one.startswith("SystemExit")]
    names = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return found + [name for name in names if name in ("sys.argv", "sys.stdout")]


def test_only_the_command_line_prints_parses_or_ends_the_process():
    allowed = {"cnn_codes.progress": {"sys.stderr.fileno"}}  # to ask how wide the terminal is
    found = {
        name: sorted(set(spoken(tree)) - allowed.get(name, set()))
        for name, tree in modules().items()
        if unit(name) not in COMMAND_LINE
    }
    assert {name: words for name, words in found.items() if words} == {}
    parsers = {"argparse", "getopt", "optparse", "click"}
    assert {unit(name) for name in modules() if imported(name) & parsers} <= set(COMMAND_LINE)
    assert any(spoken(tree) for name, tree in modules().items() if unit(name) == "cli")


def test_nothing_loads_what_can_run_code():
    """No pickles, and no joblib dumps of models; joblib is for parallel work."""
    risky = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    assert not [name for name in modules() if imported(name) & risky]
    calls = [
        (name, ast.unparse(node))
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("torch.load", "joblib.load", "joblib.dump", "eval", "exec")
    ]
    assert calls
    assert [one for one in calls if "weights_only=True" not in one[1]] == []


def loaded(*commands: list[str]) -> list[list[str]]:
    """Give the heavy libraries that are loaded after each command, one after the other.

    In one process of their own: what an earlier command loads is there for all later ones.
    """
    code = (
        "import json, sys; from cnn_codes.cli import main\n"
        "done = [[main(one), *sys.modules] for one in json.loads(sys.argv[1])]\n"
        "print(json.dumps(done), file=sys.stderr)"
    )
    child = python(code, json.dumps(commands), check=True)
    done = json.loads(child.stderr.splitlines()[-1])
    assert [one[0] for one in done] == [0] * len(commands), child.stderr
    heavy = {"torch", "torchvision", "timm", "sklearn", "scipy", "onnx", "matplotlib", "pandas"}
    return [sorted(heavy.intersection(names)) for _, *names in done]


def test_quick_commands_load_nothing_heavy(cache, tmp_path, capsys):
    data = write_set(tmp_path / "pets", 40)
    settings = {**SMALL, "data": data, "cache": cache, "results": tmp_path / "results"}
    asked = [f"{name.upper()}={value}" for name, value in settings.items()]
    assert main(["svm", *asked]) == 0
    capsys.readouterr()
    assert main(["svm", *asked]) == 0
    assert "(was there already)" in capsys.readouterr().out
    quick = [[stage, *asked] for stage in ("features", "data", "verify", "svm")]
    assert loaded(*quick) == [[]] * 4
    (data / "cat" / "new.jpg").write_bytes((data / "dog" / "0001.jpg").read_bytes() + b"\0")
    run = next(path for path in (tmp_path / "results").rglob("*.json") if "model" not in path.name)
    images = [f"IMAGES={data / 'cat'}", f"RUN={run}", f"CACHE={cache}"]
    # The exported graph is there: no torch.
    assert loaded(["features", *asked], ["predict", *images]) == [[], []]


def test_numbers_for_readers_are_written_in_one_place():
    # Besides: coordinates in SVG, and two columns of CSV files.
    own = {
        "cnn_codes.notation", "cnn_codes.report.svg", "cnn_codes.report.maps",
        "cnn_codes.predict.output", "cnn_codes.next.stage",
    }  # fmt: skip
    private = re.compile(r"[+,]?\.\d+[fFeE%]")
    found = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None
        if private.search(ast.unparse(node.format_spec))
    }
    assert found == own


def test_only_what_is_not_installed_is_taken_for_missing():
    """A library that cannot be loaded for lack of memory must not change what is computed."""
    caught = [
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        for one in ast.walk(node.type)
        if isinstance(one, ast.Name) and one.id == "ImportError"
    ]
    assert not caught, "catch ModuleNotFoundError"
