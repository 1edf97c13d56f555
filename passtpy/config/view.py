# SPDX-License-Identifier: GPL-2.0-or-later
"""One look at everything that rules and services are made from.

A view joins the configuration, the host's network and its resolver, and holds what
follows from the three together. It is made once for each change, and never changes:
policy/ and services/ each read it, and so agree without knowing each other.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Self

from passtpy.addr import Address
from passtpy.config.dns import DnsMap, dns_maps
from passtpy.config.forwards import Forward, forwards_from_config
from passtpy.config.host import HostInfo, mapped_loopback
from passtpy.config.model import Config
from passtpy.config.resolver import NO_RESOLVER, Resolver
from passtpy.record import record


@record(kw_only=True)
class View:
    """The configuration, the host, and what both say about addresses.

    `ipv4`, `ipv6`: the family is wanted, and there. `loopback*` stand for the host's
    loopback as the guest sees it. `source*` is whom the guest sees where the real
    source means something else to it. `forwards` are the ports that lead to the guest,
    or from it to the host. `ours` are all the addresses that we answer for.
    """

    config: Config
    host: HostInfo
    resolver: Resolver
    ipv4: bool
    ipv6: bool
    loopback4: IPv4Address | None
    loopback6: IPv6Address | None
    source4: IPv4Address | None
    source6: IPv6Address
    dns: tuple[DnsMap, ...]
    forwards: tuple[Forward, ...]
    ours: frozenset[Address]

    @classmethod
    def of(
        cls,
        config: Config,
        host: HostInfo,
        resolver: Resolver = NO_RESOLVER,
        forwards: tuple[Forward, ...] | None = None,
    ) -> Self:
        """Look at all of it now; `forwards` None: those of the configuration."""
        if forwards is None:
            forwards = forwards_from_config(config)
        loopback4, loopback6 = mapped_loopback(config, host)
        source4, source6 = host.our4 or host.gateway4, host.our_link_local
        candidates: tuple[Address | None, ...] = (
            source4,
            host.our6,
            source6,
            loopback4,
            loopback6,
            config.map_guest_addr4,
            config.map_guest_addr6,
            config.dns_forward4,
            config.dns_forward6,
        )
        taken = (None, host.guest4, host.guest6)
        return cls(
            config=config,
            host=host,
            resolver=resolver,
            ipv4=config.ipv4 and host.ipv4,
            ipv6=config.ipv6 and host.ipv6,
            loopback4=loopback4,
            loopback6=loopback6,
            source4=source4,
            source6=source6,
            dns=dns_maps(config, host, resolver),
            forwards=forwards,
            ours=frozenset(a for a in candidates if a is not None and a not in taken),
        )

    def unix_targets(self) -> dict[int, str]:
        """Return the UNIX sockets to which listeners lead, by their numbers."""
        return {
            number: forward.rule.to_path
            for forward in self.forwards
            if forward.rule.to_path is not None
            for number in forward.numbers
        }

    @property
    def loopbacks(self) -> tuple[IPv4Address | None, IPv6Address | None]:
        """Return both addresses that stand for the host's loopback."""
        return self.loopback4, self.loopback6
