# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a UDP flow lives: as conntrack's would (30 s, a stream 120 s)."""

import socket

import pytest

from tests.datapath.guest import WAIT_S, Guest, forward_to
from tests.datapath.packets import udp


@pytest.fixture
def asked(guest: Guest, udp_peer: socket.socket) -> Guest:
    """A guest that sent one datagram."""
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"question"))
    udp_peer.connect(udp_peer.recvfrom(100)[1])
    return guest


def test_unanswered_flow_ends_after_30_seconds(asked: Guest) -> None:
    asked.advance(29.9)
    assert len(asked.flows()) == 1
    asked.advance(0.2)
    assert asked.flows() == []


def test_question_and_answer_are_no_stream(
    asked: Guest, udp_peer: socket.socket
) -> None:
    udp_peer.send(b"answer")
    asked.expect(payload=b"answer")
    asked.advance(30.1)
    assert asked.flows() == []


def test_stream_ends_after_120_seconds(asked: Guest, udp_peer: socket.socket) -> None:
    udp_peer.send(b"answer")
    asked.expect(payload=b"answer")
    asked.send(udp(b"more"))
    asked.advance(30.1)
    asked.advance(89.8)
    assert len(asked.flows()) == 1
    asked.advance(0.3)
    assert asked.flows() == []


def test_many_unanswered_datagrams_are_no_stream(asked: Guest) -> None:
    for _ in range(5):
        asked.send(udp(b"hello?"))
    asked.advance(30.1)
    assert asked.flows() == []


@pytest.mark.parametrize("who", ["guest", "peer"])
def test_traffic_of_either_side_keeps_a_flow(
    asked: Guest, udp_peer: socket.socket, who: str
) -> None:
    for _ in range(5):
        asked.advance(29)
        if who == "guest":
            asked.send(udp(b"x"))
        else:
            udp_peer.send(b"x")
            asked.expect(payload=b"x")
    assert len(asked.flows()) == 1


def test_the_socket_of_an_ended_flow_is_closed(
    asked: Guest, udp_peer: socket.socket
) -> None:
    ours = udp_peer.getpeername()
    asked.advance(31)
    asked.advance(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", ours[1]))
    assert asked.counter("flows_closed") == 1


def test_an_ended_flow_starts_again(asked: Guest, udp_peer: socket.socket) -> None:
    asked.advance(31)
    udp_peer.connect(("127.0.0.1", 9))  # forget who was connected
    udp_peer.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(WAIT_S)
        asked.decide = forward_to(peer.getsockname()[1])
        asked.send(udp(b"back"))
        assert peer.recv(9) == b"back"
    assert len(asked.misses) == 2
