# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions about flows, as people write them."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from passtpy.config.cli import parse_pasta
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.view import View
from passtpy.policy.decide import Decider
from passtpy.policy.question import QuestionError, answer, read_question
from passtpy.policy.rules import rules_from_view

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("2001:db8::1"),
)


def ask(
    dst: str, origin: str = "guest", proto: str = "tcp", src: str | None = None
) -> dict[str, object]:
    line = "-t 8080:80 -t 0.0.0.0/81 -t unix:/run/x:80 -u none -T 5432 -U none"
    line += " -T 5433:unix:/run/y"
    view = View.of(parse_pasta(line.split()), HOST)
    guest = GuestAddresses.from_host(HOST)
    decider = Decider(rules_from_view(view), guest)
    miss = read_question(origin, proto, src, dst, guest, view)
    return answer(decider, miss)


@pytest.mark.parametrize(
    ("question", "action", "seen"),
    [
        (
            ("198.51.100.1:443",),
            "forward",
            {
                "guest": "[192.0.2.5]:40000 -> [198.51.100.1]:443",
                "host": "[*]:* -> [198.51.100.1]:443",
            },
        ),
        (("[2001:db8:1::1]:443",), "forward", {}),
        (("192.0.2.1:22",), "forward", {"host": "[*]:* -> [127.0.0.1]:22"}),
        (("127.0.0.1:22",), "drop", {}),
        (("198.51.100.1", "guest", "icmp"), "forward", {}),
        (
            ("198.51.100.9:8080", "host"),
            "forward",
            {"guest": "[203.0.113.1]:40000 -> [192.0.2.5]:80"},
        ),
        (("127.0.0.1:8080", "host"), "splice", {}),
        (("[::1]:81", "host"), "reject", {}),
        (
            ("unix:/run/x", "host"),
            "splice",
            {"namespace": "[*]:* -> [192.0.2.5]:80"},
        ),
        (("198.51.100.9:80", "host"), "reject", {}),
        (("127.0.0.1:5433", "namespace"), "splice", {"host": "unix:/run/y"}),
        (("198.51.100.9:9", "host"), "reject", {}),
        (
            ("127.0.0.1:5432", "namespace"),
            "splice",
            {"host": "[127.0.0.1]:* -> [127.0.0.1]:5432"},
        ),
        (
            ("198.51.100.9:8080", "host", "tcp", "198.51.100.77:5"),
            "forward",
            {"guest": "[198.51.100.77]:5 -> [192.0.2.5]:80"},
        ),
    ],
)
def test_what_would_become_of_it(
    question: tuple[str, ...], action: str, seen: dict[str, str]
) -> None:
    told = ask(*question)
    assert told["action"] == action
    for side, ends in seen.items():
        assert told[side] == ends


@pytest.mark.parametrize(
    ("dst", "src", "field", "message"),
    [
        ("198.51.100.1", None, "dst", "'198.51.100.1' has no port"),
        ("2001:db8::1", None, "dst", "'2001:db8::1' has no port"),
        ("198.51.100.1:http", None, "dst", "'http' is no port"),
        ("198.51.100.1:65536", None, "dst", "'65536' is no port"),
        ("web:80", None, "dst", "'web' is no address"),
        ("198.51.100.1:80", "x", "src", "'x' is no address"),
        ("198.51.100.1:80", "::1", "src", "are of different families"),
    ],
)
def test_what_is_no_question(
    dst: str, src: str | None, field: str, message: str
) -> None:
    with pytest.raises(QuestionError, match=message) as caught:
        ask(dst, src=src)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("question", "otherwise"),
    [
        (
            ("127.0.0.1:8080", "host"),
            {"namespace": "[*]:* -> [2001:db8::5]:80"},
        ),
        (
            ("198.51.100.9:8080", "host"),
            {"guest": "[fe80::9855:9aff:fe55:9a55]:40000 -> [2001:db8::5]:80"},
        ),
        (("127.0.0.1:5432", "namespace"), {"host": "[*]:* -> [::1]:5432"}),
        (("198.51.100.1:443",), None),
        (("198.51.100.9:9", "host"), None),
    ],
)
def test_where_a_refused_connection_goes_on_is_told(
    question: tuple[str, ...], otherwise: dict[str, str] | None
) -> None:
    assert ask(*question).get("if_refused") == otherwise
