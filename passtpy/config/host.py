# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes the host's network as the guest shall see it, as one value.

`net/host/template.py` fills a `HostInfo` from what the kernel told and what the user
asked for, at start and after each change; policy and services read it. It holds facts
only, so both can be tested without a kernel.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from passtpy.addr import Address, Mac, Network, link_local_from_mac
from passtpy.config.model import DEFAULT_MAC, DEFAULT_MTU, Config
from passtpy.record import field, record


@record(kw_only=True)
class HostInfo:
    """The addresses that the guest gets, and those that stand for us and the host.

    A family without a guest address and without a gateway is absent. `gateway*` is
    the default router as the guest sees it; `our4` and `our6` are the sources we use
    towards the guest when the real one is unusable there (None: the gateway, and the
    link-local address made from `our_mac`). `guests` are more addresses that the guest
    was given; `pinned` are those that the user said, at which it is reached whatever it
    uses; `choices` are those of the host's interfaces that the guest's resembles, the
    usual one of each family first: a program may choose another one as its source.
    `own` are all addresses of the host, `own_networks` what is local to it besides;
    only who has a policy asks for them.
    """

    ipv4: bool = True
    ipv6: bool = True
    guest4: IPv4Address | None = None
    prefix4: int = 24
    guest6: IPv6Address | None = None
    prefix6: int = 64
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    our4: IPv4Address | None = None
    our6: IPv6Address | None = None
    our_mac: Mac = DEFAULT_MAC
    guests: frozenset[Address] = frozenset()
    pinned: tuple[Address, ...] = ()
    choices: tuple[Address, ...] = ()
    own: frozenset[Address] = frozenset()
    own_networks: frozenset[Network] = frozenset()
    guest_mac: Mac | None = None
    mtu: int = DEFAULT_MTU
    neighbours: Mapping[Address, Mac] = field(default_factory=dict)  # of the host
    template4: str | None = None  # template interfaces, for the start-up summary
    template6: str | None = None

    @property
    def our_link_local(self) -> IPv6Address:
        """Return our link-local address on the tap: the gateway's if it has one."""
        for addr in (self.our6, self.gateway6):
            if addr is not None and addr.is_link_local:
                return addr
        return link_local_from_mac(self.our_mac)


def mapped_loopback(
    config: Config, host: HostInfo
) -> tuple[IPv4Address | None, IPv6Address | None]:
    """Return the addresses that stand for the host's loopback, as the guest sees it."""
    default4 = host.gateway4 if config.map_gateway else None
    default6 = host.gateway6 if config.map_gateway else None
    return (
        config.map_host_loopback4 or default4,
        config.map_host_loopback6 or default6,
    )
