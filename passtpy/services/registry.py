# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands every punted frame to the service that answers its kind.

A new service is one file here and one line in services_from_view().
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.model import AttachPath, Config, ServeSocket
from passtpy.config.view import View
from passtpy.errors import WireError
from passtpy.flow import PuntKind
from passtpy.services.arp import ArpService
from passtpy.services.facts import Facts, facts_from_view
from passtpy.services.ndp import NdpService

MAX_FRAME: Final = 9216  # no message for a service is nearly as long

NAMES: Final = {
    PuntKind.ARP: "arp",
    PuntKind.ND: "ndp",
    PuntKind.DHCP4: "dhcp",
    PuntKind.DHCP6: "dhcpv6",
}


class Service(Protocol):
    """One responder: frames in, frames out; time is an argument (monotonic, ns)."""

    name: str
    counters: dict[str, int]

    def update(self, facts: Facts, /) -> None:
        """Answer from these facts from now on; tick() tells what must be told."""

    def handle(self, frame: bytes, now: int, /) -> list[bytes]:
        """Return the answers; WireError for a frame that is no valid question."""

    def tick(self, now: int, /) -> list[bytes]:
        """Return what has to be sent unasked by now."""

    def due(self) -> int | None:
        """Return when tick() wants to be called next; None: never."""


class OnDemand:
    """A service that is made when its first frame comes.

    Loading what few guests ask for would take a tenth of the time to start.
    """

    def __init__(
        self, name: str, facts: Facts, make: Callable[[Facts], Service]
    ) -> None:
        self.name = name
        self.counters: dict[str, int] = {}
        self._facts = facts
        self._make = make
        self._service: Service | None = None

    def load(self) -> Service:
        """Make the service now, unless it has been."""
        if self._service is None:
            self._service = self._make(self._facts)
            self.counters = self._service.counters
        return self._service

    def update(self, facts: Facts) -> None:
        """Pass the facts on, or keep them."""
        self._facts = facts
        if self._service is not None:
            self._service.update(facts)

    def handle(self, frame: bytes, now: int) -> list[bytes]:
        """Let the service answer."""
        return self.load().handle(frame, now)

    def tick(self, now: int) -> list[bytes]:
        """Let the service speak, once it has something to say."""
        return [] if self._service is None else self._service.tick(now)

    def due(self) -> int | None:
        """Return when the service wants to speak; never before it was asked."""
        return None if self._service is None else self._service.due()


class Services:
    """All responders of one guest, by the PuntKind of the frames that each answers."""

    def __init__(self, services: Mapping[int, Service]) -> None:
        self._services = dict(services)
        self._counters: dict[str, int] = {"unknown": 0, "oversized": 0}
        for service in self._services.values():
            self._counters |= {service.name: 0, f"{service.name}_malformed": 0}

    def add(self, kind: PuntKind, service: Service) -> None:
        """Let one more service answer frames of a kind."""
        self._services[kind] = service
        self._counters |= {service.name: 0, f"{service.name}_malformed": 0}

    def update(self, facts: Facts) -> None:
        """Let every service tell this from now on; due() may be earlier afterwards."""
        for service in self._services.values():
            service.update(facts)

    def welcome(self) -> None:
        """A guest has come: who it is has to be found out (again)."""
        for service in self._services.values():
            if isinstance(service, ArpService | NdpService):
                service.ask_again()

    def handle(self, kind: int, frame: bytes, now: int) -> list[bytes]:
        """Return the answers to a punted frame; a bad one is only counted."""
        if len(frame) > MAX_FRAME:
            self._counters["oversized"] += 1
            return []
        service = self._services.get(kind)
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
        counters = dict(self._counters)
        for service in self._services.values():
            counters |= service.counters
        return counters


def random_between(low: int, high: int) -> int:
    """Roll the dice; their module is only loaded when a router is advertised."""
    from random import randint

    return randint(low, high)  # noqa: S311 (spreads load, keeps no secret)


def services_from_view(
    view: View,
    guest: GuestAddresses,
    spread: Callable[[int, int], int] | None = None,
) -> Services:
    """Return the services that the configuration leaves switched on.

    A family that the host lacks now may come later, with Services.update(). `spread`
    replaces the dice behind the times of router advertisements.
    """
    config, facts = view.config, facts_from_view(view)
    services: dict[int, Service] = {}
    if config.ipv4:
        services[PuntKind.ARP] = ArpService(facts, guest)
    if config.ipv6 and config.ndp:
        services[PuntKind.ND] = NdpService(facts, guest, spread or random_between)
    for kind, make in _dhcp_services(config, guest):
        service = OnDemand(NAMES[kind], facts, make)
        if not config.config_net:  # somebody has to ask for an address
            service.load()
        services[kind] = service
    return Services(services)


def _dhcp_services(
    config: Config, guest: GuestAddresses
) -> Iterator[tuple[PuntKind, Callable[[Facts], Service]]]:
    def make_dhcp(facts: Facts) -> Service:
        from passtpy.services.dhcp import DhcpService

        return DhcpService(facts, guest)

    def make_dhcpv6(facts: Facts) -> Service:
        from passtpy.services.dhcpv6 import Dhcpv6Service
        from passtpy.services.duid import server_duid

        return Dhcpv6Service(facts, guest, server_duid(*_names_of_guest(config)))

    if config.ipv4 and config.dhcp:
        yield PuntKind.DHCP4, make_dhcp
    if config.ipv6 and config.dhcpv6:
        yield PuntKind.DHCP6, make_dhcpv6


def _names_of_guest(config: Config) -> Iterator[bytes]:
    """Yield what tells this guest from others, whenever and wherever we serve it."""
    yield config.our_mac
    yield config.ns_mac or b""
    place: str | None = None
    if isinstance(config.target, AttachPath | ServeSocket):
        place = config.target.path
    yield (place or "").encode("utf-8", "replace")
