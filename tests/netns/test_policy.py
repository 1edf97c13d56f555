# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest may reach, and what it cannot reach whatever it tries."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import dns.rcode
import pytest

from tests.lab import (
    GATEWAY4,
    GATEWAY6,
    REMOTE4,
    REMOTE6,
    Lab,
    Namespace,
    UdpEcho,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.netns.nameserver import NameServer, ask, told
from tests.netns.policed import (
    ANYBODY,
    SILENCE,
    SOON,
    Policed,
    policed,
    policy,
    tcp_to,
    udp_to,
)
from tests.netns.program import PROGRAM

ZONE = (
    f"allowed.example. 300 A {REMOTE4}",
    f"allowed.example. 300 AAAA {REMOTE6}",
    f"other.example. 300 A {GATEWAY4}",
    "alias.example. 300 CNAME allowed.example.",
    "rebind.example. 300 A 127.0.0.1",
    "rebind.example. 300 A 10.0.0.1",
    f"short.example. 0 A {REMOTE4}",
)


def _ping(guest: Namespace, address: str) -> bool:
    return (
        guest.run("ping", "-c", "1", "-w", "25", address, check=False).returncode == 0
    )


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6])
def test_what_is_allowed_passes_and_the_rest_is_refused(lab: Lab, remote: str) -> None:
    allow = ("--allow", f"[{remote}]:7001")
    with (
        policed(lab, *allow) as it,
        tcp_echo(lab.remote, remote, 7001),
        tcp_echo(lab.remote, remote, 7002),
        UdpEcho(lab.remote, remote, 7001),
        UdpEcho(lab.remote, remote, 7002),
    ):
        with it.guest.connect(remote, 7001) as sock:
            assert exchange(sock, b"hello") == b"hello"
        assert udp_to(it.guest, remote, 7001) == "open"
        assert tcp_to(it.guest, remote, 7002) == "ConnectionRefusedError"
        assert udp_to(it.guest, remote, 7002) == "ConnectionRefusedError"
        assert not _ping(it.guest, remote)
        counters = it.counters()
        assert counters["policy_allowed"] == 2
        assert counters["policy_refused"] == 3


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6])
def test_pings_are_flows_as_others(lab: Lab, remote: str) -> None:
    with policed(lab, "--allow", f"{remote}/icmp") as it:
        assert _ping(it.guest, remote)
        assert tcp_to(it.guest, remote, 7001) == "ConnectionRefusedError"


def test_what_is_dropped_is_not_answered(lab: Lab) -> None:
    path = policy(lab, 'default = "drop"\n')
    with policed(lab, "--policy", str(path)) as it:
        assert tcp_to(it.guest, REMOTE4, 7001, SILENCE) == "silence"
        assert udp_to(it.guest, REMOTE4, 7001, SILENCE) == "silence"


def test_the_loopback_of_the_host_is_closed_unless_it_is_named(lab: Lab) -> None:
    """The gateway's address stands for it."""
    with tcp_echo(lab.host, "127.0.0.1", 7003), tcp_echo(lab.host, "::1", 7003):
        with policed(lab, "--allow", "0.0.0.0/0", "--allow", "@internet") as it:
            assert tcp_to(it.guest, GATEWAY4, 7003) == "ConnectionRefusedError"
            assert tcp_to(it.guest, GATEWAY6, 7003) == "ConnectionRefusedError"
        with policed(lab, "--allow", "@host:7003") as it:
            assert tcp_to(it.guest, GATEWAY4, 7003) == "open"
            assert tcp_to(it.guest, GATEWAY6, 7003) == "open"
            assert tcp_to(it.guest, GATEWAY4, 7004) == "ConnectionRefusedError"


def test_other_addresses_of_the_host_are_the_host(lab: Lab) -> None:
    """They are no loopback, and no address of the guest's own."""
    other = "203.0.113.77"
    lab.host.ip("address", "add", f"{other}/32", "dev", "lo")
    try:
        with tcp_echo(lab.host, other, 7003):
            with policed(lab, "--allow", "@internet") as it:
                assert tcp_to(it.guest, other, 7003) == "ConnectionRefusedError"
                it.wait_refused("no rule names @host")
            with policed(lab, "--allow", "@host") as it:
                assert tcp_to(it.guest, other, 7003) == "open"
    finally:
        lab.host.ip("address", "del", f"{other}/32", "dev", "lo")


