# SPDX-License-Identifier: GPL-2.0-or-later
"""A report says what it said, or nothing: no text makes its reader do anything else."""

import json
import os
import pickle
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

import pytest

from passtpy.config.host import HostInfo
from passtpy.errors import SetupError
from passtpy.net.host.template import ABSENT, Family, Plan
from passtpy.net.kernel.rtnl import Link, LinkAddress, Route
from passtpy.net.namespace import guest, report
from passtpy.net.namespace.guest import Guest

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    guests=frozenset((IPv6Address("2001:db8::5"), IPv4Address("192.0.2.6"))),
    choices=(IPv4Address("192.0.2.5"),),
    guest_mac=b"\x02\0\0\0\0\1",
    neighbours={IPv4Address("192.0.2.1"): b"\x02\0\0\0\0\2"},
    template4="eth0",
)
FAMILY = Family(
    Link(2, "eth0", b"\x02\0\0\0\0\3", 1500, 0x43),
    (LinkAddress(2, IPv4Interface("192.0.2.5/24"), 0, 0x80, broadcast="192.0.2.255"),),
    (Route(2, IPv4Network("0.0.0.0/0"), 2, "192.0.2.1", attributes=((6, b"\0\1"),)),),
    IPv4Address("192.0.2.1"),
    default=True,
)
PLAN = Plan(FAMILY, ABSENT, "eth0", HOST)
GUEST = Guest(HOST, "eth0", 65520, 0x6F, ("a \udc80 name",), 2, PLAN)


def test_what_is_read_is_what_was_written() -> None:
    assert report.read(Guest, report.write(GUEST)) == GUEST


def changed(change: Callable[[list[object]], object]) -> bytes:
    plain = json.loads(report.write(GUEST))
    change(plain)
    return json.dumps(plain).encode()


def put(index: int, value: object) -> bytes:
    return changed(lambda plain: plain.__setitem__(index, value))


NONSENSE = [
    b"",
    b"{",
    b"[]",
    b"[" * 100_000,
    pickle.dumps(GUEST),
    report.write(GUEST) + b"x",
    changed(lambda plain: plain.pop()),
    changed(lambda plain: plain.append(0)),
    put(0, {"__class__": "os"}),
    put(0, None),
    put(1, 7),
    put(1, "x" * 5000),
    put(2, "1500"),
    put(2, True),
    put(2, 1.5),
    put(2, 1 << 40),
    put(2, float("nan")),
    put(4, ["text", 1]),
    put(4, "text"),
    put(6, 0),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_whatever_else_is_refused(text: bytes) -> None:
    with pytest.raises(report.ReportError):
        report.read(Guest, text)


def test_a_text_without_end_is_refused() -> None:
    with pytest.raises(report.ReportError, match="too long"):
        report.read(Guest, b" " * (report.TEXT_MAX + 1))


def hear(what: bytes, text: bytes, *more: int) -> Guest:
    """Receive this report, as if a child had sent it."""
    ours, theirs = guest.control_pair()
    file = os.memfd_create("report")
    os.write(file, text)
    socket.send_fds(theirs, [what], [file, *more])
    os.close(file)
    theirs.close()
    try:
        return guest.receive(ours)
    finally:
        ours.close()


def test_a_report_is_heard() -> None:
    assert hear(b"r", report.write(GUEST)).plan == PLAN


@pytest.mark.parametrize("text", [b"nonsense", put(2, 0), put(2, 65536), put(5, -1)])
def test_nonsense_is_an_error_line(text: bytes) -> None:
    with pytest.raises(SetupError, match="reported nonsense"):
        hear(b"r", text)


def test_a_tap_that_is_none_is_an_error_line() -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    with pytest.raises(SetupError, match="not a tap device"):
        hear(b"r", report.write(GUEST), fd)
    os.close(fd)


def test_an_error_is_one_line_that_a_terminal_can_show() -> None:
    with pytest.raises(SetupError, match=r"^no \?\[2Jluck\?$"):
        hear(b"e", b"no \x1b[2Jluck\n")


def test_silence_is_an_error_line() -> None:
    ours, theirs = guest.control_pair()
    theirs.close()
    with pytest.raises(SetupError, match="ended unexpectedly"):
        guest.receive(ours)
    ours.close()


def test_a_child_that_is_stopped_is_an_error_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guest, "_PATIENCE_S", 0.05)
    ours, theirs = guest.control_pair()
    with ours, theirs, pytest.raises(SetupError, match="does not answer"):
        guest.receive(ours)
