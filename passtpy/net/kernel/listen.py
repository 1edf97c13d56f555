# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the sockets on which flows begin, on the host and in the namespace.

A `Place` says everything about a listening socket but its port. What is the same for
all ports is worked out once per place: there may be 65 000 ports to open at start.
"""

import socket
from collections.abc import Callable
from errno import EADDRINUSE, EAFNOSUPPORT, EPERM
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import Address
from passtpy.flow import IPPROTO_TCP
from passtpy.net.kernel import local
from passtpy.net.kernel.interfaces import index_of
from passtpy.net.kernel.leaving import bind_to_device
from passtpy.net.kernel.local import OWNER_ONLY
from passtpy.record import record

BACKLOG: Final = 4096  # what the kernel allows by default; fewer lose bursts of SYNs
IP_PKTINFO: Final = 8
IP_FREEBIND: Final = 15
IPV6_FREEBIND: Final = 78
V4: Final = 1  # families of a place, as bits
V6: Final = 2

_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_ANY: Final[dict[int, Address]] = {V4: IPv4Address(0), V6: IPv6Address(0)}

Option = tuple[int, int, int | bytes]


@cache
def kernel_has_ipv6() -> bool:
    """Tell whether this kernel knows IPv6 at all, in use or not."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | _FLAGS).close()
    except OSError as error:
        return error.errno != EAFNOSUPPORT
    return True


@record
class Place:
    """Where a socket listens: an address, or any (None) of both families."""

    proto: int
    address: Address | None = None
    ifname: str | None = None
    freebind: bool = False
    path: str | None = None  # of a UNIX socket: it has no address
    mode: int = OWNER_ONLY

    @property
    def v4(self) -> bool:
        """Tell whether the socket is of the IPv4 kind."""
        if self.address is None:
            return not kernel_has_ipv6()
        return self.address.version == 4


def wildcard(proto: int, families: int, ifname: str | None = None) -> Place:
    """Return the place of any address of the families V4, V6, or both."""
    return Place(proto, _ANY.get(families), ifname)


def opener(place: Place, share: bool = False) -> Callable[[int], socket.socket]:
    """Return a function from a port to a listening (UDP: bound) socket of `place`.

    It raises OSError when the system refuses. `share`: a UDP port may belong to
    sockets that allow it, as those of our own flows do.
    """
    if place.path is not None:
        return _unix_opener(place.path, place.mode)
    tcp = place.proto == IPPROTO_TCP
    family = socket.AF_INET if place.v4 else socket.AF_INET6
    kind = (socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) | _FLAGS
    options = tuple(_options(place, tcp))
    host = str(place.address or _ANY[V4 if place.v4 else V6])
    scope = _scope(place)
    new = socket.socket

    def open_port(port: int) -> socket.socket:
        sock = new(family, kind)
        try:
            for level, name, value in options:
                sock.setsockopt(level, name, value)
            if place.ifname is not None:
                _bind_to_device(sock, place.ifname)
            if share:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port, 0, scope) if scope else (host, port))
            if tcp:
                sock.listen(BACKLOG)
            elif share:  # with nobody else
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            sock.close()
            raise
        return sock

    return open_port


def _unix_opener(path: str, mode: int) -> Callable[[int], socket.socket]:
    def open_path(_: int) -> socket.socket:
        try:
            sock = local.listen(path, mode, BACKLOG)
        except FileExistsError as error:
            text = local.reason(error.errno or EADDRINUSE)
            raise OSError(EADDRINUSE, text) from None
        return sock

    return open_path


def _scope(place: Place) -> int:
    """Return the interface that a link-local address needs."""
    address = place.address
    if place.ifname is None or address is None or not address.is_link_local:
        return 0
    if address.version == 4:
        return 0
    return index_of(place.ifname)  # if there is none, binding to it tells why


def _options(place: Place, tcp: bool) -> list[Option]:
    v6 = not place.v4
    options: list[Option] = []
    if v6:
        # Without an address one socket serves both families.
        only = int(place.address is not None)
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only))
    if tcp:
        # Lets us start again while old connections are in TIME_WAIT. For UDP it would
        # mean to share the port with whoever has it already.
        options.append((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    else:
        # Which of our addresses a datagram was sent to, so that answers come from it.
        options += udp_options(v6)
    if place.freebind:
        options.append((socket.IPPROTO_IP, IP_FREEBIND, 1))
        if v6:
            options.append((socket.IPPROTO_IPV6, IPV6_FREEBIND, 1))
    return options


def udp_options(v6: bool) -> list[Option]:
    """Return what a UDP socket needs to tell where each datagram was sent to."""
    options: list[Option] = [(socket.IPPROTO_IP, IP_PKTINFO, 1)]
    if v6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1))
    return options


def _bind_to_device(sock: socket.socket, ifname: str) -> None:
    try:
        bind_to_device(sock, ifname)
    except PermissionError as error:
        text = "device binding unsupported (requires kernel 5.7+)"
        raise OSError(EPERM, text) from error


def describe(place: Place, port: int) -> str:
    """Return `ADDR%IF/PORT`, or a path, as messages name what listens."""
    if place.path is not None:
        return place.path
    where = "*" if place.address is None else str(place.address)
    device = f"%{place.ifname}" if place.ifname else ""
    return f"{where}{device}/{port}"
