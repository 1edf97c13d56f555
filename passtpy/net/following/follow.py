# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows the host's network while the guest runs.

After every change the host is read again and planned for as at start (host/template.py
makes a `Plan`). Where that differs from the last plan, rules and services get the new
facts at once, and so does the guest's interface if we configured it. What the user said
stays as it is, because the plan already says so.

A host without a network, in a lift or between two cables, tells nothing about the next
one: then everything stays. One IP version alone may be lost for good: after GRACE_S it
is in local mode, as at start. An address that is no longer the guest's stays as long as
a flow uses it: that flow may well live on.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from passtpy.addr import Address, Mac, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.resolver import Resolver
from passtpy.config.view import View
from passtpy.errors import ConfigError
from passtpy.flow import Pif, flows_in, pages_of
from passtpy.log import Log
from passtpy.net.following.change import GuestNetwork, fading, plain_address
from passtpy.net.following.inside import NamespaceAddresses
from passtpy.net.following.monitor import Monitor
from passtpy.net.following.neighbours import Neighbours
from passtpy.net.following.pace import Pace
from passtpy.net.host.resolv import PATH, ResolverFeed, UnusableError
from passtpy.net.host.template import (
    ABSENT,
    Family,
    HostNetwork,
    Plan,
    assemble,
    choose,
    with_local,
)
from passtpy.net.kernel.dump import Dump
from passtpy.net.kernel.listen import kernel_has_ipv6
from passtpy.net.kernel.netlink import open_socket
from passtpy.net.kernel.rtnl import LinkAddress, Route
from passtpy.net.namespace.factory_client import Factory
from passtpy.net.namespace.guest import (
    Guest,
    addresses_for,
    follows_namespace,
    routes_for,
)
from passtpy.record import names_of, replace

FIRST_LOOK_S: Final = 0.5  # what has changed while we started?
GRACE_S: Final = 5.0
SWEEP_S: Final = 10.0  # for addresses that nothing uses any more
RETRY_S: Final = 1.0  # after a change that failed; doubled each time
RETRY_MAX_S: Final = 60.0
_FLOWS: Final = 256  # flows looked at between turns
_SHOWN: Final = 8  # addresses in one line
_UNTOLD: Final = ("guests", "choices", "own")  # `addresses` in the log has them already


class EngineLike(Protocol):
    """Who wants to know, and who knows the flows."""

    @property
    def datapath(self) -> "Flows": ...

    @property
    def view(self) -> View: ...

    def tell(self, view: View) -> None: ...

    def tell_services(self, view: View) -> None: ...


class Flows(Protocol):
    """The part of a datapath that lists its flows."""

    def flows(self, cursor: int = 0, limit: int = 256) -> tuple[bytes, int]: ...


async def read_host(dump: Dump) -> HostNetwork:
    """Read the host's network, letting packets pass in between."""
    for _ in dump.steps():
        await asyncio.sleep(0)
    ipv6 = kernel_has_ipv6()
    return HostNetwork(dump.links, dump.addresses, dump.routes, ipv6, dump.own)


