# SPDX-License-Identifier: GPL-2.0-or-later
"""The host changes its network, and the guest's follows within a moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from passtpy.net.following.follow import GRACE_S
from tests.lab import (
    GATEWAY4,
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    Namespace,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.lab.translators import Passtpy
from tests.netns.resolvers import ask, content, etc, resolver, with_etc

PATIENCE = 30.0  # what is promised is 1 s; the machine may be busy
FORWARD4 = "169.254.1.1"
NEW4, NEW6 = "198.51.100.33", "2001:db8:2::33"
OFFICE4, OFFICE_GATEWAY4 = "203.0.113.2", "203.0.113.1"
OFFICE6 = "2001:db8:7::2"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of its own: these tests take the host's network apart."""
    with Lab() as made:
        yield made


@contextmanager
def serving(
    lab: Lab, *extra: str, prepare: str = ":", ipv4: bool = True, ipv6: bool = True
) -> Iterator[Attached]:
    """A guest; the daemon logs what changes. `prepare` is a shell line for its host."""
    etc(lab.dir, REMOTE4)
    ipv6 = ipv6 and "-4" not in extra
    options = Attachment(ipv4=ipv4, ipv6=ipv6, extra=(*extra, "-d"))
    guest = lab.guest()
    argv = TRANSLATORS["passtpy"].attach_command(guest, options)
    argv = with_etc(lab.dir, argv, prepare)
    process = lab.start(lab.host, *argv)
    attached = Attached(lab, guest, process)
    try:
        attached.wait_ready(options)
        process.wait_output("namespace.ready")
        yield attached
        attached.check_alive()
    finally:
        attached.close()


