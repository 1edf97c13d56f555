# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells the number of a network interface.

if_nametoindex(3) asks a local socket, which we may not make once we serve.
"""

import fcntl
import socket
import struct
from typing import Final

_SIOCGIFINDEX: Final = 0x8933
_NAME_MAX: Final = 15
_IFREQ: Final = struct.Struct("=16si20x")


def index_of(name: str | None) -> int:
    """Return its number in our namespace; 0: no such interface."""
    raw = (name or "").encode(errors="surrogateescape")
    if not 0 < len(raw) <= _NAME_MAX:
        return 0
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            found = fcntl.ioctl(sock, _SIOCGIFINDEX, _IFREQ.pack(raw, 0))
    except OSError:
        return 0
    return int(_IFREQ.unpack(found)[1])
