# SPDX-License-Identifier: GPL-2.0-or-later
"""From words to a validated configuration. Nothing is printed and no file is read.

parse_pasta() and parse_passt() raise UsageError (message and usage to stderr, exit 1),
ConfigError (message to stderr, exit 1) or InformationRequest (text to stdout, exit 0).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from passtpy import __version__
from passtpy.config.draft import Draft
from passtpy.config.getopt import Getopt, GetoptError, Grammar
from passtpy.config.model import Config, SpawnCommand
from passtpy.config.option import Option
from passtpy.config.options import OPTIONS, PORT_HELP, options_of
from passtpy.config.ports import DEFAULT_EPHEMERAL, Span
from passtpy.errors import ConfigError, InformationRequest, UsageError
from passtpy.record import replace

Known = Callable[[], bool]

# What `passtpy run` says first: a port is forwarded when somebody asks for it
RUN = ("--config-net", *(w for o in "tuTU" for w in (f"-{o}", "none")))
CAPABILITIES = '{"type": "net"}\n'  # as qemu's vhost-user programs tell theirs
HELP_COLUMN = 30
HELP_WIDTH = 80
SYNOPSIS = {
    "pasta": (
        "{prog} [OPTION]... [COMMAND] [ARG]...",
        "{prog} [OPTION]... PID",
        "{prog} [OPTION]... --netns PATH|NAME",
    ),
    "passt": ("{prog} [OPTION]...",),
    "passtpy run": ("{prog} [OPTION]... [--] COMMAND [ARG]...",),
    "passtpy learn": ("{prog} [OPTION]... [--] COMMAND [ARG]...",),
}
PURPOSE = {
    "pasta": (
        "Connect a network namespace through ordinary sockets. Without PID or --netns,",
        "run COMMAND (default: a shell) in new namespaces.",
    ),
    "passt": (
        "Connect a virtual machine through ordinary sockets. Wait for it at a UNIX",
        "socket, as qemu's -netdev stream or vhost-user connects to.",
    ),
    "passtpy run": (
        "Run COMMAND in a network of its own, in which it reaches what --allow, --deny",
        "and --policy say, or else the internet. The options are those of pasta;",
        "--config-net -t none -u none -T none -U none are said first.",
    ),
    "passtpy learn": (
        "Run COMMAND as passtpy run does, let everything pass, and print the policy",
        "that it has needed (--learn FILE: write it there).",
    ),
}
LICENCE = """\
GNU General Public License version 2 or later
  <https://www.gnu.org/licenses/old-licenses/gpl-2.0.html>
This is free software: you are free to change and redistribute it.
There is NO WARRANTY, to the extent permitted by law."""


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
    optional = frozenset(o.key for o in OPTIONS if o.is_optional)
    valued = frozenset(o.key for o in OPTIONS if o.metavar) - optional
    return Grammar(short, long, valued, optional)


def show_names(option: Option) -> str:
    """Return `-a, --address ADDR[/LEN]`."""
    indent = "" if len(option.names[0]) == 2 else "    "
    blank = "" if option.is_optional else " "
    return f"{indent}{', '.join(option.names)}{blank}{option.metavar}".rstrip()


def _option_lines(option: Option, program: str) -> Iterator[str]:
    names = f"  {show_names(option)}"
    if len(names) >= HELP_COLUMN - 1:
        yield names
        names = ""
    told = option.told(program)
    text = f"{told.help} [{told.default}]" if told.default else told.help
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


def _usage_lines(program: str, prog: str) -> Iterator[str]:
    for position, line in enumerate(SYNOPSIS.get(prog, SYNOPSIS[program])):
        yield ("       " if position else "Usage: ") + line.format(prog=prog)
    yield ""
    yield from PURPOSE.get(prog, PURPOSE[program])
    yield "Defaults are in brackets; a switch is off unless something else is said."
    group = ""
    for option in options_of(program):
        if option.group != group:
            group = option.group
            yield ""
            yield f"{group}:"
        yield from _option_lines(option, program)
    yield ""
    yield PORT_HELP[program]


def usage(program: str, prog: str) -> str:
    """Return the text of --help, with its last newline."""
    return "\n".join(_usage_lines(program, prog)) + "\n"


def version(program: str) -> str:
    """Return the text of --version, with its last newline."""
    return f"{program} {__version__}\n{LICENCE}\n"


def parse_pasta(
    argv: Sequence[str],
    prog: str = "pasta",
    ephemeral: Span = DEFAULT_EPHEMERAL,
    knows_ipv6: Known = lambda: True,
) -> Config:
    """Read the words behind the program's name, as pasta does.

    `prog` begins every message about the form of the line. `ephemeral` is the
    host's range of ephemeral ports: specifications made of exclusions spare it.
    `knows_ipv6` tells whether the kernel does; nobody asks before the line is read.
    """
    return _parse("pasta", argv, prog, ephemeral, knows_ipv6)


def parse_run(
    argv: Sequence[str],
    prog: str = "passtpy run",
    ephemeral: Span = DEFAULT_EPHEMERAL,
    knows_ipv6: Known = lambda: True,
) -> Config:
    """Read the words of `passtpy run`: those of pasta, where less is open by itself.

    No port is forwarded, the network is configured, the command asks our resolver, and
    without any word about a policy the internet is all that is allowed.
    """
    config = parse_pasta([*RUN, *argv], prog, ephemeral, knows_ipv6)
    if not isinstance(config.target, SpawnCommand):
        raise ConfigError("it runs a command: for a namespace that there is, use pasta")
    if not config.target.argv:
        raise ConfigError("a command is needed: passtpy run [OPTION]... -- COMMAND")
    words = config.policy_words if config.has_policy else (("allow", "@internet"),)
    return replace(config, policy_words=words, dns_server=True, own_resolver=True)


def parse_passt(
    argv: Sequence[str],
    prog: str = "passt",
    ephemeral: Span = DEFAULT_EPHEMERAL,
    knows_ipv6: Known = lambda: True,
) -> Config:
    """Read the words behind the program's name, as passt does; otherwise as above."""
    mode = "vhost-user" if wants_vhost_user(argv) else "passt"
    return _parse(mode, argv, prog, ephemeral, knows_ipv6)


def wants_vhost_user(argv: Sequence[str]) -> bool:
    """Tell whether --vhost-user is among the options, wherever it stands.

    It makes passt of any program, and other options depend on it.
    """
    with suppress(GetoptError):
        return any(key == "vhost-user" for key, _ in Getopt(argv, grammar()))
    return False


def _parse(
    mode: str, argv: Sequence[str], prog: str, ephemeral: Span, knows_ipv6: Known
) -> Config:
    program = "pasta" if mode == "pasta" else "passt"
    options = {option.key: option for option in OPTIONS}
    draft = Draft(ephemeral, mode)
    words = Getopt(argv, grammar())
    try:
        for key, value in words:
            option = options[key]
            if mode not in option.modes:
                raise ConfigError(option.refused())
            if option.action is None:
                raise InformationRequest(_information(key, program, prog))
            option.action(draft, value)
    except GetoptError as error:
        raise UsageError(f"{prog}: {error}", usage(program, prog)) from None
    if draft.fields.get("ipv6", True) and not knows_ipv6():
        draft.lose_ipv6()
    return draft.finish(words.rest)


def _information(key: str, program: str, prog: str) -> str:
    """Return what an option prints that ends the reading of the line."""
    texts = {
        "help": lambda: usage(program, prog),
        "version": lambda: version(program),
        "print-capabilities": lambda: CAPABILITIES,
    }
    return texts[key]()
