# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the socket that sends datagrams to the relay of a SOCKS5 proxy."""

import socket
from contextlib import suppress
from typing import Final

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.net.kernel.leaving import Leaving, begin_to_connect

# A proxy that is gone without a word takes its relay with it: after a minute
_IDLE_S: Final = 30
_EACH_S: Final = 10
_TIMES: Final = 3


def relay_socket(
    proxy: Address, bound: tuple[Address | str, int] | None, leaving: Leaving
) -> socket.socket:
    """Return a socket connected to the relay that a proxy has named.

    Many name no address, and mean their own. WireError for a place where no relay of
    that proxy can be: the guest's datagrams do not go to another one's loopback.
    """
    address, port = bound or ("", 0)
    if isinstance(address, str) or not port:
        raise WireError("socks: no address of a relay")
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        address = proxy
    if address.is_multicast or (address.is_loopback and not proxy.is_loopback):
        raise WireError(f"socks: a relay at {address}")
    return begin_to_connect(socket.SOCK_DGRAM, address, port, leaving)


def notice_its_end(control: socket.socket) -> None:
    """Have a connection end that nobody is at the other end of any more."""
    with suppress(OSError):
        control.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _EACH_S)
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _TIMES)
