# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery and ARP of a guest, and the services that answer them."""

from typing import Final

from passtpy.errors import WireError
from passtpy.wire import ndp
from passtpy.wire.icmpv6 import Icmpv6
from tests.unit.services.conversation import (
    BROADCAST_MAC,
    GUEST_MAC,
    S,
    icmpv6,
    make,
    read_icmpv6,
    serve,
)

_KINDS: Final = (
    ndp.RouterSolicitation,
    ndp.RouterAdvertisement,
    ndp.NeighbourSolicitation,
    ndp.NeighbourAdvertisement,
)
_ARP: Final = BROADCAST_MAC + GUEST_MAC + b"\x08\x06"
_SERVICES: Final = make("")[0]
_MOST: Final = 8  # messages of one input


def _message(data: bytes) -> Icmpv6:
    """Return a message whose type is mostly one of neighbour discovery."""
    kind, code = data[0], data[1]
    return Icmpv6(133 + kind % 4 if kind < 240 else kind, code % 4 and code, data[2:])


def play(data: bytes) -> None:
    """Read each message, send it again, and let the services have it."""
    services = _SERVICES
    for turn, part in enumerate(data.split(b"\xfe\xff")[:_MOST]):
        if len(part) < 2:
            continue
        message = _message(part[:1200])
        for kind in _KINDS:
            try:
                read = kind.parse(message)
            except WireError:
                continue
            str(read)
            sent = read.emit()  # without the host bits of a prefix
            assert kind.parse(sent).emit() == sent
        for frame in (icmpv6(message), _ARP + part, part):
            for answer in serve(services, frame, turn * S):
                if answer[12:14] == b"\x86\xdd":
                    read_icmpv6(answer)
