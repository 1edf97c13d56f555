# SPDX-License-Identifier: GPL-2.0-or-later
"""Has sockets of our own leave the host where the guest's flows leave it."""

import errno
import os
import socket
from typing import Final

from passtpy.addr import UNSPECIFIED, Address, from_inany, is_v4
from passtpy.record import record

_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


@record
class Leaving:
    """From which addresses (inany), and by which interfaces (IPv4's, IPv6's)."""

    sources: tuple[bytes, ...] = ()  # each counts for its own family only
    interfaces: tuple[str | None, str | None] = (None, None)


def bind_to_device(sock: socket.socket, ifname: str) -> None:
    """Have a socket use one interface only; its name may be any bytes."""
    device = os.fsencode(ifname) + b"\0"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)


def begin_to_connect(
    kind: int, address: Address, port: int, leaving: Leaving
) -> socket.socket:
    """Return a socket that is connecting, or is connected: it does not wait.

    `kind` is SOCK_STREAM or SOCK_DGRAM. No interface and no other address leads to the
    loopback, so nothing is bound then.
    """
    v6 = address.version == 6
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind | _FLAGS)
    try:
        if not address.is_loopback:
            _bind(sock, v6, leaving)
        error = sock.connect_ex((str(address), port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, v6: bool, leaving: Leaving) -> None:
    ifname = leaving.interfaces[v6]
    if ifname is not None:
        bind_to_device(sock, ifname)
    for source in leaving.sources:
        if source != UNSPECIFIED and is_v4(source) != v6:
            sock.bind((str(from_inany(source)), 0))
