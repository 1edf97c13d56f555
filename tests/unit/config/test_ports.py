# SPDX-License-Identifier: GPL-2.0-or-later
"""The port grammar as a table: what a specification makes, and what is none."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import Address
from passtpy.config.portrule import MAX_PORT, PortRule, Side
from passtpy.config.ports import PortContext, read_ports, subtract
from passtpy.errors import ConfigError
from passtpy.flow import IPPROTO_TCP

EPHEMERAL = (32768, 60999)
V4 = IPv4Address("192.0.2.1")
V6 = IPv6Address("2001:db8::1")
INNER4 = IPv4Address("198.51.100.7")
INNER6 = IPv6Address("fd00::2")
ANY4, ANY6 = IPv4Address(0), IPv6Address(0)


def read(spec: str, **context: Any) -> list[PortRule]:
    settings: dict[str, Any] = {
        "option": "-t",
        "proto": IPPROTO_TCP,
        "ephemeral": EPHEMERAL,
    } | context
    return list(read_ports(spec, PortContext(**settings)))


def rule(
    first: int,
    last: int | None = None,
    delta: int = 0,
    addr: Address | None = None,
    ifname: str | None = None,
    **more: Any,
) -> PortRule:
    return PortRule(IPPROTO_TCP, addr, ifname, first, last or first, delta, **more)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("22", [rule(22)]),
        ("0", [rule(0)]),  # a table refuses it
        ("22:23", [rule(22, 22, 1)]),
        ("22,25,80:8080", [rule(22), rule(25), rule(80, 80, 8000)]),
        ("22,80:8080,proxy=v1", [rule(22, proxy=1), rule(80, 80, 8000, proxy=1)]),
        ("192.0.2.1/proxy=v2,22", [rule(22, addr=V4, proxy=2)]),
        ("22-80", [rule(22, 80)]),
        ("22-80:32-90", [rule(22, 80, 10)]),
        ("8080-8080:80-80", [rule(8080, 8080, -8000)]),
        ("00022", [rule(22)]),
        ("65535", [rule(65535)]),
        ("192.0.2.1/22", [rule(22, addr=V4)]),
        ("[192.0.2.1]/22", [rule(22, addr=V4)]),
        ("::ffff:192.0.2.1/22", [rule(22, addr=V4)]),
        ("[2001:db8::1]/22", [rule(22, addr=V6)]),
        ("2001:db8::1/22", [rule(22, addr=V6)]),
        ("1234::1/80", [rule(80, addr=IPv6Address("1234::1"))]),
        ("::1/22", [rule(22, addr=IPv6Address("::1"))]),
        ("%eth0/22", [rule(22, ifname="eth0")]),
        ("*%eth0/22", [rule(22, ifname="eth0")]),
        ("*/22", [rule(22)]),
        ("/22", [rule(22)]),
        ("0.0.0.0/22", [rule(22, addr=ANY4)]),
        ("::/22", [rule(22, addr=ANY6)]),
        ("192.0.2.1%eth0/22", [rule(22, addr=V4, ifname="eth0")]),
        ("[2001:db8::1]%eth0/22", [rule(22, addr=V6, ifname="eth0")]),
        ("2000-5000,~3000-3010", [rule(2000, 2999), rule(3011, 5000)]),
        ("~3000-3010,2000-5000", [rule(2000, 2999), rule(3011, 5000)]),
        ("1-9,~2-4,~4-5", [rule(1), rule(6, 9)]),
        ("20-30:120-130,~25", [rule(20, 24, 100), rule(26, 30, 100)]),
        ("192.0.2.1/20-30,~25", [rule(20, 24, addr=V4), rule(26, 30, addr=V4)]),
        ("20-30,~10-40", []),
        ("80:198.51.100.7", [rule(80, target=INNER4)]),
        ("80:[198.51.100.7]/81", [rule(80, 80, 1, target=INNER4)]),
        ("80:fd00::2", [rule(80, target=INNER6)]),
        ("80:[fd00::2]/81", [rule(80, 80, 1, target=INNER6)]),
        ("80:fd00::2/81", [rule(80, 80, 1, target=INNER6)]),
        ("8080:fd00::2/81", [rule(8080, 8080, -7999, target=INNER6)]),
        ("0.0.0.0/80-81:198.51.100.7/180-181", [
            rule(80, 81, 100, addr=ANY4, target=INNER4)]),
        ("[::]/8080:fd00::2/80", [rule(8080, 8080, -8000, addr=ANY6, target=INNER6)]),
        ("80:0.0.0.0", [rule(80)]),
        ("80:::", [rule(80)]),
        ("8000-8010,auto", [rule(8000, 8010, scan=True)]),
        ("all,33000", [rule(33000)]),
    ],
)  # fmt: skip
def test_what_a_specification_makes(spec: str, expected: list[PortRule]) -> None:
    assert read(spec) == expected


@pytest.mark.parametrize(
    ("spec", "spans", "more"),
    [
        ("all", [(1, 32767), (61000, 65535)], {}),
        ("auto", [(1, 32767), (61000, 65535)], {"scan": True}),
        ("auto,~1-1023", [(1024, 32767), (61000, 65535)], {"scan": True}),
        ("127.0.0.1/auto", [(1, 32767), (61000, 65535)],
         {"scan": True, "addr": IPv4Address("127.0.0.1")}),
        ("0.0.0.0/all:198.51.100.7", [(1, 32767), (61000, 65535)],
         {"addr": ANY4, "target": INNER4}),
        ("all:fd00::1,all:fd00::2", [(1, 32767), (61000, 65535)], {"target": INNER6}),
        ("~9000", [(1, 8999), (9001, 32767), (61000, 65535)], {}),
        ("%eth0/~9000-9100", [(1, 8999), (9101, 32767), (61000, 65535)],
         {"ifname": "eth0"}),
        ("~32000-40000", [(1, 31999), (61000, 65535)], {}),
    ],
)  # fmt: skip
def test_without_a_range_all_ports_that_are_not_ephemeral_are_meant_weakly(
    spec: str, spans: list[tuple[int, int]], more: dict[str, Any]
) -> None:
    assert read(spec) == [rule(a, b, weak=True, **more) for a, b in spans]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        " 22",
        "22 ",
        "+22",
        "-22",
        "22-",
        "-",
        "x",
        "0x16",
        "22,",
        ",22",
        "22,,23",
        "65536",
        "99999999999999999999999",
        "30-20",
        "22:",
        ":22",
        "22:23:24",
        "22-80:32-91",
        "22-80:32",
        "1-2-3",
        "~",
        "~22:23",
        "~22:192.0.2.1",
        "~30-20",
        "%/22",
        "%./22",
        "%../22",
        "%a b/22",
        "192.0.2/22",
        "192.0.2.256/22",
        "[192.0.2.1/22",
        "[*]/22",
        "2001:db8::1%eth0%x y/22",
        "[2001:db8::1%eth0]/22",
        "%an-interface-name-too-long/22",
        "a/b/22",
        "80:192.0.2.1/81/82",
        "80-81:192.0.2.1/81",
        "80:fd00::2%eth0",
        "auto:192.0.2.1",
        "auto:",
        "all:",
        "all:x",
        "none,22",
        "2\u0662",
        "1_0",
        "NONE",
    ],
)
def test_what_breaks_the_grammar_is_named_whole(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(spec)
    assert str(caught.value) == f"Invalid port specifier '{spec}'"


def test_behind_a_place_only_the_rest_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read("192.0.2.1/x")
    assert str(caught.value) == "Invalid port specifier 'x'"


@pytest.mark.parametrize(
    ("families", "addr"), [({"ipv6": False}, ANY4), ({"ipv4": False}, ANY6)]
)
def test_one_family_alone_has_its_own_wildcard(
    families: dict[str, bool], addr: Address
) -> None:
    assert read("22", **families) == [rule(22, addr=addr)]


def test_listeners_of_the_namespace_are_on_its_loopback_device() -> None:
    assert read("22", side=Side.SPLICE, option="-T") == [rule(22, ifname="lo")]
    with pytest.raises(ConfigError) as caught:
        read("192.0.2.1/22", side=Side.SPLICE, option="-T")
    assert str(caught.value) == "Listening address not allowed for -T 192.0.2.1/22"


def test_automatic_ports_need_somebody_to_look() -> None:
    with pytest.raises(ConfigError, match="'auto' port forwarding is only allowed"):
        read("80,auto", scans=False)


def test_an_interface_may_have_a_name_of_any_bytes() -> None:
    name = b"b\xfcro".decode(errors="surrogateescape")
    assert read(f"%{name}/22") == [rule(22, ifname=name)]


@pytest.mark.parametrize("name", ["lo\0x", "\ud800"])
def test_an_interface_has_no_name_that_no_kernel_takes(name: str) -> None:
    with pytest.raises(ConfigError):
        read(f"%{name}/22")


SPANS = st.tuples(st.integers(1, MAX_PORT), st.integers(1, MAX_PORT)).map(
    lambda pair: (min(pair), max(pair))
)


@given(SPANS, st.lists(SPANS, max_size=6))
def test_subtracting_leaves_exactly_the_others(
    span: tuple[int, int], holes: list[tuple[int, int]]
) -> None:
    left = [p for a, b in subtract(span, tuple(holes)) for p in (a, b)]
    assert left == sorted(left)
    edges = {p + d for pair in (span, *holes) for p in pair for d in (-1, 0, 1)}
    spans = list(subtract(span, tuple(holes)))
    for port in edges:
        inside = span[0] <= port <= span[1]
        excluded = any(a <= port <= b for a, b in holes)
        assert any(a <= port <= b for a, b in spans) is (inside and not excluded)


@given(st.text(max_size=30))
def test_any_text_is_ports_or_an_error(text: str) -> None:
    try:
        read(text)
    except ConfigError:
        return


def test_addresses_are_read_as_people_write_them() -> None:
    assert read("[::ffff:192.0.2.1]/80") == [rule(80, addr=ip_address("192.0.2.1"))]
