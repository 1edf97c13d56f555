# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the guest's questions to its resolver really go.

The guest asks one address per family, said with --dns-forward or, when the host's
resolver has an address that means something else to the guest, the one that stands for
the host. Made anew whenever resolv.conf or the host's network changes.
"""

from ipaddress import IPv4Address, IPv6Address

from passtpy.addr import Address
from passtpy.config.host import HostInfo, mapped_loopback
from passtpy.config.model import Config
from passtpy.config.resolver import Resolver
from passtpy.record import record

DNS_PORTS = (53, 853)  # plain, and over TLS
_LOOPBACKS: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


@record
class DnsMap:
    """Questions of the guest to `seen` go to `target` on the host."""

    seen: Address
    target: Address


def dns_maps(config: Config, host: HostInfo, resolver: Resolver) -> tuple[DnsMap, ...]:
    """Return what is forwarded: one address of each family at most."""
    if not config.dns_enabled:
        return ()
    known = tuple(_without_scope(addr) for addr in resolver.nameservers)
    targets = (config.dns_host4, config.dns_host6)
    said = (config.dns_forward4, config.dns_forward6)
    found = [
        DnsMap(addr, _target(addr.version, targets, known))
        if addr is not None
        else _hidden(mapped, target, known)
        for addr, mapped, target in zip(
            said, mapped_loopback(config, host), targets, strict=True
        )
    ]
    return tuple(each for each in found if each is not None)


def _target(
    version: int, said: tuple[Address | None, ...], known: tuple[Address, ...]
) -> Address:
    """Return whom to ask what the guest asks in this family.

    A resolver of the other family is as good, for it is we who ask it: a container
    has one address for its resolver (IPv4), whatever network the host is in.
    """
    candidates = [addr for addr in said if addr is not None]
    for found in (candidates, known):
        for addr in found:
            if addr.version == version:
                return addr
    # Without any it is on this host, as resolv.conf(5) has it.
    return next(iter((*candidates, *known)), _LOOPBACKS[version])


def _hidden(
    mapped: Address | None, target: Address | None, known: tuple[Address, ...]
) -> DnsMap | None:
    """Return what is forwarded although nobody asked for it."""
    # The guest cannot ask a loopback address, and where the gateway's address stands
    # for the host it would not reach the gateway.
    if mapped is None:
        return None
    for addr in known:
        if addr.version == mapped.version and (addr.is_loopback or addr == mapped):
            return DnsMap(mapped, target or addr)
    return None


def _without_scope(addr: Address) -> Address:
    """Leave the interface of a link-local address to the datapath, which knows one."""
    return IPv6Address(addr.packed) if isinstance(addr, IPv6Address) else addr