class Follow:
    """What is known about the host, and everything that depends on it."""

    def __init__(
        self,
        config: Config,
        got: Guest,
        plan: Plan,
        resolver: Resolver,
        seen: GuestAddresses,
        log: Log,
        feed: ResolverFeed,
    ) -> None:
        self._config = config
        self._got = got
        self._plan = plan
        self._host = got.host
        self._resolver = resolver
        self._seen = seen
        self._log = log
        # For good: there may be no descriptor left
        self._dump = Dump(open_socket(), config.has_policy)
        self._pace = Pace()
        self._retry = RETRY_S
        self._refused: frozenset[str] = frozenset()
        self._unusable = ""  # why we do not read the host's resolv.conf
        self._feed = feed
        self._monitor = Monitor(feed)
        self._neighbours = Neighbours()
        self._inside = NamespaceAddresses(seen)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._network: GuestNetwork | None = None
        self._engine: EngineLike | None = None
        self._lost = False
        self._lost_since: dict[str, float] = {}

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: EngineLike,
        source: Factory | None,
    ) -> None:
        """Follow from now on; `source` leads into the namespace, to change it."""
        self._loop, self._engine = loop, engine
        if source is not None:
            self._inside.start(loop, source)
        if source is not None and follows_namespace(self._config):
            addresses = self._addresses(self._plan)
            index, routes = self._got.index, self._routes(self._plan)
            self._network = GuestNetwork(source, index, addresses, routes, self._pace)
        self._monitor.start(loop, self._update)
        self._neighbours.start(loop, self._meet)
        self._neighbours.look_at(_interfaces(self._plan))
        self._monitor.touch_later(FIRST_LOOK_S)

    async def stop(self) -> None:
        """Stop following, while the loop still runs."""
        await self._monitor.stop()

    def close(self) -> None:
        """Release what was opened."""
        self._monitor.close()
        self._neighbours.close()
        self._dump.close()
        self._inside.close()

    def _addresses(self, plan: Plan) -> tuple[LinkAddress, ...]:
        mac = self._got.host.guest_mac or bytes(6)
        return addresses_for(plan, mac, self._got.mtu)

    def _routes(self, plan: Plan) -> tuple[Route, ...]:
        return routes_for(plan, self._got.mtu)

    async def _update(self) -> None:
        """Look, and change what has to be; once more later when that failed."""
        try:
            done = await self._follow(await read_host(self._dump))
        except OSError as error:  # no descriptor or memory left, just now
            self._log.warning("follow.failed", reason=error.strerror or str(error))
            done = False
        except Exception as error:  # as good as no change: flows must not suffer
            self._log.failure("follow.failed", error)
            done = False
        if done:
            self._retry = RETRY_S
            return
        self._monitor.touch_later(self._retry)
        self._retry = min(2 * self._retry, RETRY_MAX_S)

    async def _follow(self, network: HostNetwork) -> bool:
        """Do what follows from this; return whether all of it could be done."""
        resolver = self._read_resolver()
        plan = self._next_plan(network)
        host = replace(
            plan.host,
            guest_mac=self._host.guest_mac,
            neighbours=self._host.neighbours,
        )
        news = self._news(host, resolver) | await self._news_of(plan)
        before = self._host, self._resolver
        self._plan, self._host, self._resolver = plan, host, resolver
        self._neighbours.look_at(_interfaces(plan))
        if news:
            self._log.info("host.changed", **news)
        self._seen.plan(host)
        if self._engine is not None and (host, resolver) != before:
            now = self._engine.view
            self._engine.tell(View.of(now.config, host, resolver, now.forwards))
        return self._network is None or await self._change(self._network, plan)

    def _read_resolver(self) -> Resolver:
        """Return what the host's file says; what it said when it says nothing now."""
        reason = ""
        try:
            return self._feed.read() or self._resolver
        except UnusableError as error:
            reason = str(error)
            if reason != self._unusable:
                self._log.warning("resolver.unusable", path=PATH, reason=reason)
            return self._resolver
        finally:
            self._unusable = reason

    def _meet(self, neighbours: Mapping[Address, Mac]) -> None:
        """Know these neighbours of the host from now on, and no others."""
        self._host = replace(self._host, neighbours=neighbours)
        if self._engine is not None:
            now = self._engine.view
            view = View.of(now.config, self._host, self._resolver, now.forwards)
            self._engine.tell_services(view)

    def _next_plan(self, network: HostNetwork) -> Plan:
        old = self._plan
        try:
            v4, v6 = choose(self._config, network, old)
        except ConfigError:  # the interface named with -i is gone
            v4 = v6 = ABSENT
        had_template = old.v4.link is not None or old.v6.link is not None
        if had_template and not _leads_on(old.v4, v4) and not _leads_on(old.v6, v6):
            if not self._lost:
                gone = {
                    "template4": old.host.template4,
                    "template6": old.host.template6,
                }
                self._log.info("host.lost", **gone)
            self._lost = True
            return old
        self._lost = False
        v4 = self._with_patience("4", old.v4, v4)
        v6 = self._with_patience("6", old.v6, v6)
        families = with_local(self._config, network, v4, v6)
        return assemble(self._config, network, *families)

    def _with_patience(self, key: str, old: Family, new: Family) -> Family:
        """Return `new`, but `old` for a while when the family seems to be lost."""
        if old.link is None or _leads_on(old, new):
            self._lost_since.pop(key, None)
            return new
        assert self._loop is not None
        now = self._loop.time()
        since = self._lost_since.setdefault(key, now)
        if now - since < GRACE_S:
            self._monitor.touch_later(since + GRACE_S - now)
            return old
        # Any other interface that happens to have a route is none to resemble.
        same = new.link is not None and new.link.name == old.link.name
        return new if same else ABSENT

    def _news(self, host: HostInfo, resolver: Resolver) -> dict[str, object]:
        """Return what has changed, for the log."""
        news: dict[str, object] = {}
        for name in names_of(HostInfo):
            if name in _UNTOLD:
                continue
            value = getattr(host, name)
            if value != getattr(self._host, name):
                news[name] = value
        if resolver.nameservers != self._resolver.nameservers:
            news["resolvers"] = ",".join(map(str, resolver.nameservers))
        if resolver.search != self._resolver.search:
            news["search"] = ",".join(resolver.search)
        return news

    async def _news_of(self, plan: Plan) -> dict[str, object]:
        """Return what has changed of what there may be a lot of."""
        news: dict[str, object] = {}
        old = self._plan
        if not await self._same(plan.addresses, old.addresses):
            shown = ",".join(str(a.address) for a in plan.addresses[:_SHOWN])
            more = len(plan.addresses) - _SHOWN
            news["addresses"] = f"{shown} and {more} more" if more > 0 else shown
        if plan.routes != old.routes:  # the same objects, nearly all of them
            news["routes"] = len(plan.routes)
        return news

    async def _same(
        self, new: Sequence[LinkAddress], old: Sequence[LinkAddress]
    ) -> bool:
        for one, other in zip(new, old, strict=False):
            await self._pace.spend()
            if one is not other and plain_address(one) != plain_address(other):
                return False
        return len(new) == len(old)

    async def _change(self, network: GuestNetwork, plan: Plan) -> bool:
        """Give the guest's interface what is planned, and leave it what flows need."""
        addresses = self._addresses(plan)
        kept = await self._kept(network, addresses)
        if kept:
            self._monitor.touch_later(SWEEP_S)
        refused = await network.change((*addresses, *kept), self._routes(plan))
        if refused is None:
            return True
        for text in refused:
            if text not in self._refused:
                self._log.warning("namespace", text=text)
        self._refused = frozenset(refused)
        for addr in (plan.host.guest4, plan.host.guest6):
            if addr is not None:
                self._seen.observe(inany(addr))
        return not refused

    async def _kept(
        self, network: GuestNetwork, addresses: Sequence[LinkAddress]
    ) -> list[LinkAddress]:
        """Return what the guest has to keep of the addresses that it loses."""
        wanted = set()
        for each in addresses:
            await self._pace.spend()
            wanted.add(each.address.ip)
        dropped: dict[bytes, LinkAddress] = {}
        for each in network.addresses:
            await self._pace.spend()
            if each.address.ip not in wanted:
                dropped[inany(each.address.ip)] = each
        used = await self._used(set(dropped)) if dropped else set()
        return [fading(dropped[raw]) for raw in used]

    async def _used(self, addresses: set[bytes]) -> set[bytes]:
        """Return which addresses of the guest have flows."""
        used: set[bytes] = set()
        if self._engine is None:
            return used
        for page in pages_of(self._engine.datapath.flows, _FLOWS):
            for flow in flows_in(page):
                guest = flow.endpoint(Pif.TAP)
                if guest is not None and guest in addresses:
                    used.add(guest)
            await asyncio.sleep(0)
        return used


def _interfaces(plan: Plan) -> frozenset[int]:
    """Return the host's interfaces that the guest's resembles."""
    links = (plan.v4.link, plan.v6.link)
    return frozenset(link.index for link in links if link is not None)


def _leads_on(old: Family, new: Family) -> bool:
    """Tell whether `new` is where the host's traffic goes now."""
    return new.link is not None and (new.default or not old.default)
