"""What every stage of one command shares: the images, the settings, and where to report.

Made once by :mod:`cnn_codes.api` and handed on as one thing. A stage takes a context and its own
settings; nothing else is passed along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .datasets import Manifest
from .errors import command_line
from .progress import Messages, Progress
from .settings import ClusterSettings, CodesSettings, DataSettings, MachineSettings, PlaceSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Context:
    """One data set, how its codes are made, and the machine.

    Attributes
    ----------
    manifest : Manifest
        The images.
    data, codes, machine, places, cluster : settings
        Which images and seed; what the codes are; what runs the network; where files lie; whether
        it runs on several machines.
    messages : Messages
        Progress and messages.
    warnings : tuple of str
        What the audit found; goes into every record.
    command : str
        What repeats this, for the record.
    """

    manifest: Manifest
    data: DataSettings = field(default_factory=DataSettings)
    codes: CodesSettings = field(default_factory=CodesSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    places: PlaceSettings = field(default_factory=PlaceSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    messages: Messages = field(default_factory=Messages)
    warnings: tuple[str, ...] = ()
    command: str = ""

    @property
    def seed(self) -> int:
        """First seed of every random choice."""
        return self.data.seed

    @property
    def cache(self) -> Path:
        """Folder of the cached codes."""
        return Path(self.places.cache)

    @property
    def folder(self) -> Path:
        """Folder of this data set's results."""
        return Path(self.places.results) / self.manifest.name

    @property
    def progress(self) -> Progress:
        """Counts units of work."""
        return self.messages.progress

    def command_for(
        self, stage: str, more: Mapping[str, Any] | None = None, *, codes: bool = True
    ) -> str:
        """Spell the command that runs a stage on these images: every setting but the defaults.

        Parameters
        ----------
        stage : str
            As make has it.
        more : mapping, optional
            Further settings by their names in lower case; they replace those of the context, and
            None leaves one out.
        codes : bool
            Whether the stage takes the settings of the codes.
        """
        named: dict[str, Any] = {"data": self.data.data}
        for settings in (*([self.codes] if codes else []), self.data, self.places):
            named |= {
                one.name: getattr(settings, one.name)
                for one in fields(settings)
                if one.name not in named and getattr(settings, one.name) != one.default
            }
        named |= more or {}
        return command_line(
            stage, {key.upper(): _typed(one) for key, one in named.items() if one is not None}
        )

    def say(self, text: str) -> None:
        """Report one line: what is being done, what was left out."""
        self.messages.say(text)

    @property
    def source(self) -> dict[str, Any]:
        """Keyword arguments of what loads a network: cache, seed, offline, progress."""
        return {
            "cache": self.cache,
            "seed": self.data.seed,
            "offline": self.data.offline,
            "progress": self.messages.progress,
        }


def _typed(value: Any) -> str:
    """Write a setting's value as the command line takes it."""
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