def _is_refused(guest: Namespace, to: str) -> bool:
    return tcp_to(guest, to, 7003) != "open"


@pytest.mark.parametrize("later", [False, True], ids=["before", "later"])
def test_a_network_that_is_local_to_the_host_is_the_host(lab: Lab, later: bool) -> None:
    """All of its addresses are, and no interface has one of them."""
    one, network = "203.0.113.77", "203.0.113.64/28"

    def add() -> None:
        lab.host.ip("route", "add", "local", network, "dev", "lo")

    try:
        if not later:
            add()
        with policed(lab, "--allow", "@internet") as it:
            if later:
                add()
            with tcp_echo(lab.host, one, 7003):
                refused = partial(_is_refused, it.guest, one)
                if later:
                    wait_until(refused, SOON, "a closed door")
                assert refused()
                it.wait_refused("no rule names @host")
    finally:
        lab.host.ip("route", "del", "local", network, "dev", "lo")


def test_a_host_that_routes_is_the_router_of_its_networks(lab: Lab) -> None:
    """It listens at their first addresses (RFC 4291 2.6.1), for datagrams."""
    any_router = "2001:db8:2::"
    forwards = "net.ipv6.conf.all.forwarding"
    lab.host.run("sysctl", "-q", "-w", f"{forwards}=1")
    try:
        with lab.host.new_socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::", 7005))
            server.settimeout(SOON)
            for allowed in ("@internet", "@host"):
                with policed(lab, "--allow", allowed) as it:
                    udp_to(it.guest, any_router, 7005, patience=0.5)
                    if allowed == "@internet":
                        it.wait_refused("no rule names @host")
                    else:
                        assert server.recv(10) == b"x"
                server.setblocking(False)
                with pytest.raises(BlockingIOError):
                    server.recv(10)
                server.settimeout(SOON)
    finally:
        lab.host.run("sysctl", "-q", "-w", f"{forwards}=0")


def test_an_address_that_the_host_gets_later_is_the_host(lab: Lab) -> None:
    with (
        policed(lab, "--allow", "@internet") as it,
        tcp_echo(lab.host, "0.0.0.0", 7003),
    ):
        lab.host.ip("address", "add", "203.0.113.78/32", "dev", "lo")
        try:
            refused = lambda: tcp_to(it.guest, "203.0.113.78", 7003) != "open"  # noqa: E731
            wait_until(refused, SOON, "a closed door")
            it.wait_refused("no rule names @host")
        finally:
            lab.host.ip("address", "del", "203.0.113.78/32", "dev", "lo")


def test_forwarded_ports_lead_to_the_guest_under_any_policy(lab: Lab) -> None:
    with (
        policed(lab, "--policy-mode", "enforce", "-t", "7005") as it,
        tcp_echo(it.guest, "0.0.0.0", 7005),
        lab.remote.connect("198.51.100.2", 7005) as sock,
    ):
        assert exchange(sock, b"hello") == b"hello"
        assert tcp_to(it.guest, REMOTE4, 7005) == "ConnectionRefusedError"


def test_ports_forwarded_to_the_loopback_of_the_host_need_a_rule(lab: Lab) -> None:
    words = "-T", "7006"
    with (
        tcp_echo(lab.host, "127.0.0.1", 7006),
        policed(lab, "--policy-mode", "enforce", *words) as it,
        # Our listener accepts, so it is no refusal; connect() may hear of it already.
        pytest.raises(ConnectionResetError),
        it.guest.connect("127.0.0.1", 7006) as sock,
    ):
        sock.recv(1)
    with (
        tcp_echo(lab.host, "127.0.0.1", 7006),
        policed(lab, "--allow", "@host:7006", *words) as it,
        it.guest.connect("127.0.0.1", 7006) as sock,
    ):
        assert exchange(sock, b"hello") == b"hello"


