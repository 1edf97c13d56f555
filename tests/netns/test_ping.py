# SPDX-License-Identifier: GPL-2.0-or-later
"""The ping program in a guest, through the whole daemon."""

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.lab import HOST4, HOST6, REMOTE4, REMOTE6, TRANSLATORS, Attached, Lab

FAR4, FAR6 = "203.0.113.1", "2001:db8:3::1"
BEHIND4, BEHIND6 = "203.0.113.9", "2001:db8:3::9"
BOTH = pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])

pytestmark = pytest.mark.skipif(shutil.which("ping") is None, reason="needs ping")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The lab, with a network behind the remote."""
    with Lab() as made:
        made.remote.sysctl("net.ipv4.ip_forward", "1")
        made.remote.sysctl("net.ipv6.conf.all.forwarding", "1")
        batch = f"""\
link add far0 type veth peer name far1
addr add {FAR4}/24 dev far0
addr add {FAR6}/64 dev far0 nodad
link set far0 up
link set far1 up
"""
        made.remote.ip("-batch", "-", batch=batch)
        yield made


@pytest.fixture(scope="module")
def attached(lab: Lab) -> Iterator[Attached]:
    """A guest with everything as it is by default."""
    with lab.attach(TRANSLATORS["passtpy"]) as made:
        yield made
        made.check_alive()


def ping(attached: Attached, *words: str) -> str:
    """What the program says; it fails when nothing is answered, which is no error."""
    return attached.guest.run("ping", "-n", "-W", "5", *words, check=False).stdout


def answers(said: str) -> list[int]:
    """Sequence numbers of the answers it printed."""
    return [int(n) for n in re.findall(r"bytes from .*?icmp_seq=(\d+) ttl=64", said)]


@BOTH
@pytest.mark.parametrize("size", ["0", "56", "1452", "30000"])
def test_ping_is_answered(attached: Attached, remote: str, size: str) -> None:
    said = ping(attached, "-c", "3", "-i", "0.01", "-s", size, remote)
    assert answers(said) == [1, 2, 3], said
    assert "DUP" not in said


@BOTH
def test_pings_in_parallel_do_not_mix(attached: Attached, remote: str) -> None:
    words = ["ping", "-n", "-c", "5", "-i", "0.05", remote]
    started = [attached.lab.start(attached.guest, *words) for _ in range(5)]
    for process in started:
        assert process.popen.wait(20) == 0, process.complaint()


@pytest.mark.parametrize("behind", [BEHIND4, BEHIND6], ids=["v4", "v6"])
def test_time_exceeded_names_the_router(attached: Attached, behind: str) -> None:
    said = ping(attached, "-c", "1", "-t", "1", behind)
    assert re.search(r"From \S+ icmp_seq=1 Time (to live )?exceeded", said), said


@pytest.mark.parametrize("silent", ["198.51.100.77", "2001:db8:2::77"])
def test_unreachable_host_is_told(attached: Attached, silent: str) -> None:
    said = ping(attached, "-c", "1", "-W", "8", silent)
    assert "nreachable" in said, said


@BOTH
def test_host_that_forbids_ping_says_so(
    lab: Lab, attached: Attached, remote: str
) -> None:
    lab.host.sysctl("net.ipv4.ping_group_range", "1 0")
    try:
        said = ping(attached, "-c", "1", "-e", "4242", remote)
        ping(attached, "-c", "1", "-e", "4243", remote)
    finally:
        lab.host.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    refusal = re.search(r"From (\S+) .*(filtered|prohibited)", said)
    assert refusal, said
    assert refusal[1] not in {remote, HOST4, HOST6}  # we, as the gateway
    assert attached.process is not None
    attached.process.wait_output("net.ipv4.ping_group_range")
    logged = attached.process.stderr().count("net.ipv4.ping_group_range")
    assert logged == 1