def soon(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def addresses(guest: Namespace) -> set[str]:
    """Addresses of the tap, without its link-local ones."""
    words = guest.ip("-br", "addr", "show", "dev", "eth0").split()[2:]
    return {word for word in words if not word.startswith("fe80:")}


def routes(guest: Namespace) -> str:
    return guest.ip("route") + guest.ip("-6", "route")


def changes(at: Attached) -> list[str]:
    """What the daemon said about the host."""
    assert at.process is not None
    lines = at.process.stderr().splitlines()
    return [line.partition(" info ")[2] for line in lines if " info host." in line]


def office(lab: Lab) -> None:
    """Plug another network in, not yet in use."""
    peer = ("type", "veth", "peer", "name", "wire7", "netns", lab.remote.name)
    lab.host.ip("link", "add", "eth7", *peer)
    lab.remote.ip("addr", "add", f"{OFFICE_GATEWAY4}/24", "dev", "wire7")
    lab.remote.ip("link", "set", "wire7", "up")
    lab.host.ip("addr", "add", f"{OFFICE4}/24", "dev", "eth7")
    lab.host.ip("link", "set", "eth7", "up")


def move_to_office(lab: Lab) -> None:
    via = ("via", OFFICE_GATEWAY4, "dev", "eth7")
    lab.host.ip("route", "replace", "default", *via)


# Addresses and routes


@pytest.mark.parametrize("new", [f"{NEW4}/24", f"{NEW6}/64"], ids=["v4", "v6"])
def test_addresses_come_and_go(lab: Lab, new: str) -> None:
    with serving(lab) as at:
        before = addresses(at.guest)
        assert before == {f"{HOST4}/24", f"{HOST6}/64"}
        lab.host.ip("addr", "add", new, "dev", "eth0")
        soon(lambda: addresses(at.guest) == before | {new}, f"{new} is there")
        lab.host.ip("addr", "del", new, "dev", "eth0")
        soon(lambda: addresses(at.guest) == before, f"{new} is gone")
        soon(lambda: len(changes(at)) == 2, "two changes are told")


def test_another_address_takes_the_place_of_the_first(lab: Lab) -> None:
    """A new lease: flows use it at once, in both directions."""
    with serving(lab, "-t", "7001") as at:
        batch = f"addr del {HOST4}/24 dev eth0\naddr add {NEW4}/24 dev eth0\n"
        batch += f"route add default via {GATEWAY4}\n"
        lab.host.ip("-batch", "-", batch=batch)
        wanted = {f"{NEW4}/24", f"{HOST6}/64"}
        soon(lambda: addresses(at.guest) == wanted, "the new address is there")
        soon(lambda: f"default via {GATEWAY4}" in routes(at.guest), "the way out")
        with (
            tcp_echo(lab.remote, REMOTE4) as server,
            at.guest.connect(REMOTE4, server.port) as sock,
        ):
            assert sock.getsockname()[0] == NEW4
            assert exchange(sock, b"out") == b"out"
        with (
            tcp_echo(at.guest, NEW4, 7001),
            lab.remote.connect(NEW4, 7001) as sock,
        ):
            assert exchange(sock, b"in") == b"in"
        # Between two of the commands a busy machine may be seen without a network
        done = [line for line in changes(at) if "host.lost" not in line]
        assert len(done) == 1, changes(at)


def test_routes_come_and_go(lab: Lab) -> None:
    with serving(lab) as at:
        before = routes(at.guest)
        via = ("192.0.2.0/24", "via", REMOTE4, "mtu", "1400", "metric", "50")
        lab.host.ip("route", "add", *via)
        soon(lambda: "192.0.2.0/24" in routes(at.guest), "the route is there")
        assert "metric 50 mtu 1400" in routes(at.guest)
        lab.host.ip("route", "del", "192.0.2.0/24")
        soon(lambda: routes(at.guest) == before, "the route is gone")


def test_the_first_thousand_routes_come_at_once(lab: Lab) -> None:
    """More than fits into one request to the namespace."""
    with serving(lab) as at:
        nets = [f"10.{i // 250}.{i % 250}.0/24" for i in range(1000)]
        batch = "".join(f"route add {net} via {REMOTE4}\n" for net in nets)
        lab.host.ip("-batch", "-", batch=batch)
        soon(lambda: routes(at.guest).count("10.") >= 1000, "all routes are there")


def test_what_the_guest_added_is_left_alone(lab: Lab) -> None:
    with serving(lab) as at:
        at.guest.ip("addr", "add", "192.0.2.77/32", "dev", "eth0")
        at.guest.ip("route", "add", "203.0.113.0/24", "via", GATEWAY4)
        office(lab)
        move_to_office(lab)
        soon(lambda: f"{OFFICE4}/24" in addresses(at.guest), "the office is there")
        assert "192.0.2.77/32" in addresses(at.guest)


@pytest.mark.parametrize(
    ("said", "kept", "moved"),
    [
        (
            ["-a", "192.0.2.5/24"],
            "192.0.2.5/24",
            f"default via {OFFICE_GATEWAY4}",
        ),
        (
            ["-g", "198.51.100.200"],
            "default via 198.51.100.200",
            f"{OFFICE4}/24",
        ),
    ],
)
def test_what_was_said_stays(lab: Lab, said: list[str], kept: str, moved: str) -> None:
    """With an address the kernel takes routes away: they are given again after it."""
    with serving(lab, *said) as at:
        office(lab)
        move_to_office(lab)

        def arrived() -> bool:
            shown = " ".join(addresses(at.guest)) + routes(at.guest)
            return kept in shown and moved in shown

        soon(arrived, "all else is the office's")


# Another network


def test_the_default_route_leads_to_another_network(lab: Lab) -> None:
    with serving(lab) as at:
        office(lab)
        move_to_office(lab)
        soon(lambda: f"{OFFICE4}/24" in addresses(at.guest), "the office is there")
        soon(lambda: f"{HOST4}/24" not in addresses(at.guest), "home is left")
        way = f"default via {OFFICE_GATEWAY4}"
        soon(lambda: way in routes(at.guest), "the way out leads there")
        soon(lambda: changes(at), "it is told")
        [line] = changes(at)
        assert line.startswith(f"host.changed guest4={OFFICE4}")
        assert "template4=eth7" in line
        with (
            tcp_echo(lab.remote, REMOTE4) as server,
            at.guest.connect(REMOTE4, server.port) as sock,
        ):
            assert sock.getsockname()[0] == OFFICE4
            assert exchange(sock, b"new") == b"new"


def test_flows_that_can_live_on_do(lab: Lab) -> None:
    """The old network is still there, only not the default any more: a VPN came up."""
    with (
        serving(lab) as at,
        tcp_echo(lab.remote, REMOTE4) as server,
        at.guest.connect(REMOTE4, server.port) as sock,
    ):
        sock.sendall(b"before")
        assert sock.recv(100) == b"before"
        office(lab)
        move_to_office(lab)
        soon(lambda: f"{OFFICE4}/24" in addresses(at.guest), "the office is there")
        sock.sendall(b"after")
        assert sock.recv(100) == b"after"
        soon(lambda: f"{HOST4}/32" in addresses(at.guest), "its own is still there")
        way = f"default via {OFFICE_GATEWAY4}"
        soon(lambda: way in routes(at.guest), "the way out leads there")
        with at.guest.connect(REMOTE4, server.port) as new:
            assert new.getsockname()[0] == OFFICE4
        assert exchange(sock, b"end") == b"end"


def test_the_gateway_is_mapped_where_it_is_now(lab: Lab) -> None:
    with serving(lab) as at, tcp_echo(lab.host, "127.0.0.1") as server:
        office(lab)
        move_to_office(lab)
        soon(lambda: f"{OFFICE4}/24" in addresses(at.guest), "the office is there")
        with at.guest.connect(OFFICE_GATEWAY4, server.port) as sock:
            assert exchange(sock, b"host") == b"host"


def test_no_network_at_all_changes_nothing(lab: Lab) -> None:
    with serving(lab) as at:
        before = addresses(at.guest), routes(at.guest)
        lab.host.ip("link", "set", "eth0", "down")
        soon(lambda: changes(at), "the loss is noticed")
        assert changes(at) == ["host.lost template4=eth0 template6=eth0"]
        lab.host.ip("link", "del", "eth0")
        time.sleep(0.5)
        assert (addresses(at.guest), routes(at.guest)) == before
        assert len(changes(at)) == 1
        office(lab)
        lab.host.ip("route", "add", "default", "via", OFFICE_GATEWAY4)
        soon(lambda: f"{OFFICE4}/24" in addresses(at.guest), "the office is there")


@pytest.mark.slow
def test_a_family_that_is_lost_goes_after_a_while(lab: Lab) -> None:
    with serving(lab) as at:
        lost = time.monotonic()
        lab.host.ip("-6", "route", "flush", "default")
        lab.host.ip("-6", "addr", "flush", "dev", "eth0", "scope", "global")
        time.sleep(1)
        there = f"{HOST6}/64" in addresses(at.guest)  # it might come back
        assert there or time.monotonic() > lost + GRACE_S
        soon(lambda: addresses(at.guest) == {f"{HOST4}/24"}, "IPv6 is gone")
        soon(lambda: "default via fe80::1" in routes(at.guest), "a way to the host")
        lab.host.ip("addr", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
        lab.host.ip("route", "add", "::/0", "via", "2001:db8:2::fe")
        soon(lambda: f"{HOST6}/64" in addresses(at.guest), "IPv6 is back")
        soon(at.guest.has_route6, "and its route")


@pytest.mark.parametrize("version", [4, 6])
def test_a_family_that_comes_later_finds_its_ports_open(lab: Lab, version: int) -> None:
    """Even a port that only root may open, when the daemon is root no more."""
    lab.host.ip(f"-{version}", "route", "flush", "default")
    lab.host.ip(f"-{version}", "addr", "flush", "dev", "eth0", "scope", "global")
    with serving(lab, "-t", "80", ipv4=version == 6, ipv6=version == 4) as at:
        host, gateway = (HOST4, GATEWAY4) if version == 4 else (HOST6, GATEWAY6)
        length = 24 if version == 4 else 64
        nodad = ("nodad",) if version == 6 else ()
        lab.host.ip("addr", "add", f"{host}/{length}", "dev", "eth0", *nodad)
        lab.host.ip(f"-{version}", "route", "add", "default", "via", gateway)
        soon(lambda: f"{host}/{length}" in addresses(at.guest), "the family is there")
        with (
            tcp_echo(at.guest, host, port=80),
            lab.remote.connect(host, 80) as client,
        ):
            assert exchange(client, b"inbound") == b"inbound"


def test_a_host_without_a_network_gets_one(lab: Lab) -> None:
    """A laptop is opened, and connects a little later."""
    lab.host.ip("link", "set", "eth0", "down")
    with serving(lab, "-4", "-I", "eth0") as at:
        assert addresses(at.guest) == {"169.254.2.1/16"}
        lab.host.ip("link", "set", "eth0", "up")
        lab.host.ip("route", "add", "default", "via", GATEWAY4)
        soon(lambda: addresses(at.guest) == {f"{HOST4}/24"}, "the network is there")


def test_a_command_is_followed_too(lab: Lab) -> None:
    with lab.spawn(Passtpy(), "sleep", "1000", extra=("-T", "none")) as at:
        lab.host.ip("addr", "add", f"{NEW4}/24", "dev", "eth0")
        read = f"/proc/{at.guest.path.parts[2]}/net/fib_trie"
        soon(lambda: NEW4 in Path(read).read_text(), "the address is there")


def test_a_guest_that_configures_itself_is_told(lab: Lab) -> None:
    """The kernel believes router advertisements: another prefix, another address."""
    guest = lab.guest()
    argv = [Passtpy().program, "-f", "-q", "--netns", str(guest.path), "-I", "eth0"]
    process = lab.start(lab.host, *argv)
    prefix = HOST6.removesuffix(":2")
    wait_until(lambda: "eth0" in guest.ip("link"), PATIENCE, "a link")
    guest.ip("link", "set", "eth0", "up")
    what = "an address from the first prefix"
    wait_until(lambda: prefix in guest.ip("-6", "addr"), PATIENCE, what)
    lab.host.ip("addr", "add", f"{OFFICE6}/64", "dev", "eth0", "nodad")
    lab.host.ip("addr", "del", f"{HOST6}/64", "dev", "eth0")
    new = OFFICE6.removesuffix(":2")
    soon(lambda: new in guest.ip("-6", "addr"), "an address from the second prefix")

    def left() -> bool:
        """The kernel looks at the age of its addresses a moment after it was told."""
        old = [line for line in guest.ip("-6", "addr").splitlines() if prefix in line]
        return all("deprecated" in line for line in old)

    soon(left, "the first prefix is not used any more")
    process.stop()


# Neighbours


def neighbour(where: Namespace, address: str) -> str:
    """The MAC address that `where` has for `address` on eth0, or nothing."""
    words = where.ip("neigh", "show", address, "dev", "eth0").split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def mac_of(where: Namespace, device: str) -> str:
    words = where.ip("-br", "link", "show", "dev", device).split()
    return words[2]


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])
def test_neighbours_have_the_mac_addresses_of_the_wire(lab: Lab, remote: str) -> None:
    with serving(lab) as at, tcp_echo(lab.remote, remote) as server:

        def talk() -> None:
            with at.guest.connect(remote, server.port) as sock:
                assert exchange(sock, b"to whom it belongs") == b"to whom it belongs"

        talk()
        first, other = mac_of(lab.remote, "wire0"), "02:00:00:00:00:99"
        soon(lambda: neighbour(at.guest, remote) == first, "the remote's own")
        lab.remote.ip("link", "set", "wire0", "address", other)
        lab.host.ip("neigh", "flush", "dev", "eth0")
        talk()
        soon(lambda: neighbour(at.guest, remote) == other, "the new one is told")
        talk()


