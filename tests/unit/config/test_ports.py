# SPDX-License-Identifier: GPL-2.0-or-later
"""The port grammar as a table."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.config.model import PortRule
from passtpy.config.ports import (
    MAX_PORT,
    PortContext,
    PortMode,
    PortTable,
    parse_spec,
    subtract,
)
from passtpy.errors import ConfigError

EPHEMERAL = (32768, 60999)
V4 = IPv4Address("192.0.2.1")
V6 = IPv6Address("2001:db8::1")
LO = ip_address("::1")


def rules(*specs: str, **context: object) -> list[PortRule]:
    settings = {"ephemeral": EPHEMERAL} | context
    table = PortTable(PortContext(**settings))  # type: ignore[arg-type]
    for spec in specs:
        table.add(spec)
    return table.rules


def rule(first: int, last: int | None = None, delta: int = 0) -> PortRule:
    return PortRule(None, None, first, last or first, delta)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("22", [rule(22)]),
        ("22:23", [rule(22, 22, 1)]),
        ("22,25,80:8080", [rule(22), rule(25), rule(80, 80, 8000)]),
        ("22-80", [rule(22, 80)]),
        ("22-80:32-90", [rule(22, 80, 10)]),
        ("8080-8080:80-80", [rule(8080, 8080, -8000)]),
        ("00022", [rule(22)]),
        ("65535", [rule(65535)]),
        ("192.0.2.1/22", [PortRule(V4, None, 22, 22)]),
        ("[192.0.2.1]/22", [PortRule(V4, None, 22, 22)]),
        ("[2001:db8::1]/22", [PortRule(V6, None, 22, 22)]),
        ("::1/22", [PortRule(LO, None, 22, 22)]),
        ("%eth0/22", [PortRule(None, "eth0", 22, 22)]),
        ("192.0.2.1%eth0/22", [PortRule(V4, "eth0", 22, 22)]),
        ("[2001:db8::1]%eth0/22", [PortRule(V6, "eth0", 22, 22)]),
        ("2000-5000,~3000-3010", [rule(2000, 2999), rule(3011, 5000)]),
        ("~3000-3010,2000-5000", [rule(2000, 2999), rule(3011, 5000)]),
        ("20-30:120-130,~25", [rule(20, 24, 100), rule(26, 30, 100)]),
        (
            "192.0.2.1/20-30,~25",
            [PortRule(V4, None, 20, 24), PortRule(V4, None, 26, 30)],
        ),
        ("20-30,~10-40", []),
    ],
)
def test_lists_become_rules(spec: str, expected: list[PortRule]) -> None:
    assert rules(spec) == expected


@pytest.mark.parametrize(
    ("spec", "spans", "ifname"),
    [
        ("~9000", [(1, 8999), (9001, 32767), (61000, 65535)], None),
        ("%eth0/~9000-9100", [(1, 8999), (9101, 32767), (61000, 65535)], "eth0"),
        ("~32000-40000", [(1, 31999), (61000, 65535)], None),
    ],
)
def test_only_exclusions_mean_all_others_weakly(
    spec: str, spans: list[tuple[int, int]], ifname: str | None
) -> None:
    assert rules(spec) == [PortRule(None, ifname, a, b, 0, True) for a, b in spans]


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
        "~30-20",
        "/22",
        "%/22",
        "192.0.2.1/",
        "192.0.2/22",
        "192.0.2.256/22",
        "[192.0.2.1/22",
        "2001:db8::1%eth0%x/",
        "[2001:db8::1%eth0]/22",
        "%an-interface-name-too-long/22",
        "a/b/22",
        "2\u0662",
        "1_0",
        "NONE",
    ],
)
def test_what_breaks_the_grammar_is_named_whole(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(spec)
    assert str(caught.value) == f"Invalid port specifier {spec}"


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["0"], "Can't forward port 0 for option '-t 0'"),
        (["0-10"], "Can't forward port 0 for option '-t 0-10'"),
        (["22:0"], "Can't forward port 0 for option '-t 22:0'"),
        (["1-9,~2-4,~4-5"], "Overlapping excluded ranges 1-9,~2-4,~4-5"),
        (["22", "22"], "Forwarding configuration conflict: */22-22 versus */22-22"),
        (["22,22"], "Forwarding configuration conflict: */22-22 versus */22-22"),
        (
            ["20-30", "192.0.2.1/25"],
            "Forwarding configuration conflict: 192.0.2.1/25-25 versus */20-30",
        ),
        (
            ["%eth0/22", "22"],
            "Forwarding configuration conflict: */22-22 versus */22-22",
        ),
        (
            ["%eth0/22", "%eth0/20-30"],
            "Forwarding configuration conflict: */20-30 versus */22-22",
        ),
        (["none", "none"], "Port forwarding mode 'none' conflicts with previous mode"),
        (["auto", "none"], "Port forwarding mode 'none' conflicts with previous mode"),
        (["22", "none"], "Port forwarding mode 'none' conflicts with previous mode"),
        (
            ["none", "22"],
            "Specific ports cannot be specified together with all/none/auto",
        ),
        (
            ["auto", "22"],
            "Specific ports cannot be specified together with all/none/auto",
        ),
        (["all"], "'all' port forwarding is only allowed for passt"),
    ],
)
def test_contradictions_are_named(specs: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(*specs)
    assert str(caught.value) == message


def test_two_interfaces_may_share_a_port() -> None:
    assert len(rules("%eth0/22", "%eth1/22:23")) == 2


def test_two_addresses_may_share_a_port() -> None:
    assert len(rules("192.0.2.1/22", "198.51.100.1/22", "::1/22")) == 3


@pytest.mark.parametrize(
    ("spec", "context", "message"),
    [
        (
            "192.0.2.1/22",
            {"ipv4": False},
            "IPv4 is disabled, can't use -t 192.0.2.1/22",
        ),
        ("::1/22", {"ipv6": False}, "IPv6 is disabled, can't use -t ::1/22"),
        ("::1/22", {"takes_address": False}, "Invalid port specifier ::1/22"),
        ("%lo/22", {"takes_address": False}, "Invalid port specifier %lo/22"),
        (
            "%lo/22",
            {"binds_devices": False},
            "Device binding for '-t %lo/22' unsupported (requires kernel 5.7+)",
        ),
        (
            "auto",
            {"prog_mode": "passt"},
            "'auto' port forwarding is only allowed for pasta",
        ),
    ],
)
def test_context_can_refuse(
    spec: str, context: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(spec, **context)
    assert str(caught.value) == message


def test_all_spares_the_ephemeral_ports() -> None:
    found = rules("all", prog_mode="passt")
    assert [(r.first, r.last, r.weak) for r in found] == [
        (1, 32767, True),
        (61000, 65535, True),
    ]


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_modes_leave_no_rules(mode: str) -> None:
    table = PortTable(PortContext())
    table.add(mode)
    assert (table.mode, table.rules) == (PortMode(mode), [])


def test_too_many_ranges_are_refused() -> None:
    every_other = ",".join(str(2 * n + 1) for n in range(256))
    with pytest.raises(ConfigError, match="Too many port forwarding ranges"):
        rules(every_other)


def test_too_many_sockets_are_refused() -> None:
    with pytest.raises(ConfigError, match="Too many listening sockets"):
        rules(*(f"192.0.2.{n}/1-65535" for n in range(1, 5)))


spans = st.tuples(st.integers(1, 200), st.integers(1, 200)).map(
    lambda pair: (min(pair), max(pair))
)


@given(spans, st.lists(spans, max_size=5))
def test_subtraction_is_that_of_sets(
    span: tuple[int, int], holes: list[tuple[int, int]]
) -> None:
    left = set(range(span[0], span[1] + 1))
    for low, high in holes:
        left -= set(range(low, high + 1))
    found = list(subtract(span, tuple(holes)))
    assert [p for a, b in found for p in range(a, b + 1)] == sorted(left)


@given(st.text(alphabet="0123456789-,:~/%[].ae ", max_size=20))
def test_any_text_is_parsed_or_refused_by_name(text: str) -> None:
    try:
        spec = parse_spec(text)
    except ConfigError as refused:
        message = str(refused)
    else:
        message = ""
    if message:
        assert message == f"Invalid port specifier {text}"
        return
    for (low, high), delta in spec.mapped:
        assert 0 <= low <= high <= MAX_PORT
        assert 0 <= low + delta <= high + delta <= MAX_PORT
