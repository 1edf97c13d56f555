# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses as they cross the border to the datapath, and how people read them.

An *inany* is 16 bytes in network order that hold an IPv6 address, or an IPv4 address
in v4-mapped form; sixteen zero bytes mean "unspecified, either family". A MAC address
is 6 bytes. Both stay plain `bytes`, because the hot path compares and copies them.
"""

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)

from passtpy.errors import PasstpyError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Mac = bytes

UNSPECIFIED = bytes(16)
V4_PREFIX = bytes(10) + b"\xff\xff"
NO_MAC = bytes(6)
BROADCAST_MAC = b"\xff" * 6
MAC_TEXT = re.compile("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def parse_address(text: str) -> Address | None:
    """Read an address of either family; None when it is neither."""
    for family in (IPv4Address, IPv6Address):
        try:
            return family(text)
        except AddressValueError:
            continue
    return None


def inany(addr: Address) -> bytes:
    """Return the 16 bytes that stand for `addr` at the border."""
    if isinstance(addr, IPv4Address):
        return V4_PREFIX + addr.packed
    return addr.packed


def from_inany(raw: bytes) -> Address:
    """Return the address that 16 bytes from the border stand for."""
    if len(raw) != len(UNSPECIFIED):
        raise PasstpyError(f"inany of {len(raw)} bytes")
    if raw.startswith(V4_PREFIX):
        return IPv4Address(raw[12:])
    return IPv6Address(raw)


def is_v4(raw: bytes) -> bool:
    """Tell whether an inany holds an IPv4 address."""
    return raw.startswith(V4_PREFIX)


def show_endpoint(raw: bytes, port: int) -> str:
    """Return `[192.0.2.5]:40000`; the form is the same for both families."""
    return f"[{from_inany(raw)}]:{port}"


def parse_mac(text: str) -> Mac:
    """Read `xx:xx:xx:xx:xx:xx`, exactly that long; ValueError otherwise."""
    if MAC_TEXT.fullmatch(text) is None:
        raise ValueError(f"not a MAC address: {text}")
    return bytes.fromhex(text.replace(":", ""))


def show_mac(mac: Mac) -> str:
    """Return `9a:55:9a:55:9a:55`."""
    return mac.hex(":")


def link_local_from_mac(mac: Mac) -> IPv6Address:
    """Return the link-local address with the modified EUI-64 of `mac` (RFC 4291)."""
    head = bytes([mac[0] ^ 0x02]) + mac[1:3]
    return IPv6Address(b"\xfe\x80" + bytes(6) + head + b"\xff\xfe" + mac[3:])
