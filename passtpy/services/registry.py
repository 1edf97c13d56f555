# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands every punted frame to the service that answers its kind.

A new service is one file here and one line in services_from_config().
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from passtpy.config.host import HostInfo
from passtpy.config.model import PastaConfig
from passtpy.errors import WireError
from passtpy.policy.guest import GuestAddresses
from passtpy.services.arp import ArpService
from passtpy.services.ndp import NdpFacts, NdpService
from passtpy.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV6, HEADER_LEN
from passtpy.wire.icmpv6 import PROTO as IPPROTO_ICMPV6
from passtpy.wire.ndp import NdpType

MAX_FRAME: Final = 9216  # no message for a service is nearly as long
_NEXT_HEADER: Final = HEADER_LEN + 6
_ICMPV6_TYPE: Final = HEADER_LEN + 40
_NDP_TYPES: Final = frozenset(NdpType)

ARP: Final = "arp"
NDP: Final = "ndp"


class Service(Protocol):
    """One responder: frames in, frames out; time is an argument (monotonic, ns)."""

    name: str

    def handle(self, frame: bytes, now: int, /) -> list[bytes]:
        """Return the answers; WireError for a frame that is no valid question."""

    def tick(self, now: int, /) -> list[bytes]:
        """Return what has to be sent unasked by now."""

    def due(self) -> int | None:
        """Return when tick() wants to be called next; None: never."""


class Services:
    """All responders of one guest, by the kind of frame that each answers."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = dict(services)
        self._counters: dict[str, int] = {"unknown": 0, "oversized": 0}
        for name in self._services:
            self._counters |= {name: 0, f"{name}_malformed": 0}

    def handle(self, frame: bytes, now: int) -> list[bytes]:
        """Return the answers to a punted frame; a bad one is only counted."""
        if len(frame) > MAX_FRAME:
            self._counters["oversized"] += 1
            return []
        service = self._services.get(_kind(frame))
        if service is None:
            self._counters["unknown"] += 1
            return []
        self._counters[service.name] += 1
        try:
            return service.handle(frame, now)
        except WireError:
            self._counters[f"{service.name}_malformed"] += 1
            return []

    def tick(self, now: int) -> list[bytes]:
        """Return what the services want to send unasked by now."""
        frames = []
        for service in self._services.values():
            due = service.due()
            if due is not None and due <= now:
                frames += service.tick(now)
        return frames

    def due(self) -> int | None:
        """Return when to call tick() next: 0 at once, None never."""
        times = [service.due() for service in self._services.values()]
        return min((due for due in times if due is not None), default=None)

    def counters(self) -> dict[str, int]:
        """Return how many frames each service saw, and what nobody wanted."""
        return dict(self._counters)


def _kind(frame: bytes) -> str:
    """Return which service a frame is for; "" if none."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == ETHERTYPE_ARP:
        return ARP
    if ethertype != ETHERTYPE_IPV6 or len(frame) <= _ICMPV6_TYPE:
        return ""
    # Neighbour discovery comes without extension headers: no need to walk any.
    if frame[_NEXT_HEADER] == IPPROTO_ICMPV6 and frame[_ICMPV6_TYPE] in _NDP_TYPES:
        return NDP
    return ""


def random_between(low: int, high: int) -> int:
    """Roll the dice; their module is only loaded when a router is advertised."""
    from random import randint

    return randint(low, high)  # noqa: S311 (spreads load, keeps no secret)


def services_from_config(
    config: PastaConfig,
    host: HostInfo,
    guest: GuestAddresses,
    spread: Callable[[int, int], int] | None = None,
) -> Services:
    """Return the services that the configuration leaves switched on.

    `spread` replaces the dice behind the times of router advertisements.
    """
    services: dict[str, Service] = {}
    if config.ipv4 and host.ipv4:
        ours = host.our4 or host.gateway4
        services[ARP] = ArpService(host.our_mac, ours, host.guest4, guest)
    if config.ipv6 and host.ipv6 and config.ndp:
        facts = _ndp_facts(config, host)
        services[NDP] = NdpService(facts, guest, spread or random_between)
    return Services(services)


def _ndp_facts(config: PastaConfig, host: HostInfo) -> NdpFacts:
    return NdpFacts(
        our_mac=host.our_mac,
        our_link_local=host.our_link_local,
        guest_addr=host.guest6,
        prefix=host.guest6,
        mtu=host.mtu,
        advertise_router=config.ra and not config.config_net,
    )
