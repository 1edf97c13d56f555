# SPDX-License-Identifier: GPL-2.0-or-later
"""The forwarding tables as a list of forwards, each with an id and listener numbers.

A listener number is all that a miss tells about the socket it came from. A forward owns
a range of numbers, so that one rule of the policy is about all of its sockets, and a
port's number follows from the port. Numbers cost nothing until they are used, and then
for good.

A forward keeps its id and its numbers for as long as its line stands in the tables,
whatever comes and goes around it.
"""

from collections.abc import Sequence
from typing import Final

from passtpy.config.model import Config
from passtpy.config.portrule import Able, PortRule, PortTable, Side
from passtpy.flow import Pif
from passtpy.record import record

MAX_ASKERS: Final = 64  # sockets that wait for answers to requests to a group
MAX_NUMBERS: Final = 1 << 21  # the datapath's LISTEN_MAX
# Numbers that are free before those given back come round again: each that was ever
# used has memory in the datapath.
SPARE_NUMBERS: Final = 4096
# Without the right to bind to a device, a port of the namespace needs two sockets.
SOCKETS_PER_PORT: Final = {Pif.HOST: 1, Pif.SPLICE: 2}


@record
class Forward:
    """A line of a table; `pif` is where its sockets listen."""

    id: int
    pif: Pif
    rule: PortRule
    numbers: range

    @property
    def ports(self) -> range:
        """Return the ports on which sockets may listen."""
        return range(self.rule.first, self.rule.last + 1)

    def number(self, port: int, nth: int = 0) -> int:
        """Return the listener number of the `nth` socket of a port."""
        return self.numbers[(port - self.rule.first) * SOCKETS_PER_PORT[self.pif] + nth]


def relay_numbers(config: Config) -> tuple[range, range]:
    """Return the listener numbers of relayed groups, and of those who asked one.

    They come before those of all forwards.
    """
    groups = range(len(config.multicast_relay))
    askers = MAX_ASKERS if config.multicast_relay else 0
    return groups, range(groups.stop, groups.stop + askers)


class NumbersExhausted(Exception):
    """More sockets were asked for than can be told apart."""


class ForwardBook:
    """Hands out ids and numbers, and remembers whose they are."""

    def __init__(self, first_number: int = 0) -> None:
        self._first = self._next_number = first_number
        self._next_id = 1
        self._known: dict[tuple[Pif, PortRule], Forward] = {}

    def plan(
        self, host: Sequence[PortRule], namespace: Sequence[PortRule]
    ) -> tuple[Forward, ...]:
        """Return the forwards of these tables: those that stand, and new ones.

        Nothing is given back until keep() is told that this is how it is now.
        """
        wanted = [(Pif.HOST, rule) for rule in host]
        wanted += [(Pif.SPLICE, rule) for rule in namespace]
        used = [forward.numbers for forward in self._known.values()]
        return tuple(self._known.get(key) or self._make(key, used) for key in wanted)

    def keep(self, forwards: Sequence[Forward]) -> None:
        """Remember these; all others lose their ids and numbers."""
        self._known = {(each.pif, each.rule): each for each in forwards}

    def _make(self, key: tuple[Pif, PortRule], used: list[range]) -> Forward:
        pif, rule = key
        numbers = self._take(rule.ports * SOCKETS_PER_PORT[pif], used)
        used.append(numbers)
        self._next_id += 1
        return Forward(self._next_id - 1, pif, rule, numbers)

    def _take(self, count: int, used: list[range]) -> range:
        """Return free numbers, the next ones in a circle.

        Those given back last are used again last: a UDP flow may outlive its listener.
        """
        ordered = sorted(used, key=lambda numbers: numbers.start)
        end = self._first + sum(map(len, used)) + 2 * count + SPARE_NUMBERS
        circle = (self._next_number, min(end, MAX_NUMBERS))
        for start, end in (circle, (self._first, MAX_NUMBERS)):
            at = start
            for numbers in ordered:
                if numbers.stop <= at:
                    continue
                if numbers.start >= at + count:
                    break
                at = numbers.stop
            if at + count <= end:
                self._next_number = at + count
                return range(at, at + count)
        raise NumbersExhausted


def forwards_from_config(config: Config) -> tuple[Forward, ...]:
    """Return the forwards that a configuration begins with."""
    return book_for(config).plan(config.host_ports, config.ns_ports)


def tables_from_config(config: Config) -> tuple[PortTable, ...]:
    """Return the tables that a configuration begins with; a machine has only one."""
    able = Able.IFNAME
    for on, flag in (
        (config.ipv4, Able.IPV4),
        (config.ipv6, Able.IPV6),
        (config.tcp, Able.TCP),
        (config.udp, Able.UDP),
        (not config.for_machine, Able.SCAN),
    ):
        able |= flag if on else Able(0)
    host = PortTable(Side.HOST, able, config.host_ports)
    if config.for_machine:
        return (host,)
    return host, PortTable(Side.SPLICE, able, config.ns_ports)


def book_for(config: Config) -> ForwardBook:
    """Return a book whose numbers come behind those of the relay."""
    return ForwardBook(relay_numbers(config)[1].stop)


def unix_targets(config: Config) -> tuple[str, ...]:
    """Return the UNIX sockets of the host to which ports of the namespace lead."""
    paths = (rule.to_path for rule in config.ns_ports)
    return tuple(dict.fromkeys(path for path in paths if path is not None))


def needs_namespace_sockets(config: Config) -> bool:
    """Tell whether any flow begins or ends at a socket inside the namespace."""
    if config.ns_ports:
        return True
    return any(
        rule.scan or (config.splice and rule.target is None)
        for rule in config.host_ports
    )
