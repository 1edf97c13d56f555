# SPDX-License-Identifier: GPL-2.0-or-later
"""Forwarding tables: how a rule is written, which are refused, what is deleted."""

from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from passtpy.config.portrule import (
    MAX_RULES,
    Able,
    PortRule,
    PortTable,
    RuleError,
    Side,
)
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP

ALL = Able(63)
V4, OTHER4 = ip_address("192.0.2.1"), ip_address("192.0.2.2")
V6 = ip_address("2001:db8::1")
ANY4 = IPv4Address(0)


def rule(first: int, last: int | None = None, **more: Any) -> PortRule:
    fields: dict[str, Any] = {"proto": IPPROTO_TCP, "addr": None, "ifname": None}
    return PortRule(first=first, last=last or first, **(fields | more))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (rule(80), "TCP [*]:80  =>  80 "),
        (rule(80, 81, delta=100), "TCP [*]:80-81  =>  180-181 "),
        (rule(80, addr=V4, ifname="lo"), "TCP [192.0.2.1]%lo:80  =>  80 "),
        (
            rule(80, addr=V6, target=ip_address("fd00::2"), delta=1),
            "TCP [2001:db8::1]:80  =>  fd00::2:81 ",
        ),
        (rule(53, proto=IPPROTO_UDP, weak=True), "UDP [*]:53  =>  53  (best effort)"),
        (rule(80, proxy=2), "TCP [*]:80  =>  80  (PROXY v2)"),
        (rule(53, weak=True, scan=True),
         "TCP [*]:53  =>  53  (best effort) (auto-scan)"),
    ],
)  # fmt: skip
def test_how_a_rule_is_written(given: PortRule, text: str) -> None:
    assert str(given) == text


@pytest.mark.parametrize(
    ("given", "able", "message"),
    [
        (rule(9, 8), ALL, "Rule has invalid port range 9-8"),
        (rule(0, 8), ALL, "Forwarding rule attempts to map from port 0"),
        (rule(8, delta=-8), ALL, "Forwarding rule attempts to map to port 0"),
        (rule(9, delta=65530), ALL, "Forwarding rule attempts to map to port 0"),
        (rule(9), Able.IPV4 | Able.TCP, "Dual stack forward, but IPv6 not enabled"),
        (
            rule(9, addr=V4),
            Able.IPV6 | Able.TCP,
            "IPv4 forward, but IPv4 not enabled",
        ),
        (
            rule(9),
            ALL & ~Able.TCP,
            "Can't add TCP forwarding rule, TCP not enabled",
        ),
        (
            rule(9, proto=IPPROTO_UDP, proxy=1),
            ALL,
            "The PROXY protocol is for TCP",
        ),
        (
            rule(9, proto=1),
            ALL,
            "Unsupported protocol 0x1 (ICMP) for forwarding rule",
        ),
        (
            rule(9, addr=ANY4, target=ip_address("224.0.0.1")),
            ALL,
            "Multicast target address 224.0.0.1 for forwarding rule",
        ),
        (
            rule(9, target=V4),
            ALL,
            (
                "Dual stack forward to IPv4 address 192.0.2.1 unsupported\n"
                "Did you mean 0.0.0.0/... instead?"
            ),
        ),
        (
            rule(9, target=V6),
            ALL,
            (
                "Dual stack forward to IPv6 address 2001:db8::1 unsupported\n"
                "Did you mean [::]/... instead?"
            ),
        ),
        (
            rule(9, addr=V4, target=V6),
            ALL,
            "Forward from IPv4 (192.0.2.1) to IPv6 (2001:db8::1) unsupported",
        ),
    ],
)
def test_what_no_table_takes(given: PortRule, able: Able, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        PortTable(Side.HOST, able).add(given)
    assert str(caught.value) == f"{message}\nUnable to add rule {given}"


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (rule(80), rule(80), True),
        (rule(70, 90), rule(80, addr=V4), True),
        (rule(80, addr=V4), rule(80, addr=OTHER4), False),
        (rule(80, addr=V4), rule(80, addr=V4, target=OTHER4), True),
        (rule(80, addr=ANY4), rule(80, addr=V4), True),
        (rule(80, addr=ANY4), rule(80, addr=V6), False),
        (rule(80), rule(80, proto=IPPROTO_UDP), False),
        (rule(80), rule(81), False),
        (rule(80, ifname="eth0"), rule(80, ifname="eth1"), False),
        (rule(80, ifname="eth0"), rule(80), True),
    ],
)
def test_two_rules_for_one_port_conflict(
    first: PortRule, second: PortRule, clash: bool
) -> None:
    table = PortTable(Side.HOST, ALL).add(first)
    if not clash:
        assert table.add(second).rules == (first, second)
        return
    with pytest.raises(RuleError) as caught:
        table.add(second)
    assert str(caught.value).splitlines()[0] == (
        f"Forwarding configuration conflict: {second} versus {first}"
    )


def test_a_table_is_bounded() -> None:
    full = PortTable(Side.HOST, ALL, tuple(rule(n) for n in range(1, MAX_RULES + 1)))
    with pytest.raises(RuleError, match=r"Too many rules \(maximum 255\)"):
        full.add(rule(1000))
    spans = tuple(rule(1, 65535, addr=ip_address(n)) for n in range(1, 6))
    wide = PortTable(Side.HOST, ALL, spans)
    with pytest.raises(RuleError, match="too many listening sockets"):
        wide.add(rule(1, 9, addr=ip_address(77)))


def test_only_what_is_there_as_it_stands_is_deleted() -> None:
    table = PortTable(Side.HOST, ALL).add(rule(80)).add(rule(90, 99))
    assert table.delete(rule(80)).rules == (rule(90, 99),)
    with pytest.raises(RuleError) as caught:
        table.delete(rule(95))
    assert str(caught.value) == (
        f"Specifier {rule(95)} conflicts with rule {rule(90, 99)},"
        f" but doesn't match it, can't delete\nUnable to delete rule {rule(95)}"
    )
    with pytest.raises(RuleError) as caught:
        table.delete(rule(7))
    assert str(caught.value) == (
        f"Couldn't find forwarding rule to delete: {rule(7)}\n"
        f"Unable to delete rule {rule(7)}"
    )
    assert not table.cleared().rules
