# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers the guest's DNS questions: joins resolver, policy, host and guest."""

import secrets
import socket
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Final

import dns.rcode

from passtpy.addr import Address, from_inany, inany
from passtpy.config.view import View
from passtpy.config.zones import ZoneEntry
from passtpy.egress.names import NameFault, normalise
from passtpy.egress.naming import NamePolicy
from passtpy.net.host.dns_stream import DnsStreams
from passtpy.net.host.nameservers import Nameservers
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.net.kernel.leaving import Leaving
from passtpy.services.dns.resolver import Everything, Filter, Resolver, Server
from passtpy.services.dns.service import DnsService
from passtpy.services.dns.zones import Zones
from passtpy.services.facts import facts_from_view

HOST: Final = "host.internal"  # where the guest finds the host's loopback
_KINDS: Final = {4: "A", 6: "AAAA"}
_REFUSALS: Final = {
    "nxdomain": dns.rcode.NXDOMAIN,
    "refused": dns.rcode.REFUSED,
}


Found = Callable[[Sequence[bytes]], None]


class Resolving:
    """The resolver of a guest, with all that it needs; `service` answers its frames.

    `send` takes frames to the guest. Without a policy every name may be asked for.
    """

    def __init__(
        self,
        view: View,
        loop: WriterLoop,
        send: Callable[[bytes], None],
        policy: NamePolicy | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        config = view.config
        said = (config.outbound4, config.outbound6)
        leaving = Leaving(
            tuple(inany(addr) for addr in said if addr is not None),
            (config.outbound_if4, config.outbound_if6),
        )
        names: Filter = Everything()
        if policy is not None:
            names = _Names(policy, clock)
        self._names = names
        self._exchange = Nameservers(loop, leaving)
        self._resolver = Resolver(names, self._exchange, clock, secrets.randbelow)
        self._streams = DnsStreams(loop, self._resolver.question)
        self.service = DnsService(facts_from_view(view), self._resolver, send)
        self._zones: tuple[ZoneEntry, ...] = ()
        self._servers: tuple[Server, ...] = ()
        self.update(view)

    def update(self, view: View) -> None:
        """Answer after this view from now on."""
        zones, servers = tuple(_zones(view)), tuple(_servers(view))
        if (zones, servers) != (self._zones, self._servers):
            self._zones, self._servers = zones, servers
            self.policy_changed()

    def policy_changed(self) -> None:
        """Know nothing any more of what was answered by another policy."""
        self._resolver.configure(self._names, Zones(self._zones), self._servers)

    def serve(self) -> int:
        """Return one end of a stream at whose other end questions are answered."""
        ours, theirs = socket.socketpair(
            type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._streams.serve(ours)
        return theirs.detach()

    def find(self, name: str, version: int, done: Found) -> None:
        """Look a name up: its addresses of one version of IP, or else the others.

        It is looked up as the guest would have to: by the policy, which learns of the
        addresses.
        """
        first, other = _KINDS[version], _KINDS[10 - version]

        def found(addresses: tuple[Address, ...]) -> None:
            if addresses:
                finish(addresses)
            else:
                self._resolver.look_up(name, other, finish)

        def finish(addresses: tuple[Address, ...]) -> None:
            done([inany(addr) for addr in addresses])

        self._resolver.look_up(name, first, found)

    def close(self) -> None:
        """Answer no more."""
        self._streams.close()
        self._exchange.close()


class _Names:
    """The policy, as the resolver sees it."""

    def __init__(self, policy: NamePolicy, clock: Callable[[], int]) -> None:
        self._policy = policy
        self._clock = clock

    @property
    def standing(self) -> int | None:
        """Return a number that is another one when a pin may be gone."""
        return self._policy.standing

    def refusal(self, name: str) -> dns.rcode.Rcode | None:
        """Return the code that refuses a question for a name; None: it may be asked."""
        try:
            ruling = self._policy.may_ask(normalise(name), self._clock())
        except NameFault:
            return dns.rcode.NXDOMAIN
        return None if ruling.allowed else _REFUSALS[ruling.refusal]

    def admit(
        self, name: str, addresses: Sequence[Address], ttl: int
    ) -> Container[Address]:
        """Return those addresses that the guest may be told for a name."""
        raw = [inany(addr) for addr in addresses]
        admitted = self._policy.may_answer(normalise(name), raw, ttl, self._clock())
        return frozenset(map(from_inany, admitted))


def _zones(view: View) -> Iterator[ZoneEntry]:
    """Yield the user's records, then ours."""
    yield from view.config.dns_records
    loopbacks = tuple(addr for addr in view.loopbacks if addr is not None)
    if loopbacks:
        yield ZoneEntry(HOST, loopbacks)


def _servers(view: View) -> Iterator[Server]:
    """Yield whom we ask, in order: those that the user named, or the host's."""
    config = view.config
    said = tuple(a for a in (config.dns_host4, config.dns_host6) if a is not None)
    for addr in said or view.resolver.nameservers:
        yield Server(addr)
