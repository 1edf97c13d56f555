# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses that mean something else to the guest: resolvers, host, its own address."""

import socket
from collections.abc import Iterator

import pytest

from tests.lab import (
    GATEWAY4,
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Attached,
    Lab,
    exchange,
    tcp_echo,
)
from tests.netns.resolvers import PORTS, ask, resolver, serving

FORWARD4, FORWARD6 = "169.254.1.1", "2001:db8:9::53"
MAPPED4, MAPPED6 = "169.254.1.2", "2001:db8:9::2"
OTHER4, OTHER6 = "198.51.100.77", "2001:db8:2::77"


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    ("forward", "known"),
    [
        (FORWARD4, REMOTE4),
        (FORWARD6, REMOTE6),
        (FORWARD4, REMOTE6),
        (FORWARD6, REMOTE4),
    ],
    ids=["v4", "v6", "v4-to-v6", "v6-to-v4"],
)
def test_dns_goes_to_the_first_resolver_of_the_host(
    lab: Lab, kind: str, port: int, forward: str, known: str
) -> None:
    servers = resolver(lab.remote, known, "first")
    with servers, serving(lab, "--dns-forward", forward, resolv=(known,)) as at:
        assert ask(at.guest, forward, kind, port) == "first"


def test_dns_host_is_asked_instead(lab: Lab) -> None:
    extra = ("--dns-forward", FORWARD4, "--dns-host", GATEWAY4)
    servers = resolver(lab.remote, GATEWAY4, "said")
    with servers, serving(lab, *extra, resolv=(REMOTE4,)) as at:
        assert ask(at.guest, FORWARD4) == "said"


def test_a_resolver_on_the_loopback_is_reached_through_any_address(lab: Lab) -> None:
    """As podman asks, with systemd-resolved on the host."""
    extra = ("--dns-forward", FORWARD4, "--no-map-gw")
    servers = resolver(lab.host, "127.0.0.53", "stub")
    with servers, serving(lab, *extra, resolv=("127.0.0.53",)) as at:
        assert ask(at.guest, FORWARD4) == "stub"
        assert ask(at.guest, FORWARD4, "tcp") == "stub"


def test_a_resolver_on_the_loopback_is_found_at_the_gateway(lab: Lab) -> None:
    servers = resolver(lab.host, "127.0.0.53", "stub")
    with servers, serving(lab, resolv=("127.0.0.53",)) as at:
        assert ask(at.guest, GATEWAY4) == "stub"


def test_a_gateway_that_is_a_resolver_is_still_one(lab: Lab) -> None:
    """Its address stands for the host, except for DNS."""
    with (
        resolver(lab.remote, GATEWAY4, "router"),
        serving(lab, resolv=(GATEWAY4,)) as at,
        tcp_echo(lab.host, "127.0.0.1") as server,
    ):
        assert ask(at.guest, GATEWAY4) == "router"
        with at.guest.connect(GATEWAY4, server.port) as sock:
            assert exchange(sock, b"host") == b"host"


def test_dns_none_forwards_nothing(lab: Lab) -> None:
    extra = ("--dns-forward", FORWARD4, "--dns", "none")
    servers = resolver(lab.remote, REMOTE4, "first")
    with servers, serving(lab, *extra, resolv=(REMOTE4,)) as at:
        assert ask(at.guest, FORWARD4, patience=2) is None


@pytest.mark.parametrize(
    ("mapped", "loopback", "extra"),
    [
        (GATEWAY4, "127.0.0.1", ()),
        (GATEWAY6, "::1", ()),
        (MAPPED4, "127.0.0.1", ("--map-host-loopback", MAPPED4)),
        (MAPPED6, "::1", ("--map-host-loopback", MAPPED6)),
        (MAPPED4, "127.0.0.1", ("--map-host-loopback", MAPPED4, "--no-map-gw")),
    ],
)
def test_the_loopback_of_the_host_has_an_address(
    lab: Lab, mapped: str, loopback: str, extra: tuple[str, ...]
) -> None:
    with (
        serving(lab, *extra) as at,
        tcp_echo(lab.host, loopback) as server,
        at.guest.connect(mapped, server.port) as sock,
    ):
        assert exchange(sock, b"there") == b"there"


