# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs: which one was called, and the one place where errors become lines."""

# ruff: noqa: E402 (imports stand below the one thing that makes them faster)

import gc

# What is imported stays: to look at it again and again is a waste until we serve.
gc.set_threshold(50_000)  # new objects between two collections

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from passtpy import __version__, limits
from passtpy.config.cli import (
    parse_passt,
    parse_pasta,
    parse_run,
    wants_vhost_user,
)
from passtpy.config.model import Config
from passtpy.config.ports import ephemeral_ports
from passtpy.errors import InformationRequest, PasstpyError, UsageError

PROGRAMS = ("pasta", "passt")
# Of a running daemon; a test compares them with those that there are.
COMMANDS = (
    "ls",
    "flows",
    "top",
    "explain",
    "rules",
    "policy",
    "approve",
    "limits",
    "pins",
    "ports",
    "stats",
    "log",
    "capture",
    "close",
    "events",
    "reload",
    "stop",
    "completion",
)
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2  # of passtpy and its commands; pasta and passt have 1
STDOUT = 1
STDERR = 2
FIRST_FREE_FD = 3
USAGE = """\
Usage: passtpy run|learn [OPTION]... [--] COMMAND [ARG]...
       passtpy pasta [OPTION]... [COMMAND] [ARG]...
       passtpy pasta [OPTION]... PID
       passtpy pasta [OPTION]... --netns PATH|NAME
       passtpy passt [OPTION]...
       passtpy pesto [OPTION]... PATH
       passtpy slirp4netns [OPTION]... PID|PATH TAPNAME
       passtpy ls|flows|top|explain|rules|policy|approve|limits|pins|ports|stats
       passtpy log|capture|close|events|reload|stop
       passtpy completion bash|zsh|fish

`passtpy run --allow NAME -- COMMAND` gives a command a network of its own, in which it
reaches what is allowed; `passtpy learn -- COMMAND` prints the policy that it needs: see
docs/policy.md. `passtpy ls` and what follows it ask or change what is running: `passtpy
flows --help`, and so on. `passtpy pasta --help` and `passtpy passt --help` list the
options. The programs may also be called passtpy-pasta and passtpy-passt or, through
links, pasta and passt.
"""

Program = Callable[[Sequence[str]], int]


def main() -> int:
    """Be the program that the name, or else the first word, says."""
    words = sys.argv[1:]
    name = os.path.basename(sys.argv[0]).removeprefix("passtpy")
    if "pesto" in name:
        return pesto()
    if "slirp4netns" in name:
        return slirp4netns()
    if "cni" in name:
        return cni()
    for program in PROGRAMS:
        if program in name:
            return _be(program, words)
    if words[:1] and words[0] in PROGRAMS:
        return _be(words[0], words[1:])
    if words[:1] == ["run"]:
        return _guarded("passtpy run", _run_command, words[1:])
    if words[:1] == ["learn"]:
        return _guarded("passtpy learn", _learn, words[1:])
    if words[:1] and words[0] in COMMANDS:
        from passtpy.client.cli import run

        return run(words)
    if words[:1] == ["pesto"]:
        return pesto(words[1:])
    if words[:1] == ["slirp4netns"]:
        return slirp4netns(words[1:])
    if wants_vhost_user(words):
        return _be("passt", words)
    return _guarded("passtpy", _passtpy, words)


def pasta() -> int:
    """Be pasta, whatever the name."""
    return _be("pasta", sys.argv[1:])


def passt() -> int:
    """Be passt, whatever the name."""
    return _be("passt", sys.argv[1:])


def pesto(words: Sequence[str] | None = None) -> int:
    """Be pesto, whatever the name."""
    from passtpy.pesto import main as run

    return run(sys.argv[1:] if words is None else words)


def slirp4netns(words: Sequence[str] | None = None) -> int:
    """Be slirp4netns, whatever the name."""

    def program(words: Sequence[str]) -> int:
        from passtpy.slirp4netns import run

        _leave(run(words))

    return _guarded("slirp4netns", program, sys.argv[1:] if words is None else words)


def cni() -> int:
    """Be a CNI plugin, whatever the name."""
    from passtpy.cni import main as run

    _stand_on_own_feet()
    return run()


def _be(program: str, words: Sequence[str]) -> int:
    """Be one of the two; --vhost-user makes passt of either."""
    if program == "pasta" and not wants_vhost_user(words):
        return _guarded("pasta", _pasta, words)
    return _guarded("passt", _passt, words)


def _guarded(prog: str, program: Program, words: Sequence[str]) -> int:
    """Run a program; whatever goes wrong becomes one line and exit status 1."""
    _stand_on_own_feet()
    try:
        return program(words)
    except InformationRequest as request:
        _say(STDOUT, request.text)
        return EXIT_OK
    except UsageError as error:  # in the words of getopt, which has the name in it
        _say(STDERR, f"{error}\n{error.usage}")
    except PasstpyError as error:
        _say(STDERR, f"{prog}: {error}\n")
    except Exception as error:
        _say(STDERR, f"{prog}: {_unexpected(error, words)}\n")
    return EXIT_FAILURE


def _stand_on_own_feet() -> None:
    """Undo what a careless parent may have left us with.

    A descriptor below 3 that is closed would be given to the next file we open, which
    would then be written to as standard error. Who ignores SIGCHLD never learns how its
    children ended.
    """
    for fd in range(FIRST_FREE_FD):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for a Ctrl-C


def _say(fd: int, text: str) -> None:
    """Write all of `text`, names in the bytes they came in, if anybody reads it.

    Python's own streams do not exist where a descriptor was closed when we started.
    """
    data = text.encode(errors="surrogateescape")
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def _unexpected(error: Exception, words: Sequence[str]) -> str:
    reached = limits.reached(error)
    if reached is not None:
        return reached
    if "--trace" in words:
        raise error
    if isinstance(error, OSError):
        return f"Couldn't go on: {limits.reason(error)}"
    return f"internal error: {error!r}"


def _knows_ipv6() -> bool:
    from passtpy.net.kernel.listen import kernel_has_ipv6

    return kernel_has_ipv6()


def _pasta(words: Sequence[str]) -> int:
    return _run(parse_pasta(words, "pasta", ephemeral_ports(), _knows_ipv6))


def _run_command(words: Sequence[str]) -> int:
    return _run(parse_run(words, "passtpy run", ephemeral_ports(), _knows_ipv6))


def _learn(words: Sequence[str]) -> int:
    said = ["--learn", "-", *words]  # another --learn is the one that counts
    return _run(parse_run(said, "passtpy learn", ephemeral_ports(), _knows_ipv6))


def _passt(words: Sequence[str]) -> int:
    return _run(parse_passt(words, "passt", ephemeral_ports(), _knows_ipv6))


def _run(config: Config) -> int:
    from passtpy import daemon  # only now: --help needs nothing of it

    _leave(daemon.run(config))


def _leave(status: int) -> NoReturn:
    """End here: to take a large interpreter apart takes as long as to serve."""
    os._exit(status)


def _passtpy(words: Sequence[str]) -> int:
    match list(words[:1]):
        case ["-h" | "--help"]:
            raise InformationRequest(USAGE)
        case ["--version"]:
            raise InformationRequest(f"passtpy {__version__}\n")
        case [unknown]:
            text = f"unknown subcommand '{unknown}'"
        case _:
            text = "a subcommand is needed"
    _say(STDERR, f"passtpy: {text}\n{USAGE}")
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
