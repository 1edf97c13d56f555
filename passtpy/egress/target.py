# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads where a rule's flows go: a name, a network, a range of addresses, or a set.

The same words stand in a policy file, in a set's file, and behind --allow and --deny.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, inet_pton
from typing import Final

from passtpy.addr import V4_PREFIX, Address, inany
from passtpy.egress.model import Effect, EgressRule, Ports, Sets, Span, Targets
from passtpy.egress.names import NameFault, normalise
from passtpy.flow import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

PROTOS: Final = {
    "tcp": frozenset((IPPROTO_TCP,)),
    "udp": frozenset((IPPROTO_UDP,)),
    "icmp": frozenset((IPPROTO_ICMP, IPPROTO_ICMPV6)),
}
WILD: Final = "*."
MOST_PORT: Final = 65535
EXPECTED: Final = "a name, a network, a range of addresses or a @set"
_PORTS: Final = re.compile("[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*")
_NETWORK4: Final = re.compile("([0-9.]+)/([0-9]|[12][0-9]|3[0-2])")
_ADDRESS_LIKE: Final = re.compile("[0-9.]+(?:[/-].*)?|.*:.*")
_BUILT_IN: Final = {each.value: each for each in Sets}


class TargetFault(ValueError):
    """Why a text is no target: what was expected in its place."""


def read_target(text: str, sets: Mapping[str, Targets] | None = None) -> Targets:
    """Read one target; `sets` are those that may be named besides the usual ones."""
    if text.startswith("@"):
        return _read_set(text, sets or {})
    if _ADDRESS_LIKE.fullmatch(text):
        return Targets(spans=(read_span(text),))
    return Targets(names=(read_name(text),))


def read_name(text: str) -> str:
    """Read a name, or `*.` and a name, in the form in which it is compared."""
    wild = WILD if text.startswith(WILD) else ""
    rest = text.removeprefix(wild)
    if "*" in rest:
        raise TargetFault(
            f"{text!r}: a star stands for the front of a name only: *.NAME"
        )
    try:
        return wild + normalise(rest)
    except NameFault as fault:
        raise TargetFault(f"{text!r}: expected {EXPECTED}; {fault}") from None


def read_span(text: str) -> Span:
    """Read `ADDR`, `ADDR/LEN` or `ADDR-ADDR`."""
    first, dash, last = text.partition("-")
    try:
        if dash:
            return _span(_address(first), _address(last), text)
        if "/" not in text:
            address = _address(text)
            return _span(address, address, text)
        if (plain := _network4(text)) is not None:
            return plain
        network = ip_network(text)
    except TargetFault:
        raise
    except ValueError as error:
        raise TargetFault(f"{text!r}: expected {EXPECTED}; {error}") from None
    if isinstance(network, IPv6Network) and network.network_address.scope_id:
        raise TargetFault(f"{text!r}: a network has no interface")
    return Span(inany(network[0]), inany(network[-1]))


def _network4(text: str) -> Span | None:
    """Read an IPv4 network if it is written as usual: large sets have many."""
    found = _NETWORK4.fullmatch(text)
    if found is None:
        return None
    try:
        packed = inet_pton(AF_INET, found[1])
    except OSError:
        return None
    first, rest = int.from_bytes(packed, "big"), (1 << 32) - 1 >> int(found[2])
    if first & rest:
        return None
    return Span(V4_PREFIX + packed, V4_PREFIX + (first | rest).to_bytes(4, "big"))


def _address(text: str) -> Address:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id:
        raise TargetFault(f"{text!r}: an address stands here without an interface")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise TargetFault(f"{text!r}: write {address.ipv4_mapped}")
    return address


def _span(first: Address, last: Address, text: str) -> Span:
    if first.version != last.version:
        raise TargetFault(f"{text!r}: a range is of one family")
    if inany(first) > inany(last):
        raise TargetFault(f"{text!r}: a range ends where it begins, or above")
    return Span(inany(first), inany(last))


def _read_set(text: str, sets: Mapping[str, Targets]) -> Targets:
    if text in _BUILT_IN:
        return Targets(sets=frozenset((_BUILT_IN[text],)))
    found = sets.get(text[1:])
    if found is None:
        known = ", ".join([*_BUILT_IN, *(f"@{name}" for name in sets)])
        raise TargetFault(f"{text!r}: there is no such set; there are {known}")
    return found


def read_ports(text: str) -> tuple[Ports, ...]:
    """Read `22`, `22-80`, or several of them with commas between."""
    if _PORTS.fullmatch(text) is None:
        raise TargetFault(f"{text!r}: expected ports, as 443 or 8000-8010")
    return tuple(_read_port(each) for each in text.split(","))


def _read_port(text: str) -> Ports:
    first, dash, last = text.partition("-")
    return check_ports(int(first), int(last if dash else first))


def check_ports(first: int, last: int) -> Ports:
    """Return the ports from the first to the last."""
    if not 0 < first <= last <= MOST_PORT:
        raise TargetFault(f"expected ports from 1 to {MOST_PORT}, rising")
    return Ports(first, last)


def read_word(text: str, effect: Effect, sets: Mapping[str, Targets]) -> EgressRule:
    """Read a rule of the command line: `NAME|CIDR|@SET[:PORTS][/PROTO]`.

    An IPv6 address that ports follow stands in brackets.
    """
    where, ports, protos = text, "", frozenset[int]()
    head, slash, tail = text.rpartition("/")
    if slash and tail in PROTOS:
        where, protos = head, PROTOS[tail]
    if where.startswith("["):
        inside, bracket, ports = where[1:].partition("]")
        if not bracket or (ports and not ports.startswith(":")):
            raise TargetFault(f"{text!r}: expected [ADDR], and perhaps :PORTS")
        where, ports = inside, ports[1:]
    elif where.count(":") == 1:
        where, _, ports = where.partition(":")
        if not ports:
            raise TargetFault(f"{text!r}: expected ports behind the colon")
    if protos == PROTOS["icmp"] and ports:
        raise TargetFault(f"{text!r}: ICMP has no ports")
    return EgressRule(
        to=(where,),
        targets=read_target(where, sets),
        ports=read_ports(ports) if ports else (),
        protos=protos,
        effect=effect,
    )
