# SPDX-License-Identifier: GPL-2.0-or-later
"""The port options as one list: where we listen, and under which listener numbers.

A listener number is all that a miss tells about the socket it came from. Every forward
owns a range of numbers, so that one rule is about all of its sockets, and a port's
number follows from the port. Numbers cost nothing until they are used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from passtpy.addr import Address
from passtpy.config.model import Config, PortRule
from passtpy.config.ports import MAX_PORT
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, Pif

LOOPBACK_DEVICE = "lo"
MAX_ASKERS = 64  # sockets that wait for answers to requests to a group
# Without the right to bind to a device, a port of the namespace needs two sockets.
SOCKETS_PER_PORT = {Pif.HOST: 1, Pif.SPLICE: 2}


@dataclass(frozen=True, slots=True)
class Forward:
    """Ports of one side and protocol; `pif` is where their sockets listen.

    `address` None is any address of both families. `auto`: only those ports are
    open on which the other side listens.
    """

    pif: Pif
    proto: int
    numbers: range
    ports: range
    delta: int
    address: Address | None
    ifname: str | None
    weak: bool
    auto: bool
    why: str

    def number(self, port: int, nth: int = 0) -> int:
        """Return the listener number of the `nth` socket of a port."""
        return self.numbers[
            (port - self.ports.start) * SOCKETS_PER_PORT[self.pif] + nth
        ]


def _place(
    pif: Pif, rule: PortRule, config: Config
) -> tuple[Address | None, str | None]:
    """Return where to listen for `rule`.

    In both families, also if the host has one of them only: the other may come later,
    when we have no right to open a port any more.
    """
    address = rule.host_addr
    if address is None and not (config.ipv4 and config.ipv6):
        address = IPv4Address(0) if config.ipv4 else IPv6Address(0)
    return address, LOOPBACK_DEVICE if pif is Pif.SPLICE else rule.ifname


def forwards_from_config(config: Config) -> Iterator[Forward]:
    """Yield everything to listen on, in the order of the options -t -u -T -U."""
    number = relay_numbers(config)[1].stop  # those come first
    for pif, proto, option, rules, auto in (
        (Pif.HOST, IPPROTO_TCP, "-t", config.tcp_ports, config.tcp_ports_auto),
        (Pif.HOST, IPPROTO_UDP, "-u", config.udp_ports, config.udp_ports_auto),
        (Pif.SPLICE, IPPROTO_TCP, "-T", config.tcp_ns, config.tcp_ns_auto),
        (Pif.SPLICE, IPPROTO_UDP, "-U", config.udp_ns, config.udp_ns_auto),
    ):
        if auto:
            rules = (PortRule(None, None, 1, MAX_PORT),)
        for rule in rules:
            numbers = range(number, number + rule.ports * SOCKETS_PER_PORT[pif])
            number = numbers.stop
            ports = range(rule.first, rule.last + 1)
            where = _place(pif, rule, config)
            why = f"{option} auto" if auto else str(rule)
            yield Forward(
                pif, proto, numbers, ports, rule.delta, *where, rule.weak, auto, why
            )


def relay_numbers(config: Config) -> tuple[range, range]:
    """Return the listener numbers of relayed groups, and of those who asked one."""
    groups = range(len(config.multicast_relay))
    askers = MAX_ASKERS if config.multicast_relay else 0
    return groups, range(groups.stop, groups.stop + askers)


def needs_namespace_sockets(config: Config) -> bool:
    """Tell whether any flow begins or ends at a socket inside the namespace."""
    inbound = (config.tcp_ports, config.udp_ports)
    autos = config.tcp_ports_auto or config.udp_ports_auto
    outbound = (config.tcp_ns, config.udp_ns)
    if any(outbound) or config.tcp_ns_auto or config.udp_ns_auto:
        return True
    return autos or (config.splice and any(inbound))
