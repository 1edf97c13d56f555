# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the manual page from the option table: `python -m passtpy.config.manpage`.

It prints roff to stdout; a test compares docs/passtpy-pasta.1 with it.
"""

import sys
from collections.abc import Iterable, Iterator

from passtpy import __version__
from passtpy.config.cli import options_of
from passtpy.config.options import PORT_HELP, Option

NAME = "passtpy-pasta"
MODE = "pasta"

HEAD = rf"""
.\" Made by `python -m passtpy.config.manpage`; change passtpy/config/options.py.
.TH PASSTPY\-PASTA 1 "" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy\-pasta \- connect a network namespace without privileges
.SH SYNOPSIS
.B passtpy\-pasta
.RI [ OPTION ].\|.\|.\& " " [ COMMAND " [" ARG ].\|.\|.]
.br
.B passtpy\-pasta
.RI [ OPTION ].\|.\|.\& " " PID
.br
.B passtpy\-pasta
.RI [ OPTION ].\|.\|.\& " "
.B \-\-netns
.IR PATH | NAME
.SH DESCRIPTION
.B passtpy\-pasta
stands between a network namespace and the ordinary sockets of the host. Packets that
the namespace sends through its tap device leave the host as if a program of the host
had sent them: no privileges are needed, and no address is translated unless asked for.
.PP
Without
.I PID
or
.B \-\-netns
it makes new namespaces and runs
.I COMMAND
(or a shell) in them, stays in the foreground and ends with it. Otherwise it serves an
existing namespace from the background: the call returns once everything works, and the
daemon quits when the namespace is gone.
.PP
Addresses, routes and resolvers are those of the host, and follow the host when it
changes its network. What is said here stays as it is.
.SH OPTIONS
Long names may be shortened as long as they are unambiguous. When an option is repeated
the last one wins, unless something else is said. Reading stops at the first word that
is no option.
"""

TAIL = r"""
.SH EXIT STATUS
.TP
.B 0
The daemon serves the namespace, or has ended as it should.
.TP
.B 1
Nothing was started; a line on standard error tells why.
.TP
.I N
With
.IR COMMAND ,
its own status; 128+N when signal N ended it, 127 when there is no such program, 126
when it cannot be run.
.SH SIGNALS
SIGTERM, SIGINT, SIGHUP and SIGQUIT end the daemon, or are passed on to
.IR COMMAND ,
as are SIGUSR1 and SIGUSR2.
.SH FILES
.TP
.I /etc/resolv.conf
The host's resolvers and search list; followed while running.
.TP
.I /run/netns
Where a
.I NAME
given to
.B \-\-netns
is looked for.
.TP
.I /dev/net/tun
Has to be readable and writable.
.SH EXAMPLES
.TP
.B passtpy\-pasta \-\-config\-net
Open a shell in a namespace with its network set up.
.TP
.B passtpy\-pasta \-\-config\-net \-t 8080:80 \-\- caddy run
Run a server; port 8080 of the host leads to its port 80.
.TP
.B passtpy\-pasta \-\-config\-net \-\-netns blue
Serve the namespace made by
.BR "ip netns add blue" .
.SH SEE ALSO
.BR network_namespaces (7),
.BR resolv.conf (5)
"""


def escape(text: str) -> str:
    """Return text as roff wants it: nothing in it is markup."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return text.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")


def _sentence(text: str) -> str:
    """Return text as a sentence; protected where a line must not begin with a dot."""
    return f"{text[:1].upper()}{text[1:]}."


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{escape(name)}\fR" for name in option.names)
    if not option.metavar:
        return names
    blank = "" if option.is_optional else " "
    return rf"{names}{blank}\fI{escape(option.metavar)}\fR"


def _option_lines(option: Option) -> Iterator[str]:
    yield ".TP"
    yield _names(option)
    yield escape(_sentence(option.help))
    if option.default:
        yield escape(f"Default: {option.default}.")


def _option_groups(options: Iterable[Option]) -> Iterator[str]:
    group = ""
    for option in options:
        if option.group != group:
            group = option.group
            yield f".SS {escape(group)}"
        yield from _option_lines(option)


def _port_lines() -> Iterator[str]:
    yield ".SS Port specifications"
    lines = PORT_HELP.splitlines()
    prose = [line for line in lines if not line.startswith(" ")]
    yield escape(" ".join(prose).removesuffix(" of") + " of:")
    for line in lines:
        if line.startswith(" "):
            form, _, meaning = line.strip().partition("  ")
            yield ".TP"
            yield rf"\fB{escape(form)}\fR"
            yield escape(_sentence(meaning.strip()))


def manpage() -> str:
    """Return the whole page."""
    lines = [*_option_groups(options_of(MODE)), *_port_lines()]
    return f"{HEAD.lstrip()}{chr(10).join(lines)}{TAIL}"


if __name__ == "__main__":
    sys.stdout.write(manpage())
