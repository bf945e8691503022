"""Settings of labels: the table of a data set, labelling, likely label errors."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError
from .deployment import DoorSettings
from .fields import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TableSettings(Settings):
    """Where the data set is written as a table."""

    out: str = setting(
        "", "a .csv of path, label, split to write, corrections included; empty: none",
        affects="place",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse what is no table."""
        super().__post_init__()
        if self.out and not self.out.lower().endswith(".csv"):
            raise SettingsError(f"OUT={self.out}.", expected="a file called .csv")


@dataclass(frozen=True, kw_only=True)
class LabelSettings(DoorSettings):
    """The labelling page."""

    images: str = setting(
        "", "unlabelled images to label too: a folder, a glob, a list file", affects="place"
    )
    labels: str = setting(
        "", "the file of corrections; empty: labels.jsonl next to the results", affects="place"
    )


@dataclass(frozen=True, kw_only=True)
class NextSettings(Settings):
    """Which unlabelled images to label next."""

    images: str = setting(
        "", "the unlabelled images: a folder, a glob, a list file", affects="place"
    )
    count: int = setting(50, "how many images to name", low=1)
    out: str = setting("", "a .csv to write them to; empty: they are printed", affects="place")


@dataclass(frozen=True, kw_only=True)
class LabelsSettings(Settings):
    """How likely label errors are found."""

    folds: int = setting(
        5, "folds: each image is predicted by a head that was not trained on it", low=2, high=1000
    )
    share: float = setting(
        0.1, "share of the images that the record lists, most suspicious first", above=0, high=1
    )
    top: int = setting(20, "images that are printed; 0: all that the record lists", affects="place")
    jobs: int = setting(0, "parallel fits; 0: one per core", affects="speed", high=1024)
