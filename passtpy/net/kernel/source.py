# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the kernel from which of the host's addresses it would talk to another one."""

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import UNSPECIFIED, V4_PREFIX, inany
from passtpy.net.kernel.leaving import bind_to_device

_FLAGS: Final = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
_DISCARD: Final = 9  # nothing is sent to it


class SourceLookup:
    """Looks up a route for each question, on the interfaces that flows are bound to."""

    def __init__(self, outbound4: str | None = None, outbound6: str | None = None):
        self._outbound4 = outbound4
        self._outbound6 = outbound6

    def __call__(self, raw: bytes) -> bytes:
        """Return the source towards `raw`; UNSPECIFIED where no route leads."""
        try:
            if raw.startswith(V4_PREFIX):
                text = socket.inet_ntop(socket.AF_INET, raw[12:])
                found = _source(socket.AF_INET, text, self._outbound4)
                return inany(IPv4Address(found))
            text = socket.inet_ntop(socket.AF_INET6, raw)
            found = _source(socket.AF_INET6, text, self._outbound6)
            return inany(IPv6Address(found.partition("%")[0]))
        except OSError:
            return UNSPECIFIED


def _source(family: int, text: str, ifname: str | None) -> str:
    with socket.socket(family, _FLAGS) as sock:
        if ifname is not None:
            bind_to_device(sock, ifname)
        sock.connect((text, _DISCARD))
        name: str = sock.getsockname()[0]
        return name
