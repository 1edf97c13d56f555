# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw sockets lent to echo flows: who hears what, and who gets one.

That they do all that ping sockets do, tests/datapath/test_icmp.py shows.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from errno import EINVAL, ENOSPC
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
)
from scapy.packet import Packet

from passtpy import _native, limits
from passtpy.addr import UNSPECIFIED, inany, is_v4
from passtpy.flow import Action, Pif, Verdict
from passtpy.net.kernel.ping import may_ping, prepare_ping
from tests.datapath.guest import Guest
from tests.datapath.packets import echo
from tests.datapath.test_icmp import BOTH, echo_of, payload_of
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root
LENT = 3
MAX = 64  # of each family
KINDS = {
    False: (socket.AF_INET, socket.IPPROTO_ICMP, "127.0.0.1"),
    True: (socket.AF_INET6, socket.IPPROTO_ICMPV6, "::1"),
}


def raw_socket(v6: bool) -> socket.socket:
    family, proto, _ = KINDS[v6]
    return socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, proto)


class Lent:
    """A guest with few raw sockets, and other descriptors of the same sockets."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.ears: dict[bool, list[socket.socket]] = {False: [], True: []}
        for v6 in (False, True):
            for _ in range(LENT):
                sock = raw_socket(v6)
                self.ears[v6].append(sock.dup())
                guest.dp.ping_raw(sock.detach())

    def heard(self, v6: bool) -> list[bytes]:
        """What the kernel has put into the sockets, and the datapath not taken yet."""
        found = []
        for ear in self.ears[v6]:
            try:
                found.append(ear.recv(4096, socket.MSG_PEEK))
            except BlockingIOError:
                continue
        return found


def to_loopback(miss: _native.Miss) -> Verdict:
    host = inany(ip_address(KINDS[not is_v4(miss.oaddr)][2]))
    return Verdict(Action.FORWARD, Pif.HOST, host, miss.oport, UNSPECIFIED, 0, 1)


@pytest.fixture
def lent(guest: Guest) -> Iterator[Lent]:
    made = Namespace.create(f"passtpy-raw-{os.getpid()}")
    guest.decide = to_loopback
    with made.entered():
        it = Lent(guest)
        yield it
    for ear in (*it.ears[False], *it.ears[True]):
        ear.close()
    made.delete()


def say(packet: Packet, v6: bool) -> None:
    """Have the namespace receive this packet."""
    family, _, address = KINDS[v6]
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(packet), (address, 0))


def reply(v6: bool, ident: int, seq: int) -> Packet:
    if v6:
        return IPv6(src="::1", dst="::1") / ICMPv6EchoReply(id=ident, seq=seq)
    return IP(src="127.0.0.1", dst="127.0.0.1") / ICMP(type=0, id=ident, seq=seq)


@BOTH
def test_who_is_not_lent_hears_nothing(lent: Lent, v6: bool) -> None:
    with raw_socket(v6) as anybody:
        say(reply(v6, 500, 1), v6)
        assert anybody.recv(4096)  # it is there to be heard
    assert lent.heard(v6) == []


@BOTH
def test_who_is_lent_hears_the_answers_to_its_own_requests(
    lent: Lent, v6: bool
) -> None:
    guest = lent.guest
    guest.send(echo(500, 1, v6=v6))
    assert echo_of(guest.recv().packet).seq == 1
    say(reply(v6, 501, 2), v6)  # to somebody else's
    if not v6:  # of somebody else; ::1 has no neighbours
        stranger = reply(v6, 500, 2)
        stranger.src = "127.0.0.9"
        say(stranger, v6)
    request = IPv6(src="::1", dst="::1") / ICMPv6EchoRequest(id=500, seq=3)
    if not v6:
        request = IP(src="127.0.0.1", dst="127.0.0.1") / ICMP(id=500, seq=3)
    say(request, v6)  # somebody's with its identifier, and the kernel's answer
    assert len(lent.heard(v6)) == 1
    assert echo_of(guest.recv().packet).seq == 3
    assert lent.heard(v6) == []


@BOTH
def test_who_was_lent_hears_nothing_any_more(lent: Lent, v6: bool) -> None:
    guest = lent.guest
    guest.send(echo(500, 1, v6=v6))
    guest.recv()
    guest.advance(61)
    guest.advance(1)  # until what is over is cleared away
    assert guest.flows() == []
    say(reply(v6, 500, 3), v6)
    assert lent.heard(v6) == []
    guest.drain()
    guest.send(echo(600, 1, v6=v6))
    assert echo_of(guest.recv().packet).seq == 1
    guest.expect_nothing()


@BOTH
def test_one_identifier_and_target_twice_is_translated(lent: Lent, v6: bool) -> None:
    """Two destinations of the guest that are the same host."""
    guest = lent.guest
    far = ("2001:db8:2::21", "2001:db8:2::22") if v6 else ("198.51.100.21", "192.0.2.8")
    for seq in range(2):
        for dst in far:
            guest.put(echo(500, seq, dst.encode(), v6=v6, dst=dst))
    guest.turn()
    packets = [frame.packet for frame in guest.drain()]
    assert {flow.oport1 for flow in guest.flows()} == {500, 501}
    for dst in far:
        own = [p for p in packets if (p[IPv6] if v6 else p[IP]).src == dst]
        replies = [echo_of(packet) for packet in own]
        assert [each.id for each in replies] == [500, 500]
        assert {payload_of(each) for each in replies} == {dst.encode()}


@BOTH
def test_the_least_used_flow_makes_room(lent: Lent, v6: bool) -> None:
    guest = lent.guest
    for ident in range(LENT):
        guest.send(echo(ident, 1, v6=v6))
        assert echo_of(guest.recv().packet).id == ident
        guest.advance(0.1)
    guest.send(echo(0, 2, v6=v6))
    guest.recv()
    guest.send(echo(700, 1, v6=v6))
    assert echo_of(guest.recv().packet).id == 700
    guest.turn()
    assert {flow.eport0 for flow in guest.flows()} == {0, 2, 700}
    guest.send(echo(1, 2, v6=v6))  # back again, for the one that is now the oldest
    assert echo_of(guest.recv().packet).seq == 2


@BOTH
def test_an_error_about_anothers_request_is_not_passed_on(lent: Lent, v6: bool) -> None:
    guest = lent.guest
    guest.send(echo(500, 1, b"quote", v6=v6))
    guest.recv()
    for ident in (501, 500):
        if v6:
            own = IPv6(src="::1", dst="::1")
            quoted = own / ICMPv6EchoRequest(id=ident, seq=1, data=b"quote")
            say(own / ICMPv6DestUnreach(code=1) / quoted, v6)
        else:
            own = IP(src="127.0.0.1", dst="127.0.0.1")
            quoted = own / ICMP(id=ident, seq=1) / b"quote"
            say(own / ICMP(type=11, code=0) / quoted, v6)
    guest.turn()
    assert guest.counter("icmp_errors_to_tap") == 1
    guest.drain()


def test_only_raw_sockets_of_echo_are_taken(guest: Guest) -> None:
    with ExitStack() as stack:
        for family, kind, proto in (
            (socket.AF_INET, socket.SOCK_DGRAM, 0),
            (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
            (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        ):
            sock = stack.enter_context(socket.socket(family, kind, proto))
            with pytest.raises(OSError, match="Invalid") as caught:
                guest.dp.ping_raw(sock.fileno())
            assert caught.value.errno == EINVAL
            assert sock.fileno() >= 0
            os.fstat(sock.fileno())


def test_there_are_enough_at_some_time(guest: Guest) -> None:
    for _ in range(MAX):
        guest.dp.ping_raw(raw_socket(False).detach())
    with raw_socket(False) as sock:
        with pytest.raises(OSError, match="space") as caught:
            guest.dp.ping_raw(sock.fileno())
        assert caught.value.errno == ENOSPC


def test_none_are_opened_where_ping_sockets_are_allowed(
    ping_namespace: Namespace, guest: Guest
) -> None:
    ping_namespace.sysctl("net.ipv4.ping_group_range", "5 9")
    try:
        with ping_namespace.entered():
            assert [may_ping(gid) for gid in (4, 5, 9, 10)] == [
                False,
                True,
                True,
                False,
            ]
            assert prepare_ping(guest.dp, 7) == 0
            assert prepare_ping(guest.dp, 10) > 0
    finally:
        ping_namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")


def test_few_are_opened_where_few_files_are_allowed(
    ping_namespace: Namespace, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "spare_files", lambda: 40)
    ping_namespace.sysctl("net.ipv4.ping_group_range", "1 0")
    try:
        with ping_namespace.entered():
            assert prepare_ping(guest.dp) == 10
    finally:
        ping_namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
