"""Parse the command line, run one command, and turn every expected failure into one line and an exit code.

Exit codes: 0 done, 1 expected error, 2 wrong usage, 130 interrupted (what was trained is kept); a command may return
another one where its answer is no, such as 3 of `verify`.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NoReturn

from lrensemble import __version__
from lrensemble.cli import (
    compose,
    evaluate,
    explain,
    import_,
    inspect,
    list_,
    policies,
    range_test,
    recommend,
    run,
    select,
    store,
    train,
    verify,
)
from lrensemble.errors import LREnsembleError, nearest

__all__ = ["build_parser", "main"]

COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "train": train,
    "select": select,
    "explain": explain,
    "evaluate": evaluate,
    "inspect": inspect,
    "import": import_,
    "compose": compose,
    "recommend": recommend,
    "policies": policies,
    "verify": verify,
    "range-test": range_test,
    "store": store,
    "list": list_,
}

TRAINING = ("run", "train", "verify", "range-test", "compose", "recommend")  # interrupted, the same command goes on


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest command where one was misspelt."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with exit code 2."""
        if "invalid choice: '" in message:
            asked = message.split("invalid choice: '")[1].split("'")[0]
            guess = nearest(asked, COMMANDS)
            message += f" - did you mean '{guess}'?" if guess and self.prog == "lrensemble" else ""
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = Parser(
        prog="lrensemble",
        description="Turn learning-rate tuning into deep ensembles: train a pool, select a team, evaluate it honestly.",
        epilog="The main road in one command: lrensemble run --data digits --model mlp",
    )
    parser.add_argument("--version", action="version", version=f"lrensemble {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0].split(": ", 1)[1]
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:],
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(execute=module.execute)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (``sys.argv[1:]`` when not given) and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without '≥' shows '?'
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse leaves this way
        return int(stop.code or 0)
    try:
        code = args.execute(args)
        if sys.stdout is not None:  # None where it was closed before we began
            sys.stdout.flush()
        return int(code or 0)
    except SystemExit as stop:  # nothing of ours leaves this way, so it is the user's data or network
        return _fail(f"expected your data or network function to return, but it called sys.exit({stop.code!r})")
    except LREnsembleError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        kept = args.command in TRAINING
        goes_on = ": what was trained is kept; the same command goes on from there" if kept else ""
        return _fail(f"interrupted{goes_on}", code=130)
    except BrokenPipeError:  # the reader of our output has gone (`| head`): nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except MemoryError:
        return _fail("out of memory: use a smaller pool, data set or number of jobs")


def _fail(message: str, code: int = 1) -> int:
    print(f"lrensemble: {'error: ' if code == 1 else ''}{' '.join(message.split())}", file=sys.stderr)
    return code


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
