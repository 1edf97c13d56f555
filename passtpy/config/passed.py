# SPDX-License-Identifier: GPL-2.0-or-later
"""Listening sockets that whoever starts us has opened: `-t fd:NAME[:PORT]`.

systemd opens the ports of a .socket unit and passes them by name (sd_listen_fds(3)).
The command line names them; which port each has is known when they are looked at.
"""

from passtpy.addr import Address
from passtpy.config.ports import read_port
from passtpy.errors import ConfigError
from passtpy.record import record

PREFIX = "fd:"


@record
class Wanted:
    """Sockets of a protocol that are passed by a name, and where they lead.

    `port` None: to the port of the guest that has the socket's number.
    """

    option: str
    proto: int
    name: str
    port: int | None

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.option} {PREFIX}{self.name}{port}"


@record
class Passed:
    """A socket that was passed: what it listens at, and its descriptor."""

    name: str
    proto: int
    addr: Address | None  # None: any address of both families
    ifname: str | None
    port: int
    fd: int


def read_wanted(option: str, proto: int, text: str) -> Wanted:
    """Read `fd:NAME` or `fd:NAME:PORT`; ConfigError if it is malformed."""
    name, colon, port = text.removeprefix(PREFIX).partition(":")
    number = read_port(port) if colon else None
    if not name or number == 0 or (colon and number is None):
        raise ConfigError(f"Invalid port specifier '{text}'")
    return Wanted(option, proto, name, number)