@pytest.mark.parametrize("extra", ["--no-map-gw", "--map-host-loopback=none"])
def test_no_map_gw_leaves_the_gateway_to_itself(lab: Lab, extra: str) -> None:
    with (
        serving(lab, extra) as at,
        tcp_echo(lab.remote, GATEWAY4) as server,
        at.guest.connect(GATEWAY4, server.port) as sock,
    ):
        assert exchange(sock, b"router") == b"router"


@pytest.mark.parametrize(
    ("mapped", "own"), [(MAPPED4, HOST4), (MAPPED6, HOST6)], ids=["v4", "v6"]
)
def test_the_hosts_copy_of_the_guests_address_has_one(
    lab: Lab, mapped: str, own: str
) -> None:
    extra = ("--map-guest-addr", mapped)
    with (
        serving(lab, *extra) as at,
        tcp_echo(lab.host, own) as server,
        at.guest.connect(mapped, server.port) as sock,
    ):
        assert exchange(sock, b"host") == b"host"


# Where packets leave the host


@pytest.fixture
def second_way(lab: Lab) -> Iterator[None]:
    """More addresses on the host's interface, and another interface to the remote."""
    name = lab.remote.name
    lab.host.ip("addr", "add", f"{OTHER4}/24", "dev", "eth0")
    lab.host.ip("addr", "add", f"{OTHER6}/64", "dev", "eth0", "nodad")
    lab.host.ip(
        *("link", "add", "eth7", "type", "veth", "peer", "name", "wire7"),
        *("netns", name),
    )
    lab.remote.ip("addr", "add", "203.0.113.1/24", "dev", "wire7")
    lab.remote.ip("addr", "add", "2001:db8:7::1/64", "dev", "wire7", "nodad")
    lab.remote.ip("link", "set", "wire7", "up")
    lab.host.ip("addr", "add", "203.0.113.2/24", "dev", "eth7")
    lab.host.ip("addr", "add", "2001:db8:7::2/64", "dev", "eth7", "nodad")
    lab.host.ip("link", "set", "eth7", "up")
    far = ("via", "203.0.113.1", "dev", "eth7", "metric", "500")
    lab.host.ip("route", "add", "default", *far)
    yield
    lab.host.ip("link", "del", "eth7")
    lab.host.ip("addr", "del", f"{OTHER4}/24", "dev", "eth0")
    lab.host.ip("addr", "del", f"{OTHER6}/64", "dev", "eth0")


def _seen_from(lab: Lab, at: Attached, remote: str, kind: int) -> str | None:
    """The source that the remote sees of a flow; None if there is no flow."""
    tcp = kind == socket.SOCK_STREAM
    server = lab.remote.listen(remote) if tcp else lab.remote.udp(remote)
    with server:
        port = server.getsockname()[1]
        client = at.guest.new_socket(server.family, kind)
        client.settimeout(30)
        server.settimeout(30)
        with client:
            try:
                client.connect((remote, port))
                if tcp:
                    peer, name = server.accept()
                    peer.close()
                else:
                    client.send(b"x")
                    name = server.recvfrom(10)[1]
            except OSError:
                return None
            return str(name[0])


KINDS = pytest.mark.parametrize(
    "kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"]
)


@KINDS
@pytest.mark.parametrize(
    ("source", "remote"), [(OTHER4, REMOTE4), (OTHER6, REMOTE6)], ids=["v4", "v6"]
)
@pytest.mark.usefixtures("second_way")
def test_outbound_says_the_source(
    lab: Lab, kind: int, source: str, remote: str
) -> None:
    with serving(lab, "-o", source) as at:
        assert _seen_from(lab, at, remote, kind) == source


@KINDS
@pytest.mark.usefixtures("second_way")
def test_outbound_interfaces_are_the_only_way_out(lab: Lab, kind: int) -> None:
    extra = ("--outbound-if4", "eth7", "--outbound-if6", "eth7", "-i", "eth0")
    with serving(lab, *extra) as at:
        assert _seen_from(lab, at, "203.0.113.1", kind) == "203.0.113.2"
        assert _seen_from(lab, at, "2001:db8:7::1", kind) == "2001:db8:7::2"
        assert _seen_from(lab, at, REMOTE4, kind) == "203.0.113.2"


@pytest.mark.usefixtures("second_way")
def test_an_outbound_interface_is_the_template_too(lab: Lab) -> None:
    with serving(lab, "--outbound-if4", "eth7") as at:
        assert "203.0.113.2/24" in at.guest.ip("addr")
