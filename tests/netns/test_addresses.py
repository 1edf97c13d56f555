# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts and guests with more, fewer and other addresses than one of each version."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from scapy.layers.dhcp import BOOTP, DHCP

from tests.lab import (
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attachment,
    Lab,
    Namespace,
    Passtpy,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.lab.namespace import family_of
from tests.netns.machine import IFNAME, PATIENCE, dhcp, passt, told
from tests.netns.resolvers import ask, etc, resolver, with_etc

OTHER4, OTHER6 = "198.51.100.33", "2001:db8:2::33"
LOCAL_GATEWAY4 = "169.254.2.2"
OUR_LINK_LOCAL = "fe80::9855:9aff:fe55:9a55"
PORT = 7001
BOTH = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of its own: these tests take the host's network apart."""
    with Lab() as made:
        yield made


def add(where: Namespace, address: str, device: str = "eth0") -> None:
    length, nodad = ("/64", ["nodad"]) if ":" in address else ("/24", [])
    where.ip("addr", "add", address + length, "dev", device, *nodad)


def lose(where: Namespace, version: int) -> None:
    where.ip(f"-{version}", "route", "flush", "default")
    where.ip(f"-{version}", "addr", "flush", "dev", "eth0", "scope", "global")


# More addresses than one


def test_a_machine_keeps_its_address_when_the_host_gets_another(lab: Lab) -> None:
    """And reaches the new one, which is not its own."""
    with passt(lab) as daemon, daemon.cable() as cable:
        guest = cable.guest
        cable.configure6(f"{HOST6}/64", OUR_LINK_LOCAL)
        with (
            tcp_echo(lab.remote, REMOTE6) as server,
            guest.connect(REMOTE6, server.port) as sock,
        ):
            assert exchange(sock, b"before") == b"before"
        add(lab.host, OTHER6)
        daemon.wait_log("host.changed")
        with (
            tcp_echo(lab.host, OTHER6) as server,
            guest.connect(OTHER6, server.port) as sock,
        ):
            assert exchange(sock, b"alias") == b"alias"
        with (
            tcp_echo(lab.remote, REMOTE6) as server,
            guest.connect(REMOTE6, server.port) as sock,
        ):
            assert exchange(sock, b"after") == b"after"


def test_the_prefix_of_a_machine_is_not_withdrawn(lab: Lab) -> None:
    with passt(lab) as daemon, daemon.cable() as cable:
        prefix = HOST6.removesuffix(":2")

        def own() -> list[str]:
            shown = cable.guest.ip(
                "-6", "addr", "show", "dev", IFNAME, "scope", "global"
            )
            return [line for line in shown.splitlines() if prefix in line]

        wait_until(own, 60, "an address from the prefix")
        lab.host.ip("addr", "add", "2001:db8:9::1/64", "dev", "eth0", "nodad")
        daemon.wait_log("host.changed")
        shown = " ".join(daemon.log().split())
        assert "guest6=2001:db8:9::1" not in shown
        assert own()
        assert all("deprecated" not in line for line in own())


def test_a_machine_with_two_addresses_never_hears_from_itself(lab: Lab) -> None:
    """One as the host's (from DHCPv6, say), and one that it made from the prefix."""
    made = "2001:db8:2::aaaa"
    with passt(lab, "-t", str(PORT)) as daemon, daemon.cable() as cable:
        cable.configure6(f"{HOST6}/64", OUR_LINK_LOCAL)
        add(cable.guest, made, IFNAME)
        with (
            tcp_echo(lab.remote, REMOTE6) as server,
            cable.guest.new_socket(socket.AF_INET6) as sock,
        ):
            sock.bind((made, 0))
            sock.connect((REMOTE6, server.port))
            assert exchange(sock, b"out") == b"out"
        with (
            tcp_echo(cable.guest, "::", PORT),
            lab.host.connect(HOST6, PORT) as client,
        ):
            assert client.getsockname()[0] == HOST6
            assert exchange(client, b"in") == b"in"


@pytest.mark.parametrize("address", [HOST4, OTHER4, HOST6, OTHER6])
def test_a_forwarded_port_is_reached_by_every_address(lab: Lab, address: str) -> None:
    add(lab.host, OTHER4)
    add(lab.host, OTHER6)
    options = Attachment(tcp_ports=(PORT,))
    with lab.attach(TRANSLATORS["passtpy"], options) as at:
        anywhere = "::" if ":" in address else "0.0.0.0"
        with (
            tcp_echo(at.guest, anywhere, PORT),
            lab.host.new_socket(family_of(address)) as client,
        ):
            client.bind((address, 0))
            client.connect((address, PORT))
            assert exchange(client, b"in") == b"in"


@pytest.mark.parametrize("client", ["::1", HOST6])
@pytest.mark.parametrize("keep", [[], ["--preserve-source"]], ids=["", "keep"])
def test_a_namespace_that_configures_itself_is_reached(
    lab: Lab, client: str, keep: list[str]
) -> None:
    """It has an address from our prefix, but not the host's."""
    guest = lab.guest()
    words = ["-f", "-d", "--netns", str(guest.path), "-I", "eth0", "-t", str(PORT)]
    process = lab.start(lab.host, Passtpy().program, *words, *keep)
    wait_until(lambda: "eth0" in guest.ip("link"), 60, "a link")
    guest.ip("link", "set", "eth0", "up")
    prefix = HOST6.removesuffix(":2")
    wait_until(lambda: prefix in guest.ip("-6", "addr"), 60, "an address")
    wait_until(guest.has_route6, 60, "a route")

    def reached() -> bool:
        """The guest's kernel tells us a moment after it has an address."""
        with suppress(OSError), lab.host.connect(client, PORT, timeout=1) as sock:
            return exchange(sock, b"in") == b"in"
        return False

    with tcp_echo(guest, "::", PORT):
        wait_until(reached, PATIENCE, "it is reached")
        for _ in range(3):
            with lab.host.connect(client, PORT) as sock:
                assert exchange(sock, b"in") == b"in"
    process.stop()


def test_a_namespace_is_reached_at_its_new_address(lab: Lab) -> None:
    """Whoever changes it: we follow its kernel, though nothing was sent from it."""
    guest = lab.guest()
    words = ["-f", "-d", "--netns", str(guest.path), "-4", "-I", "eth0"]
    process = lab.start(lab.host, Passtpy().program, *words, "-t", str(PORT))
    wait_until(lambda: lab.host.is_bound("tcp", PORT), 60, "the port")
    guest.ip("link", "set", "eth0", "up")
    for address in ("192.0.2.7", "192.0.2.8"):
        guest.ip("addr", "flush", "dev", "eth0")
        add(guest, address)
        with tcp_echo(guest, address, PORT):

            def reached() -> bool:
                try:
                    with lab.host.connect("127.0.0.1", PORT) as sock:
                        return exchange(sock, b"in") == b"in"
                except OSError:
                    return False

            wait_until(reached, PATIENCE, f"{address} is reached")
    process.stop()


# The source of what the guest opens


@pytest.mark.parametrize(
    ("own", "remote"), [(OTHER4, REMOTE4), (OTHER6, REMOTE6)], ids=["v4", "v6"]
)
def test_a_chosen_source_is_kept(lab: Lab, own: str, remote: str) -> None:
    usual = HOST6 if ":" in own else HOST4
    if ":" in own:  # the newest is the first, and what the guest was given
        lab.host.ip("addr", "del", f"{HOST6}/64", "dev", "eth0")
        add(lab.host, own)
        add(lab.host, HOST6)
        lab.host.ip("route", "replace", "::/0", "via", GATEWAY6)
    else:
        add(lab.host, own)
    with lab.attach(TRANSLATORS["passtpy"]) as at:
        for source in (own, usual):
            with (
                lab.remote.listen(remote) as listener,
                at.guest.new_socket(family_of(remote)) as sock,
            ):
                sock.bind((source, 0))
                sock.connect((remote, listener.getsockname()[1]))
                far, peer = listener.accept()
                far.close()
                if source == own:
                    assert peer[0] == own
            with (
                lab.remote.udp(remote) as server,
                at.guest.new_socket(family_of(remote), socket.SOCK_DGRAM) as sock,
            ):
                sock.bind((source, 0))
                sock.connect((remote, server.getsockname()[1]))
                sock.send(b"who am I?")
                _, peer = server.recvfrom(100)
                if source == own:
                    assert peer[0] == own


def test_a_ping_keeps_its_source(lab: Lab) -> None:
    add(lab.host, OTHER4)
    with lab.attach(TRANSLATORS["passtpy"]) as at:
        with lab.remote.entered():
            heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with heard:
            heard.settimeout(PATIENCE)
            at.guest.run("ping", "-c", "1", "-W", "25", "-I", OTHER4, REMOTE4)
            data, _ = heard.recvfrom(2048)
            assert socket.inet_ntoa(data[12:16]) == OTHER4


def test_where_another_interface_leads_the_host_chooses(lab: Lab) -> None:
    """A tunnel would not take what comes from an address that is not the tunnel's."""
    add(lab.host, OTHER4)
    peer = ("type", "veth", "peer", "name", "wire7", "netns", lab.remote.name)
    lab.host.ip("link", "add", "eth7", *peer)
    add(lab.remote, "203.0.113.1", "wire7")
    lab.remote.ip("link", "set", "wire7", "up")
    add(lab.host, "203.0.113.2", "eth7")
    lab.host.ip("link", "set", "eth7", "up")
    with (
        lab.attach(TRANSLATORS["passtpy"]) as at,
        lab.remote.listen("203.0.113.1") as listener,
        at.guest.new_socket() as sock,
    ):
        sock.bind((OTHER4, 0))
        sock.connect(("203.0.113.1", listener.getsockname()[1]))
        far, came_from = listener.accept()
        far.close()
        assert came_from[0] == "203.0.113.2"


# Fewer: one version, no gateway


@BOTH
def test_the_version_that_the_host_lacks_leads_to_the_host(
    lab: Lab, version: int
) -> None:
    lose(lab.host, version)
    with lab.attach(TRANSLATORS["passtpy"], Attachment(ipv6=version == 4)) as at:
        gateway = LOCAL_GATEWAY4 if version == 4 else "fe80::1%eth0"
        loopback = "127.0.0.1" if version == 4 else "::1"
        way = f"default via {gateway.partition('%')[0]}"
        shown = ("route", "show", "default")
        wait_until(lambda: way in at.guest.ip(f"-{version}", *shown), PATIENCE, way)
        if version == 4:
            assert "169.254.2.1/16" in at.guest.ip("-4", "addr")
        with tcp_echo(lab.host, loopback) as server:
            where: tuple[object, ...] = (gateway, server.port)
            if version == 6:
                with at.guest.entered():
                    index = socket.if_nametoindex("eth0")
                where = ("fe80::1", server.port, 0, index)
            with at.guest.new_socket(family_of(loopback)) as sock:
                sock.connect(where)
                assert exchange(sock, b"host") == b"host"


def test_nobody_misses_an_ipv6_that_is_nowhere(lab: Lab) -> None:
    lose(lab.host, 6)
    guest = lab.guest()
    for name in ("all", "default"):
        guest.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1")
    words = ["--config-net", "-f", "--netns", str(guest.path), "-t", "none"]
    process = lab.start(lab.host, Passtpy().program, *words)
    wait_until(guest.has_route4, 60, "an IPv4 route")
    process.wait_output("namespace.ready")
    assert " warning " not in process.stderr()
    process.stop()


def test_a_container_of_an_ipv6_host_resolves_and_reaches_it(lab: Lab) -> None:
    """With the options that podman gives."""
    lose(lab.host, 4)
    etc(lab.dir, REMOTE6)
    guest = lab.guest()
    words = ["--config-net", "--dns-forward", "169.254.1.1", "-t", "none", "-u", "none"]
    words += ["-T", "none", "-U", "none", "--no-map-gw", "--quiet", "-f"]
    words += ["--netns", str(guest.path), "--map-guest-addr", "169.254.1.2"]
    argv = with_etc(lab.dir, [Passtpy().program, *words])
    process = lab.start(lab.host, *argv)
    wait_until(guest.has_route4, 60, "an IPv4 route")
    with (
        resolver(lab.remote, REMOTE6, "the host's"),
        tcp_echo(lab.host, HOST6) as server,
        guest.connect("169.254.1.2", server.port) as sock,
    ):
        assert ask(guest, "169.254.1.1") == "the host's"
        assert ask(guest, "169.254.1.1", "tcp") == "the host's"
        assert exchange(sock, b"host") == b"host"
    process.stop()


@pytest.mark.parametrize(
    "default",
    [["dev", "eth0"], ["via", "inet6", GATEWAY6, "dev", "eth0"]],
    ids=["point-to-point", "IPv6 next hop"],
)
def test_a_machine_of_a_host_without_a_gateway_gets_a_lease(
    lab: Lab, default: list[str]
) -> None:
    lab.host.ip("route", "del", "default")
    lab.host.ip("-4", "route", "add", "default", *default)
    with passt(lab) as daemon, daemon.plug() as plug:
        plug.send(dhcp("discover"))
        offer = plug.recv(lambda p: DHCP in p)
        assert offer[BOOTP].yiaddr == HOST4
        options = told(offer)
        assert options["router"] == LOCAL_GATEWAY4
        assert options["server_id"] == LOCAL_GATEWAY4


@pytest.mark.parametrize("default", [["dev", "eth0"], ["via", "inet6", GATEWAY6]])
def test_a_namespace_of_a_host_without_a_gateway_goes_out(
    lab: Lab, default: list[str]
) -> None:
    lab.host.ip("route", "del", "default")
    lab.host.ip("-4", "route", "add", "default", *default, "dev", "eth0")
    with lab.attach(TRANSLATORS["passtpy"]) as at:
        with (
            tcp_echo(lab.remote, REMOTE4) as server,
            at.guest.connect(REMOTE4, server.port) as sock,
        ):
            assert exchange(sock, b"out") == b"out"
        with (
            tcp_echo(lab.host, "127.0.0.1") as server,
            at.guest.connect(LOCAL_GATEWAY4, server.port) as sock,
        ):
            assert exchange(sock, b"host") == b"host"


# Not yet there


def test_an_outbound_interface_may_come_later(lab: Lab) -> None:
    options = Attachment(extra=("--outbound-if4", "eth7"))
    with lab.attach(TRANSLATORS["passtpy"], options) as at:
        assert "169.254.2.1/16" in at.guest.ip("-4", "addr")
        peer = ("type", "veth", "peer", "name", "wire7", "netns", lab.remote.name)
        lab.host.ip("link", "add", "eth7", *peer)
        add(lab.remote, "203.0.113.1", "wire7")
        lab.remote.ip("link", "set", "wire7", "up")
        add(lab.host, "203.0.113.2", "eth7")
        lab.host.ip("link", "set", "eth7", "up")
        lab.host.ip("route", "add", "default", "via", "203.0.113.9", "metric", "9")
        wait_until(
            lambda: "203.0.113.2/24" in at.guest.ip("-4", "addr"),
            PATIENCE,
            "the interface is followed",
        )
        with (
            tcp_echo(lab.remote, "203.0.113.1") as server,
            at.guest.connect("203.0.113.1", server.port) as sock,
        ):
            assert exchange(sock, b"out") == b"out"
