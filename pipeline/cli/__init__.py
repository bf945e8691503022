"""The command line: the only package that prints, parses arguments, and ends the process."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import PipelineError, SettingsError
from . import (
    compare,
    evidence,
    explain,
    features,
    finetune,
    heads,
    label,
    predict,
    report,
    runs,
    serve,
)
from .options import add_options, assigned, meant, settings_from
from .stage import Stage

__all__ = ["STAGES", "main"]

STAGES = {
    **features.STAGES,
    **heads.STAGES,
    **finetune.STAGES,
    **compare.STAGES,
    **evidence.STAGES,
    **report.STAGES,
    **predict.STAGES,
    **explain.STAGES,
    **runs.STAGES,
    **serve.STAGES,
    **label.STAGES,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code: 0, 1, 2 (the user can mend it) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = _parser()
        known = {name for stage in STAGES.values() for name in stage.names()}
        if arguments and not arguments[0].startswith("-"):
            stage = _stage(arguments[0])
            arguments[1:] = assigned(arguments[1:], stage.names(), known)
        options = parser.parse_args(arguments)
        if options.stage is None:
            parser.print_help()
            return 0
        if getattr(options, "recipe", ""):  # its settings are defaults: what was given goes before
            options = _parser(_recipe(options)).parse_args(arguments)
        for cls in STAGES[options.stage].takes:
            settings_from(options, cls)  # so that a wrong value is told before any work
        STAGES[options.stage].run(options)
        sys.stdout.flush()
        return 0
    except PipelineError as error:
        if isinstance(error, SettingsError) and not error.todo:
            error.todo = f"python -m pipeline {arguments[0]} --help says what each setting takes"
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        kept = "Interrupted. What was finished is kept; the same command goes on from there."
        print(f"\n{error if error.args else kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Answers mistakes as everything else does: in a sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        message, todo = message[:1].upper() + message[1:], f"{self.prog} --help"
        kind, colon, rest = message.partition("Unrecognized arguments: ")
        if colon and not kind:
            first = rest.split()[0]
            message = f"{first} is no option"
            todo = meant(first, {name for stage in STAGES.values() for name in stage.names()})
        raise SettingsError(f"{message}.", todo=todo)


def _stage(name: str) -> Stage:
    """Find a stage by its name, or answer with the one most like it."""
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, n=1)
        raise SettingsError(
            f"There is no stage {name}.",
            expected=", ".join(STAGES),
            todo=f"did you mean {near[0]}?" if near else "python -m pipeline --help",
        )
    return STAGES[name]


def _recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Give the settings of the recipe that the options name, as far as the stage has them."""
    from ..finetune import load_recipe

    recipe = load_recipe(options.recipe)
    trains = "unfreeze" in STAGES[options.stage].names()
    if trains != (recipe["stage"] == "finetune"):
        raise SettingsError(
            f"The recipe {options.recipe} is none for {options.stage}.",
            expected=f"make {'heads' if trains else 'finetune'} RECIPE={options.recipe}",
        )
    return recipe


def _parser(recipe: dict[str, Any] | None = None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipeline",
        allow_abbrev=False,
        description="How good is a linear classifier on a frozen network's features?",
        epilog="Settings may also be written as make has them: DATA=hotdog for --data hotdog.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(dest="stage", metavar="stage")
    for name, stage in STAGES.items():
        one = stages.add_parser(name, help=stage.help, description=stage.help, allow_abbrev=False)
        add_options(one, stage.takes, **stage.defaults | (recipe or {}))
    return parser