# resolv.conf


def test_resolv_conf_is_written_again(lab: Lab) -> None:
    first = resolver(lab.remote, REMOTE4, "first")
    second = resolver(lab.remote, GATEWAY4, "second")
    with first, second, serving(lab, "--dns-forward", FORWARD4) as at:
        assert ask(at.guest, FORWARD4) == "first"
        with (lab.dir / "etc" / "resolv.conf").open("r+") as file:
            file.write(content(GATEWAY4))  # which is longer: it is never empty
        soon(
            lambda: ask(at.guest, FORWARD4, patience=1) == "second",
            "the second is asked",
        )
        told = [f"host.changed resolvers={GATEWAY4}"]
        soon(lambda: changes(at) == told, "it is told")


def test_resolv_conf_is_replaced(lab: Lab) -> None:
    first = resolver(lab.remote, REMOTE4, "first")
    second = resolver(lab.remote, GATEWAY4, "second")
    with first, second, serving(lab, "--dns-forward", FORWARD4) as at:
        for name, server in (("second", GATEWAY4), ("first", REMOTE4)):
            new = lab.dir / "etc" / "resolv.conf.new"
            new.write_text(content(server))
            new.rename(lab.dir / "etc" / "resolv.conf")
            heard = partial(ask, at.guest, FORWARD4, patience=1)
            soon(lambda: heard() == name, f"the {name} is asked")  # noqa: B023


