# SPDX-License-Identifier: GPL-2.0-or-later
"""passt --vhost-user as a whole, with a front-end that is a machine to it."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from passtpy.log import WINDOW_NS
from passtpy.wire.vhost_user import Message, Request, VringFile
from tests.lab import HOST4, REMOTE4, Lab, wait_until
from tests.lab.vhost_frontend import Frontend
from tests.netns.machine import (
    GUEST_MAC,
    OUR_MAC,
    PATIENCE,
    Daemon,
    arp,
    connect,
    dhcp,
    passt,
)


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with passt(lab, "--vhost-user") as made:
        yield made


@contextmanager
def machine(daemon: Daemon) -> Iterator[Frontend]:
    with Frontend(connect(daemon.path)) as frontend:
        frontend.start()
        yield frontend


def receive(frontend: Frontend, wanted: Callable[[Packet], Any]) -> Packet:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        packet = Ether(frontend.receive_frame()[1])
        frontend.refill()
        if wanted(packet):
            return packet
    raise AssertionError("no such frame came")


def is_served(frontend: Frontend) -> bool:
    frontend.send_frame(bytes(arp()))
    answer = receive(frontend, lambda p: ARP in p and p[ARP].op == 2)
    return bool(answer.src == OUR_MAC)


def test_a_machine_gets_its_address_and_reaches_the_remote(daemon: Daemon) -> None:
    with machine(daemon) as frontend:
        frontend.send_frame(bytes(dhcp("discover")))
        assert receive(frontend, lambda p: DHCP in p)[BOOTP].yiaddr == HOST4
        ping = IP(src=HOST4, dst=REMOTE4) / ICMP(id=5)
        frontend.send_frame(bytes(Ether(src=GUEST_MAC, dst=OUR_MAC) / ping))
        assert receive(frontend, lambda p: ICMP in p)[IP].src == REMOTE4


def test_machines_come_one_after_the_other(daemon: Daemon) -> None:
    for _ in range(3):
        with machine(daemon) as frontend:
            assert is_served(frontend)


def test_who_comes_second_is_sent_away(daemon: Daemon) -> None:
    with machine(daemon) as frontend:
        second = connect(daemon.path)
        with second:
            assert second.recv(1) == b""
        daemon.wait_log(f"machine.refused pid={os.getpid()}")
        assert is_served(frontend)


def test_nonsense_ends_that_machine_only(daemon: Daemon) -> None:
    time.sleep(WINDOW_NS / 1e9)  # the log suppresses what is like the last lines
    with Frontend(connect(daemon.path)) as frontend:
        frontend.send_raw(b"\xff" * 12)
        frontend.wait(frontend.hung_up, "the end of the connection")
    daemon.wait_log("machine.left reason='vhost-user: ")
    with machine(daemon) as frontend:
        assert is_served(frontend)


def test_hostile_machines_leave_nothing_behind(daemon: Daemon) -> None:
    folder = Path(f"/proc/{daemon.process.pid}/fd")
    with machine(daemon) as frontend:
        assert is_served(frontend)
        before = len(list(folder.iterdir()))
    dice = random.Random(1)
    for number in range(40):
        with Frontend(connect(daemon.path)) as frontend:
            if number % 2:
                frontend.start()
            call = Message(Request.SET_VRING_CALL, VringFile(number % 3)).emit()
            data = call if number % 4 < 2 else dice.randbytes(dice.randrange(1, 99))
            frontend.send_raw(data, [frontend.memfd] * dice.randrange(1, 20))
    with machine(daemon) as frontend:
        assert is_served(frontend)
        wait_until(lambda: len(list(folder.iterdir())) == before, PATIENCE, "as before")


def test_one_off_ends_with_its_machine(lab: Lab) -> None:
    with passt(lab, "--vhost-user", "--one-off", dies=True) as daemon:
        with machine(daemon) as frontend:
            assert is_served(frontend)
        assert daemon.process.wait(PATIENCE) == 0
