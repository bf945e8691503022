"""Where a report's figures come from: runs, commands, versions, seeds, fingerprints, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compare.words import label
from ..notation import DASH, scientific
from .blocks import Block, Bullets, Cell, Column, Commands, Facts, Folded, Section, Table
from .gather import KINDS, Evidence


def origin(evidence: Evidence) -> Section:
    """Say what was run, so that it can be run again."""
    comparison = evidence.comparison
    records = [("compare", comparison)]
    records += [(kind, found) for kind in KINDS if (found := evidence.found[kind])]
    commands = [_command(record) for _, record in records]
    commands += [_command(run.record) for run in evidence.runs]
    blocks: list[Block] = [Commands(list(dict.fromkeys(one for one in commands if one)))]
    blocks += [_runs(evidence), _records(records), _versions(evidence)]
    warnings = [str(one) for one in comparison.get("warnings", ())]
    if warnings:
        count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''} of the runs"
        blocks.append(Folded(count, [Bullets(warnings)]))
    return Section("origin", "Commands, runs and versions", blocks)


def _command(record: Mapping[str, Any]) -> str:
    return str(record.get("provenance", {}).get("command", ""))


def _date(record: Mapping[str, Any]) -> str:
    return str(record.get("provenance", {}).get("date", ""))[:16].replace("T", " ")


def _runs(evidence: Evidence) -> Table:
    rows = [
        [
            Cell(label(run.entry, evidence.comparison)),
            Cell(str(run.record["seed"]), run.record["seed"]),
            Cell(_chosen(run.record["chosen"])),
            Cell(_date(run.record)),
            Cell(str(run.entry["run"]), code=True),
            Cell(str(run.entry["fingerprint"]), code=True),
        ]
        for run in evidence.runs
    ]
    columns = [
        Column("Method", numeric=False), Column("Seed"), Column("Selected", numeric=False),
        Column("Date (UTC)", numeric=False), Column("Run", numeric=False),
        Column("Fingerprint", "digest of all that changes a figure", numeric=False),
    ]  # fmt: skip
    return Table("Runs", columns, rows, "runs")


def _chosen(chosen: Mapping[str, Any]) -> str:
    if "epoch" in chosen:
        return f"epoch {chosen['epoch']}"
    return f"C = {scientific(chosen['C'])}" if "C" in chosen else DASH


def _records(records: list[tuple[str, Mapping[str, Any]]]) -> Table:
    rows = [
        [
            Cell(kind),
            Cell(_date(record)),
            Cell(str(record.get("name", "")), code=True),
            Cell(str(record.get("fingerprint", "")) or DASH, code=True),
        ]
        for kind, record in records
    ]
    columns = [
        Column("Record", numeric=False), Column("Date (UTC)", numeric=False),
        Column("Name", numeric=False), Column("Fingerprint", numeric=False),
    ]  # fmt: skip
    return Table("Records", columns, rows, "records")


def _versions(evidence: Evidence) -> Facts:
    comparison = evidence.comparison
    machine = comparison.get("provenance", {}).get("machine", {})
    pairs = [*comparison["versions"].items()]
    if machine:
        said = f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('system')}"
        pairs.append(("machine", said))
    return Facts([(str(name), str(version)) for name, version in pairs], "Versions and machine")
