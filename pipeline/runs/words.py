"""Runs in words and tables: the list of them, and one in full."""

from __future__ import annotations

from typing import Any

from ..notation import DASH, count, number
from ..results.tables import aligned
from .columns import flattened
from .listing import Listing, Run

_FIGURES = (("accuracy", 4), ("auroc", 4), ("log_loss", 3), ("fit_s", 2))
_WIDEST = 60  # characters of a value


def list_parts(listing: Listing, limit: int) -> list[str]:
    """Give one line per run: what it is, its key figures, when, and its name; then how many."""
    runs = listing.runs[: limit or None]
    varying = [
        key for key in ("views", "size", "seed") if len({run.columns[key] for run in runs}) > 1
    ]
    words = ["data", "method", "model", "layers", *varying]
    interrupted = any(run.columns["on"] != "test" for run in runs)
    words += ["on"] if interrupted else []
    width = max(len(run.name) for run in runs)
    header = [*words, "accuracy", "95 % CI", "AUROC", "log-loss", "fit s", "date (UTC)"]
    lines = [[*header, "run".ljust(width)]]
    for run in runs:
        accuracy, *others = (number(run.columns[key], digits) for key, digits in _FIGURES)
        date = str(run.columns["date"])[:16].replace("T", " ")
        texts = [str(run.columns[key]) for key in words]
        lines.append([*texts, accuracy, _interval(run), *others, date, run.name.ljust(width)])
    more = len(listing.runs) - len(runs)
    hidden = f", {count(more)} of them not shown (LIMIT=0 shows all)" if more else ""
    counted = f"\n{count(len(listing.runs))} of {count(listing.n_found)} runs{hidden}"
    return [aligned(lines, text_columns=len(words)), counted]


def run_parts(run: Run) -> list[str]:
    """Give one run in full, one line per value, and its file."""
    record = run.record
    skip = ("run", "low", "high", "sd")
    lines = [(key, cell(value)) for key, value in run.columns.items() if key not in skip]
    lines.insert(1, ("run", run.name))
    lines.append(("interval", _interval(run)))
    for title in ("splits", "chosen", "times_s", "versions"):
        flat = flattened({k: v for k, v in record[title].items() if k not in ("curve", "each")})
        lines += [(f"{title}.{key}", cell(value)) for key, value in flat.items()]
    provenance = record.get("provenance", {})
    for key, value in flattened(provenance.get("settings", {})).items():
        lines.append((f"settings.{key}", cell(value)))
    lines += [("fingerprint", record["fingerprint"]), ("command", provenance.get("command", ""))]
    lines += [("file", str(run.path.with_name(name))) for name in record.get("files", {})]
    lines += [("warning", str(text)) for text in record["warnings"]]
    table = aligned([[key, value] for key, value in lines], text_columns=2)
    return [table, f"\n{run.path}"]


def cell(value: Any) -> str:
    """Write any value, cut where it is long."""
    text = DASH if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _interval(run: Run) -> str:
    low, high, sd = (run.columns[key] for key in ("low", "high", "sd"))
    if sd is not None:
        return f"± {number(sd, 4)} (n={len(run.record['runs'])})"
    return f"{number(low)} to {number(high)}" if low is not None else DASH
