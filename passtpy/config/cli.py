# SPDX-License-Identifier: GPL-2.0-or-later
"""From words to a validated configuration. Nothing is printed and no file is read.

parse_pasta() raises UsageError (message and usage to stderr, exit 1), ConfigError
(message to stderr, exit 1) or InformationRequest (text to stdout, exit 0).
"""

from collections.abc import Iterator, Sequence

from passtpy import __version__
from passtpy.config.draft import Draft
from passtpy.config.getopt import Getopt, GetoptError, Grammar
from passtpy.config.model import Config
from passtpy.config.options import OPTIONS, PORT_HELP, REFUSED, Option
from passtpy.config.ports import DEFAULT_EPHEMERAL, Span
from passtpy.errors import ConfigError, InformationRequest, UsageError

HELP_COLUMN = 30
HELP_WIDTH = 80
SYNOPSIS = {
    "pasta": (
        "{prog} [OPTION]... [COMMAND] [ARG]...",
        "{prog} [OPTION]... PID",
        "{prog} [OPTION]... --netns PATH|NAME",
    ),
}
PURPOSE = {
    "pasta": (
        "Connect a network namespace through ordinary sockets. Without PID or --netns,",
        "run COMMAND (default: a shell) in new namespaces.",
    ),
}
LICENCE = """\
GNU General Public License version 2 or later
  <https://www.gnu.org/licenses/old-licenses/gpl-2.0.html>
This is free software: you are free to change and redistribute it.
There is NO WARRANTY, to the extent permitted by law."""


def options_of(mode: str) -> tuple[Option, ...]:
    """Return the rows that a mode knows."""
    return tuple(option for option in OPTIONS if mode in option.modes)


def grammar() -> Grammar:
    """Return what getopt has to know: all rows, whatever the mode."""
    short: dict[str, str] = {}
    long: dict[str, str] = {}
    for option in OPTIONS:
        for name in option.names:
            if name.startswith("--"):
                long[name[2:]] = option.key
            else:
                short[name[1:]] = option.key
    for refused in REFUSED:
        for name in refused.names:
            names = long if name.startswith("--") else short
            names[name.lstrip("-")] = refused.names[-1]
    optional = frozenset(o.key for o in OPTIONS if o.is_optional)
    valued = frozenset(o.key for o in OPTIONS if o.metavar) - optional
    valued |= frozenset(refused.names[-1] for refused in REFUSED if refused.metavar)
    return Grammar(short, long, valued, optional)


def _check_mode(option: Option, mode: str) -> None:
    """Refuse what another mode knows by saying which one."""
    if mode not in option.modes:
        others = " / ".join(sorted(option.modes))
        raise ConfigError(f"--{option.key} is for {others} mode only")


def show_names(option: Option) -> str:
    """Return `-a, --address ADDR[/LEN]`."""
    indent = "" if len(option.names[0]) == 2 else "    "
    blank = "" if option.is_optional else " "
    return f"{indent}{', '.join(option.names)}{blank}{option.metavar}".rstrip()


def _option_lines(option: Option) -> Iterator[str]:
    names = f"  {show_names(option)}"
    if len(names) >= HELP_COLUMN - 1:
        yield names
        names = ""
    text = f"{option.help} [{option.default}]" if option.default else option.help
    for line in _wrapped(text, HELP_WIDTH - HELP_COLUMN):
        yield f"{names:<{HELP_COLUMN}}{line}"
        names = ""


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Yield lines; textwrap would take longer to load than all of this takes."""
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line


def _usage_lines(mode: str, prog: str) -> Iterator[str]:
    for position, line in enumerate(SYNOPSIS[mode]):
        yield ("       " if position else "Usage: ") + line.format(prog=prog)
    yield ""
    yield from PURPOSE[mode]
    yield "Defaults are in brackets; a switch is off unless something else is said."
    group = ""
    for option in options_of(mode):
        if option.group != group:
            group = option.group
            yield ""
            yield f"{group}:"
        yield from _option_lines(option)
    yield ""
    yield PORT_HELP


def usage(mode: str, prog: str) -> str:
    """Return the text of --help, with its last newline."""
    return "\n".join(_usage_lines(mode, prog)) + "\n"


def version(mode: str) -> str:
    """Return the text of --version, with its last newline."""
    return f"{mode} {__version__}\n{LICENCE}\n"


def parse_pasta(
    argv: Sequence[str], prog: str = "pasta", ephemeral: Span = DEFAULT_EPHEMERAL
) -> Config:
    """Read the words behind the program's name, as pasta does.

    `prog` begins every message about the form of the line. `ephemeral` is the
    host's range of ephemeral ports: specifications made of exclusions spare it.
    """
    options = {option.key: option for option in OPTIONS}
    refused = {refused.names[-1]: refused for refused in REFUSED}
    draft = Draft(ephemeral)
    words = Getopt(argv, grammar())
    try:
        for key, value in words:
            if key in refused:
                raise ConfigError(refused[key].message)
            _check_mode(options[key], "pasta")
            action = options[key].action
            if action is not None:
                action(draft, value)
            elif key == "help":
                raise InformationRequest(usage("pasta", prog))
            else:
                raise InformationRequest(version("pasta"))
    except GetoptError as error:
        raise UsageError(f"{prog}: {error}", usage("pasta", prog)) from None
    return draft.finish(words.rest)
