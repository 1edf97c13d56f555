# SPDX-License-Identifier: GPL-2.0-or-later
"""A view of configuration and host becomes one ordered list of rules; first match wins.

The list is the explanation of what the program does: nothing decides about a flow that
is not a rule here. A rule is a frozen value: two that are equal are the same rule,
whatever stands around them. Its id and its place are for policy/listing.py to know.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from passtpy.addr import Address, inany
from passtpy.config.dns import DNS_PORTS
from passtpy.config.forwards import Forward, relay_numbers
from passtpy.config.model import Config
from passtpy.config.view import View
from passtpy.flow import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    Pif,
)
from passtpy.record import record, replace

Network = IPv4Network | IPv6Network

ANY4 = IPv4Network("0.0.0.0/0")
ANY6 = IPv6Network("::/0")


@record
class Match:
    """Which misses a rule is about; an empty field matches everything."""

    pif: Pif
    protos: frozenset[int] = frozenset()
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    port: int | None = None  # the destination port
    listeners: range | None = None  # numbers given to Datapath.listen()


@record
class Drop:
    """Say nothing."""


@record
class Reject:
    """Answer as a closed port does."""


@record
class ToHost:
    """Open a host socket to `destination` (None: the one the guest asked for).

    Bound to `bind*` if given. Otherwise a guest that uses one of the host's `choices`,
    and not the usual (first) one of the family, keeps it as its source, wherever the
    host's own choice would be another of them.
    """

    destination: Address | None = None
    bind4: IPv4Address | None = None
    bind6: IPv6Address | None = None
    choices: tuple[Address, ...] = ()


@record
class SourceMap:
    """How the source of an inbound flow appears to the guest, in this order.

    `exact` sources are replaced one by one; those in `unusable`, and the guest's own
    addresses, become `ours`; all others stay as they are.
    """

    exact: tuple[tuple[Address, Address], ...] = ()
    guest4: IPv4Address | None = None  # stands for the guest's own address
    guest6: IPv6Address | None = None
    unusable: tuple[Network, ...] = ()
    ours4: IPv4Address | None = None
    ours6: IPv6Address | None = None


@record
class ToGuest:
    """Deliver to the guest, `delta` ports away from the listener's.

    `target` None: to the guest's own address; else to this one, on its link or behind.
    `crosses`: a flow may go on in the other family, where the guest has no such
    address, or no such server.
    """

    delta: int = 0
    source: SourceMap = SourceMap()
    target: Address | None = None
    crosses: bool = False
    proxy: int = 0  # version of the PROXY protocol that tells who the client is


@record
class SpliceToGuest:
    """Connect inside the namespace: to its outer address, or to its loopback.

    `loopback`: to the loopback address that the client asked for. `keep_source`: from
    the client's own address instead of the kernel's choice. Where the namespace does
    not have that address, it goes over the tap: see `source`. `crosses`: where nobody
    listens in the client's family, one of the other family is tried.
    """

    delta: int = 0
    loopback: bool = False
    keep_source: bool = False
    source: SourceMap | None = None  # None: nothing is to be kept, or there is no tap
    crosses: bool = False
    proxy: int = 0


@record
class SpliceToHost:
    """Connect to the host's loopback, `delta` ports away from the listener's.

    Both addresses stay what they are, 127.0.0.9 as well as 127.0.0.1. `crosses`: where
    nobody listens there, the usual address of the other family is tried.
    """

    delta: int = 0
    crosses: bool = False
    proxy: int = 0
    path: str | None = None  # to this UNIX socket instead


@record
class ToAsker:
    """Deliver to whoever in the guest asked a group, and waits at this listener."""

    source: SourceMap = SourceMap()


@record
class ToGroup:
    """Deliver to a group of the guest: the one that the sender meant.

    `delta` ports away from the listener's.
    """

    source: SourceMap = SourceMap()
    delta: int = 0


Outcome = (
    Drop | Reject | ToHost | ToGuest | ToAsker | ToGroup | SpliceToGuest | SpliceToHost
)


@record
class Rule:
    """One line of the policy, and what it is there for."""

    match: Match
    outcome: Outcome
    why: str


# What the guest may not reach through us, and what may not be a source of its packets.
_NOWHERE: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/128"),
    IPv6Network("::1/128"),
    IPv6Network("ff00::/8"),
)
# What a listener at any address also hears, if somebody on the host has joined.
_GROUPS: tuple[Network, ...] = (
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("ff00::/8"),
)
# Sources of inbound flows to which the guest could not answer.
_UNUSABLE: tuple[Network, ...] = _NOWHERE

_ECHO = frozenset((IPPROTO_ICMP, IPPROTO_ICMPV6))
_LOOPBACK4, _LOOPBACK6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

Line = tuple[Match, Outcome, str]  # a rule, field by field


def _switched_off(view: View) -> Iterator[Line]:
    config = view.config
    if not view.ipv4:
        match = Match(Pif.TAP, destinations=(ANY4,))
        yield match, Drop(), "IPv4 is disabled"
    if not view.ipv6:
        match = Match(Pif.TAP, destinations=(ANY6,))
        yield match, Drop(), "IPv6 is disabled"
    for protos, enabled, name in (
        (frozenset((IPPROTO_TCP,)), config.tcp, "TCP"),
        (frozenset((IPPROTO_UDP,)), config.udp, "UDP"),
        (_ECHO, config.icmp, "ICMP"),
    ):
        if not enabled:
            yield Match(Pif.TAP, protos), Drop(), f"{name} is disabled"


def _mapped_destinations(view: View) -> Iterator[Line]:
    config, host = view.config, view.host
    bind4, bind6 = config.outbound4, config.outbound6
    own4: Address | None = host.guest4
    own6: Address | None = host.guest6
    # Where the host has one family only, its address of that one is as good.
    if host.template4 is None and host.template6 is not None:
        own4 = host.guest6
    elif host.template6 is None and host.template4 is not None:
        own6 = host.guest4
    loopbacks: tuple[Address, Address] = (_LOOPBACK4, _LOOPBACK6)
    for mapped, target in zip(view.loopbacks, loopbacks, strict=True):
        if mapped is not None:
            # No -o source here: an outer address cannot talk to the loopback.
            yield _to_one(mapped), ToHost(target), "host loopback, mapped"
    for mapped_guest, own in (
        (config.map_guest_addr4, own4),
        (config.map_guest_addr6, own6),
    ):
        if mapped_guest is not None and own is not None:
            outcome = ToHost(own, bind4, bind6)
            yield _to_one(mapped_guest), outcome, "the guest's address on the host"


def _forwarded_dns(view: View) -> Iterator[Line]:
    config = view.config
    protos = frozenset((IPPROTO_TCP, IPPROTO_UDP))
    for each in view.dns:
        outcome = ToHost(each.target)
        if not each.target.is_loopback:
            outcome = ToHost(each.target, config.outbound4, config.outbound6)
        for port in DNS_PORTS:
            match = Match(Pif.TAP, protos, destinations=(_one(each.seen),), port=port)
            yield match, outcome, "DNS, to the host's resolver"


def _one(addr: Address) -> Network:
    if isinstance(addr, IPv4Address):
        return IPv4Network((addr, 32))
    return IPv6Network((addr, 128))


def _to_one(addr: Address) -> Match:
    return Match(Pif.TAP, destinations=(_one(addr),))


def source_map(view: View) -> SourceMap:
    """Return how the guest shall see the sources of inbound flows."""
    exact: list[tuple[Address, Address]] = []
    if view.loopback4 is not None:
        exact.append((_LOOPBACK4, view.loopback4))
    if view.loopback6 is not None:
        exact.append((_LOOPBACK6, view.loopback6))
    return SourceMap(
        exact=tuple(exact),
        guest4=view.config.map_guest_addr4,
        guest6=view.config.map_guest_addr6,
        unusable=_UNUSABLE,
        ours4=view.source4,
        ours6=view.source6,
    )


def _routed_sources(view: View, target: Address | None) -> SourceMap:
    """Return the same for a target that may be behind the guest.

    A packet from a link-local address is never forwarded (RFC 4291 section 2.5.6):
    where the host's loopback is one for the guest, another address of ours stands in.
    """
    sources, host, config = source_map(view), view.host, view.config
    if not isinstance(target, IPv6Address) or target.is_link_local:
        return sources
    candidates = (
        *(host.our6, host.gateway6, view.loopback6),
        *(config.map_guest_addr6, config.dns_forward6),
    )
    for ours in candidates:
        if ours is not None and not ours.is_link_local:
            exact = (
                (a, ours if b.version == 6 and b.is_link_local else b)
                for a, b in sources.exact
            )
            return replace(sources, exact=tuple(exact), ours6=ours)
    return sources


def _spliced_sources(view: View) -> tuple[Network, ...]:
    """Return the sources of inbound flows that bypass the tap.

    To keep a client's address is possible even where the tap could not: when it is
    the address that the guest has as well.
    """
    if not view.config.splice:
        return ()
    if not view.config.preserve_source:
        return LOOPBACK
    host = view.host
    own = dict.fromkeys((host.guest4, host.guest6, *sorted(host.guests, key=inany)))
    return LOOPBACK + tuple(_one(addr) for addr in own if addr is not None)


def _crosses(config: Config) -> bool:
    """Tell whether a flow may go on in the other family.

    At once, where the guest has only that; else when it is refused.
    """
    return config.ipv4 and config.ipv6


def _to_groups(view: View, forward: Forward, sources: SourceMap) -> Iterator[Line]:
    """Yield what becomes of datagrams for a group at a port that is forwarded.

    They stay for the group: the guest's address would make a question to everybody one
    to the guest, which answers. What the relay gives to the guest comes once.
    """
    config, rule = view.config, forward.rule
    anywhere = rule.addr is None or rule.addr.is_unspecified or rule.addr.is_multicast
    if rule.proto != IPPROTO_UDP or rule.target is not None or not anywhere:
        return
    udp, numbers = frozenset((IPPROTO_UDP,)), forward.numbers
    for group in config.multicast_relay:
        if group.port is None or rule.first <= group.port <= rule.last:
            to = (_one(group.address),)
            match = Match(Pif.HOST, udp, (), to, group.port, numbers)
            yield match, Drop(), "--multicast-relay gives it to the guest"
    match = Match(Pif.HOST, udp, destinations=_GROUPS, listeners=numbers)
    yield match, ToGroup(sources, rule.delta), "a group stays what it is"


def _inbound(view: View, forward: Forward, sources: SourceMap) -> Iterator[Line]:
    config, rule = view.config, forward.rule
    protos, numbers, why = frozenset((rule.proto,)), forward.numbers, str(rule).strip()
    if not config.splice_only:
        yield from _to_groups(view, forward, sources)
    spliced = _spliced_sources(view) if rule.target is None else ()
    crosses = _crosses(config)
    if spliced:
        match = Match(Pif.HOST, protos, sources=spliced, listeners=numbers)
        keep = config.preserve_source
        over_tap = sources if keep and not config.splice_only else None
        loopback = config.host_lo_to_ns_lo
        outcome = SpliceToGuest(
            rule.delta, loopback, keep, over_tap, crosses, rule.proxy
        )
        yield match, outcome, why
    if not config.splice_only:
        match = Match(Pif.HOST, protos, listeners=numbers)
        if rule.target is not None:
            sources = _routed_sources(view, rule.target)
        crosses = crosses and rule.target is None
        to_guest = ToGuest(rule.delta, sources, rule.target, crosses, rule.proxy)
        yield match, to_guest, why


def _outbound(config: Config, forward: Forward) -> Line:
    match = Match(
        Pif.SPLICE,
        frozenset((forward.rule.proto,)),
        sources=LOOPBACK,
        destinations=LOOPBACK,
        listeners=forward.numbers,
    )
    rule = forward.rule
    crosses = _crosses(config) and rule.to_path is None
    outcome = SpliceToHost(rule.delta, crosses, rule.proxy, rule.to_path)
    return match, outcome, str(rule).strip()


def _relayed(config: Config, sources: SourceMap) -> Iterator[Line]:
    if not config.multicast_relay:
        return
    groups, askers = relay_numbers(config)
    udp, why = frozenset((IPPROTO_UDP,)), "--multicast-relay"
    yield Match(Pif.HOST, udp, listeners=askers), ToAsker(sources), why
    yield Match(Pif.HOST, udp, listeners=groups), ToGroup(sources), why


def _forwarded(view: View) -> Iterator[Line]:
    config, sources = view.config, source_map(view)
    for forward in view.forwards:
        if forward.pif is Pif.SPLICE:
            yield _outbound(config, forward)
        else:
            yield from _inbound(view, forward, sources)
    yield from _relayed(config, sources)
    yield Match(Pif.HOST), Reject(), "no rule for this listener"
    yield Match(Pif.SPLICE), Reject(), "not from the namespace's loopback"


def _from_guest(view: View) -> Iterator[Line]:
    yield from _switched_off(view)
    yield Match(Pif.TAP, sources=_NOWHERE), Drop(), "no valid source"
    yield from _forwarded_dns(view)
    yield from _mapped_destinations(view)
    yield Match(Pif.TAP, destinations=_NOWHERE), Drop(), "no valid destination"
    if view.config.made_up:
        match = Match(Pif.TAP, destinations=view.config.made_up)
        yield match, Reject(), "nobody is there"
    for proto in (IPPROTO_TCP, IPPROTO_UDP):
        match = Match(Pif.TAP, frozenset((proto,)), port=0)
        yield match, Drop(), "port 0"
    bind4, bind6 = view.config.outbound4, view.config.outbound6
    outcome = ToHost(None, bind4, bind6, view.host.choices)
    yield Match(Pif.TAP), outcome, "the outside"


def _lines(view: View) -> Iterator[Line]:
    if not view.config.splice_only:
        yield from _from_guest(view)
    yield from _forwarded(view)


def rules_from_view(view: View) -> tuple[Rule, ...]:
    """Return the whole policy, in the order in which it is tried."""
    return tuple(Rule(*line) for line in _lines(view))


def refuse_all(proto: int, why: str) -> Iterator[Rule]:
    """Yield the rules that refuse every new flow of a protocol, wherever it begins."""
    for pif in (Pif.TAP, Pif.HOST, Pif.SPLICE):
        yield Rule(Match(pif, frozenset((proto,))), Reject(), why)