def test_resolv_conf_is_a_link_to_a_file_that_is_replaced(lab: Lab) -> None:
    """As systemd-resolved and resolvconf have it; its directory may come later."""
    first = resolver(lab.remote, REMOTE4, "first")
    second = resolver(lab.remote, GATEWAY4, "second")
    path, target = lab.dir / "etc" / "resolv.conf", lab.dir / "run" / "stub.conf"
    with first, second, serving(lab, "--dns-forward", FORWARD4) as at:
        link = lab.dir / "etc" / "link"
        link.symlink_to(target)
        link.rename(path)  # to nowhere: what was known stays
        time.sleep(0.3)
        assert ask(at.guest, FORWARD4) == "first"
        target.parent.mkdir(mode=0o755)
        target.write_text(content(GATEWAY4))
        soon(
            lambda: ask(at.guest, FORWARD4, patience=1) == "second",
            "the second is asked",
        )
        new = target.with_suffix(".new")
        new.write_text(content(REMOTE4))
        new.rename(target)
        soon(
            lambda: ask(at.guest, FORWARD4, patience=1) == "first",
            "the first is asked again",
        )


def test_resolv_conf_is_a_mount(lab: Lab) -> None:
    """As in a container: its directory sees nothing of what is written to it."""
    first = resolver(lab.remote, REMOTE4, "first")
    second = resolver(lab.remote, GATEWAY4, "second")
    outside = lab.dir / "outside.conf"
    outside.write_text(content(REMOTE4))
    prepare = f"mount --bind {outside} /etc/resolv.conf"
    extra = ("--dns-forward", FORWARD4)
    with first, second, serving(lab, *extra, prepare=prepare) as at:
        assert ask(at.guest, FORWARD4) == "first"
        outside.write_text(content(GATEWAY4))
        soon(
            lambda: ask(at.guest, FORWARD4, patience=1) == "second",
            "the second is asked",
        )
