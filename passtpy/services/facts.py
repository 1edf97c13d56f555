# SPDX-License-Identifier: GPL-2.0-or-later
"""What the services tell the guest, in one frozen value.

Made anew from configuration, host and resolvers whenever one of them changes, and
given to every service by Services.update(): nothing is looked up anywhere else, so a
service never has to be started again.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar

from passtpy.addr import Address, Mac
from passtpy.config.view import View
from passtpy.record import field, record
from passtpy.wire import dnsname

# Leases never end, as with pasta. Who renews all the same learns what has changed.
INFINITE: Final = 0xFFFFFFFF
RENEW_S: Final = 300
REBIND_S: Final = 525  # 7/8 of twice the above, as RFC 2131 4.4.5 relates them
SLAAC_PREFIX: Final = 64  # stateless configuration works with no other
RESOLVER6: Final = IPv6Address("fd00::53")  # of a guest without IPv4
MAX_RESOLVERS: Final = 3  # per family; a C library asks no more
MAX_SEARCH_BYTES: Final = 700  # leaves room for all else in 1280 bytes, IPv6's least

AnyAddress = TypeVar("AnyAddress", IPv4Address, IPv6Address)


@record(kw_only=True)
class Facts:
    """Everything that is announced; a family that is absent has no addresses.

    `server4` is where we answer, `ours` all the addresses that nobody else may take,
    `neighbours` those that keep the MAC address they have on the host's network.
    """

    our_mac: Mac
    our_link_local: IPv6Address
    ours: frozenset[Address] = frozenset()
    neighbours: Mapping[Address, Mac] = field(default_factory=dict)
    mtu: int = 0

    ipv4: bool = True
    server4: IPv4Address | None = None
    guest4: IPv4Address | None = None
    prefix4: int = 24
    gateway4: IPv4Address | None = None
    resolvers4: tuple[IPv4Address, ...] = ()

    ipv6: bool = True
    guest6: IPv6Address | None = None
    prefix6: int = SLAAC_PREFIX
    resolvers6: tuple[IPv6Address, ...] = ()
    router: bool = True  # we advertise ourselves
    managed: bool = True  # DHCPv6 has an address to give

    search: tuple[str, ...] = ()
    hostname: str | None = None
    fqdn: str | None = None

    def mac_of(self, addr: Address) -> Mac:
        """Return the MAC address behind which the guest shall see `addr`."""
        if addr in self.ours:
            return self.our_mac
        return self.neighbours.get(addr, self.our_mac)

    def is_taken(self, addr: Address) -> bool:
        """Tell whether a guest must not choose `addr`: it is ours or a neighbour's."""
        return addr in self.ours or addr in self.neighbours

    def moved_since(self, before: "Facts") -> Iterator[tuple[Address, Mac]]:
        """Yield who is to be found elsewhere than `before`, and where."""
        known = {**before.neighbours, **self.neighbours}
        places = dict.fromkeys((*self.ours, *known))
        for addr in places:
            mac = self.mac_of(addr)
            is_new = addr in self.ours and addr not in before.ours
            if is_new or before.mac_of(addr) != mac:
                yield addr, mac


def facts_from_view(view: View) -> Facts:
    """Return what the guest is to be told now."""
    config, host = view.config, view.host
    ipv4, ipv6 = view.ipv4, view.ipv6
    guest6 = host.guest6 if ipv6 else None
    resolvers = tuple(_resolvers(view))
    search = view.resolver.search if config.search is None else config.search
    return Facts(
        our_mac=host.our_mac,
        our_link_local=view.source6,
        ours=view.ours,
        neighbours=host.neighbours,
        mtu=host.mtu,
        ipv4=ipv4,
        server4=view.source4 if ipv4 else None,
        guest4=host.guest4 if ipv4 else None,
        prefix4=host.prefix4,
        gateway4=host.gateway4 if ipv4 else None,
        resolvers4=_first(r for r in resolvers if isinstance(r, IPv4Address)),
        ipv6=ipv6,
        guest6=guest6,
        prefix6=SLAAC_PREFIX if config.prefix6 is None else config.prefix6,
        resolvers6=_first(r for r in resolvers if isinstance(r, IPv6Address)),
        router=config.ra and not config.config_net,
        managed=config.dhcpv6 and guest6 is not None,
        search=_fitting(search) if config.announce_search else (),
        hostname=config.hostname,
        fqdn=config.fqdn,
    )


def _resolvers(view: View) -> Iterator[Address]:
    """Yield the resolvers that the guest can reach, as it sees them.

    Those on the host's loopback are where the loopback is mapped, if it is. A
    link-local one would need a scope that the guest does not have; but the gateway's
    address is also ours.
    """
    said = view.config.dns
    if not view.config.announce_dns:
        return
    if view.config.dns_server and said is None:
        yield from _our_own(view)
        return
    forwarded = {each.seen.version: each.seen for each in view.dns}
    for addr in view.resolver.nameservers if said is None else said:
        if addr.is_loopback:
            mapped = forwarded.get(addr.version)
            mapped = mapped or view.loopbacks[addr.version == 6]
            if mapped is not None:
                yield mapped
        elif isinstance(addr, IPv6Address) and addr.is_link_local:
            plain = IPv6Address(addr.packed)
            if plain == view.host.gateway6:
                yield plain
        elif not (isinstance(addr, IPv6Address) and addr.ipv4_mapped):
            yield addr


def _our_own(view: View) -> Iterator[Address]:
    """Yield where we answer: anywhere, so one address is enough."""
    if view.ipv4 and view.source4 is not None:
        yield view.source4
    else:
        yield RESOLVER6


def _first(resolvers: Iterable[AnyAddress]) -> tuple[AnyAddress, ...]:
    return tuple(dict.fromkeys(resolvers))[:MAX_RESOLVERS]


def _fitting(search: tuple[str, ...]) -> tuple[str, ...]:
    """Return the domains for which there is room in every message."""
    return dnsname.decode_list(dnsname.encode_list(search, MAX_SEARCH_BYTES))
