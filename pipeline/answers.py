"""What the functions of the API give back: figures and arrays, a table, and the words for it.

Every answer prints as the command line shows it, and shows itself in a notebook.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .datasets import Manifest
from .notation import duration, megabytes, share, size
from .results.tables import Table, aligned

if TYPE_CHECKING:
    from .audit import Report
    from .codes.reader import Codes
    from .codes.verify import Verdict

_SHOWN_CLASSES = 8
_USES = (("train", "images to train"), ("val", "to choose"), ("test", "to test"))


class Answer:
    """Something that a stage found."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the figures has to know."""
        return ()

    def table(self) -> Table:
        """Give the figures as a table: text that knows its cells (``lines``)."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """Give what the command line prints, a paragraph each."""
        return [self.table()]

    def __str__(self) -> str:
        """Give it as the command line prints it."""
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook: tables as tables, the rest as text."""
        shown = [
            one._repr_html_() if isinstance(one, Table) else f"<p>{html.escape(one)}</p>"
            for one in self.lines()
            if one
        ]
        return "\n".join([*shown, *(f"<p><b>{html.escape(one)}</b></p>" for one in self.warnings)])


@dataclass(frozen=True, eq=False, repr=False)
class Images(Answer):
    """A data set: images, labels, splits.

    Attributes
    ----------
    manifest : Manifest
        Paths, digests, labels (N,), splits (N,).
    """

    manifest: Manifest

    @property
    def warnings(self) -> Sequence[str]:
        """What was noticed while the folder was read."""
        return self.manifest.warnings

    def table(self) -> Table:
        """Images per split and class."""
        counts = self.manifest.counts()
        lines = [["split", *self.manifest.class_names, "all"]]
        for split, of in counts.items():
            lines.append([split, *map(str, of.values()), str(sum(of.values()))])
        return aligned(lines, text_columns=1)

    def counted(self) -> list[str]:
        """Say how many images each split has; many classes are folded."""
        lines = []
        for split, counts in self.manifest.counts().items():
            total = sum(counts.values())
            some = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:_SHOWN_CLASSES])
            more = f", ... ({len(counts)} classes)" if len(counts) > _SHOWN_CLASSES else ""
            lines.append(f"{split:5}  {total:6} images: {some}{more}")
        return lines

    def lines(self) -> list[str]:
        """Give the counts, one line per split."""
        one = self.manifest
        return [f"{one.name}: {one.n_images} images of {one.n_classes} classes", *self.counted()]


@dataclass(frozen=True, eq=False, repr=False)
class Features(Images):
    """The codes of a data set.

    Attributes
    ----------
    codes : Codes
        ``codes["final"]`` is an array (n_images, code_dim); ``codes.labels``, ``codes.paths``.
    found : tuple of str
        What the audit found of the images.
    """

    codes: Codes
    found: tuple[str, ...] = ()

    @property
    def warnings(self) -> Sequence[str]:
        """What the audit found."""
        return self.found

    def lines(self) -> list[str]:
        """Give the files, the shapes, the counts."""
        shapes = ", ".join(f"{one} {self.codes[one].shape}" for one in self.codes.layers)
        return [*map(str, self.codes.files), f"codes: {shapes}", *self.counted()]


@dataclass(frozen=True, eq=False, repr=False)
class Audited(Images):
    """What is wrong with a data set.

    Attributes
    ----------
    report : Report
        Findings, problems first; near-duplicates; where the full lists lie.
    """

    report: Report

    @property
    def warnings(self) -> Sequence[str]:
        """Nothing besides the findings."""
        return ()

    def lines(self) -> list[str]:
        """Give the counts and one line per finding."""
        return [*self.counted(), *self.report.lines()]


@dataclass(frozen=True, eq=False, repr=False)
class Verified(Answer):
    """The state of the cache.

    Attributes
    ----------
    verdicts : tuple of Verdict
        One per file.
    """

    verdicts: tuple[Verdict, ...]

    @property
    def damaged(self) -> list[Path]:
        """Files that are not what was written."""
        return [one.path for one in self.verdicts if one.faults]

    def table(self) -> Table:
        """State and rows of every file."""
        states = ["DAMAGED" if one.faults else "sound" for one in self.verdicts]
        rows = zip(states, self.verdicts, strict=True)
        lines = [[state, str(one.n_rows), str(one.path)] for state, one in rows]
        return aligned([["state", "rows", "file"], *lines], text_columns=1)

    def lines(self) -> list[str]:
        """Give one line per file, and its faults."""
        lines = []
        for one in self.verdicts:
            state = "DAMAGED" if one.faults else "sound"
            lines.append(f"{state:8} {one.n_rows:7} rows  {one.path}")
            lines += [f"         {fault}" for fault in one.faults[:20]]
            lines += [f"         note: {remark}" for remark in one.remarks]
        return lines