def test_observing_lets_pass_and_tells(lab: Lab) -> None:
    words = ("--policy-mode", "observe")
    with policed(lab, *words) as it, tcp_echo(lab.remote, REMOTE4, 7001):
        for _ in range(3):
            assert tcp_to(it.guest, REMOTE4, 7001) == "open"
        assert it.counters()["policy_observed"] == 3
    first, last = map(json.loads, it.audit.read_text().splitlines())
    assert (first["address"], first["port"], first["observed"]) == (REMOTE4, 7001, True)
    assert last["again"] == 2


# Names


@contextmanager
def named(lab: Lab, *extra: str) -> Iterator[Policed]:
    """A guest of a host whose resolver knows ZONE, with an echo server behind it."""
    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        tcp_echo(lab.remote, REMOTE4, 7001),
        tcp_echo(lab.remote, REMOTE6, 7001),
        tcp_echo(lab.remote, GATEWAY4, 7001),
        policed(lab, *extra, resolv=(REMOTE4,)) as it,
    ):
        yield it


def _told(it: Policed, name: str, kind: str = "A") -> set[str]:
    return told(ask(it.guest, ANYBODY, name, kind))


def test_a_name_opens_the_addresses_that_it_was_told_for(lab: Lab) -> None:
    with named(lab, "--allow", "allowed.example:7001") as it:
        assert tcp_to(it.guest, REMOTE4, 7001) == "ConnectionRefusedError"
        assert _told(it, "Allowed.EXAMPLE.") == {REMOTE4}
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"
        assert tcp_to(it.guest, GATEWAY4, 7001) == "ConnectionRefusedError"
        assert tcp_to(it.guest, REMOTE6, 7001) == "ConnectionRefusedError"
        assert _told(it, "allowed.example", "AAAA") == {REMOTE6}
        assert tcp_to(it.guest, REMOTE6, 7001) == "open"
        assert f"{REMOTE4} allowed.example" in " ".join(it.say("pins").split())


def test_a_name_that_is_not_allowed_cannot_be_asked_for(lab: Lab) -> None:
    with named(lab, "--allow", "allowed.example") as it:
        for name in ("other.example", "xallowed.example", "sub.allowed.example"):
            answer = ask(it.guest, ANYBODY, name)
            assert answer.rcode() == dns.rcode.NXDOMAIN
        assert it.counters()["policy_names_refused"] == 3
        it.wait_refused("no rule matches", proto="dns", name="other.example")


def test_an_alias_belongs_to_the_name_that_was_asked(lab: Lab) -> None:
    with named(lab, "--allow", "alias.example") as it:
        assert REMOTE4 in _told(it, "alias.example")
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"


def test_a_public_name_does_not_lead_into_the_host(lab: Lab) -> None:
    with named(lab, "--allow", "rebind.example") as it:
        assert _told(it, "rebind.example") == set()


def test_a_ttl_of_zero_is_long_enough_to_connect(lab: Lab) -> None:
    with named(lab, "--allow", "short.example") as it:
        assert _told(it, "short.example") == {REMOTE4}
        assert tcp_to(it.guest, REMOTE4, 7001) == "open"


def test_questions_over_tcp_are_the_resolvers_too(lab: Lab) -> None:
    with named(lab, "--allow", "allowed.example") as it:
        answer = ask(it.guest, ANYBODY, "allowed.example", tcp=True)
        assert told(answer) == {REMOTE4}
        refused = ask(it.guest, ANYBODY, "other.example", tcp=True)
        assert refused.rcode() == dns.rcode.NXDOMAIN
        assert tcp_to(it.guest, REMOTE4, 853) == "ConnectionRefusedError"


