# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of bytes a second between real kernels.

A machine that is busy makes everything slower, so what is asserted is that nothing is
faster than it may be, and that all of it arrives.
"""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab import REMOTE4, REMOTE6, Lab, tcp_pair
from tests.netns.policed import NONE, Policed, policed
from tests.netns.resolvers import serving

RATE = 1_000_000  # bytes a second
MARGIN = 1.15
SIZE = 2_500_000
BURST = RATE // 10
PATIENCE = 60.0
SLOW = ("--rate-in", "8M", "--rate-out", "8Mbit/s")


@pytest.fixture
def slow(lab: Lab) -> Iterator[Policed]:
    with policed(lab, *SLOW, "--allow", "@internet", "--allow", "@private") as it:
        yield it


def seconds_for(source: socket.socket, sink: socket.socket, size: int) -> float:
    """How long so many bytes take."""
    source.settimeout(PATIENCE)
    sink.settimeout(PATIENCE)
    begin = time.monotonic()
    sender = threading.Thread(target=source.sendall, args=(bytes(size),))
    sender.start()
    left = size
    while left:
        got = len(sink.recv(1 << 20))
        assert got, f"{left} bytes are missing"
        left -= got
    took = time.monotonic() - begin
    sender.join()
    return took


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])
@pytest.mark.parametrize("upload", [True, False], ids=["upload", "download"])
def test_a_connection_is_no_faster_than_it_may_be(
    lab: Lab, remote: str, upload: bool
) -> None:
    with serving(lab, *NONE, *SLOW) as it:
        near, far = tcp_pair(it.guest, lab.remote, remote)
        with near, far:
            ends = (near, far) if upload else (far, near)
            took = seconds_for(*ends, SIZE)
    assert took >= (SIZE - BURST) / RATE / MARGIN


def test_an_end_comes_after_all_bytes(lab: Lab) -> None:
    with serving(lab, *NONE, *SLOW) as it:
        near, far = tcp_pair(it.guest, lab.remote, REMOTE4)
        with near, far:
            for source, sink in ((near, far), (far, near)):
                source.sendall(bytes(300_000))
                source.shutdown(socket.SHUT_WR)
                sink.settimeout(PATIENCE)
                got = 0
                while piece := sink.recv(1 << 20):
                    got += len(piece)
                assert got == 300_000


def test_datagrams_beyond_the_rate_are_dropped(lab: Lab, slow: Policed) -> None:
    with (
        lab.remote.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
        slow.guest.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
    ):
        far.bind((REMOTE4, 7003))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        near.connect((REMOTE4, 7003))
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            near.send(bytes(1000))
        took = time.monotonic() - begin
        far.settimeout(1.0)
        got = 0
        try:
            while True:
                got += len(far.recv(2000))
        except TimeoutError:
            pass
        took = time.monotonic() - begin
    assert 0 < got <= (took * RATE + BURST) * MARGIN
    assert slow.counters()["meter_dropped"] > 0
