# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that reboot and go and come back, and two that talk to each other."""

from contextlib import suppress

import pytest

from tests.lab import (
    GATEWAY4,
    HOST4,
    REMOTE4,
    REMOTE6,
    Lab,
    tcp_echo,
)
from tests.qemu.image import Image
from tests.qemu.machine import VHOST_USER, Link, Machine, machine

PORT = 5001
OTHER_PORT = 5101
SIZE = 5_000_000


def talks_to(lab: Lab, guest: Machine, remote: str) -> bool:
    with tcp_echo(lab.remote, remote) as server:
        return guest.run(f"echo hello | nc {remote} {server.port}") == "hello"


def test_guest_reboots(lab: Lab, leased: Machine) -> None:
    before = leased.run("cat /proc/sys/kernel/random/boot_id")
    assert leased.reboot() != before
    leased.take_lease()
    assert leased.told("bound")["ip"] == HOST4
    assert talks_to(lab, leased, REMOTE4)


def test_connections_die_with_their_machine_and_another_takes_its_place(
    lab: Lab, leased: Machine
) -> None:
    leased.background(f"nc -l -p {PORT} -e cat")
    leased.wait_bound("tcp", PORT)
    with lab.remote.connect(HOST4, PORT) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        leased.kill()
        leased.start()
        leased.take_lease()
        with suppress(ConnectionResetError):
            sock.sendall(b"are you there?")
            assert sock.recv(1) == b""
    leased.wait_address6()
    assert talks_to(lab, leased, REMOTE4)
    assert talks_to(lab, leased, REMOTE6)


@pytest.mark.parametrize(
    "link", [VHOST_USER], indirect=True, ids=lambda link: link.name
)
def test_translator_is_killed_and_the_next_serves_on(lab: Lab, leased: Machine) -> None:
    leased.kill_translator()
    leased.serve()
    leased.wait(f"ping -c 1 -W 10 {GATEWAY4}", "the machine comes back")
    assert talks_to(lab, leased, REMOTE4)


def test_two_guests_talk(
    lab: Lab, image: Image, link: Link, program: list[str], leased: Machine
) -> None:
    words = [*program, "-t", str(OTHER_PORT)]
    with machine(lab, image, link, words, name="other") as other:
        other.start()
        other.take_lease()
        other.background(f"nc -l -p {OTHER_PORT} -e cat")
        other.wait_bound("tcp", OTHER_PORT)
        leased.run(f"head -c {SIZE} /dev/urandom >/tmp/said")
        leased.run(f"nc {GATEWAY4} {OTHER_PORT} </tmp/said >/tmp/heard")
        leased.run("cmp /tmp/said /tmp/heard")
