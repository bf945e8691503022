"""Progress of anything that may take over two seconds: units a second, time left.

Library functions take a ``Progress`` and never print. ``silent`` is their default; the command
line passes ``terminal``, which draws with tqdm, and only where the output is a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self


class Meter(Protocol):
    """One running count; a context manager."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Progress(Protocol):
    """Opens a meter for `total` units of work."""

    def __call__(self, label: str, total: int, unit: str) -> Meter:
        """Open a meter; see :func:`terminal`."""
        ...


class _Silent:
    def advance(self, n: int = 1) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class _Terminal:
    def __init__(self, label: str, total: int, unit: str) -> None:
        from tqdm import tqdm  # here, since the quickest commands show nothing

        # disable=None: off where stderr is no terminal; delay: nothing drawn for short work. tqdm
        # draws nothing at all on a terminal that does not say how wide it is (0 columns).
        sized = _columns() > 0
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=f" {unit}",
            delay=2,
            disable=None,
            dynamic_ncols=sized,
            ncols=None if sized else 80,
            leave=False,
            unit_scale=unit == "B",
            smoothing=0.1,
        )

    def advance(self, n: int = 1) -> None:
        self._bar.update(n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()


def _columns() -> int:
    """Width of the terminal on standard error; 0: not known, or there is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0


def silent(label: str, total: int, unit: str) -> Meter:
    """Count without showing anything."""
    return _Silent()


def _unheard(text: str) -> None:
    pass


@dataclass(frozen=True)
class Messages:
    """Where a stage reports to while it runs; by default nowhere.

    Attributes
    ----------
    progress : Progress
        Counts units of work.
    say : callable
        Is given one line of text: what is being done, what was left out.
    waiting : callable or None
        Is told who holds a cache file that this run waits for. None: do not wait but raise
        :class:`~cnn_codes.errors.CacheBusyError`.
    """

    progress: Progress = silent
    say: Callable[[str], None] = _unheard
    waiting: Callable[[str], None] | None = None


def terminal(label: str, total: int, unit: str) -> Meter:
    """Draw a bar on standard error, once two seconds have passed, if it is a terminal.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        How many units there are, at least 0.
    unit : str
        What is counted: ``images``, ``fits``, ``B`` for bytes (shown in kB, MB).
    """
    return _Terminal(label, total, unit)
