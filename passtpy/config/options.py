# SPDX-License-Identifier: GPL-2.0-or-later
"""The option table: parsing, --help and the pages in docs/ all come from its rows.

An option that does nothing has no row, unless callers say it and need not know better:
it is refused as unrecognized, which is how they find out what a version can do.
"""

from passtpy.config import options_net, options_run
from passtpy.config.option import Option

OPTIONS: tuple[Option, ...] = options_run.ROWS + options_net.ROWS

_PORT_LISTS = """\
[ADDR][%IFNAME]/ and a comma-separated list of
    22            port 22, to the same port of the guest
    22:23         port 22, to port 23 of the guest
    22-80:32-90   a range of ports, to a range of the same length
    ~25-30        not these; alone: all but these and the ephemeral ones"""
PORT_HELP = {
    "pasta": """\
SPEC is none, auto (the ports on which the other side listens, followed every
second), or """
    + _PORT_LISTS,
    "passt": """\
SPEC is none, all (every port that is not ephemeral, as far as it is free), or
"""
    + _PORT_LISTS,
}


def options_of(program: str) -> tuple[Option, ...]:
    """Return the rows that a program knows."""
    modes = {program, "vhost-user"} if program == "passt" else {program}
    return tuple(option for option in OPTIONS if modes & option.modes)
