# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the first rule that matches, among tens of thousands of names and networks.

Rules become lines, in their order. All addresses of a family are cut where any network
or range of any rule begins or ends; each piece knows its zone and the lines that match
there, so that one binary search finds them (a longest prefix would not do: ranges are
no prefixes, and it is the first rule that counts, not the narrowest). Names are in a
tree by label from the last one on. What both find is tried in the order of the rules.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from passtpy.addr import V4_PREFIX
from passtpy.egress.model import (
    REFUSING,
    Effect,
    EgressRule,
    Ports,
    Quic,
    Sets,
    Span,
)
from passtpy.egress.target import WILD
from passtpy.egress.zones import (
    EVERYTHING4,
    EVERYTHING6,
    ZONES,
    Surroundings,
    disguised,
    spans_of,
    zone_spans,
)
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP

Zone = Sets | None  # None: the internet
Zones = frozenset[Zone]

INTERNET: Final[Zones] = frozenset((None,))
EVERYWHERE: Final[Zones] = frozenset((None, *ZONES))
DNS_PORTS: Final = (Ports(53, 53), Ports(853, 853))
QUIC_PORT: Final = 443
_WITH_PORTS: Final = frozenset((IPPROTO_TCP, IPPROTO_UDP))
_MOST_NAMES: Final = 4096  # whose lines are remembered; then all are found anew
_HERE, _BELOW = "", "*"  # keys of a node that no label can be


class Line(NamedTuple):
    """What a rule says of the flows that one of its ways to match finds."""

    number: int  # of the rule
    effect: Effect
    protos: frozenset[int]
    ports: tuple[Ports, ...]
    by_name: bool = False
    no_quic: bool = False

    @property
    def is_plain(self) -> bool:
        """Tell whether all flows there match."""
        return not self.protos and not self.ports


class Piece(NamedTuple):
    """What is the same for all addresses between two cuts."""

    zone: Zone
    lines: tuple[int, ...]


class _Claim(NamedTuple):
    """A line matches in a span, as far as that is in these zones."""

    line: int
    zones: Zones


_Guarded = tuple[Sets, bytes, bytes]  # a zone, from where to where


class Matcher:
    """Rules, compiled for a host."""

    def __init__(self, rules: Sequence[EgressRule], around: Surroundings) -> None:
        self._zones = zone_spans(around)
        self._guarded: tuple[list[_Guarded], list[_Guarded]] = ([], [])  # IPv6, IPv4
        for zone, spans in self._zones.items():
            for first, last in spans:
                guarded = self._guarded[first.startswith(V4_PREFIX)]
                guarded.append((zone, first, last))
        self._resolvers = tuple(spans_of(around.resolvers))
        self._tree: dict[str, Any] = {}
        self._found: dict[str, tuple[int, ...]] = {}
        self._any_name: list[int] = []  # lines by which any name may be asked
        self._internet: list[int] = []  # those that match all of the internet
        self.lines: list[Line] = []
        claims: list[tuple[Span, _Claim]] = []
        for number, rule in enumerate(rules):
            claims += self._add(number, rule)
        self._pieces4 = _cut(EVERYTHING4, claims, self._zones)
        self._pieces6 = _cut(EVERYTHING6, claims, self._zones)

    def _add(self, number: int, rule: EgressRule) -> Iterator[tuple[Span, _Claim]]:
        """Add the lines of a rule; yield where they match."""
        line = Line(number, rule.effect, rule.protos, rule.ports)
        refuses = rule.effect in REFUSING
        plain, targets = len(self.lines), rule.targets
        self.lines.append(line)
        if not rule.to:
            everywhere = _Claim(plain, EVERYWHERE if refuses else INTERNET)
            self._internet.append(plain)
            yield EVERYTHING4, everywhere
            yield EVERYTHING6, everywhere
        for span in targets.spans:
            zones = EVERYWHERE if refuses else self._named_by(span)
            yield span, _Claim(plain, zones)
        if refuses:  # a network's translator leads there as well
            for span in disguised(targets.spans):
                yield span, _Claim(plain, EVERYWHERE)
        for each in sorted(targets.sets):
            yield from self._add_set(each, plain, line)
        if targets.names:
            named = len(self.lines)
            no_quic = not refuses and rule.quic is Quic.REJECT
            self.lines.append(line._replace(by_name=True, no_quic=no_quic))
            for name in targets.names:
                self._plant(name, named)

    def _add_set(
        self, each: Sets, plain: int, line: Line
    ) -> Iterator[tuple[Span, _Claim]]:
        if each is Sets.INTERNET:
            self._internet.append(plain)
            yield EVERYTHING4, _Claim(plain, INTERNET)
            yield EVERYTHING6, _Claim(plain, INTERNET)
        elif each is Sets.RESOLVER:
            ports = _both(line.ports, DNS_PORTS)
            if ports:
                self._any_name.append(len(self.lines))
                for span in self._resolvers:
                    yield span, _Claim(len(self.lines), EVERYWHERE)
                self.lines.append(line._replace(ports=ports))
        else:
            refuses = line.effect in REFUSING
            zones = EVERYWHERE if refuses else frozenset[Zone]((each,))
            for span in self._zones[each]:
                yield span, _Claim(plain, zones)

    def _named_by(self, span: Span) -> Zones:
        """Return where a rule with this span allows: what it names, and no zone."""
        first, last = span
        is_v4 = first.startswith(V4_PREFIX)
        named = [
            zone
            for zone, begin, end in self._guarded[is_v4]
            if begin <= first and last <= end
        ]
        if not named:
            return INTERNET
        return INTERNET.union(named)

    def _plant(self, name: str, line: int) -> None:
        below = name.startswith(WILD)
        node = self._tree
        for label in reversed(name.removeprefix(WILD).split(".")):
            node = node.setdefault(label, {})
        lines = node.setdefault(_BELOW if below else _HERE, [])
        if line not in lines[-1:]:
            lines.append(line)

    def by_name(self, name: str) -> tuple[int, ...]:
        """Return the lines that match a name, in order."""
        found = self._found.get(name)
        if found is None:
            if len(self._found) >= _MOST_NAMES:
                self._found.clear()
            found = self._found[name] = self._walk(name)
        return found

    def _walk(self, name: str) -> tuple[int, ...]:
        node, found = self._tree, []
        for label in reversed(name.split(".")):
            if _BELOW in node:
                found += node[_BELOW]
            if label not in node:
                break
            node = node[label]
        else:
            found += node.get(_HERE, ())
        return tuple(sorted(set(found)))

    def is_about(self, number: int, name: str) -> bool:
        """Tell whether a rule is about a name, or about all of the internet."""
        lines = (*self.by_name(name), *self._internet)
        return any(self.lines[line].number == number for line in lines)

    def piece(self, address: bytes | None) -> Piece:
        """Return what is known of an address; None: of one anywhere on the internet."""
        if address is None:
            return Piece(None, tuple(self._internet))
        starts, pieces = (
            self._pieces4 if address.startswith(V4_PREFIX) else self._pieces6
        )
        return pieces[bisect_right(starts, address) - 1]

    def find(
        self, address: bytes | None, port: int, proto: int, names: Iterable[str] = ()
    ) -> tuple[Line | None, Zone]:
        """Return the first line that matches a flow, and the zone that it goes to."""
        zone, numbers = self.piece(address)
        for name in names:
            named = self.by_name(name)
            if named:
                numbers = tuple(sorted({*numbers, *named})) if numbers else named
        lines = self.lines
        for number in numbers:
            line = lines[number]
            if line.protos and proto not in line.protos:
                continue
            if line.ports and not _in_ports(line.ports, port, proto):
                continue
            # A name opens no zone: who answers for it could say any address
            if line.by_name and zone is not None and line.effect not in REFUSING:
                continue
            return line, zone
        return None, zone

    def may_ask(self, name: str) -> Line | None:
        """Return the first line that decides whether a name may be asked, if any does.

        One that refuses some flows only does not: what it leaves may be allowed.
        """
        for number in sorted({*self.by_name(name), *self._any_name, *self._internet}):
            line = self.lines[number]
            if line.effect not in REFUSING or line.is_plain:
                return line
        return None

    def may_answer(self, address: bytes) -> bool:
        """Tell whether a name may have this address; in a zone it needs a rule too."""
        zone, numbers = self.piece(address)
        allows = (self.lines[number].effect not in REFUSING for number in numbers)
        return zone is None or any(allows)


