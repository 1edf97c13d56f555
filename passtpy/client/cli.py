# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the line of a command, runs it, and says what went wrong.

Exit status: 0 done, 1 failed, 2 wrong use. A reader that goes away (`| head`) and a
Ctrl-C end a command without a word.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from passtpy import __version__
from passtpy.client.command import Command
from passtpy.client.commands import COMMANDS
from passtpy.client.connect import ClientError

NAMES = tuple(command.name for command in COMMANDS)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="passtpy",
        description="Ask or change a running passtpy.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"passtpy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        _add(commands.add_parser(command.name, help=command.help), command)
    return parser


def _add(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.description = f"{command.help[0].upper()}{command.help[1:]}."
    if not command.local:
        text = "instance to ask, by name or path; needed when several run"
        parser.add_argument("-i", "--instance", metavar="NAME", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    if command.follows:
        text = "again every second"
        parser.add_argument("-w", "--follow", action="store_true", help=text)
    for arg in command.args:
        parser.add_argument(*arg.names, help=arg.help, **arg.options)
    parser.set_defaults(run=command.run)


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what stands before and behind `--`."""
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], words[at + 1 :]


def run(words: Sequence[str]) -> int:
    """Run the command that `words` say; return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words, behind = _split(words)
    args = build_parser().parse_args(words)
    args.command_line = behind
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except ClientError as error:
        sys.stderr.write(f"passtpy: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
