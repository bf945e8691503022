"""Damaged and hostile images, and damaged files of every kind that the pipeline reads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from .world import SMALL, World

__all__ = ["aimed", "files", "harmed", "images"]

_PER_SET = 200


def images(world: World, count: int) -> None:
    """Damage images; the sound ones among them keep their rows, and every file has its answer."""
    kinds = sorted(p for p in world.kinds.iterdir() if p.is_file())
    sound = {
        sha: row
        for name, one in world.base["graph"]["read"].items()
        if name.endswith(".h5")
        for sha, row in one["rows"].items()
    }
    done = 0
    while done < count and world.left():
        folder = world.work / "data" / f"damaged{done}"
        shutil.copytree(world.data, folder)
        want = min(_PER_SET, count - done)
        for number in range(want):
            one = world.random.choice(kinds)
            data = harmed(world, one.read_bytes())
            into = folder / "train" / world.random.choice(("bright", "dark"))
            (into / f"x{number:04}{one.suffix}").write_bytes(data)
        done += want
        about = f"seed {world.seed}, images up to {done}"
        cache, results = world.fresh()
        line = ["features", *SMALL, f"DATA={folder}", f"CACHE={cache}", f"RESULTS={results}",
                "OFFLINE=1"]  # fmt: skip
        rc, text = world.run(line, about)
        world.tick("images", want)
        if rc != 0:
            world.note("odd_exits", f"{about}: the set is refused\n{text[-2000:]}")
            continue
        first = world.machine.read(cache)
        for name, file in first.items():
            off = [sha for sha, row in sound.items() if file.get("rows", {}).get(sha) != row]
            if name.endswith(".h5") and off:
                world.note("wrong_numbers", f"{about}: {len(off)} sound images", len(off))
        world.run(["audit", *line[1:]], about)
        cache, results = world.fresh()
        line = [*line[:-3], f"CACHE={cache}", f"RESULTS={results}", "OFFLINE=1"]
        rc, _ = world.run([*line, "WORKERS=1", "EXTRACT_BATCH=1"], about)
        if rc == 0 and world.rows(world.machine.read(cache)) != world.rows(first):
            world.note("wrong_numbers", f"{about}: other rows with WORKERS=1 EXTRACT_BATCH=1")
        out = world.work / "out.jsonl"
        out.unlink(missing_ok=True)
        line = ["predict", f"IMAGES={folder}", f"RUN={world.run_of('svm')}", f"OUT={out}",
                f"CACHE={cache}", "UNLIKE=0"]  # fmt: skip
        rc, _ = world.run(line, about)
        if rc == 0:
            lines = [json.loads(one) for one in out.read_text().splitlines()]
            n_files = sum(1 for p in folder.rglob("*") if p.is_file())
            if len(lines) != n_files:
                world.note("lost_rows", f"{about}: {len(lines)} rows for {n_files} files")
            for one in lines:
                total = sum(one.get("probabilities", {}).values())
                if one["status"] == "ok" and not abs(total - 1) < 1e-6:
                    world.note("wrong_numbers", f"{about}: {one}")
        shutil.rmtree(folder)


def harmed(world: World, data: bytes) -> bytes:
    """Damage the bytes of an image in one of several ways."""
    own = world.random
    harm = bytearray(data)
    how = own.randrange(8)
    if how == 0:  # a few bits
        for _ in range(own.choice((1, 1, 2, 8, 64))):
            harm[own.randrange(len(harm))] ^= 1 << own.randrange(8)
    elif how == 1:
        del harm[own.randrange(len(harm)) :]
    elif how == 2:  # the header
        for _ in range(own.choice((1, 2, 4))):
            harm[own.randrange(min(64, len(harm)))] = own.choice((0, 1, 127, 128, 255))
    elif how == 3:  # what may be a size
        at = own.randrange(min(200, len(harm) - 4))
        harm[at : at + 4] = own.choice((0, 1, 65535, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
    elif how == 4:
        at = own.randrange(len(harm))
        harm[at : at + own.randrange(1, 400)] = bytes(own.randrange(1, 400))
    elif how == 5:
        at = own.randrange(len(harm))
        harm[at:at] = own.randbytes(own.randrange(1, 300))
    elif how == 6:  # a piece of it again elsewhere
        at, to = own.randrange(len(harm)), own.randrange(len(harm))
        harm[to:to] = harm[at : at + own.randrange(1, 500)]
    else:
        harm += own.randbytes(own.randrange(1, 2000))
    return bytes(harm)


def files(world: World, commands: list[str], count: int) -> None:
    """Damage one file of what a command left; the command again must notice or leave the same.

    Every third is a file that the user gives, see :mod:`.inputs`.
    """
    from .inputs import damaged_input

    left = {}
    for what in commands:
        base = world.work / "base" / what
        kinds: dict[str, list[Path]] = {}
        for path in sorted(p for p in base.rglob("*") if p.is_file()):
            if path.name not in ("lock", "holder.json") and path.suffix != ".lock":
                kind = "".join(path.suffixes[-2:]) if ".predictions" in path.name else path.suffix
                kinds.setdefault(kind, []).append(path)
        left[what] = (base, kinds)
    for number in range(count):
        if not world.left():
            return
        if number % 3 == 2:
            damaged_input(world, number // 3, targeted=bool(number // 3 // 7 % 2))
            continue
        what = commands[number % len(commands)]
        base, kinds = left[what]
        kind = sorted(kinds)[(number // len(commands)) % len(kinds)]
        victim = world.random.choice(kinds[kind])
        others = [p for p in kinds[kind] if p != victim]
        data = victim.read_bytes()
        targeted = bool(number // 2 % 2)
        bad, how = aimed(world, data, others) if targeted else (harmed(world, data), "blindly")
        if bad == data or not data:
            continue
        name = victim.relative_to(base)
        about = f"seed {world.seed}, file {number + 1}, {what}: {name} {how}"
        cache, results = world.fresh(of=what)
        (world.work / "live" / name).write_bytes(bad)
        line = world.line(what, cache, results)
        world.tick("files")
        world.tick("files (targeted)" if targeted else "files (blindly)")
        world.tick(f"files: {kind or 'no suffix'}")
        if kind == ".h5":
            places = [f"CACHE={cache}", f"DATA={world.data}", "OFFLINE=1"]
            rc, text = world.run(["verify", *places], about)
            if rc == 0:
                world.note("unnoticed_damage", f"{about}: verify says sound\n{text[-1500:]}")
        if name.parts[0] == "results" and what in ("svm", "finetune") and number % 3 == 0:
            record = next(
                (p for p in results.rglob(f"{what}-*.json") if not p.name.endswith(".model.json")),
                None,
            )
            out = world.work / "p.csv"
            predict = ["predict", f"IMAGES={world.data / 'test'}", f"RUN={record}", f"OUT={out}",
                       f"CACHE={cache}", "UNLIKE=0"]  # fmt: skip
            whole = base / name
            world.run(predict, about)
            world.run(["runs", f"RESULTS={results}"], about)
            if not whole.exists():
                world.note("unnoticed_damage", f"{about}: the base is gone")
        rc, text = world.run(line, about)
        again = world.work / "live" / name
        if kind == ".h5" and again.exists() and again.read_bytes() == bad:
            again.write_bytes(data)  # it was not needed, and `verify` has named the damage
        if rc == 0:
            before = {kind: world.count[kind] for kind in ("wrong_numbers", "lost_results")}
            world.same(what, cache, results, about)
            if any(world.count[kind] > n for kind, n in before.items()):
                world.note("unnoticed_damage", f"{about}: exit 0, but it is not as it was")
            world.tick("files healed or harmless")
        elif rc == 2:
            world.tick("files refused")


def aimed(world: World, data: bytes, others: list[Path]) -> tuple[bytes, str]:
    """Change one digit or one label, swap two files, or append bytes."""
    own = world.random
    how = own.choice(("digit", "digit", "label", "swapped", "appended"))
    if how == "digit":
        found = list(re.finditer(rb"[0-9]", data))
        if found:
            at = own.choice(found).start()
            other = own.choice([d for d in b"0123456789" if d != data[at]])
            return data[:at] + bytes([other]) + data[at + 1 :], "one digit"
    if how == "label":
        found = list(re.finditer(rb"bright|dark", data))
        if found:
            one = own.choice(found)
            label = b"dark" if one[0] == b"bright" else b"bright"
            return data[: one.start()] + label + data[one.end() :], "one label"
    if how == "swapped" and others:
        return own.choice(others).read_bytes(), "swapped with another"
    return data + own.randbytes(own.randrange(1, 200)), "appended to"