def _in_ports(ports: tuple[Ports, ...], port: int, proto: int) -> bool:
    if proto not in _WITH_PORTS:
        return False
    return any(first <= port <= last for first, last in ports)


def _both(ports: tuple[Ports, ...], others: tuple[Ports, ...]) -> tuple[Ports, ...]:
    """Return the ports that are in both; no ports are all ports."""
    if not ports:
        return others
    cut = (
        Ports(max(a.first, b.first), min(a.last, b.last)) for a in ports for b in others
    )
    return tuple(each for each in cut if each.first <= each.last)


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")


_Event = tuple[int, bool, _Claim | Sets]  # where, begins, what


def _events(
    whole: Span, spans: Iterable[tuple[Span, _Claim | Sets]]
) -> Iterator[_Event]:
    for span, what in spans:
        if whole.first <= span.first <= whole.last and _same_family(whole, span):
            yield _number(span.first), True, what
            if span.last < whole.last:
                yield _number(span.last) + 1, False, what


def _same_family(whole: Span, span: Span) -> bool:
    return span.first.startswith(V4_PREFIX) == (whole is EVERYTHING4)


def _cut(
    whole: Span,
    claims: Iterable[tuple[Span, _Claim]],
    zones: dict[Sets, tuple[Span, ...]],
) -> tuple[list[bytes], list[Piece]]:
    """Return where pieces of a family begin, and the pieces."""
    places = [(span, zone) for zone, spans in zones.items() for span in spans]
    events = [*_events(whole, claims), *_events(whole, places)]
    events.sort(key=lambda event: event[0])
    active: dict[_Claim | Sets, int] = {}
    starts, pieces = [whole.first], [Piece(None, ())]
    for at, (where, begins, what) in enumerate(events):
        active[what] = active.get(what, 0) + (1 if begins else -1)
        if not active[what]:
            del active[what]
        if at + 1 < len(events) and events[at + 1][0] == where:
            continue
        piece, start = _piece(active), where.to_bytes(16, "big")
        if starts[-1] == start:
            pieces[-1] = piece
        elif pieces[-1] != piece:
            starts.append(start)
            pieces.append(piece)
    return starts, pieces


def _piece(active: Iterable[_Claim | Sets]) -> Piece:
    here = set(active)
    zone = next((zone for zone in ZONES if zone in here), None)
    lines = {
        each.line for each in here if isinstance(each, _Claim) and zone in each.zones
    }
    return Piece(zone, tuple(sorted(lines)))
