# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that come, go, come back, come second, and send what no machine sends."""

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from passtpy.log import WINDOW_NS
from tests.lab import GATEWAY4, Lab
from tests.netns.machine import (
    PATIENCE,
    Daemon,
    Plug,
    arp,
    connect,
    passt,
    program,
    wait_gone,
)

LONGEST = 65535


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with passt(lab) as made:
        yield made


def is_answer(packet: Packet) -> bool:
    return ARP in packet and packet[ARP].op == 2


def is_served(plug: Plug) -> bool:
    plug.framing.send(bytes(arp()))
    return bool(plug.recv(is_answer)[ARP].psrc == GATEWAY4)


def test_who_comes_second_is_sent_away_and_told_about(daemon: Daemon) -> None:
    with daemon.plug() as first:
        assert is_served(first)
        with daemon.plug() as second:
            assert second.is_closed()
        daemon.wait_log(f"machine.refused pid={os.getpid()} uid={os.getuid()}")
        assert is_served(first)


def test_the_next_one_may_come_at_once(lab: Lab) -> None:
    """One leaves and another comes before the daemon has looked: nobody is refused."""
    with passt(lab) as daemon:
        plug = daemon.plug()
        for _ in range(50):
            plug.close()
            plug = daemon.plug()
        with plug:
            assert is_served(plug)
        assert "machine.refused" not in daemon.log()


@pytest.mark.parametrize("length", [0, 13, 1 << 17, 0xFFFFFFFF])
def test_a_length_that_no_frame_has_ends_that_machine_only(
    daemon: Daemon, length: int
) -> None:
    time.sleep(WINDOW_NS / 1e9)  # the log suppresses what is like the last lines
    left = daemon.log().count("a length that no frame can have")
    with daemon.plug() as plug:
        assert is_served(plug)
        plug.sock.sendall(struct.pack("!I", length) + bytes(100))
        assert plug.is_closed()
    daemon.wait_log("a length that no frame can have", left + 1)
    with daemon.plug() as plug:
        assert is_served(plug)


@pytest.mark.parametrize("cut", [1, 3, 4, 20])
def test_leaving_within_a_frame_is_nothing_to_the_next_one(
    daemon: Daemon, cut: int
) -> None:
    with daemon.plug() as plug:
        assert is_served(plug)
        plug.sock.sendall((struct.pack("!I", 42) + bytes(arp()))[:cut])
    with daemon.plug() as plug:
        assert is_served(plug)


def test_frames_may_come_byte_by_byte_and_many_at_once(daemon: Daemon) -> None:
    with daemon.plug() as plug:
        for byte in struct.pack("!I", 42) + bytes(arp()):
            plug.sock.sendall(bytes([byte]))
        plug.recv(is_answer)
        plug.framing.send(*[bytes(arp())] * 20)
        for _ in range(20):
            plug.recv(is_answer)


def test_the_longest_and_the_shortest_frames_are_no_offence(daemon: Daemon) -> None:
    with daemon.plug() as plug:
        plug.framing.send(bytes(arp()).ljust(LONGEST, b"\0"))
        plug.framing.send(bytes(arp())[:14])
        assert is_served(plug)


def test_one_off_ends_with_its_machine(lab: Lab) -> None:
    with passt(lab, "--one-off", dies=True) as daemon:
        with daemon.plug() as plug:
            assert is_served(plug)
            with daemon.plug() as second:
                assert second.is_closed()
            assert is_served(plug)
        assert daemon.process.wait(PATIENCE) == 0
        wait_gone(daemon.path)


def test_one_off_ends_with_a_hostile_machine_too(lab: Lab) -> None:
    with passt(lab, "-1", dies=True) as daemon:
        with daemon.plug() as plug:
            plug.sock.sendall(bytes(8))
            assert plug.is_closed()
        assert daemon.process.wait(PATIENCE) == 0


def test_who_looks_whether_it_is_alive_is_no_machine(lab: Lab) -> None:
    """A second passt on the same path must not end the first, one-off or not."""
    with passt(lab, "--one-off", dies=True) as daemon:
        done = lab.host.run(program(), "-s", str(daemon.path), check=False)
        said = f"passt: Socket path {daemon.path} already in use\n"
        assert (done.returncode, done.stderr) == (1, said)
        with daemon.plug() as plug:
            assert is_served(plug)


def test_nobody_waits_for_an_answer_of_a_daemon_that_ended(lab: Lab) -> None:
    with passt(lab, dies=True) as daemon, daemon.plug() as plug:
        assert is_served(plug)
        daemon.process.stop()
        assert plug.is_closed()
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            connect(daemon.path)


def test_the_socket_of_a_daemon_that_was_killed_is_taken_over(lab: Lab) -> None:
    with passt(lab, dies=True) as daemon:
        path = daemon.path
        daemon.process.popen.kill()
        daemon.process.wait(PATIENCE)
    path.unlink(missing_ok=True)  # who watches files for it may have done so already
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    with passt(lab, path=path) as daemon, daemon.plug() as plug:
        assert is_served(plug)
