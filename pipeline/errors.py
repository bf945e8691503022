"""Every error that a user can resolve, in one tree.

The command line turns a :class:`PipelineError` into one message and exit code 2; so it does with
anything else that escapes, whose traceback goes to a file that the message names. A message has
three parts: what was found, what was expected, what to do next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent
# In a checkout the package's folder lies next to the Makefile; an installed one has neither name.
_IN_CHECKOUT = _FOLDER.name == "pipeline" and (_FOLDER.parent / "Makefile").is_file()
_TARGET = re.compile(
    r"\b(?:make|python -m pipeline) (?=(?:demo|data|audit|features|svm|softmax|heads|finetune|"
    r"compare|curve|advise|labels|layers|map|next|report|predict|explain|export|serve|label|runs|"
    r"verify|clean-cache|--help)\b)"
)


def program(*, in_checkout: bool = _IN_CHECKOUT) -> str:
    """Give the name by which the command line is called here.

    Returns
    -------
    str
        ``python -m pipeline`` in a checkout, ``cnn-codes`` where the package is installed.
    """
    return "python -m pipeline" if in_checkout else "cnn-codes"


def as_typed(text: str, *, in_checkout: bool = _IN_CHECKOUT) -> str:
    """Spell the commands in `text` as they can be typed: installed, there is no Makefile.

    ``make svm DATA=x`` and ``python -m pipeline svm DATA=x`` become ``cnn-codes svm DATA=x``.
    """
    if in_checkout:
        return text
    text = text.replace("make setup", "pip install cnn-codes")
    return _TARGET.sub("cnn-codes ", text)


def command_line(
    stage: str, settings: Mapping[str, str], *, in_checkout: bool = _IN_CHECKOUT
) -> str:
    """Spell a command that runs as it is when pasted into a shell, whatever the values hold.

    Parameters
    ----------
    stage : str
        As make and the command line have it.
    settings : mapping of str to str
        By their names in capitals.
    in_checkout : bool
        With ``make``; otherwise with ``cnn-codes``, as an installed package has no Makefile.
    """
    start = "make" if in_checkout else "cnn-codes"
    given = (setting(name, one, in_checkout=in_checkout) for name, one in settings.items())
    return " ".join([start, stage, *given])


def setting(name: str, value: str, *, in_checkout: bool = _IN_CHECKOUT) -> str:
    """Spell ``NAME=value`` for a shell, as :func:`command_line` does."""
    return f"{name}={shlex.quote(value.replace('$', '$$') if in_checkout else value)}"  # make's $


def first_line(error: BaseException) -> str:
    """Give the first line of a library's error, or its kind where it says nothing."""
    try:
        lines = str(error).splitlines()
    except Exception:  # an error whose text cannot be made
        lines = []
    return lines[0] if lines else type(error).__name__


class PipelineError(Exception):
    """Something the user can resolve.

    Parameters
    ----------
    found : str
        What is wrong, with the name of the thing it is wrong with.
    expected : str, optional
        What would have been right.
    todo : str, optional
        What to do next: a command where there is one.
    """

    def __init__(self, found: str, *, expected: str = "", todo: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.todo = todo

    def __str__(self) -> str:
        """One sentence a part, in the order found, expected, to do."""
        parts = [self.found]
        if self.expected:
            parts.append(f"Expected: {as_typed(self.expected)}")
        if self.todo:
            parts.append(f"Next: {as_typed(self.todo)}")
        return "\n".join(parts)


class SettingsError(PipelineError):
    """A setting has a value that it cannot have."""


class DataError(PipelineError):
    """The data set cannot be read as one: layout, list files, labels, splits."""


class DownloadError(PipelineError):
    """Something could not be fetched, or is not what its checksum says."""


class ImageError(PipelineError):
    """One image cannot be used: unreadable, truncated, not an image, absurdly large."""


class BackboneError(PipelineError):
    """No such network or layer, or weights that do not fit it."""


class DeviceError(PipelineError):
    """A device or an engine was asked for that this machine lacks."""


class CacheError(PipelineError):
    """A cache file is damaged, foreign, or cannot be written."""


class CacheBusyError(CacheError):
    """Another run holds the cache."""


class ClusterError(PipelineError):
    """A cluster cannot be reached, or its machines cannot do what is asked."""


class NoMemoryError(PipelineError):
    """The machine has no memory left for an image; nothing is wrong with the image."""


class NoSpaceError(CacheError):
    """The disk has no room for what is to be written."""


class HeadError(PipelineError):
    """A head cannot be trained or loaded: one class, too few examples, a damaged model file."""


class ResultError(PipelineError):
    """A result file is missing, damaged, or of another schema."""


class TrainingError(PipelineError):
    """A network cannot be trained or loaded: nothing to train, a loss that is not finite."""
