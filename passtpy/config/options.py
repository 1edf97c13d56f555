# SPDX-License-Identifier: GPL-2.0-or-later
"""The option table: parsing, --help and the pages in docs/ all come from its rows.

An option that does nothing has no row, unless callers say it and need not know better:
it is refused as unrecognized, which is how they find out what a version can do.
"""

from passtpy.config import options_net, options_policy, options_run
from passtpy.config.option import Option

OPTIONS: tuple[Option, ...] = options_run.ROWS + options_net.ROWS + options_policy.ROWS

_PORT_LISTS = """\
[ADDR][%IFNAME]/ and a comma-separated list of
    22                port 22, to the same port of the guest
    22:23             port 22, to port 23 of the guest
    22-80:32-90       a range of ports, to a range of the same length
    22:ADDR           port 22, to port 22 of another address, by the guest
    22:ADDR/23        port 22, to port 23 of that address
    ~25-30            not these
    all               every port that is not ephemeral, as far as it is free
    all:ADDR          the same, to another address
    proxy=v1          tell the server who its client is, by the PROXY protocol
    proxy=v2          the same, by its binary version"""
_PASSED = """\
    fd:NAME[:PORT]    -t, -u: ports of sockets that systemd passes by that name
    unix:PATH:PORT    -t: a UNIX socket of the host, to that port of the guest
    mode=660          who may connect to that socket; only its owner unless said"""
_UNIX_TARGET = """\
    PORT:unix:PATH    -T: that port, to a UNIX socket of the host"""
PORT_HELP = {
    "pasta": f"""\
SPEC is none, or {_PORT_LISTS}
    auto              of all these, the ones on which the other side listens
{_PASSED}
{_UNIX_TARGET}

An exclusion or auto alone stands for all. IPv6 addresses may stand in
brackets, and have to where they would read as a port. -T and -U listen on lo,
at no address. proxy= is for TCP, and for all of its list.""",
    "passt": f"""\
SPEC is none, or {_PORT_LISTS}
{_PASSED}

An exclusion alone stands for all. IPv6 addresses may stand in brackets, and
have to where they would read as a port. proxy= is for TCP, and for all of its
list.""",
}


def options_of(program: str) -> tuple[Option, ...]:
    """Return the rows that a program knows."""
    modes = {program, "vhost-user"} if program == "passt" else {program}
    return tuple(option for option in OPTIONS if modes & option.modes)
