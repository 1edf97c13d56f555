# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the manual pages from the option table: `python -m passtpy.config.manpage`.

It prints roff to stdout, of passtpy-pasta unless `passt` is said; a test compares
docs/passtpy-pasta.1 and docs/passtpy-passt.1 with it.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from passtpy import __version__
from passtpy.config.option import Option
from passtpy.config.options import PORT_HELP, options_of

DATE = "2026-11-30"  # when the pages were last looked through
_WIDTH = 78  # of a line that is text; mandoc's lint wants at most 80 bytes

SIGNALS = r"""SIGTERM, SIGINT and SIGQUIT end the daemon: with
.B \-\-drain\-timeout
once open connections have ended, and at once when a second one comes. SIGHUP opens log
and audit by their names again, reads the policy's files again, and applies it to open
flows. SIGUSR1 logs what is open, and the counters."""

PASTA_HEAD = rf"""
.\" Made by `python -m passtpy.config.manpage`; change passtpy/config/options.py.
.TH PASSTPY\-PASTA 1 "{DATE}" "passtpy {__version__}" "User Commands"
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
had sent them: no privileges are needed, and no address is translated but one: the
gateway's stands for the host's loopback, unless
.B \-\-no\-map\-gw
is said.
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

PASTA_TAIL = rf"""
.SH EXIT STATUS
.TP
.B 0
The daemon serves the namespace, or has ended as it should.
.TP
.B 1
It could not start, or not go on; a line on standard error, or in the log, tells why.
.TP
.I N
With
.IR COMMAND ,
that of it once it runs; 128+N when signal N ended it, 127 when there is no such
program, 126 when it cannot be run.
.SH SIGNALS
{SIGNALS}
.PP
With
.I COMMAND
all of these, and SIGUSR2, are passed on to it. If SIGTERM, SIGINT, SIGHUP or SIGQUIT
has not ended it after 5 seconds it is killed.
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
.BR passtpy (1),
.BR passtpy\-passt (1),
.BR network_namespaces (7),
.BR resolv.conf (5)
"""


PASST_HEAD = rf"""
.\" Made by `python -m passtpy.config.manpage passt`; change passtpy/config/.
.TH PASSTPY\-PASST 1 "{DATE}" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy\-passt \- connect a virtual machine without privileges
.SH SYNOPSIS
.B passtpy\-passt
.RI [ OPTION ].\|.\|.
.SH DESCRIPTION
.B passtpy\-passt
stands between a virtual machine and the ordinary sockets of the host. Packets that the
machine sends leave the host as if a program of the host had sent them: no privileges
are needed, and no address is translated but one: the gateway's stands for the host's
loopback, unless
.B \-\-no\-map\-gw
is said.
.PP
It waits at a UNIX socket for the machine, serves one at a time, and waits for the next
when it leaves. The call returns once the socket is there and all ports are bound; the
daemon goes on in the background.
.PP
The machine is told everything by DHCP, DHCPv6 and router advertisements. Addresses and
resolvers are those of the host, and follow the host when it changes its network. What
is said here stays as it is.
.SH OPTIONS
Long names may be shortened as long as they are unambiguous. When an option is repeated
the last one wins, unless something else is said. No other words are taken.
"""

PASST_TAIL = rf"""
.SH EXIT STATUS
.TP
.B 0
The daemon waits for machines, or has ended as it should: by a signal or, with
.BR \-\-one\-off ,
when its machine left.
.TP
.B 1
It could not start, or not go on; a line on standard error, or in the log, tells why.
.SH SIGNALS
{SIGNALS}
.SH FILES
.TP
.I /tmp/passt_1.socket
Where machines are waited for without
.BR \-s ,
or the next that is free, up to
.IR /tmp/passt_64.socket .
.TP
.I /etc/resolv.conf
The host's resolvers and search list; followed while running.
.SH EXAMPLES
.TP
.B passtpy\-passt \-s /tmp/vm.socket \-t 2222:22
Serve a machine; port 2222 of the host leads to its port 22.
.TP
.B qemu\-system\-x86_64 \-device virtio\-net,netdev=n \-netdev stream,id=n,\c
.B server=off,addr.type=unix,addr.path=/tmp/vm.socket
Start the machine, with whatever else it needs.
.SH SEE ALSO
.BR passtpy (1),
.BR passtpy\-pasta (1),
.BR qemu (1),
.BR unix (7),
.BR resolv.conf (5)
"""


class Page(NamedTuple):
    """What a page has around the options."""

    head: str
    tail: str


PAGES = {"pasta": Page(PASTA_HEAD, PASTA_TAIL), "passt": Page(PASST_HEAD, PASST_TAIL)}


def escape(text: str) -> str:
    """Return text as roff wants it: nothing in it is markup."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return text.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")


def fold(page: str) -> str:
    """Return a page whose long lines of text are several; none becomes a request."""
    lines: list[str] = []
    for line in page.splitlines():
        if line.startswith(".") or len(line) <= _WIDTH:
            lines.append(line)
            continue
        parts = textwrap.wrap(
            line, _WIDTH, break_long_words=False, break_on_hyphens=False
        )
        lines += (rf"\&{part}" if part[0] == "." else part for part in parts)
    return "\n".join(lines) + "\n"


def sentence(text: str) -> str:
    """Return text as a sentence; protected where a line must not begin with a dot."""
    return f"{text[:1].upper()}{text[1:]}."


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{escape(name)}\fR" for name in option.names)
    if not option.metavar:
        return names
    blank = "" if option.is_optional else " "
    return rf"{names}{blank}\fI{escape(option.metavar)}\fR"


def _option_lines(option: Option, program: str) -> Iterator[str]:
    told = option.told(program)
    yield ".TP"
    yield _names(option)
    yield escape(sentence(told.help))
    if told.default:
        yield escape(f"Default: {told.default}.")


def _option_groups(options: Iterable[Option], program: str) -> Iterator[str]:
    group = ""
    for option in options:
        if option.group != group:
            group = option.group
            yield f".SS {escape(group)}"
        yield from _option_lines(option, program)


def _port_lines(program: str) -> Iterator[str]:
    yield ".SS Port specifications"
    lines = PORT_HELP[program].splitlines()
    forms = [at for at, line in enumerate(lines) if line.startswith(" ")]
    yield escape(" ".join(lines[: forms[0]]))
    for at in forms:
        form, _, meaning = lines[at].strip().partition("  ")
        yield ".TP"
        yield rf"\fB{escape(form)}\fR"
        yield escape(sentence(meaning.strip()))
    yield ".PP"
    yield escape(" ".join(lines[forms[-1] + 1 :]).strip())


def manpage(program: str) -> str:
    """Return the whole page of a program."""
    page = PAGES[program]
    options = _option_groups(options_of(program), program)
    lines = [*options, *_port_lines(program)]
    return fold(f"{page.head.lstrip()}{chr(10).join(lines)}{page.tail}")


if __name__ == "__main__":
    sys.stdout.write(manpage("passt" if "passt" in sys.argv[1:] else "pasta"))
