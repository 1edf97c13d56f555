# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 messages of a guest, and the service that answers them."""

from typing import Final

from passtpy.config.guest_addresses import GuestAddresses
from passtpy.errors import WireError
from passtpy.services.dhcpv6 import Dhcpv6Service
from passtpy.services.duid import server_duid
from passtpy.wire.dhcpv6 import Dhcpv6
from tests.unit.services.conversation import HOST, facts, read_dhcpv6, udp6

_FACTS: Final = facts("--dhcp-dns --dhcp-search --fqdn guest.example.com")
_DUID: Final = server_duid(HOST.our_mac, b"", b"")


def play(data: bytes) -> None:
    """Read a message, send it again, and let the service have it."""
    try:
        message = Dhcpv6.parse(data)
    except WireError:
        pass
    else:
        str(message)
        assert Dhcpv6.parse(message.emit()) == message
    service = Dhcpv6Service(_FACTS, GuestAddresses.from_host(HOST), _DUID)
    for frame in (udp6(data[:1400]), data):
        try:
            answers = service.handle(frame, 0)
        except WireError:
            continue
        for answer in answers:
            read_dhcpv6(answer)
