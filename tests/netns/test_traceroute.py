# SPDX-License-Identifier: GPL-2.0-or-later
"""traceroute in a guest, in all its ways: the routers behind the host answer it.

    guest – passtpy – host – remote – middle – far – target
              first hop:     1        2        3     4

Three routers stand between host and target; the last link has a small MTU. We are no
hop: the guest sees what a program on the host would see.
"""

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import TRANSLATORS, Attached, Lab, Namespace, wait_until

FAR_MTU = 1400
FORBIDDEN4, FORBIDDEN6 = "203.0.113.128/28", "2001:db8:3f::/64"
BEHIND4, BEHIND6 = "203.0.113.130", "2001:db8:3f::9"
IP_RECVTTL = 12  # not in the socket module
ROUTERS4 = ["198.51.100.1", "203.0.113.2", "203.0.113.18"]
ROUTERS6 = ["2001:db8:2::fe", "2001:db8:31::2", "2001:db8:32::2"]
TARGET4, TARGET6 = "203.0.113.34", "2001:db8:33::2"
SILENT4, SILENT6 = "203.0.113.35", "2001:db8:33::3"
OPEN, CLOSED = 8080, 8081
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])

pytestmark = pytest.mark.skipif(
    shutil.which("traceroute") is None, reason="needs traceroute"
)


def link(near: Namespace, far: Namespace, number: int, mtu: int = 1500) -> None:
    """Connect two routers; the near one has the lower addresses."""
    net4, net6 = f"203.0.113.{16 * number}", f"2001:db8:3{number + 1}::"
    base = net4.rpartition(".")[0] + "."
    first = 16 * number + 1
    near.ip(
        *("link", "add", f"down{number}", "mtu", str(mtu), "type", "veth"),
        *("peer", "name", f"up{number}", "mtu", str(mtu), "netns", far.name),
    )
    for where, name, last in ((near, "down", 0), (far, "up", 1)):
        dev = f"{name}{number}"
        where.ip("addr", "add", f"{base}{first + last}/28", "dev", dev)
        where.ip("addr", "add", f"{net6}{last + 1}/64", "dev", dev, "nodad")
        where.ip("link", "set", dev, "up")


def forwarding(where: Namespace) -> None:
    """Make a router, one that does not count how often it complains."""
    where.sysctl("net.ipv4.ip_forward", "1")
    where.sysctl("net.ipv6.conf.all.forwarding", "1")
    talkative(where)


def talkative(where: Namespace) -> None:
    """Lift the limits on ICMP errors."""
    where.sysctl("net.ipv4.icmp_ratelimit", "0")
    where.sysctl("net.ipv6.icmp.ratelimit", "0")


class Chain(Lab):
    """The lab, with a chain of routers behind the remote."""

    middle: Namespace
    target: Namespace


def reachable(where: Namespace, address: str) -> bool:
    """Whether a ping is answered: neighbours are known from then on."""
    done = where.run("ping", "-n", "-c", "1", "-W", "1", address, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def lab() -> Iterator[Chain]:
    """A lab whose routers all know their neighbours."""
    with Chain() as made:
        middle, far, target = (made.guest() for _ in range(3))
        for router in (made.remote, middle, far):
            forwarding(router)
        talkative(target)
        link(made.remote, middle, 0)
        link(middle, far, 1)
        link(far, target, 2, FAR_MTU)
        for where, via4, via6 in (
            (made.remote, "203.0.113.2", "2001:db8:31::2"),
            (middle, "203.0.113.18", "2001:db8:32::2"),
        ):
            where.ip("route", "add", "203.0.113.0/24", "via", via4)
            where.ip("route", "add", "2001:db8:30::/44", "via", via6)
        for where, via4, via6 in (
            (middle, "203.0.113.1", "2001:db8:31::1"),
            (far, "203.0.113.17", "2001:db8:32::1"),
            (target, "203.0.113.33", "2001:db8:33::1"),
        ):
            where.ip("route", "add", "default", "via", via4)
            where.ip("route", "add", "::/0", "via", via6)
        made.middle, made.target = middle, target
        wait_until(lambda: reachable(made.host, TARGET4), 60, TARGET4)
        wait_until(lambda: reachable(made.host, TARGET6), 60, TARGET6)
        yield made


@pytest.fixture(scope="module")
def attached(lab: Chain) -> Iterator[Attached]:
    """A guest with everything as it is by default, and a server to be reached."""
    servers = [lab.target.listen(a, OPEN) for a in (TARGET4, TARGET6)]
    with lab.attach(TRANSLATORS["passtpy"]) as made:
        yield made
        made.check_alive()
    for server in servers:
        server.close()


def traceroute(attached: Attached, *words: str) -> list[tuple[str, str]]:
    """Hops as (address, rest of the line)."""
    done = attached.guest.run(
        "traceroute",
        "-n",
        "-q",
        "1",
        "-N",
        "1",
        "-w",
        "20",
        "-m",
        "5",
        *words,
        check=False,
        timeout=100,
    )
    hops = re.findall(r"^ *\d+  (\S+) *(.*)$", done.stdout, re.MULTILINE)
    assert hops, done.stdout + done.stderr
    return hops


def addresses(hops: list[tuple[str, str]]) -> list[str]:
    return [address for address, _ in hops]


@FAMILIES
@pytest.mark.parametrize(
    "mode",
    [
        ("-U", "-p", "53"),
        (),
        ("-I",),
        ("-T", "-p", str(OPEN)),
        ("-T", "-p", str(CLOSED)),
    ],
    ids=["udp", "default", "icmp", "tcp", "tcp-closed"],
)
def test_every_hop_answers(attached: Attached, mode: tuple[str, ...], v6: bool) -> None:
    hops = traceroute(attached, *mode, TARGET6 if v6 else TARGET4)
    want = [*ROUTERS6, TARGET6] if v6 else [*ROUTERS4, TARGET4]
    assert addresses(hops) == want, hops


@contextmanager
def rejecting(router: Namespace, kind: str) -> Iterator[None]:
    """Let a router refuse everything for the forbidden networks."""
    family, net = ("ip6", FORBIDDEN6) if "v6" in kind else ("ip", FORBIDDEN4)
    rules = f"""\
table inet forbid {{
	chain forward {{
		type filter hook forward priority 0;
		{family} daddr {net} reject with {kind}
	}}
}}
"""
    router.run("nft", "-f", "-", stdin=rules)
    try:
        yield
    finally:
        router.run("nft", "delete", "table", "inet", "forbid")


REFUSALS = pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("icmp net-unreachable", "!N"),
        ("icmp host-unreachable", "!H"),
        ("icmp prot-unreachable", "!P"),
        ("icmp admin-prohibited", "!X"),
        ("icmpv6 no-route", "!N"),
        ("icmpv6 admin-prohibited", "!X"),
        ("icmpv6 addr-unreachable", "!H"),
    ],
)


