# SPDX-License-Identifier: GPL-2.0-or-later
"""Floods of a namespace: its kernel drops what would be refused, while that goes on."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from passtpy.client.connect import Client
from passtpy.config.instance import SUFFIX
from tests.lab import TRANSLATORS, Attached, Lab
from tests.lab.namespace import wait_until
from tests.lab.translators import Attachment

RUNTIME = Path("/run/passtpy")  # of root's instances
ARP = 0x0806
FRAMES = 60_000
BROADCAST = b"\xff" * 6
WHO_HAS = bytes.fromhex("000108000604000102000000000100000000000000000000")


@pytest.fixture(scope="module")
def attached() -> Iterator[Attached]:
    with Lab() as lab:
        yield lab.attach(TRANSLATORS["passtpy"], Attachment())


def control_socket(attached: Attached) -> Path | None:
    assert attached.process is not None
    paths = [RUNTIME / f"{pid}{SUFFIX}" for pid in attached.process.tree()]
    return next(filter(Path.exists, paths), None)


def counters(attached: Attached) -> dict[str, int]:
    wait_until(lambda: control_socket(attached) is not None, 30, "a control socket")
    path = str(control_socket(attached))
    with attached.lab.host.entered():
        told: dict[str, int] = Client(path).ask("GET", "/v1/stats")["counters"]
    return told


def flood(attached: Attached) -> None:
    frame = WHO_HAS + socket.inet_aton("192.0.2.77")
    with attached.guest.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with sock:
        sock.bind(("eth0", ARP))
        for _ in range(FRAMES):
            try:
                sock.sendto(frame, ("eth0", ARP, 0, 0, BROADCAST))
            except OSError:  # ENOBUFS: the kernel dropped it
                continue


def test_a_flood_of_arp_is_dropped_before_it_is_read(attached: Attached) -> None:
    read = []
    for _ in range(10):  # on a busy machine frames may come too slowly for a flood
        before = counters(attached)
        flood(attached)
        after = counters(attached)
        dropped = after["floods_dropped"] - before["floods_dropped"]
        read.append(after["tap_rx_frames"] - before["tap_rx_frames"])
        if dropped and read[-1] < FRAMES / 2:
            return
    raise AssertionError(f"of {FRAMES} frames were read {read}")


def test_after_a_flood_everything_is_heard_again(attached: Attached) -> None:
    flood(attached)
    time.sleep(0.1)  # five times as long as anything is dropped
    gateway = attached.guest.ip("-4", "route", "show", "default").split()[2]
    attached.guest.ip("neigh", "flush", "all")
    with attached.guest.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def heard() -> bool:
        """A kernel asks three times; where that was too early it is to ask again."""
        sock.sendto(b"x", (gateway, 9))
        return "lladdr" in attached.guest.ip("neigh", "show", gateway)

    with sock:
        wait_until(heard, 30, "an answer to ARP")
