# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that come and go: whose packets they hold, and that they stop nobody."""

import errno
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from passtpy.control.capture import PIECE
from passtpy.flow import Action, flows_in
from tests.datapath.captured import ALL, BOTH, SOCKETS, TAP, Capture, headers, payloads
from tests.datapath.conftest import Server
from tests.datapath.guest import Guest, answer, forward_to, later
from tests.datapath.packets import echo, syn, udp
from tests.datapath.splice import World
from tests.datapath.tcp_peer import established
from tests.lab.namespace import Namespace
from tests.lab.pcapng import packets


def comment(guest: Guest) -> str:
    (flow,) = flows_in(guest.dp.flows()[0])
    return f"flow {flow.flow_id} rule {flow.rule}"


def test_both_sides_of_a_connection_with_its_flow(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    conn, peer = established(guest, server)
    conn.send(b"question")
    assert peer.recv(100) == b"question"
    conn.expect("A")
    peer.sendall(b"answer")
    conn.expect("PA", b"answer")
    found = capture.take()
    assert {each.comment for each in found} == {comment(guest)}

    tap = [(p.outbound, headers(p)) for p in found if p.interface == TAP]
    flags = [(out, str(frame[TCP].flags)) for out, frame in tap]
    assert flags[:3] == [(False, "S"), (True, "SA"), (False, "A")]
    sockets = [(p.outbound, headers(p)) for p in found if p.interface == SOCKETS]
    *_, (went, asked), (came, told) = sockets
    assert (went, came) == (True, False)
    assert bytes(asked[TCP].payload) == b"question"
    assert bytes(told[TCP].payload) == b"answer"
    name = peer.getpeername()
    assert (asked[IP].src, asked[TCP].sport, asked[TCP].dport) == (*name, server.port)
    assert (told[TCP].sport, told[IP].dst, told[TCP].dport) == (server.port, *name)
    assert told[TCP].ack == asked[TCP].seq + len(b"question")


def test_what_is_kept_for_a_full_socket_is_seen_once(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    capture = Capture(guest, sides=1 << SOCKETS)
    stream = bytes(range(256)) * 64
    for at in range(0, len(stream), 1024):
        conn.send(stream[at : at + 1024])
    got = b""
    while len(got) < len(stream):
        got += peer.recv(1 << 16)
        guest.turn()
    found = [headers(each) for each in capture.take()]
    assert b"".join(bytes(each[TCP].payload) for each in found) == stream
    at = found[0][TCP].seq
    for each in found:
        assert each[TCP].seq == at
        at += len(each[TCP].payload)


def test_datagrams_of_both_families(
    guest: Guest, udp_peer: socket.socket, udp_peer6: socket.socket
) -> None:
    capture = Capture(guest, "udp")
    for v6, peer in ((False, udp_peer), (True, udp_peer6)):
        guest.decide = forward_to(peer.getsockname()[1])
        guest.send(udp(b"abc", v6=v6))
        _, address = peer.recvfrom(100)
        peer.sendto(b"defgh", address)
        guest.recv()
    found = capture.take()
    sides = [(each.interface, each.outbound) for each in found]
    once = [(TAP, False), (SOCKETS, True), (SOCKETS, False), (TAP, True)]
    assert sides == once + once
    texts = [bytes(headers(each)[UDP].payload) for each in found]
    assert texts == [b"abc", b"abc", b"defgh", b"defgh"] * 2


@pytest.mark.root
def test_ping_has_the_identifier_of_the_socket(
    guest: Guest, ping_namespace: Namespace
) -> None:
    guest.decide = forward_to(1)
    capture = Capture(guest, "icmp")
    with ping_namespace.entered():
        guest.send(echo(77, payload=b"12345678"))
        guest.recv()
    found = capture.take()
    assert len(found) == 4
    (flow,) = flows_in(guest.dp.flows()[0])
    idents = [headers(each)[ICMP].id for each in found]
    assert idents == [77, flow.eport1, flow.eport1, 77]


def test_spliced_bytes_are_seen_at_both_sockets(guest: Guest) -> None:
    world = World(guest, socket.SOCK_STREAM)
    try:
        capture = Capture(guest, "spliced")
        client, server = world.pair(world.serve())
        client.sendall(b"hello")
        assert world.work(lambda: server.recv(5)) == b"hello"
    finally:
        world.close()
    assert payloads(capture) == [(False, b"hello"), (True, b"hello")]


def test_a_first_packet_waits_for_its_flow(guest: Guest, server: Server) -> None:
    guest.decide = later
    capture = Capture(guest, "tcp and rule 1")
    guest.send(syn())
    assert capture.take(last=False) == []
    verdict = forward_to(server.port)(guest.misses[0])
    assert verdict is not None
    guest.dp.open(guest.misses[0].miss_id, verdict)
    (first, *_) = capture.take(last=False)
    assert first.comment == comment(guest)


def test_what_becomes_no_flow_is_there_too(guest: Guest) -> None:
    guest.decide = answer(Action.REJECT)
    everything, some = Capture(guest), Capture(guest, "tcp and dst port 80")
    none, ruled = Capture(guest, "udp"), Capture(guest, "rule 9")
    guest.send(syn(dport=80))
    guest.expect("RA")
    for capture in (everything, some):
        found = capture.take()
        assert [each.comment for each in found] == ["no flow"] * 2
        assert [str(headers(p)[TCP].flags) for p in found] == ["S", "RA"]
    assert none.take() == ruled.take() == []
    assert guest.dp.capture_counts(none.number)[0] == 0


def test_snaplen_cuts_what_is_kept_and_tells_what_was_there(
    guest: Guest, udp_peer: socket.socket
) -> None:
    capture = Capture(guest, snaplen=50)
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"x" * 100))
    tap, sock = capture.take()
    assert (len(tap.data), tap.length) == (50, 14 + 20 + 8 + 100)
    assert (len(sock.data), sock.length) == (50, 20 + 8 + 100)


