# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of a forwarding table as values, and as pesto's protocol carries them."""

from ipaddress import IPv6Address

from passtpy.addr import UNSPECIFIED, from_inany, inany
from passtpy.config.portrule import PortRule, RuleError, Side, check_ports
from passtpy.wire import pesto
from passtpy.wire.pesto import RawRule

TABLES = {Side.HOST: pesto.HOST_TABLE, Side.SPLICE: pesto.SPLICE_TABLE}
SIDES = {number: side for side, number in TABLES.items()}


def to_raw(rule: PortRule) -> RawRule:
    """Return a rule as it is on the wire."""
    flags = pesto.WEAK * rule.weak | pesto.SCAN * rule.scan
    flags |= pesto.DUAL * (rule.addr is None)
    return RawRule(
        addr=UNSPECIFIED if rule.addr is None else inany(rule.addr),
        target=UNSPECIFIED if rule.target is None else inany(rule.target),
        ifname=(rule.ifname or "").encode(errors="surrogateescape"),
        ports=(rule.first, rule.last, rule.first + rule.delta),
        proto=rule.proto,
        flags=flags,
    )


def from_raw(raw: RawRule) -> PortRule:
    """Return the rule; RuleError when the bytes contradict each other.

    The checks of a rule have an order, in which these come after that of the ports.
    """
    dual = bool(raw.flags & pesto.DUAL)
    addr = from_inany(raw.addr)
    first, last, inner = raw.ports
    target = from_inany(raw.target)
    rule = PortRule(
        proto=raw.proto,
        addr=None if dual else addr,
        ifname=raw.ifname.decode(errors="surrogateescape") or None,
        first=first,
        last=last,
        delta=inner - first,
        target=None if target.is_unspecified else target,
        weak=bool(raw.flags & pesto.WEAK),
        scan=bool(raw.flags & pesto.SCAN),
    )
    check_ports(rule)
    if raw.unknown_flags:
        raise RuleError(f"Rule has invalid flags 0x{raw.flags:x}")
    if dual and addr != IPv6Address(0):
        raise RuleError(f"Dual stack rule has non-wildcard address {addr}")
    return rule
