# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP before the connection stands: who may open it, and what is said then."""

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6DestUnreach

from passtpy.flow import Action
from tests.datapath.conftest import Server
from tests.datapath.guest import (
    WAIT_S,
    Connection,
    Decide,
    Frame,
    Guest,
    answer,
    forward_to,
    later,
)
from tests.datapath.packets import (
    GUEST4,
    GUEST6,
    ISN,
    REMOTE4,
    SYN_OPTIONS,
    ack,
    data,
    rst,
    syn,
    tcp,
)
from tests.datapath.tcp_peer import (
    closed_port,
    full_server,
    inbound,
    listen_on,
    to_guest_as_remote,
)
from tests.lab.loopback import wait_delivered

MakeGuest = Callable[..., Guest]


def options(frame: Frame) -> dict[str, Any]:
    """TCP options of a received segment, by scapy's names."""
    return dict(frame.tcp.options)


def open_now(guest: Guest, server: Server) -> None:
    """Answer the miss that `later` left pending."""
    [miss] = guest.misses
    verdict = forward_to(server.port)(miss)
    assert verdict is not None
    guest.dp.open(miss.miss_id, verdict)


# The guest opens


def test_syn_is_answered_when_the_peer_has_accepted(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    guest.expect("SA", ack=ISN + 1)
    server.accept()


def test_syn_is_answered_over_ipv6(guest: Guest, server6: Server) -> None:
    guest.decide = forward_to(server6.port)
    guest.send(syn(v6=True))
    guest.expect("SA", ack=ISN + 1)
    server6.accept()


def test_nothing_is_said_before_the_verdict(guest: Guest, server: Server) -> None:
    guest.decide = later
    guest.send(syn())
    guest.expect_nothing()
    open_now(guest, server)
    guest.expect("SA", ack=ISN + 1)


def test_nothing_is_said_while_the_peer_is_silent(guest: Guest) -> None:
    """A full backlog drops SYNs: connect() neither succeeds nor fails."""
    with full_server() as port:
        guest.decide = forward_to(port)
        guest.send(syn())
        guest.expect_nothing()
        assert len(guest.flows()) == 1


def test_refusal_is_a_reset_with_the_right_acknowledgement(guest: Guest) -> None:
    guest.decide = forward_to(closed_port())
    guest.send(syn())
    guest.expect("RA", seq=0, ack=ISN + 1)
    assert not guest.flows()


def test_refusal_over_ipv6(guest: Guest) -> None:
    guest.decide = forward_to(closed_port())
    guest.send(syn(v6=True))
    guest.expect("RA", seq=0, ack=ISN + 1)


def test_rejected_by_the_verdict(guest: Guest) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(syn())
    guest.expect("RA", seq=0, ack=ISN + 1)


def test_dropped_by_the_verdict(guest: Guest) -> None:
    guest.decide = answer(Action.DROP)
    guest.send(syn())
    guest.expect_nothing()


def test_unroutable_destination_is_an_icmp_error(guest: Guest) -> None:
    """connect() to a broadcast address fails at once, with ENETUNREACH."""
    guest.decide = forward_to(80, host4="255.255.255.255")
    guest.send(syn())
    frame = guest.recv()
    assert frame.packet[ICMP].type == 3
    assert bytes(frame.packet[ICMP].payload)[20:24] == struct.pack("!HH", 40000, 80)


def test_unroutable_destination_is_an_icmpv6_error(guest: Guest) -> None:
    guest.decide = forward_to(80, host6="ff02::1")
    guest.send(syn(v6=True))
    assert ICMPv6DestUnreach in guest.recv().packet


def test_second_syn_is_answered_identically(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    first = guest.expect("SA", ack=ISN + 1)
    guest.send(syn())
    second = guest.expect("SA", ack=ISN + 1)
    assert first.raw == second.raw
    server.accept()
    guest.expect_nothing()


def test_second_syn_joins_the_stage(guest: Guest, server: Server) -> None:
    guest.decide = later
    guest.send(syn(), syn())
    assert len(guest.misses) == 1
    open_now(guest, server)
    guest.expect("SA", ack=ISN + 1)
    guest.expect_nothing()


def test_new_attempt_while_connecting_counts(guest: Guest) -> None:
    """The guest gave up and tries again from the same port: the last SYN counts."""
    with listen_on(backlog=0) as (listener, port):
        blocker = socket.create_connection(("127.0.0.1", port))
        guest.decide = forward_to(port)
        guest.send(syn())
        guest.send(syn(seq=7000))
        guest.expect_nothing()
        listener.accept()[0].close()
        blocker.close()
        guest.wait_for(lambda: bool(guest.flows()[0].packets1), "connected")
        guest.expect("SA", ack=7001)


def test_other_syn_after_our_answer_is_challenged(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    guest.send(syn(seq=900_000))
    guest.expect("A", seq=reply.tcp.seq + 1, ack=ISN + 1)


def test_handshake_is_sent_again_when_its_end_is_lost(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    first = guest.expect("SA", ack=ISN + 1)
    guest.advance(0.15)
    guest.expect_nothing()
    guest.advance(0.1)
    guest.expect("SA", ack=ISN + 1, seq=first.tcp.seq)


def test_handshake_that_nobody_ends_is_given_up(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    peer = server.accept()
    tries = 0
    for _ in range(200):
        tries += sum(f.flags == "SA" for f in drain_now(guest))
        if not guest.flows():
            break
        guest.advance(1)
    assert tries == 9
    guest.wait_for(lambda: not guest.flows())
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def drain_now(guest: Guest) -> list[Frame]:
    """What is there, without waiting in real time."""
    frames = []
    while (frame := guest._next(0)) is not None:
        frames.append(frame)
    return frames


def test_data_on_the_last_handshake_segment_is_not_lost(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    guest.send(data(b"early", seq=ISN + 1, ack=reply.tcp.seq + 1))
    assert server.accept().recv(100) == b"early"
    guest.expect("A", ack=ISN + 6)


def test_fin_on_the_last_handshake_segment_is_not_lost(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    guest.send(tcp("PFA", b"all", seq=ISN + 1, ack=reply.tcp.seq + 1))
    peer = server.accept()
    assert peer.recv(100) == b"all"
    assert peer.recv(100) == b""
    guest.expect("A", ack=ISN + 5)


def test_data_that_overtakes_the_last_handshake_segment(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    ours = reply.tcp.seq + 1
    guest.send(
        data(b"world", seq=ISN + 6, ack=ours), data(b"hello", seq=ISN + 1, ack=ours)
    )
    peer = server.accept()
    assert peer.recv(5) == b"hello"
    assert peer.recv(5) == b"world"


def test_wrong_acknowledgement_ends_nothing_and_is_reset(
    guest: Guest, server: Server
) -> None:
    """RFC 9293 3.10.7.4: SYN-RECEIVED, unacceptable ACK."""
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    guest.send(ack(seq=ISN + 1, ack=reply.tcp.seq + 2))
    guest.expect("R", seq=reply.tcp.seq + 2)
    guest.send(data(b"ok", seq=ISN + 1, ack=reply.tcp.seq + 1))
    assert server.accept().recv(2) == b"ok"


def test_reset_while_connecting_closes_the_socket(guest: Guest) -> None:
    with full_server() as port:
        guest.decide = forward_to(port)
        guest.send(syn())
        guest.send(rst(seq=ISN + 1))
        assert not guest.flows()
        guest.expect_nothing()


def test_stray_reset_while_connecting_is_ignored(guest: Guest) -> None:
    with full_server() as port:
        guest.decide = forward_to(port)
        guest.send(syn())
        guest.send(rst(seq=ISN + 5000))
        assert guest.flows()
        assert guest.counter("tcp_drop_rst") == 1


def test_reset_after_our_answer_resets_the_peer(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    guest.expect("SA", ack=ISN + 1)
    peer = server.accept()
    guest.send(rst(seq=ISN + 1))
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_peer_that_leaves_during_the_handshake(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    peer = server.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    guest.expect("RA", seq=reply.tcp.seq + 1, ack=ISN + 1)
    assert not guest.flows()


def test_peer_that_sends_before_the_handshake_ends(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    reply = guest.expect("SA", ack=ISN + 1)
    server.accept().sendall(b"banner")
    guest.expect_nothing()
    guest.send(ack(seq=ISN + 1, ack=reply.tcp.seq + 1))
    guest.expect("PA", seq=reply.tcp.seq + 1, payload=b"banner")


# Options


def test_all_options_are_answered(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    offered = options(guest.expect("SA"))
    assert offered["WScale"] == 7
    assert "SAckOK" in offered


def test_no_window_scale_to_a_guest_that_has_none(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn(options=[("MSS", 1460), ("SAckOK", b"")]))
    assert "WScale" not in options(guest.expect("SA"))


def test_no_sack_to_a_guest_that_has_none(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn(options=[("MSS", 1460), ("WScale", 7)]))
    assert "SAckOK" not in options(guest.expect("SA"))


@pytest.mark.parametrize(
    ("v6", "mtu", "mss"),
    [
        (False, 1500, 1460),
        (True, 1500, 1440),
        (False, 9000, 8960),
        (True, 1280, 1220),
        (False, 65520, 65480),
        (True, 65520, 65460),
    ],
)
def test_mss_offered_follows_family_and_mtu(
    make_guest: MakeGuest, server: Server, server6: Server, v6: bool, mtu: int, mss: int
) -> None:
    guest = make_guest(mtu=mtu)
    guest.decide = forward_to((server6 if v6 else server).port)
    guest.send(syn(v6=v6))
    assert options(guest.expect("SA"))["MSS"] == mss


def test_window_of_our_syn_is_not_scaled(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    assert guest.expect("SA").tcp.window >= 1460


@pytest.mark.parametrize(
    "raw",
    [
        b"\x02\x00\x05\xb4",  # length 0
        b"\x02\x01\x05\xb4",  # length 1
        b"\x02\x08\x05\xb4",  # beyond the header
        b"\x01\x01\x01\x02",  # cut after the kind
        b"\xfe\x04\x00\x00",  # experimental
        b"\x00\x02\x04\x05",  # after the end of options
        b"\x05\x02\x01\x01",  # empty SACK
    ],
)
def test_bad_options_do_not_stop_a_connection(
    guest: Guest, server: Server, raw: bytes
) -> None:
    guest.decide = forward_to(server.port)
    guest.send(tcp("S", raw, dataofs=(20 + len(raw)) // 4))
    guest.expect("SA", ack=ISN + 1)


def test_segments_respect_a_small_mss(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    conn = guest.connect(options=[("MSS", 536)])
    server.accept().sendall(bytes(5000))
    frame = guest.recv()
    assert frame.vnet.gso_size == 536 or len(frame.payload) <= 536
    assert conn.peer_syn.flags == "SA"


def test_segments_without_mss_option_are_536_bytes(
    guest: Guest, server: Server
) -> None:
    guest.decide = forward_to(server.port)
    guest.connect(options=[])
    server.accept().sendall(bytes(5000))
    frame = guest.recv()
    assert frame.vnet.gso_size == 536


# The peer opens


def test_accepted_connection_becomes_a_syn_with_the_clients_address(
    guest: Guest, server: Server
) -> None:
    _, (_, port) = inbound(guest, server)
    request = guest.expect("S", dport=80, sport=port, ack=0)
    assert request.packet.payload.src == REMOTE4
    assert request.packet.payload.dst == GUEST4
    assert {"MSS", "SAckOK", "WScale"} <= set(options(request))


def test_inbound_connection_over_ipv6(guest: Guest, server6: Server) -> None:
    _client, _ = inbound(guest, server6)
    request = guest.expect("S", dport=80)
    assert request.packet.payload.dst == GUEST6


def test_data_flows_after_the_guests_syn_ack(guest: Guest, server: Server) -> None:
    client, _ = inbound(guest, server)
    conn = Connection.accept(guest, options=SYN_OPTIONS)
    client.sendall(b"request")
    conn.expect("PA", b"request")
    conn.send(b"response")
    assert client.recv(100) == b"response"


def test_data_of_a_client_that_did_not_wait_goes_with_the_last_handshake_segment(
    guest: Guest, server: Server
) -> None:
    client, _ = inbound(guest, server)
    client.sendall(b"request")
    wait_delivered()
    request = guest.expect("S")
    guest.send(tcp("SA", ack=request.tcp.seq + 1, sport=80, dport=request.tcp.sport))
    guest.expect("PA", seq=request.tcp.seq + 1, ack=ISN + 1, payload=b"request")


def test_inbound_handshake_is_no_challenge(guest: Guest, server: Server) -> None:
    _client, _ = inbound(guest, server)
    Connection.accept(guest)
    assert guest.counter("tcp_challenge_ack") == 0
    assert guest.counter("tcp_drop_seq") == 0


def test_simultaneous_open(guest: Guest, server: Server) -> None:
    """Our SYN and a SYN of the guest cross (RFC 9293 3.5, figure 7)."""
    client, _ = inbound(guest, server)
    request = guest.expect("S")
    ports = {"sport": 80, "dport": request.tcp.sport}
    guest.send(syn(**ports))
    guest.expect("SA", seq=request.tcp.seq, ack=ISN + 1)
    guest.send(tcp("SA", seq=ISN, ack=request.tcp.seq + 1, **ports))
    guest.expect("A", ack=ISN + 1)
    guest.send(data(b"hi", seq=ISN + 1, ack=request.tcp.seq + 1, **ports))
    assert client.recv(10) == b"hi"


def test_guest_that_refuses_resets_the_client(guest: Guest, server: Server) -> None:
    client, _ = inbound(guest, server)
    for again in (False, True):
        assert guest.misses[-1].again == again
        request = guest.expect("S")
        ack, port = request.tcp.seq + 1, request.tcp.sport
        guest.send(tcp("RA", seq=0, ack=ack, sport=80, dport=port))
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_reset_with_a_wrong_acknowledgement_refuses_nothing(
    guest: Guest, server: Server
) -> None:
    _client, _ = inbound(guest, server)
    request = guest.expect("S")
    ports = {"sport": 80, "dport": request.tcp.sport}
    guest.send(tcp("RA", ack=request.tcp.seq + 2, **ports))
    guest.send(rst(seq=0, **ports))
    assert guest.flows()


def test_syn_to_a_silent_guest_is_repeated_then_given_up(
    guest: Guest, server: Server
) -> None:
    client, _ = inbound(guest, server)
    client.settimeout(WAIT_S)
    tries = 0
    for _ in range(200):
        tries += sum(f.flags == "S" for f in drain_now(guest))
        if not guest.flows():
            break
        guest.advance(1)
    assert tries == 9
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_inbound_connections_leave_no_window_behind(
    make_guest: MakeGuest, server: Server
) -> None:
    """What a SYN promised is taken back: the last window is as large as the first."""
    guest, windows = make_guest(mtu=1500), []
    for _ in range(30):
        client, _ = inbound(guest, server)
        conn = Connection.accept(guest, options=[("MSS", 1460), ("WScale", 7)])
        conn.send(b"x")
        windows.append(guest.expect("A").tcp.window)
        assert client.recv(1) == b"x"
        client.close()
        conn.expect("FA")
        conn.fin()
        guest.expect("A")
    assert windows[-1] == windows[0]


@pytest.mark.parametrize("decide", [later, answer(Action.DROP)], ids=["late", "drop"])
def test_accepted_connection_that_nobody_takes_is_reset(
    guest: Guest, server: Server, decide: Decide
) -> None:
    """An end in order would tell the client that the guest had nothing to say."""
    client, _ = inbound(guest, server, decide=decide)
    guest.wait_for(lambda: bool(guest.misses), "miss")
    guest.advance(3)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_listener_decision_is_asked_with_both_addresses(
    guest: Guest, server: Server
) -> None:
    _, (_, port) = inbound(guest, server, decide=later)
    guest.wait_for(lambda: bool(guest.misses), "miss")
    miss = guest.misses[0]
    assert (miss.eport, miss.listener) == (port, 5)
    guest.dp.open(miss.miss_id, to_guest_as_remote(miss))
    guest.expect("S", sport=port)
