"""What fine-tuning takes: settings tried over several seeds, judged by val alone.

``python -m benchmarks.tuning FILE.toml`` runs every table of the file: settings by their own
names, and ``seeds`` (a count, default 3). Each seed cuts its own val (and, where the set has no
split, its own test). A row a table is printed and appended to ``results/tuning.jsonl``: the mean
over the seeds of val accuracy, val AUROC and val loss, of the probe that training began with, and
of the seconds. Test is not looked at unless the table says ``test = true``, which is for settings
that have been chosen.
"""

from __future__ import annotations

import json
import statistics
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_codes.cli.options import assigned
from cnn_codes.context import Context
from cnn_codes.finetune import finetune, load_recipe
from cnn_codes.heads.run import fit_heads
from cnn_codes.settings import (
    CodesSettings,
    FinetuneSettings,
    HeadSettings,
    MachineSettings,
    PlaceSettings,
    from_mapping,
)

from benchmarks.sets import codes_of, opened


def tried(settings: dict[str, Any], places: PlaceSettings) -> dict[str, Any]:
    """Run one table of settings over its seeds; give its row."""
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    if "recipe" in settings:
        settings = {**load_recipe(settings["recipe"]), **settings}
        settings = {k: v for k, v in settings.items() if k not in ("about", "stage")}
    n_seeds, look = settings.pop("seeds", 3), settings.pop("test", False)
    columns: dict[str, list[float]] = {}
    for seed in range(n_seeds):
        context = opened(
            places=places, codes=from_mapping(CodesSettings, settings), **{**settings, "seed": seed}
        )
        context = replace(context, machine=from_mapping(MachineSettings, settings))
        record = finetune(context, from_mapping(FinetuneSettings, settings))
        curve, chosen = record["curve"], record["chosen"]
        found = {
            "epoch": chosen["epoch"],
            "fit_s": record["times_s"]["fit"],
            "codes_s": record["times_s"]["codes"],
            "start_val": curve[0].get("val_accuracy"),
            "val": chosen["score"]["val_accuracy"],
            "val_loss": chosen["score"]["val_loss"],
            "last_val": curve[-1].get("val_accuracy"),  # not the best of many looks at val
            "last_val_loss": curve[-1].get("val_loss"),
        }
        if "val" in record["metrics"]:
            found["val_auroc"] = record["metrics"]["val"]["auroc"]
        if look:
            test = record["metrics"]["test"]
            found |= {f"test_{k}": test[k] for k in ("accuracy", "auroc") if k in test}
            if "weighted_accuracy" in test:
                found["test_weighted"] = test["weighted_accuracy"]
            found |= _beside(context)
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    means = {name: statistics.fmean(v) for name, v in columns.items()}
    spreads = {f"{n}_sd": statistics.stdev(v) for n, v in columns.items() if len(v) > 1}
    return {"settings": settings, "seeds": n_seeds, **means, **spreads, "values": columns}


def _beside(context: Context) -> dict[str, Any]:
    """Give the test accuracy of the linear heads on the same split."""
    records = fit_heads(context, codes_of(context), HeadSettings(methods=("svm", "softmax")))
    return {f"{one['method']}_test": one["metrics"]["test"]["accuracy"] for one in records}


def main() -> None:
    """Run every table of a file."""
    arguments = assigned(sys.argv[1:], ("data_root", "cache", "results"), ())
    options = {a.partition("=")[0].lstrip("-").replace("-", "_"): a.partition("=")[2]
               for a in arguments if a.startswith("--")}  # fmt: skip
    places = PlaceSettings(**options)
    (path,) = (a for a in arguments if not a.startswith("--"))
    out = Path(places.results) / "tuning.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, settings in tomllib.loads(Path(path).read_text(encoding="utf-8")).items():
        row = {"name": name, **tried(settings, places)}
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        shown = {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}
        print(name, json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
