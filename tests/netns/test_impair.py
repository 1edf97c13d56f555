# SPDX-License-Identifier: GPL-2.0-or-later
"""A link that is made worse, as a guest's own kernel sees it."""

import re
import socket

from tests.lab import REMOTE4, REMOTE6, Lab, tcp_pair, transfer
from tests.netns.policed import NONE
from tests.netns.resolvers import serving

SLOWER = ("--impair", "delay=30ms,jitter=5ms", "--impair", "in,delay=50ms")
LEAST_MS = 30 - 5 + 50 - 5


def test_pings_take_at_least_the_delay(lab: Lab) -> None:
    with serving(lab, *NONE, *SLOWER) as it:
        lab.host.sysctl("net.ipv4.ping_group_range", "0 2147483647")
        for remote in (REMOTE4, REMOTE6):
            done = it.guest.run("ping", "-c", "5", "-i", "0.2", remote, check=False)
            times = [float(t) for t in re.findall(r"time=([0-9.]+)", done.stdout)]
            assert times, done.stdout
            assert min(times) >= LEAST_MS


def test_bytes_arrive_through_loss_and_another_order(lab: Lab) -> None:
    worse = "delay=5ms,jitter=3ms,loss=2%,reorder"
    with serving(lab, *NONE, "--impair", worse) as it:
        near, far = tcp_pair(it.guest, lab.remote, REMOTE4)
        with near, far:
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transfer(near, far, 1_000_000)
            transfer(far, near, 1_000_000)
