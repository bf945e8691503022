"""Damaged inputs: archives, arrays, tables, weights, recipes, corrections, lists of images.

What a user gives carries no digest, so another file is another input. What must hold: exit 0 or 2;
damage that the format itself shows (a checksum, a grammar) is refused; and the answer is the one
that the same input gives without anything cached, with the labels that this input has.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from .damage import aimed, harmed
from .servers import corrections
from .world import SMALL, World, tensors

__all__ = ["INPUTS", "damaged_input"]

INPUTS = ("set.zip", "set.npz", "set.csv", "weights.safetensors", "recipe.toml", "labels.jsonl",
          "list.csv")  # fmt: skip
_TORCH = ["MODEL=test_resnet", "SIZE=32", "DEVICE=cpu", "ENGINE=torch"]


def _line(world: World, name: str) -> list[str]:
    live = world.work / "live"
    path = live / "inputs" / name
    places = [f"CACHE={live / 'cache'}", f"RESULTS={live / 'results'}", "OFFLINE=1"]
    data, small = f"DATA={world.data}", [*SMALL, "ENGINE=torch"]
    if name in ("set.zip", "set.npz"):
        return ["features", *small, f"DATA={path}", f"DATA_ROOT={live / 'root'}", *places]
    if name == "set.csv":
        return ["svm", *small, f"DATA={path}", *places]
    if name == "weights.safetensors":
        return ["features", *_TORCH, f"WEIGHTS={path}", data, *places]
    if name == "recipe.toml":
        return ["finetune", *small, f"RECIPE={path}", data, *places]
    if name == "labels.jsonl":
        return ["svm", *small, f"LABELS={path}", data, *places]
    return ["predict", f"IMAGES={path}", f"RUN={world.run_of('svm')}", "UNLIKE=0",
            f"OUT={live / 'results' / 'out.csv'}", f"CACHE={live / 'cache'}"]  # fmt: skip


def _prepare(world: World, name: str) -> bool:
    """Let the command run once with its sound input; False where there is none."""
    if (world.work / "base" / name).exists():
        return True
    place = world.work / "inputs"
    if name == "labels.jsonl":
        (place / name).write_bytes(corrections(world))
    if not (place / name).stat().st_size:
        return False
    world.fresh()
    live = world.work / "live"
    (live / "inputs").mkdir()
    shutil.copy(place / name, live / "inputs" / name)
    rc, text = world.run(_line(world, name), f"undisturbed, {name}")
    if rc != 0:
        raise SystemExit(f"with {name} undisturbed it ends with {rc}:\n{text[-3000:]}")
    shutil.copytree(live, world.work / "base" / name)
    return True


def damaged_input(world: World, number: int, *, targeted: bool) -> None:
    """Damage one input; run with what is cached of the sound one, then without."""
    name = INPUTS[number % len(INPUTS)]
    if not _prepare(world, name):
        return
    data = (world.work / "inputs" / name).read_bytes()
    others = sorted((world.work / "inputs").glob(f"*-2{Path(name).suffix}"))
    bad, how = aimed(world, data, others) if targeted else (harmed(world, data), "blindly")
    if bad == data:
        return
    about = f"seed {world.seed}, input {number + 1}: {name} {how}"
    world.tick("files")
    world.tick("files (targeted)" if targeted else "files (blindly)")
    world.tick(f"files: input {Path(name).suffix}")
    live = world.work / "live"
    found = []
    for of in (name, ""):
        cache, results = world.fresh(of=of)
        (live / "inputs").mkdir(exist_ok=True)
        (live / "inputs" / name).write_bytes(bad)
        rc, text = world.run(_line(world, name), f"{about}, {'cached' if of else 'not cached'}")
        world.torn(results, about)
        rows = world.rows(world.machine.read(cache))
        found.append((rc, rows, world.results(results), text))
        if of:
            held = world.rows(world.machine.read(world.work / "base" / name / "cache"))
            world.kept(held, cache, about)
        if rc == 0:
            _hold(world, name, bad, about, cache, results)
    (rc, rows, results_with, text), (rc_2, rows_2, results_without, text_2) = found
    world.tick("files refused" if rc == 2 else "files healed or harmless")
    if rc != rc_2:
        world.note("unnoticed_damage", f"{about}: exit {rc} with a cache, {rc_2} without\n"
                   f"{text[-1500:]}\n{text_2[-1500:]}")  # fmt: skip
        return
    if rc != 0:
        return
    for stem, one in rows_2.items():
        off = [k for k, row in one.items() if rows.get(stem, {}).get(k, row) != row]
        if off:
            world.note("wrong_numbers", f"{about}\n{stem}: {len(off)} rows", len(off))
    free = {key for _, key in world.volatile} | {"/warnings", "/run", "/meta/run", "/method"}

    def counts(leaves: dict[str, str]) -> dict[str, str]:
        skipped = ("/times_s", "/provenance")
        return {k: v for k, v in leaves.items() if k not in free and not k.startswith(skipped)}

    mine = [counts(one) for one in results_with.values()]
    for file, leaves in results_without.items():
        if counts(leaves) not in mine:  # under whatever name: other inputs have other names
            nearest = min(mine, key=lambda one: len(one.items() ^ counts(leaves).items()))
            pairs = sorted(counts(leaves).items() - nearest.items())[:6]
            world.note("wrong_numbers", f"{about}\n{file}, not so with a cache: {pairs}")


def _hold(
    world: World, name: str, bad: bytes, about: str, cache: Path, results: Path
) -> None:  # fmt: skip
    """Hold an answer to what the standard library reads in the damaged input."""
    wrong = ""
    if name == "set.zip":
        wrong = _zip(world, bad, cache)
    elif name == "set.npz":
        wrong = world.machine.arrays(world.work / "live" / "inputs" / name)
    elif name == "weights.safetensors":
        wrong = "" if tensors(bad) != "unreadable" else "the header is no JSON"
    elif name == "recipe.toml":
        wrong = _toml(bad, results)
    elif name == "labels.jsonl":
        wrong = _jsonl(world, bad, results)
    elif name == "set.csv":
        wrong = _csv(bad, results)
    elif name == "list.csv":
        wrong = _list(bad, results)
    if wrong:
        world.note("unnoticed_damage", f"{about}: exit 0, but {wrong}")


def _zip(world: World, bad: bytes, cache: Path) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(bad)) as archive:
            digests = {hashlib.sha256(archive.read(one)).hexdigest() for one in archive.namelist()}
    except Exception as error:
        return f"zipfile finds it damaged: {error!r}"
    made = {sha for rows in world.rows(world.machine.read(cache)).values() for sha in rows}
    sound = {hashlib.sha256(p.read_bytes()).hexdigest() for p in world.data.rglob("*.*")}
    return f"{len(made - digests - sound)} rows of other bytes" if made - digests - sound else ""


def _records(results: Path) -> list[dict[str, Any]]:
    paths = [p for p in results.rglob("*.json") if not p.name.endswith(".model.json")]
    return [json.loads(p.read_bytes()) for p in paths]


def _toml(bad: bytes, results: Path) -> str:
    try:
        wanted = tomllib.loads(bad.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return f"it is no TOML: {error}"
    wanted.pop("about", None)
    for record in _records(results):
        said = record["provenance"]["settings"]
        if all(k in ("stage",) or _alike(said.get(k), v) for k, v in wanted.items()):
            return ""
    return f"no record has its settings {wanted}"


def _alike(said: Any, value: Any) -> bool:
    return str(said) == str(value) or said == value


def _true_labels(results: Path) -> list[dict[str, str]]:
    found = []
    for path in results.rglob("*.predictions.csv"):
        with path.open(newline="") as stream:
            found.append({Path(r["path"]).name: r["label"] for r in csv.DictReader(stream)})
    return found


def _csv(bad: bytes, results: Path) -> str:
    try:
        rows = list(csv.reader(io.StringIO(bad.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return ""
    if not rows or rows[0][:2] != ["path", "label"] or any(len(r) not in (0, 3) for r in rows):
        return ""
    wanted = {Path(r[0]).name: r[1].strip() for r in rows[1:] if r}
    tables = _true_labels(results)
    good = any(all(wanted.get(n, v) == v for n, v in one.items()) for one in tables)
    return "" if good or not tables else "the labels in its predictions are other ones"


def _jsonl(world: World, bad: bytes, results: Path) -> str:
    sound = (world.work / "inputs" / "labels.jsonl").read_bytes()
    lines = bad.split(b"\n")[:-1]
    known = set(sound.split(b"\n"))
    others = {p.read_bytes() for p in (world.work / "inputs").glob("*-2.jsonl")}
    changed = [one for one in lines if one not in known]
    if changed and bad not in others:
        return f"a line of it is another: {changed[0][:300]!r}"
    state = {}
    for line in lines:
        one = json.loads(line)
        state[Path(one["path"]).name] = one["after"]
    tables = _true_labels(results)
    for table in tables:
        if all(
            (name not in table) if after["excluded"] else table.get(name, after["label"]) ==
            after["label"] for name, after in state.items()
        ):  # fmt: skip
            return ""
    return "no predictions have the labels of its corrections" if tables else ""


def _list(bad: bytes, results: Path) -> str:
    try:
        names = [one.strip() for one in bad.decode("utf-8").splitlines() if one.strip()]
    except UnicodeDecodeError:
        return ""
    with (results / "out.csv").open(newline="") as stream:
        made = [row["path"] for row in csv.DictReader(stream)]
    there = [one for one in names[1:] if Path(one).is_file()] if all(map(str.isprintable, names)) \
        else []  # fmt: skip
    lost = {Path(one).name for one in there} - {Path(one).name for one in made}
    return f"{len(lost)} images of the list have no row" if lost else ""
