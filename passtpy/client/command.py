# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command is, so that the parser, the completions and the manual agree."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from passtpy.record import record

Run = Callable[[Namespace], int]


@record
class Arg:
    """One argument: of argparse, and of the completions that are made from it."""

    names: tuple[str, ...]
    help: str
    options: dict[str, Any]
    words: tuple[str, ...] = ()  # to offer when completing


@record
class Command:
    """One command."""

    name: str
    help: str
    run: Run
    args: tuple[Arg, ...] = ()
    follows: bool = False  # takes -w
    local: bool = False  # asks no daemon by itself


_STORE = {"action": "store_true"}
INSTANCE = Arg(
    ("-i", "--instance"),
    "instance to ask, by name or path; needed when several run",
    {"metavar": "NAME"},
)
JSON = Arg(("--json",), "print JSON", _STORE)
FOLLOW = Arg(("-w", "--follow"), "again every second", _STORE)
SHARED = (INSTANCE, JSON, FOLLOW)


def arguments(command: Command) -> tuple[Arg, ...]:
    """Return all that a command takes, its own arguments last."""
    takes = (not command.local, True, command.follows)
    shared = (arg for arg, taken in zip(SHARED, takes, strict=True) if taken)
    return (*shared, *command.args)
