# SPDX-License-Identifier: GPL-2.0-or-later
"""A question about a flow, in people's words, becomes the miss that it would be."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from passtpy.addr import UNSPECIFIED, Address, from_inany, inany, parse_address
from passtpy.config.forwards import Forward
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.unixend import PREFIX, nameless
from passtpy.config.view import View
from passtpy.flow import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    Action,
    FlowMiss,
    Pif,
)
from passtpy.policy.decide import Decider
from passtpy.policy.explain import (
    VIEWERS,
    explain_miss,
    show_match,
    show_outcome,
)
from passtpy.policy.rules import SpliceToHost

ORIGINS: Final = {"guest": Pif.TAP, "host": Pif.HOST, "namespace": Pif.SPLICE}
PROTOS: Final = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "icmp": IPPROTO_ICMP}
# Who asks unless the question says it: another machine, or a program on loopback
_STRANGERS: Final = (IPv4Address("203.0.113.1"), IPv6Address("2001:db8::1"))
_LOOPBACKS: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_ANY_PORT: Final = 40000


class QuestionError(ValueError):
    """What is wrong with a question, and in which part of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read_end(text: str, field: str, port: int | None = None) -> tuple[Address, int]:
    """Read `ADDR:PORT` or `[ADDR]:PORT`; `port`: what is meant if it says none."""
    host, colon, tail = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, colon, tail = text, "", ""
    if not colon or (":" in host and not host.startswith("[")):
        host, tail = text, ""
    if not tail and port is None:
        raise QuestionError(field, f"{text!r} has no port")
    number = port if not tail else int(tail) if _is_port(tail) else -1
    if number is None or not 0 <= number <= 65535:
        raise QuestionError(field, f"{tail!r} is no port")
    return _address(host.strip("[]"), field), number


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def _address(text: str, field: str) -> Address:
    addr = parse_address(text)
    if addr is None:
        raise QuestionError(field, f"{text!r} is no address")
    return addr


def read_question(
    origin: str,
    proto: str,
    src: str | None,
    dst: str,
    guest: GuestAddresses,
    view: View,
) -> FlowMiss:
    """Return the miss that a question is about; QuestionError for what is none."""
    pif = ORIGINS[origin]
    if dst.startswith(PREFIX):
        return _by_unix_socket(dst.removeprefix(PREFIX), pif, view)
    ping = proto == "icmp"
    to, port = read_end(dst, "dst", 0 if ping else None)
    number = PROTOS[proto]
    if ping and to.version == 6:
        number = IPPROTO_ICMPV6
    if src is not None:
        who, source_port = read_end(src, "src", _ANY_PORT)
        if who.version != to.version:
            raise QuestionError("src", f"{who} and {to} are of different families")
    else:
        who, source_port = _usual_source(pif, to, guest, view), _ANY_PORT
    listener = -1
    if pif is not Pif.TAP:
        listener = _listener(pif, number, to, port, view.forwards)
    return FlowMiss(number, pif, inany(who), source_port, inany(to), port, listener)


def _usual_source(pif: Pif, to: Address, guest: GuestAddresses, view: View) -> Address:
    v6 = to.version == 6
    if pif is Pif.TAP:
        raw = guest.towards(inany(to))
        planned = view.host.guest6 if v6 else view.host.guest4
        if raw != UNSPECIFIED:
            return from_inany(raw)
        if planned is None:
            raise QuestionError("src", "the guest's address is not known: say it")
        return planned
    return _LOOPBACKS[v6] if to.is_loopback else _STRANGERS[v6]


def _by_unix_socket(path: str, pif: Pif, view: View) -> FlowMiss:
    """Return the miss of a client of a UNIX socket."""
    name = inany(nameless(view.config.ipv4))
    for forward in view.forwards:
        rule = forward.rule
        if (forward.pif, rule.path) == (pif, path):
            ends = name, _ANY_PORT, name, rule.first
            return FlowMiss(rule.proto, pif, *ends, forward.number(rule.first))
    raise QuestionError("dst", f"nothing listens at {path}")


def _listener(
    pif: Pif, proto: int, to: Address, port: int, forwards: Sequence[Forward]
) -> int:
    """Return the number of the listener that would get it, or -1."""
    for forward in forwards:
        rule = forward.rule
        if (forward.pif, rule.proto) != (pif, proto) or port not in forward.ports:
            continue
        if rule.path is not None:
            continue
        if rule.addr is None or rule.addr == to:
            return forward.number(port)
        if rule.addr.is_unspecified and rule.addr.version == to.version:
            return forward.number(port)
    return -1


def answer(decider: Decider, miss: FlowMiss, name: str | None = None) -> dict[str, Any]:
    """Return what would become of a flow, for programs.

    `name`: what the guest asked for to know where it goes.
    """
    names = None if name is None else _names(name)
    found = explain_miss(decider, miss, names)
    told: dict[str, Any] = {"action": found.action.name.lower()}
    if found.listed is not None:
        rule = found.listed.rule
        told["rule"] = {
            "id": found.listed.id,
            "number": found.listed.number,
            "match": show_match(rule.match),
            "outcome": show_outcome(rule.outcome),
            "why": rule.why,
        }
    told |= {VIEWERS[pif]: str(ends) for pif, ends in found.seen.items()}
    if found.listed is not None and "host" in told:
        outcome = found.listed.rule.outcome
        if isinstance(outcome, SpliceToHost) and outcome.path is not None:
            told["host"] = f"{PREFIX}{outcome.path}"
    if found.otherwise:
        told["if_refused"] = {
            VIEWERS[pif]: str(ends) for pif, ends in found.otherwise.items()
        }
    told["nearly"] = [
        {"id": listed.id, "because": f"its {condition} differs"}
        for listed, condition in found.nearly
    ]
    ruling = decider.ruling(miss.proto, decider.where(miss), names=names)
    if decider.egress is not None and ruling is not None:
        from passtpy.egress.show import show_ruling

        told["policy"] = show_ruling(decider.egress, ruling)
    if found.action in (Action.DROP, Action.REJECT):
        told["refused"] = True
    return told


def _names(name: str) -> tuple[str, ...]:
    from passtpy.egress.names import NameFault, normalise

    try:
        return (normalise(name),)
    except NameFault as fault:
        raise QuestionError("name", str(fault)) from None
