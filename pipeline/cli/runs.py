"""Command of what has been run: runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ResultError
from ..results.tables import aligned
from ..settings import PlaceSettings, RunsSettings
from .options import settings_from
from .stage import Stage, note

if TYPE_CHECKING:
    from ..runs import Listing, Run

__all__ = ["STAGES"]

_FIGURES = (("accuracy", 4), ("auroc", 4), ("log_loss", 3), ("fit_s", 2))
_MOST_DAMAGED = 20
_WIDEST = 60  # characters of a value in a side by side


def _runs(options: argparse.Namespace) -> None:
    from ..runs import find, list_runs

    settings = settings_from(options, RunsSettings)
    results = Path(options.results)
    listing = list_runs(results, data=settings.data, where=settings.where, sort=settings.sort)
    _tell_damaged(listing)
    if not listing.n_found and not Path(settings.run).is_file():
        raise ResultError(
            f"There are no runs in {results}.",
            expected="results of svm, heads, finetune or compare",
            todo="make svm DATA=...; or RESULTS=<the folder they are in>",
        )
    chosen = [find(name, listing) for name in (settings.run, settings.against) if name]
    if not (chosen or listing.runs):
        print(f"None of {listing.n_found} runs fits.")
    elif settings.export:
        _export(chosen or listing.runs, settings.export, Path(settings.out))
    elif len(chosen) == 2:
        _show_both(*chosen)
    elif chosen:
        _show_one(chosen[0])
    else:
        _show_list(listing, settings)


def _tell_damaged(listing: Listing) -> None:
    for text in listing.damaged[:_MOST_DAMAGED]:
        note(f"damaged: {text}")
    if (more := len(listing.damaged) - _MOST_DAMAGED) > 0:
        note(f"damaged: and {more} more")


def _show_list(listing: Listing, settings: RunsSettings) -> None:
    """Print a line a run: what it is, its key figures, when, and its name."""
    runs = listing.runs[: settings.limit or None]
    varying = [
        key for key in ("views", "size", "seed") if len({run.columns[key] for run in runs}) > 1
    ]
    words = ["data", "method", "model", "layers", *varying]
    interrupted = any(run.columns["on"] != "test" for run in runs)
    words += ["on"] if interrupted else []
    width = max(len(run.name) for run in runs)
    header = [*words, "accuracy", "95% interval", "AUROC", "log-loss", "fit s", "date (UTC)"]
    lines = [[*header, "run".ljust(width)]]
    for run in runs:
        accuracy, *others = (_number(run.columns[key], digits) for key, digits in _FIGURES)
        date = str(run.columns["date"])[:16].replace("T", " ")
        texts = [str(run.columns[key]) for key in words]
        lines.append([*texts, accuracy, _interval(run), *others, date, run.name.ljust(width)])
    print(aligned(lines, text_columns=len(words)))
    more = len(listing.runs) - len(runs)
    print(
        f"\n{len(listing.runs):,} of {listing.n_found:,} runs"
        + (f", {more:,} of them not shown (LIMIT=0 shows all)" if more else "")
    )


def _number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _interval(run: Run) -> str:
    low, high, sd = (run.columns[key] for key in ("low", "high", "sd"))
    if sd is not None:
        return f"± {sd:.4f} (n={len(run.record['runs'])})"
    return f"{low:.3f} to {high:.3f}" if low is not None else "-"


def _show_one(run: Run) -> None:
    """Print a run in full."""
    from ..runs.columns import flattened

    record = run.record
    skip = ("run", "low", "high", "sd")
    lines = [(key, _cell(value)) for key, value in run.columns.items() if key not in skip]
    lines.insert(1, ("run", run.name))
    lines.append(("interval", _interval(run)))
    for title in ("splits", "chosen", "times_s", "versions"):
        flat = flattened({k: v for k, v in record[title].items() if k not in ("curve", "each")})
        lines += [(f"{title}.{key}", _cell(value)) for key, value in flat.items()]
    provenance = record.get("provenance", {})
    for key, value in flattened(provenance.get("settings", {})).items():
        lines.append((f"settings.{key}", _cell(value)))
    lines += [("fingerprint", record["fingerprint"]), ("command", provenance.get("command", ""))]
    lines += [("file", str(run.path.with_name(name))) for name in record.get("files", {})]
    lines += [("warning", str(text)) for text in record["warnings"]]
    print(aligned([[key, value] for key, value in lines], text_columns=2))
    print(f"\n{run.path}")


def _show_both(a: Run, b: Run) -> None:
    """Print two runs side by side: figures, then what differs, then the paired test."""
    from ..compare.side_by_side import side_by_side

    found = side_by_side(a, b)
    print(f"A  {a.path}\nB  {b.path}\n")
    _print_pairs("", found["figures"], numbers=True)
    for title, pairs in found["differences"].items():
        equal = found["equal"][title]
        if pairs:
            _print_pairs(f"{title} ({equal} more are equal)", pairs)
        else:
            print(f"{title}: no difference in {equal}\n")
    for name, texts in zip("AB", found["warnings"], strict=True):
        for text in texts:
            print(f"warning of {name} alone: {text}")
    if any(found["warnings"]):
        print()
    for sentence in found["sentences"]:
        print(sentence)


def _print_pairs(
    title: str, pairs: Sequence[tuple[str, Any, Any]], *, numbers: bool = False
) -> None:
    header = [title, "A", "B", *(["A - B"] if numbers else [])]
    lines = [header]
    for name, left, right in pairs:
        both = all(isinstance(value, float) for value in (left, right))
        last = [f"{left - right:+.4f}" if both else ""] if numbers else []
        shown = _number if both and numbers else _cell
        lines.append([f"  {name}", shown(left), shown(right), *last])
    print(aligned(lines, text_columns=3) + "\n")


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _export(runs: Sequence[Run], tool: str, out: Path) -> None:
    from ..runs.export import export

    done = export(runs, tool, out)
    there = f", {done.n_there:,} were there" if done.n_there else ""
    print(f"{done.n_written:,} runs written to {out}{there}.\nTo look at them: {done.look}")


STAGES = {
    "runs": Stage(
        _runs,
        "list what has been run, set two runs side by side, or export them",
        (RunsSettings, PlaceSettings),
    ),
}
