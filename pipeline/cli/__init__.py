"""The command line: parse, call the API, print. Nothing else prints or ends the process."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..answers import Advised, Answer, Compared, Measured, Verified
from ..api import STAGES, predicted
from ..datasets.phrases import few
from ..errors import CacheError, PipelineError, SettingsError
from ..progress import Messages, terminal
from ..stages import Chosen, Stage, nearest_setting
from .boundary import settled, unforeseen, watch_threads
from .options import add_options, assigned, meant

__all__ = ["STAGES", "main"]

_MOST_WARNINGS = 12
# Control characters but tab and line feed, and those that turn the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code: 0, 2 (said what and why) or 130 (Ctrl-C)."""
    if arguments is None:
        watch_threads(sys.argv[1:], _note)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _answered(arguments)
    finally:
        settled()


def _answered(arguments: list[str]) -> int:
    """Run one stage; whatever happens is answered here, and here only."""
    try:
        known = {name for stage in STAGES.values() for name in stage.fields}
        if arguments and not arguments[0].startswith("-"):
            stage = _stage(arguments[0])
            taken = {*stage.fields, *stage.fixed}
            arguments[1:] = assigned(arguments[1:], taken, known)
        given = vars(_parser().parse_args(arguments))
        name = given.pop("stage")
        if name is None:
            _parser().print_help()
            return 0
        _show(STAGES[name], given)
        if sys.stdout is not None:
            sys.stdout.flush()
        return 0
    except PipelineError as error:
        if isinstance(error, SettingsError) and not error.todo:
            error.todo = f"{program()} {arguments[0]} --help says what each setting takes"
        _note(f"error: {error}")
        return 2
    except KeyboardInterrupt as error:
        kept = "Interrupted. What was finished is kept; the same command goes on from there."
        _note(f"\n{error if error.args else kept}")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        return 0
    except SystemExit:  # argparse, after --help or --version
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        _note(f"error: {unforeseen(error, arguments)}")
        return 2


def program() -> str:
    """Give the command that starts this program: from a checkout, or as it is installed."""
    return "python -m pipeline" if __package__.startswith("pipeline") else "cnn-codes"


def _note(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody is there to be told
        print(_printable(text), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """Spell out control characters: names of files and classes must not steer the terminal.

    So are bytes of names that are not UTF-8, which a terminal could not be sent.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _waiting(holder: str) -> None:
    _note(f"The cache file is held by {holder}; waiting for it.")


def _show(stage: Stage, given: dict[str, Any]) -> None:
    """Call a stage; print what it found, and what to be wary of on standard error."""
    messages = Messages(progress=terminal, say=_note, waiting=_waiting)
    command = f"{program()} {shlex.join(sys.argv[1:])}"
    chosen = Chosen(stage.chosen(given), messages, command)
    if "port" in stage.fields:  # a server: its own messages go to standard error
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if stage.name == "predict":  # its rows are printed as they come
        answer: Answer = predicted(chosen, sys.stdout.buffer)
    else:
        answer = stage.run(chosen)
    if os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun started, the first one speaks
    warnings = list(answer.warnings)
    shortened = isinstance(answer, Measured) and isinstance(answer, Compared | Advised)
    shown = warnings[:_MOST_WARNINGS] if shortened else warnings
    for warning in shown:
        _note(f"warning: {warning}")
    if len(shown) < len(warnings):
        _note(f"warning: and {len(warnings) - len(shown)} more, in the record")
    for line in answer.lines():
        print(_printable(line))
    if isinstance(answer, Verified) and answer.damaged:
        raise CacheError(
            f"{len(answer.damaged)} of {len(answer.verdicts)} files are damaged: "
            f"{few([str(path) for path in answer.damaged])}.",
            todo="make features makes damaged rows again; a file that does not open: remove it",
        )


class _Parser(argparse.ArgumentParser):
    """Answers mistakes as everything else does: in a sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        message, todo = message[:1].upper() + message[1:], f"{self.prog} --help"
        kind, colon, rest = message.partition("Unrecognized arguments: ")
        if colon and not kind:
            first = rest.split()[0]
            message = f"Unknown option {first}"
            todo = meant(first, {name for stage in STAGES.values() for name in stage.fields})
        raise SettingsError(f"{message}.", todo=todo)


def _stage(name: str) -> Stage:
    """Find a stage by its name, or answer with the one most like it."""
    if name not in STAGES:
        near = nearest_setting(name, STAGES)
        raise SettingsError(
            f"Unknown stage {name}.",
            expected=", ".join(STAGES),
            todo=f"did you mean {near}?" if near else f"{program()} --help",
        )
    return STAGES[name]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program(),
        allow_abbrev=False,
        description="How good is a linear classifier on a frozen network's features?",
        epilog="Settings may also be written as make has them: DATA=hotdog for --data hotdog.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(dest="stage", metavar="stage")
    for name, stage in STAGES.items():
        one = stages.add_parser(
            name,
            help=stage.help,
            description=stage.help + ".",
            epilog=f"Example: make {stage.example}",
            allow_abbrev=False,
        )
        add_options(one, stage)
    return parser
