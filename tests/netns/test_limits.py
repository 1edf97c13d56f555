# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of bytes a second between real kernels.

A machine that is busy makes everything slower, so what is asserted is that nothing is
faster than it may be, and that all of it arrives.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab import REMOTE4, REMOTE6, Lab, tcp_echo, tcp_pair, wait_until
from tests.netns.policed import NONE, SOON, Policed, policed, policy, tcp_to
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
        for _ in range(20):  # a busy machine may be no faster than it may be
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                near.send(bytes(1000))
            if slow.counters()["meter_dropped"] > 0:
                break
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


RULE = f"""\
[[rule]]
name = "echo"
to = "{REMOTE4}"
ports = 7001
limit = {{ total_out = "100 kB", flows = 2 }}
action = "allow"
"""


def is_reset(sock: socket.socket) -> bool:
    """Read all that there is; does a reset follow?"""
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionError:
        return True
    return False


def _limits(it: Policed) -> dict[str, object]:
    (line,) = it.say("limits", "--json").splitlines()
    told = json.loads(line)
    assert isinstance(told, dict)
    return told


def test_a_rule_has_flows_at_a_time_and_bytes_in_all(lab: Lab) -> None:
    file = policy(lab, RULE)
    with (
        tcp_echo(lab.remote, REMOTE4, 7001),
        policed(lab, "--policy", str(file)) as it,
    ):
        first = it.guest.connect(REMOTE4, 7001)
        with first, it.guest.connect(REMOTE4, 7001) as second:
            assert tcp_to(it.guest, REMOTE4, 7001) == "ConnectionRefusedError"
            it.wait_refused("echo: limit: too many flows", port=7001)
            second.settimeout(PATIENCE)
            with suppress(ConnectionError):
                second.sendall(bytes(200_000))
            for sock in (second, first):
                sock.settimeout(PATIENCE)
                assert is_reset(sock)
        assert tcp_to(it.guest, REMOTE4, 7001) == "ConnectionRefusedError"
        it.wait_refused("echo: limit: its bytes are used up", port=7001)
        it.wait_refused("echo", direction="out", bytes=100_000)
        (told,) = (e for e in it.records() if e["event"] == "policy.used_up")
        assert (told["reason"], told["direction"]) == ("echo", "out")
        limits = _limits(it)
        assert (limits["used_up"], limits["closed"], limits["flows"]) == (True, 2, 0)
        assert limits["bytes"][1] == 100_000  # type: ignore[index]

        file.write_text(f"version = 1\n{RULE.replace('100 kB', '1 MB')}")
        it.say("reload")
        wait_until(lambda: not _limits(it)["used_up"], SOON, "another limit")
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"
        assert _limits(it)["bytes"][1] == 100_000  # type: ignore[index]


def test_new_flows_a_second_are_limited_for_the_whole_guest(lab: Lab) -> None:
    file = policy(lab, f"limit.new_flows = 5\n{RULE}")
    with policed(lab, "--policy", str(file)) as it:

        def refused() -> bool:
            """On a busy machine some may come too slowly to be too many."""
            for _ in range(20):
                with it.guest.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", (REMOTE4, 7001))
            return it.counters()["meter_refused"] > 0

        wait_until(refused, SOON, "a refusal")