@dataclass(frozen=True, eq=False, repr=False)
class Fitted(Answer):
    """Runs: heads or fine-tuned networks, measured on test.

    Attributes
    ----------
    records : list of dict
        One per method, as written to ``results/<data>/<run>.json``.
    manifest : Manifest
        The images.
    folder : Path
        Where the records lie.
    """

    records: list[dict[str, Any]]
    manifest: Manifest
    folder: Path

    @property
    def warnings(self) -> Sequence[str]:
        """Of all records, each once."""
        return list(dict.fromkeys(w for record in self.records for w in record["warnings"]))

    @property
    def runs(self) -> list[Path]:
        """The records' files; ``RUN=`` of prediction takes one."""
        return [self.folder / f"{record['run']}.json" for record in self.records]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Figures of the first run by split: ``metrics["test"]["accuracy"]``."""
        found: Mapping[str, Any] = self.records[0]["metrics"]
        return found

    def table(self) -> Table:
        """Figures on test, one line per run."""
        from .results.tables import table

        return table(self.records)

    def _tested(self) -> str:
        """Say how all images were tested, where TEST asked for folds."""
        cv = self.records[0].get("cv")
        if not cv:
            return ""
        n = sum(self.records[0]["splits"]["test"].values())
        times = f", {cv['repeats']} times" if cv["repeats"] > 1 else ""
        by = f"{cv['folds']} folds{times}"
        return f"{n} images, each tested by a head fitted without its fold ({by})"

    def lines(self) -> list[str]:
        """Give the table, the numbers of images, the files, and what training added."""
        counts = {split: sum(of.values()) for split, of in self.records[0]["splits"].items()}
        groups = self.records[0]["metrics"].get("test", {}).get("n_groups")
        uses = dict(_USES) | ({"test": f"of {groups} groups to test"} if groups else {})
        shown = ", ".join(f"{n} {use}" for split, use in uses.items() if (n := counts.get(split)))
        lines = [
            self.table(),
            "",
            f"{self.manifest.name}: {self._tested() or shown}, {self.manifest.n_classes} classes; "
            f"codes {duration(self.records[0]['times_s']['codes'])}.",
        ]
        for record, path in zip(self.records, self.runs, strict=True):
            lines.append(f"{path}{' (was there already)' if record.get('reused') else ''}")
        return lines + [_added(one) for one in self.records if one.get("curve")]


def _added(record: Mapping[str, Any]) -> str:
    """Say which epoch was kept, by what, and what it added to the start, all on val."""
    chosen, curve = record["chosen"], record["curve"]
    deeper = chosen.get("deeper", {})
    of = f" of the last {deeper['unfreeze']} stages" if deeper.get("kept") else ""
    text = f"Epoch {chosen['epoch']}{of} was kept, by {chosen['by']} on {chosen['on']}"
    values = [curve[0].get("val_accuracy"), chosen["score"].get("val_accuracy")]
    if None in values:
        return f"{text}."
    start = "the probe it began with" if "probe" in chosen else "the start"
    text = f"{text}: accuracy {share(values[1])} there, against {share(values[0])} of {start}."
    if deeper and not deeper["kept"]:
        why = deeper.get("why", "no better by more than one standard error").rstrip(".")
        text += f" The last {deeper['unfreeze']} stages were tried too and not kept: {why}."
    return text


@dataclass(frozen=True, eq=False, repr=False)
class Measured(Answer):
    """A record of evidence, of a curve or of a comparison, with its words.

    Attributes
    ----------
    record : dict
        As written.
    path : Path
        Where it was written.
    tables : tuple of Table
        The figures that the command line prints.
    said : tuple of str
        What stands below them.
    legend : str
        What the marks of the first table mean.
    """

    record: dict[str, Any]
    path: Path
    tables: tuple[Table, ...]
    said: tuple[str, ...]
    legend: str = ""

    @property
    def warnings(self) -> Sequence[str]:
        """Those of the record."""
        found: Sequence[str] = self.record["warnings"]
        return found

    def table(self) -> Table:
        """Give the figures."""
        return self.tables[0]

    def lines(self) -> list[str]:
        """Give the tables, the first with its legend, then the words."""
        parts: list[str] = []
        for table in self.tables:
            parts += [table, *([self.legend] if self.legend and not parts else []), ""]
        return [*parts, *self.said]


class Compared(Measured):
    """Every method on the same test images."""


class Advised(Measured):
    """Which strategy suits a data set."""

    def lines(self) -> list[str]:
        """Give the advice first, then the tables it rests on."""
        *words, last = self.said
        return [*words, "", *(part for table in self.tables for part in (table, "")), last]


@dataclass(frozen=True, eq=False, repr=False)
class Written(Answer):
    """Files that were written.

    Attributes
    ----------
    paths : tuple of Path
    """

    paths: tuple[Path, ...]

    def table(self) -> Table:
        """Give each file and its size."""
        lines = [[str(path), megabytes(path.stat().st_size)] for path in self.paths]
        return aligned([["file", "MB"], *lines], text_columns=1)

    def lines(self) -> list[str]:
        """Give one line per file."""
        return [f"{path} ({size(path.stat().st_size)})" for path in self.paths]


@dataclass(frozen=True, eq=False, repr=False)
class Told(Answer):
    """Text and tables, such as the list of runs.

    Attributes
    ----------
    parts : tuple of str
        Tables and text.
    """

    parts: tuple[str, ...]

    def table(self) -> Table:
        """Give the first table."""
        return next(one for one in self.parts if isinstance(one, Table))

    def lines(self) -> list[str]:
        """Give all parts."""
        return list(self.parts)
