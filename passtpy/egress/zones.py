# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses that no rule opens by chance: the host, its networks, cloud metadata.

Each is in a zone, the innermost if several have it. A rule that allows opens a zone
only if it names it: by the zone's set, or by a network that lies within the zone. So
`0.0.0.0/0` does not open the host, and `@link-local` does not open its cloud's
metadata. What is in no zone is the internet.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

from passtpy.addr import UNSPECIFIED, V4_PREFIX, Address, Network, inany
from passtpy.config.view import View
from passtpy.egress.model import Sets, Span
from passtpy.egress.target import read_span
from passtpy.record import record

# From the innermost on
ZONES: Final = (Sets.METADATA, Sets.HOST, Sets.LINK_LOCAL, Sets.PRIVATE)

_SPANS: Final[dict[Sets, tuple[str, ...]]] = {
    # Who asks there gets the keys of the machine: AWS and its like, ECS, EKS, Alibaba,
    # Azure, Oracle, Google
    Sets.METADATA: (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    ),
    # 0.0.0.0 is the host as well, to connect(); ::/96 is what came before ::ffff:0:0/96
    Sets.HOST: ("127.0.0.0/8", "0.0.0.0/8", "::/96"),
    # What is for everybody reaches the networks that the host is in, and hardly others
    Sets.LINK_LOCAL: (
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255",
        "fe80::/10",
        "ff00::/8",
    ),
    # RFC 1918, RFC 6598, RFC 4193, RFC 3879, RFC 8215 (the network's own translator),
    # RFC 4380: what is at the other end of a Teredo tunnel cannot be told
    Sets.PRIVATE: (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
        "fec0::/10",
        "64:ff9b:1::/48",
        "2001::/32",
    ),
}
EVERYTHING4: Final = Span(V4_PREFIX + bytes(4), V4_PREFIX + b"\xff" * 4)
EVERYTHING6: Final = Span(UNSPECIFIED, b"\xff" * 16)
_NAT64: Final = bytes.fromhex("0064ff9b") + bytes(8)  # RFC 6052 2.1
_SIIT: Final = bytes(8) + bytes.fromhex("ffff0000")  # RFC 2765 2.1
_6TO4: Final = bytes.fromhex("2002")  # RFC 3056 2


@record
class Surroundings:
    """What a policy has to know of the host."""

    hosts: frozenset[Address] = frozenset()
    networks: frozenset[Network] = frozenset()  # of which the host has all addresses
    resolvers: frozenset[Address] = frozenset()


def surroundings_from_view(view: View) -> Surroundings:
    """Return what is the host's own, and the addresses of its resolvers."""
    resolvers = {
        IPv6Address(a.packed) if a.version == 6 else a
        for a in view.resolver.nameservers
    }
    return Surroundings(
        view.host.own,
        view.host.own_networks,
        frozenset(resolvers | {each.target for each in view.dns}),
    )


def zone_spans(around: Surroundings) -> dict[Sets, tuple[Span, ...]]:
    """Return what is in each zone, whichever of them is the innermost."""
    found = {zone: [read_span(text) for text in _SPANS[zone]] for zone in ZONES}
    found[Sets.HOST] += spans_of(around.hosts)
    found[Sets.HOST] += sorted(Span(inany(n[0]), inany(n[-1])) for n in around.networks)
    return {zone: (*spans, *disguised(spans)) for zone, spans in found.items()}


def spans_of(addresses: Iterable[Address]) -> list[Span]:
    """Return each address as a span."""
    packed = sorted(map(inany, addresses))
    return [Span(each, each) for each in packed]


def disguised(spans: Iterable[Span]) -> Iterable[Span]:
    """Yield the IPv6 addresses that translators and relays take for these of IPv4."""
    for first, last in spans:
        if first.startswith(V4_PREFIX):
            head, tail = first[12:], last[12:]
            yield Span(_NAT64 + head, _NAT64 + tail)
            yield Span(_SIIT + head, _SIIT + tail)
            yield Span(_6TO4 + head + bytes(10), _6TO4 + tail + b"\xff" * 10)