def test_quic_is_refused_so_that_tcp_is_used(lab: Lab) -> None:
    with (
        named(lab, "--allow", "allowed.example") as it,
        UdpEcho(lab.remote, REMOTE4, 443),
        UdpEcho(lab.remote, REMOTE4, 444),
    ):
        _told(it, "allowed.example")
        assert udp_to(it.guest, REMOTE4, 443) == "ConnectionRefusedError"
        assert udp_to(it.guest, REMOTE4, 444) == "open"
    path = policy(
        lab, '[[rule]]\nto = "allowed.example"\nquic = "pin"\naction = "allow"\n'
    )
    with (
        named(lab, "--policy", str(path)) as it,
        UdpEcho(lab.remote, REMOTE4, 443),
    ):
        _told(it, "allowed.example")
        assert udp_to(it.guest, REMOTE4, 443) == "open"


# Tricks


def test_a_guest_that_changes_its_address_changes_nothing(lab: Lab) -> None:
    with policed(lab, "--allow", f"{REMOTE4}:7001") as it:
        it.guest.ip("address", "add", "203.0.113.5/24", "dev", "eth0")
        with it.guest.new_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("203.0.113.5", 0))
            with pytest.raises(ConnectionRefusedError):
                sock.connect((REMOTE4, 7002))


def test_a_packet_for_ipv4_in_the_clothes_of_ipv6_is_ipv4(lab: Lab) -> None:
    """::ffff:127.0.0.1 on the wire is no way to the host's loopback."""
    with (
        policed(lab, "--allow", "::/0", "--allow", "@internet") as it,
        tcp_echo(lab.host, "127.0.0.1", 7003),
    ):
        for trick in ("::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"):
            assert tcp_to(it.guest, trick, 7003) != "open"
            it.wait_refused("no rule names @host")


# Changes


RULE = '[[rule]]\nto = "{}"\naction = "{}"\n'


@contextmanager
def connected(lab: Lab) -> Iterator[tuple[Policed, socket.socket]]:
    """A guest under a policy of one rule, and the connection that it allows."""
    path = policy(lab, RULE.format(REMOTE4, "allow"))
    with (
        policed(lab, "--policy", str(path)) as it,
        tcp_echo(lab.remote, REMOTE4, 7001),
        it.guest.connect(REMOTE4, 7001) as sock,
    ):
        assert _say(sock) == b"a"
        yield it, sock


@pytest.mark.parametrize("way", ["signal", "reload", "policy reload"])
def test_a_new_policy_closes_what_it_refuses(lab: Lab, way: str) -> None:
    with connected(lab) as (it, sock):
        policy(lab, RULE.format(REMOTE6, "allow"))
        _order(it, way)
        with pytest.raises(ConnectionResetError):
            wait_until(lambda: not _say(sock), SOON, "the end")
        assert tcp_to(it.guest, REMOTE4, 7001) == "ConnectionRefusedError"
        assert it.counters()["closed_by_policy"] == 1


def _say(sock: socket.socket) -> bytes:
    sock.sendall(b"a")
    return sock.recv(1)


def _order(it: Policed, way: str) -> None:
    if way == "signal":
        assert it.it.process is not None
        it.it.process.signal(signal.SIGHUP)
    else:
        it.say(*way.split())


def test_a_flow_that_the_new_policy_allows_goes_on(lab: Lab) -> None:
    with connected(lab) as (it, sock):
        policy(lab, RULE.format("198.51.100.0/24", "allow"))
        it.say("reload")
        assert _say(sock) == b"a"


def test_a_wrong_policy_is_told_and_the_old_one_stays(lab: Lab) -> None:
    path = policy(lab, RULE.format(REMOTE4, "allow"))
    with policed(lab, "--policy", str(path)) as it:
        policy(lab, RULE.format(REMOTE4, "permit"))
        done = it.run("reload")
        assert done.returncode == 1
        place = f"{path}:4:10: expected one of allow, reject, drop, ask"
        assert place in done.stderr
        it.wait_log(place)
        with tcp_echo(lab.remote, REMOTE4, 7001):
            assert tcp_to(it.guest, REMOTE4, 7001) == "open"


def test_a_wrong_policy_is_no_start(lab: Lab) -> None:
    path = policy(lab, "colour = 1\n")
    done = lab.host.run(
        str(PROGRAM), "pasta", "--policy", str(path), "true", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"pasta: {path}:2:1: unknown key 'colour'")
