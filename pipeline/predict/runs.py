"""Which run is meant: a path, a name, or the beginning of one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.names import safe_name
from ..datasets.phrases import few, plural
from ..errors import ResultError, setting
from ..files import sha256_file
from ..results.runs import read_record, result_files

_SUFFIXES = (".model.json", ".predictions.csv", ".json", ".train.safetensors", ".safetensors")


@dataclass(frozen=True)
class Run:
    """A run's files.

    Attributes
    ----------
    stem : Path
        Folder and name without a suffix: ``<stem>.safetensors`` and ``<stem>.model.json`` are
        the model; ``<stem>.train.safetensors`` has the training codes of a fine-tuned one.
    record : dict or None
        Its result; None where only the model's two files are there.
    """

    stem: Path
    record: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.stem.name

    @property
    def data(self) -> str:
        """Name of the data set, a folder's in the cache: in the record, or the folder's."""
        named = str(self.record["data"]) if self.record else self.stem.resolve().parent.name
        return safe_name(named)  # a stranger's record must not lead elsewhere

    @property
    def splits(self) -> dict[str, int] | None:
        """Images a split; None where there is no record, or it does not say."""
        try:
            return {
                str(split): sum(int(n) for n in counts.values())
                for split, counts in (self.record or {})["splits"].items()
            }
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError):
            return None

    def file(self, suffix: str) -> Path:
        """Path of one of its files."""
        return self.stem.with_name(self.name + suffix)


def find_run(run: str | os.PathLike[str], results: Path) -> Run:
    """Find the files of a run.

    Parameters
    ----------
    run : str or path
        Path of one of its files (``<run>.json``) or of their stem; or its name in `results`,
        with or without the data set's folder; or so much of its beginning as is like no other.
    results : Path
        The results folder.

    Raises
    ------
    ResultError
        No such run, several, one without a model, or a model that is not the one the record was
        written with.
    """
    text = os.fspath(run)
    path = Path(text)
    if path.name in ("", ".."):
        raise _unknown(text, results)
    stem = path.with_name(_bare(path.name))
    if path.is_file() or _beside(stem, ".model.json").is_file():
        return _opened(stem)
    there = {found.relative_to(results).as_posix(): found for found in _stems(results)}
    wanted = _bare(text.replace(os.sep, "/"))
    for fits in (_is_name, _begins):
        names = [name for name in there if fits(name, wanted)]
        if len(names) == 1:
            return _opened(there[names[0]])
        if names:
            raise ResultError(
                f"{len(names)} runs are called {text}, or begin so: {few(names)}.",
                expected="a name that only one has",
                todo=setting("RUN", names[0]),
            )
    raise _unknown(text, results)


def _bare(name: str) -> str:
    return next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s) and name != s), name)


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _is_name(name: str, wanted: str) -> bool:
    return wanted in (name, name.rpartition("/")[2])


def _begins(name: str, wanted: str) -> bool:
    return name.startswith(wanted) or name.rpartition("/")[2].startswith(wanted)


def _stems(results: Path) -> list[Path]:
    """Stems of all runs that have a model, the newest first."""
    files = result_files(results, "*.model.json")
    files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.with_name(_bare(path.name)) for path in files]


def _unknown(run: str, results: Path) -> ResultError:
    names = [stem.relative_to(results).as_posix() for stem in _stems(results)]
    if not names:
        return ResultError(
            f"{results} holds no run to predict with.",
            expected="a run that make svm, heads or finetune left there",
            todo="make svm DATA=...; or RUN=<path of a run's .json>",
        )
    near = _nearest(run, names) if run else names
    return ResultError(
        f"There is no run called {run}." if run else "RUN says which run is to predict.",
        expected="the path of a run's .json, or its name; "
        f"{plural(len(names), 'run is', 'runs are')} in {results}: {few(near or names)}",
        todo=setting("RUN", (near or names)[0]),
    )


def _nearest(run: str, names: Sequence[str]) -> list[str]:
    """Names of up to five runs that begin nearly as `run`, the likest first."""

    def likeness(name: str) -> float:
        beginnings = (name[: len(run)], name.rpartition("/")[2][: len(run)])
        return max(difflib.SequenceMatcher(None, run, one).ratio() for one in beginnings)

    ranked = sorted(names, key=likeness, reverse=True)
    return [name for name in ranked[:5] if likeness(name) >= 0.5]


def _opened(stem: Path) -> Run:
    run = Run(stem, None)
    path = run.file(".json")
    if path.is_file():
        record = read_record(path)
        if record["kind"] == "summary":
            runs = record["runs"] if isinstance(record.get("runs"), list) else []
            raise ResultError(
                f"{path} sums up several runs and has no model of its own.",
                expected=f"one of them: {few([str(one) for one in runs])}",
            )
        run = Run(stem, record)
    for suffix in (".model.json", ".safetensors"):
        file = run.file(suffix)
        if not file.is_file() and (run.record or {}).get("cv"):
            raise ResultError(
                f"{run.name} was tested out of fold: it has a network for each fold, and none of "
                "all images.",
                expected="a run with a model",
                todo="make finetune trains one on the data set's own split",
            )
        if not file.is_file():
            raise ResultError(
                f"{file} is missing.",
                expected="a model next to the result: .model.json and .safetensors",
                todo="run the method again, or copy the file too",
            )
        files = (run.record or {}).get("files")
        digest = files.get(file.name) if isinstance(files, dict) else None
        if digest is not None and sha256_file(file) != digest:
            raise ResultError(
                f"{file} is not the one that {path.name} was written with.",
                expected=f"SHA-256 {str(digest)[:12]}…",
                todo="run the method again, or copy all files of the run together",
            )
    return run
