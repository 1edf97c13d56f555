# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP messages of a guest, and the service that answers them."""

from typing import Final

from passtpy.config.guest_addresses import GuestAddresses
from passtpy.errors import WireError
from passtpy.services.dhcp import DhcpService
from passtpy.wire.dhcp import Dhcp
from passtpy.wire.dnsname import decode_list
from tests.unit.services.conversation import HOST, facts, read_dhcp, udp4

_FACTS: Final = facts("--dhcp-dns --dhcp-search -H guest --fqdn guest.example.com")


def play(data: bytes) -> None:
    """Read a message, send it again, and let the service have it."""
    try:
        message = Dhcp.parse(data)
    except WireError:
        pass
    else:
        str(message)
        sent = Dhcp.parse(message.emit(1472)).options
        assert all(message.options[code] == value for code, value in sent.items())
    for code in (119, 15):
        try:
            decode_list(data[code:])
        except WireError:
            continue
    service = DhcpService(_FACTS, GuestAddresses.from_host(HOST))
    for frame in (udp4(data[:1400]), data):
        try:
            answers = service.handle(frame, 0)
        except WireError:
            continue
        for answer in answers:
            assert len(answer) <= HOST.mtu + 14
            read_dhcp(answer)
