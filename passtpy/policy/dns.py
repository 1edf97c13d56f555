# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the guest's questions to its resolver really go.

The guest asks one address per family, said with --dns-forward or, when the host's
resolver has an address that means something else to the guest, the one that stands for
the host. Made anew whenever resolv.conf or the host's network changes.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from passtpy.addr import Address
from passtpy.config.host import HostInfo, mapped_loopback
from passtpy.config.model import Config
from passtpy.config.resolver import Resolver

DNS_PORTS = (53, 853)  # plain, and over TLS
_LOOPBACKS: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


@dataclass(frozen=True, slots=True)
class DnsMap:
    """Questions of the guest to `seen` go to `target` on the host."""

    seen: Address
    target: Address


def dns_maps(config: Config, host: HostInfo, resolver: Resolver) -> tuple[DnsMap, ...]:
    """Return what is forwarded: one address of each family at most."""
    if not config.dns_enabled:
        return ()
    known = tuple(_without_scope(addr) for addr in resolver.nameservers)
    mapped = mapped_loopback(config, host)
    said = (config.dns_forward4, config.dns_forward6)
    targets = (config.dns_host4, config.dns_host6)
    families = zip((4, 6), said, mapped, targets, strict=True)
    found = (_map(*family, known) for family in families)
    return tuple(each for each in found if each is not None)


def _map(
    version: int,
    said: Address | None,
    mapped: Address | None,
    target: Address | None,
    known: tuple[Address, ...],
) -> DnsMap | None:
    mine = [addr for addr in known if addr.version == version]
    if said is not None:
        # Without any it is on this host, as resolv.conf(5) has it.
        return DnsMap(said, target or next(iter(mine), _LOOPBACKS[version]))
    # The guest cannot ask a loopback address, and where the gateway's address stands
    # for the host it would not reach the gateway.
    hidden = [addr for addr in mine if addr.is_loopback or addr == mapped]
    if mapped is None or not hidden:
        return None
    return DnsMap(mapped, target or hidden[0])


def _without_scope(addr: Address) -> Address:
    """Leave the interface of a link-local address to the datapath, which knows one."""
    return IPv6Address(addr.packed) if isinstance(addr, IPv6Address) else addr