def test_nobody_waits_for_who_takes_nothing(
    guest: Guest, udp_peer: socket.socket
) -> None:
    capture, other = Capture(guest), Capture(guest, "tcp")
    guest.decide = forward_to(udp_peer.getsockname()[1])
    payload = b"x" * 60_000
    for number in range((16 << 20) // 2 // len(payload) + 50):
        guest.send(udp(payload))
        assert udp_peer.recv(1 << 16) == payload, number
    seen_tap, lost_tap, seen_sock, lost_sock, waiting = guest.dp.capture_counts(
        capture.number
    )
    assert seen_tap == seen_sock == number + 1
    assert lost_tap + lost_sock > 0
    assert waiting <= 16 << 20
    assert len(capture.take()) == seen_tap + seen_sock - lost_tap - lost_sock
    assert other.take() == []


def test_captures_and_the_file_go_on_beside_each_other(guest: Guest) -> None:
    first, second = Capture(guest), Capture(guest)
    guest.send(udp(b"1"))
    first.stop()
    third = Capture(guest)
    guest.send(udp(b"2"))
    assert len(second.take()) == 2
    assert len(third.take()) == 1
    with pytest.raises(ValueError, match="no such capture"):
        guest.dp.capture_take(7, PIECE, ALL)


def test_there_are_eight_and_no_more(guest: Guest) -> None:
    running = [Capture(guest) for _ in range(8)]
    with pytest.raises(OSError, match="users") as refused:
        Capture(guest)
    assert refused.value.errno == errno.EUSERS
    running[3].stop()
    assert Capture(guest).number == 3


def test_a_limit_of_packets_or_room_leaves_the_rest(guest: Guest) -> None:
    capture = Capture(guest)
    for _ in range(5):
        guest.send(udp(b"x"))
    raw, count, full = guest.dp.capture_take(capture.number, PIECE, 2, True)
    assert (len(packets(raw)), count, full) == (2, 2, False)
    raw, count, full = guest.dp.capture_take(capture.number, 300, ALL, True)
    assert (len(packets(raw)), full) == (count, True)
    assert len(capture.take()) == 3 - count


def test_what_is_finished_takes_no_more_in(guest: Guest) -> None:
    capture = Capture(guest)
    guest.send(udp(b"1"))
    guest.dp.capture_finish(capture.number)
    guest.send(udp(b"2"))
    assert len(capture.take()) == 1


@pytest.mark.parametrize(
    "program", [b"x", bytes(48), b"\x01" + bytes(47), b"\xff" * 48]
)
def test_a_program_that_is_not_sound_is_refused(
    make_on: Iterator[Guest], program: bytes
) -> None:
    guest = make_on("plain")  # type: ignore[operator]
    with pytest.raises(ValueError, match="not sound"):
        guest.dp.capture_start(program, BOTH, 100)