@REFUSALS
@pytest.mark.parametrize("mode", ["-U", "-I", "-T"])
def test_router_that_refuses_is_named_with_its_reason(
    lab: Chain, attached: Attached, mode: str, kind: str, mark: str
) -> None:
    v6 = "v6" in kind
    with rejecting(lab.middle, kind):
        hops = traceroute(attached, mode, BEHIND6 if v6 else BEHIND4)
    one, two, _ = ROUTERS6 if v6 else ROUTERS4
    # The time of a probe is over before its way is looked at
    assert addresses(hops) == [one, two, two], hops
    assert mark in hops[-1][1], hops


@REFUSALS
def test_connect_fails_as_it_would_on_the_host(
    lab: Chain, attached: Attached, kind: str, mark: str
) -> None:
    goal = BEHIND6 if "v6" in kind else BEHIND4
    said = []
    with rejecting(lab.middle, kind):
        for where in (lab.host, attached.guest):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
                where.connect(goal, 80)
            said.append(caught.value.errno)
    assert said[0] == said[1] is not None, mark


@FAMILIES
def test_host_that_does_not_answer_is_unreachable(attached: Attached, v6: bool) -> None:
    with pytest.raises(OSError, match="No route to host"):
        attached.guest.connect(SILENT6 if v6 else SILENT4, 80)


@FAMILIES
def test_closed_port_is_refused(attached: Attached, v6: bool) -> None:
    with pytest.raises(ConnectionRefusedError):
        attached.guest.connect(TARGET6 if v6 else TARGET4, CLOSED)


@FAMILIES
def test_small_mtu_on_the_way_is_told_by_its_router(
    attached: Attached, v6: bool
) -> None:
    target = TARGET6 if v6 else TARGET4
    words = ["ping", "-n", "-c", "3", "-i", "0.2", "-M", "do", "-s", "1430", target]
    said = attached.guest.run(*words, check=False).stdout
    router = (ROUTERS6 if v6 else ROUTERS4)[2]
    assert re.search(rf"From {router} .*mtu.?=.?{FAR_MTU}", said), said


@FAMILIES
def test_large_ping_passes_the_small_mtu(attached: Attached, v6: bool) -> None:
    target = TARGET6 if v6 else TARGET4
    for size in ("1300", "20000", "60000"):
        # With a deadline it asks until there is an answer
        words = ["ping", "-n", "-c", "1", "-i", "0.2", "-w", "30", "-s", size, target]
        said = attached.guest.run(*words, check=False).stdout
        assert "bytes from" in said, said


def test_ttl_of_the_guest_is_the_host_packets_ttl(
    lab: Chain, attached: Attached
) -> None:
    """Not one less: a program on the host would have been heard as well."""
    with (
        lab.remote.udp("198.51.100.1") as server,
        attached.guest.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        client.sendto(b"x", server.getsockname())
        data, control, _, _ = server.recvmsg(9, 99)
    assert data == b"x"
    ((_, _, ttl),) = control
    assert int.from_bytes(ttl, "little") == 1
