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
from io import TextIOWrapper

from passtpy.client.command import Command, arguments
from passtpy.client.commands import COMMANDS
from passtpy.client.connect import ClientError

NAMES = tuple(command.name for command in COMMANDS)


def build_parser(command: Command) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    parser = argparse.ArgumentParser(
        prog=f"passtpy {command.name}",
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        allow_abbrev=False,
    )
    for arg in arguments(command):
        parser.add_argument(*arg.names, help=arg.help, **arg.options)
    return parser


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what stands before and behind `--`."""
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], words[at + 1 :]


def run(words: Sequence[str]) -> int:
    """Run the command that `words` begin with; return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if isinstance(sys.stdout, TextIOWrapper):  # names may be bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    words, behind = _split(words)
    command = COMMANDS[NAMES.index(words[0])]
    # Options may stand between the other words: `ports add -i web tcp:8080`.
    args = build_parser(command).parse_intermixed_args(words[1:])
    args.command_line = behind
    try:
        status = command.run(args)
        sys.stdout.flush()
    except ClientError as error:
        sys.stderr.write(f"passtpy: {error}\n")
        return error.status
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except OSError as error:  # of stdout, or of a file: no answer's is left
        _silence_stdout()
        sys.stderr.write(f"passtpy: {error.strerror or error}\n")
        return 1
    return status


def _silence_stdout() -> None:
    """Keep the interpreter from trying again what is left to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
