# SPDX-License-Identifier: GPL-2.0-or-later
"""The identity of our DHCPv6 server (RFC 8415 11.5): the same one for a guest always.

A client renews with the server that it knows. So the identifier comes from what stays
when the daemon, or even the host, is another one: a keyed hash over the guest's name.
The key is no secret, it only keeps these identifiers apart from all others.
"""

from typing import Final

from siphash24 import siphash24

_KEY: Final = b"passtpy dhcpv6-1"
_DUID_UUID: Final = b"\0\4"


def server_duid(*names: bytes) -> bytes:
    """Return a DUID for the server of the guest that `names` tell from others."""
    text = b"".join(len(name).to_bytes(2, "big") + name for name in names)
    halves = (siphash24(bytes([half]) + text, key=_KEY).digest() for half in (0, 1))
    return _DUID_UUID + b"".join(halves)
