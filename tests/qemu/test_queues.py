# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor that brings several pairs of queues: the guest works with one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.lab import GATEWAY4, HOST4, REMOTE4, Lab, receive_all
from tests.qemu.image import Image
from tests.qemu.machine import VHOST_USER, Machine, machine
from tests.qemu.test_bytes import check_download

SIZE = 2_000_000
PAIRS = replace(
    VHOST_USER,
    name="vhost-user-queues",
    netdev=(*VHOST_USER.netdev[:-1], f"{VHOST_USER.netdev[-1]},queues=2"),
    device=f"{VHOST_USER.device},mq=on",
)


@pytest.fixture(scope="module")
def paired(lab: Lab, image: Image, program: list[str]) -> Iterator[Machine]:
    with machine(lab, image, PAIRS, program) as guest:
        guest.start()
        guest.take_lease()
        yield guest
        guest.check_served()
        assert guest.new_faults() == set()


def test_guest_uses_the_pair_that_is_served(paired: Machine) -> None:
    assert paired.told("bound")["ip"] == HOST4
    assert paired.run("ls /sys/class/net/eth0/queues").split() == ["rx-0", "tx-0"]
    paired.run(f"ping -c 3 -i 0.1 -w 30 {GATEWAY4}")


def test_bytes_are_exact_both_ways(lab: Lab, paired: Machine) -> None:
    sent = check_download(lab, paired, REMOTE4, SIZE)
    with lab.remote.listen(REMOTE4) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]
        stored = pool.submit(paired.run, f"nc {REMOTE4} {port} </tmp/down")
        sock, _ = listener.accept()
        with sock:
            assert receive_all(sock) == sent
        stored.result()


def test_guest_reboots_and_works_again(paired: Machine) -> None:
    paired.reboot()
    paired.take_lease()
    paired.run(f"ping -c 3 -i 0.1 -w 30 {GATEWAY4}")
