"""Settings of the evidence about a data set, the list of runs, and the report."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError
from .fields import Settings, setting

EVIDENCE = ("audit", "labels", "layers", "map", "curve", "advise", "explain")


@dataclass(frozen=True, kw_only=True)
class LayersSettings(Settings):
    """How each layer is probed."""

    probe: str = setting("softmax", "linear head of each layer", choices=("softmax", "svm"))
    folds: int = setting(
        5, "folds of the cross-validation on train, the same for all layers", low=2, high=1000
    )
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)


@dataclass(frozen=True, kw_only=True)
class MapSettings(Settings):
    """How many codes are shown in two dimensions."""

    shown: int = setting(
        3000, "largest number of images shown: test first, then a sample of train", low=10
    )


@dataclass(frozen=True, kw_only=True)
class RunsSettings(Settings):
    """Which runs are listed, compared or exported."""

    data: str = setting("", "of one data set only: its name, or a path", affects="place")
    where: str = setting(
        "",
        "conditions, all of which must hold: 'method=svm accuracy>0.93 model~lite', with = != > >= "
        "< <= ~ (contains), on columns or fields of the record (chosen.C)",
        affects="place",
    )
    sort: str = setting(
        "-date", "columns to sort by, with commas; '-' before a column: descending", affects="place"
    )
    limit: int = setting(50, "runs that are printed; 0: all", affects="place")
    run: str = setting(
        "", "one run in full: its name, the beginning of it, or its .json", affects="place"
    )
    against: str = setting("", "a second run, to compare with RUN", affects="place")
    export: str = setting(
        "",
        "write the listed runs into OUT for 'mlflow' or 'tensorboard'",
        affects="place",
        choices=("", "mlflow", "tensorboard"),
    )
    out: str = setting("", "folder that EXPORT writes into", affects="place")

    def __post_init__(self) -> None:
        """Refuse settings that need others."""
        super().__post_init__()
        if self.against and not self.run:
            raise SettingsError("AGAINST is given without RUN.", expected="RUN=<one> AGAINST=<two>")
        if self.export and not self.out:
            raise SettingsError(
                f"EXPORT={self.export} without OUT.",
                expected="a folder to write into",
                todo=f"EXPORT={self.export} OUT=exported",
            )
        if self.out and not self.export:
            raise SettingsError(
                "OUT is given without EXPORT.", expected="EXPORT=mlflow or EXPORT=tensorboard"
            )


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """What the report shows."""

    gallery: int = setting(
        24, "number of pictures of mistakes, of suspect labels and of duplicates", affects="place"
    )
    pictures: int = setting(
        5000, "largest number of thumbnails in the report; 0: none", affects="place"
    )
    evidence: tuple[str, ...] = setting(
        EVIDENCE,
        f"evidence that is updated first ({', '.join(EVIDENCE)}), or 'none'",
        affects="place",
        choices=(*EVIDENCE, "none"),
    )
