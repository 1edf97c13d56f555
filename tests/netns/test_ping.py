# SPDX-License-Identifier: GPL-2.0-or-later
"""The ping program in a guest, through the whole daemon."""

import re
import shutil
from collections.abc import Iterator

import pytest

from passtpy.net.kernel.ping import SOCKETS
from tests.lab import HOST4, HOST6, REMOTE4, REMOTE6, TRANSLATORS, Attached, Lab
from tests.netns.program import Who, pasta, run

RANGE, NOBODY, EVERYBODY = "net.ipv4.ping_group_range", "1 0", "0 2147483647"
FAR4, FAR6 = "203.0.113.1", "2001:db8:3::1"
BEHIND4, BEHIND6 = "203.0.113.9", "2001:db8:3::9"
# For one answer; several are waited for by -w alone: for the last of them, -W gives
# no more than two round trips.
PATIENT = ("-W", "30")
ALL = ("-w", "30")
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
def simple(lab: Lab) -> Iterator[Attached]:
    """A guest with everything as it is by default."""
    with lab.attach(TRANSLATORS["passtpy"]) as made:
        wait_served(made)
        yield made
        made.check_alive()


@pytest.fixture(scope="module")
def raw(lab: Lab) -> Iterator[Attached]:
    """A guest whose host, to which root has started us, forbids ping sockets."""
    lab.host.sysctl(RANGE, NOBODY)
    with lab.attach(TRANSLATORS["passtpy"]) as made:
        wait_served(made)
        lab.host.sysctl(RANGE, EVERYBODY)
        yield made
        made.check_alive()


@pytest.fixture(params=["simple", "raw"])
def attached(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Attached]:
    """Both of them, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Attached)
    if request.param == "raw":
        lab.host.sysctl(RANGE, NOBODY)
    yield found
    lab.host.sysctl(RANGE, EVERYBODY)


def ping(attached: Attached, *words: str) -> str:
    """What the program says; it fails when nothing is answered, which is no error."""
    return attached.guest.run(
        "ping", "-n", *PATIENT, *words, check=False, timeout=60
    ).stdout


def answers(said: str) -> list[int]:
    """Sequence numbers of the answers it printed."""
    return [int(n) for n in re.findall(r"bytes from .*?icmp_seq=(\d+) ttl=64", said)]


def wait_served(attached: Attached) -> None:
    """Wait for an answer: what it may have is looked up before, with the guest up."""
    assert answers(ping(attached, "-c", "1", REMOTE4)) == [1]


@BOTH
@pytest.mark.parametrize("size", ["0", "56", "1452", "30000"])
def test_ping_is_answered(attached: Attached, remote: str, size: str) -> None:
    said = ping(attached, *ALL, "-c", "3", "-i", "0.01", "-s", size, remote)
    assert answers(said)[:3] == [1, 2, 3], said
    assert "DUP" not in said


@BOTH
def test_pings_in_parallel_do_not_mix(attached: Attached, remote: str) -> None:
    words = ["ping", "-n", *ALL, "-c", "5", "-i", "0.05", remote]
    started = [attached.lab.start(attached.guest, *words) for _ in range(5)]
    for process in started:
        assert process.popen.wait(60) == 0, process.complaint()


@pytest.mark.parametrize("behind", [BEHIND4, BEHIND6], ids=["v4", "v6"])
def test_time_exceeded_names_the_router(attached: Attached, behind: str) -> None:
    said = ping(attached, "-c", "1", "-t", "1", behind)
    assert re.search(r"From \S+ icmp_seq=1 Time (to live )?exceeded", said), said


@pytest.mark.parametrize("silent", ["198.51.100.77", "2001:db8:2::77"])
def test_unreachable_host_is_told(attached: Attached, silent: str) -> None:
    said = ping(attached, "-c", "1", silent)
    assert "nreachable" in said, said


@BOTH
def test_host_that_forbids_ping_later_says_so(
    lab: Lab, simple: Attached, remote: str
) -> None:
    lab.host.sysctl(RANGE, NOBODY)
    try:
        said = ping(simple, "-c", "1", "-e", "4242", remote)
        ping(simple, "-c", "1", "-e", "4243", remote)
    finally:
        lab.host.sysctl(RANGE, EVERYBODY)
    refusal = re.search(r"From (\S+) .*(filtered|prohibited)", said)
    assert refusal, said
    assert refusal[1] not in {remote, HOST4, HOST6}  # we, as the gateway
    assert simple.process is not None
    simple.process.wait_output(RANGE)
    logged = simple.process.stderr().count(RANGE)
    assert logged == 1


def pasta_ping(lab: Lab, who: Who, *words: str) -> str:
    """What both say, when one runs the other and nobody may have ping sockets."""
    argv = pasta(who, "--config-net", "--", "ping", "-n", *PATIENT, *words)
    lab.host.sysctl(RANGE, NOBODY)
    try:
        return run(["nsenter", f"--net={lab.host.path}", "--", *argv]).stdout
    finally:
        lab.host.sysctl(RANGE, EVERYBODY)


@BOTH
def test_who_was_started_by_root_may_ping_all_the_same(lab: Lab, remote: str) -> None:
    said = pasta_ping(lab, "root", *ALL, "-c", "2", "-i", "0.01", remote)
    assert answers(said)[:2] == [1, 2], said
    assert RANGE not in said


@BOTH
def test_who_was_not_is_told_what_to_change(lab: Lab, remote: str) -> None:
    said = pasta_ping(lab, "user", "-c", "2", "-i", "0.2", remote)
    assert re.search(r"From (\S+) .*(filtered|prohibited)", said), said
    assert said.count(RANGE) == 1, said


def test_pings_of_a_whole_network_are_answered(lab: Lab, raw: Attached) -> None:
    """More flows than there are raw sockets: the oldest make room."""
    lab.remote.ip("route", "add", "local", "203.0.113.0/24", "dev", "far0")
    lab.host.sysctl(RANGE, NOBODY)
    try:
        for number in range(1, 3 * SOCKETS):
            said = ping(raw, "-c", "1", f"203.0.113.{number}")
            assert answers(said) == [1], said
    finally:
        lab.host.sysctl(RANGE, EVERYBODY)
    assert raw.process is not None
    assert RANGE not in raw.process.stderr()
