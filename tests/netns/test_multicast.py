# SPDX-License-Identifier: GPL-2.0-or-later
"""--multicast-relay: discovery from the guest, and groups that it joins."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lab import (
    HOST4,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    Namespace,
    wait_until,
)
from tests.lab.namespace import family_of

SSDP4, SSDP6, SSDP = "239.255.255.250", "ff02::c", 1900
MDNS4, MDNS6, MDNS = "224.0.0.251", "ff02::fb", 5353
BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


@pytest.fixture(scope="module")
def attached(lab: Lab) -> Iterator[Attached]:
    """A guest whose discovery is relayed."""
    options = Attachment(extra=("--multicast-relay",))
    with lab.attach(TRANSLATORS["passtpy"], options) as made:
        yield made
        made.check_alive()


def index_of(where: Namespace, name: str) -> int:
    """The number of an interface."""
    with where.entered():
        return socket.if_nametoindex(name)


def tap_of(guest: Namespace) -> str:
    """The guest's only interface but the loopback."""
    with guest.entered():
        return next(name for _, name in socket.if_nameindex() if name != "lo")


def speaker(where: Namespace, v6: bool, port: int, dev: str) -> socket.socket:
    """A socket that sends to groups on an interface."""
    sock = where.udp("::" if v6 else "0.0.0.0", port)
    index = index_of(where, dev)
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    else:
        mreqn = struct.pack("=4s4si", bytes(4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    return sock


def join(sock: socket.socket, where: Namespace, group: str, dev: str) -> None:
    """Let a socket hear a group."""
    raw = socket.inet_pton(family_of(group), group)
    index = index_of(where, dev)
    if ":" in group:
        mreq = raw + struct.pack("=i", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, mreq)
    else:
        mreqn = struct.pack("=4s4si", raw, bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)


def has_joined(where: Namespace, group: str, dev: str) -> bool:
    """Whether the kernel of a namespace wants a group on an interface."""
    return group in where.ip("maddr", "show", "dev", dev)


@BOTH
def test_answers_from_anybody_reach_the_asker(
    lab: Lab, attached: Attached, v6: bool
) -> None:
    group = SSDP6 if v6 else SSDP4
    tap = tap_of(attached.guest)
    with (
        speaker(lab.remote, v6, SSDP, "wire0") as server,
        lab.remote.udp(REMOTE6 if v6 else REMOTE4, 0) as other,
        speaker(attached.guest, v6, 40123, tap) as client,
    ):
        join(server, lab.remote, group, "wire0")
        client.sendto(b"M-SEARCH", (group, SSDP))
        data, asker = server.recvfrom(99)
        assert data == b"M-SEARCH"
        assert asker[1] == 40123
        if not v6:
            assert asker[0] == HOST4
        server.sendto(b"one", asker)
        answer, source = client.recvfrom(99)
        assert (answer, source[1]) == (b"one", SSDP)
        if not v6 or not asker[0].startswith("fe80"):
            other.sendto(b"two", asker[:2])
            answer, source = client.recvfrom(99)
            assert answer == b"two"
            assert source[:2] == other.getsockname()[:2]
            # And there it can be spoken to
            client.sendto(b"back", source)
            assert other.recv(99) == b"back"


def hears(member: socket.socket, sender: socket.socket, group: str) -> bool:
    """Whether a group can be heard; a kernel takes a moment after it joined."""
    sender.sendto(b"first", (group, MDNS))
    try:
        return member.recv(99) == b"first"
    except TimeoutError:
        return False


@BOTH
def test_group_of_the_guest_is_joined_and_left(
    lab: Lab, attached: Attached, v6: bool
) -> None:
    group = MDNS6 if v6 else MDNS4
    tap = tap_of(attached.guest)
    with speaker(lab.remote, v6, MDNS, "wire0") as sender:
        assert not has_joined(lab.host, group, "eth0")
        with speaker(attached.guest, v6, MDNS, tap) as member:
            join(member, attached.guest, group, tap)
            wait_until(lambda: has_joined(lab.host, group, "eth0"), 30, "joined")
            member.settimeout(0.2)
            wait_until(lambda: hears(member, sender, group), 30, "group heard")
            member.settimeout(30)
            sender.sendto(b"second", (group, MDNS))
            data, source = member.recvfrom(99)
            while data == b"first":  # was still on its way
                data, source = member.recvfrom(99)
            assert (data, source[1]) == (b"second", MDNS)
            if not v6:
                assert source[0] == REMOTE4
            # What it announces comes from the port of the protocol
            join(sender, lab.remote, group, "wire0")
            member.sendto(b"announcement", (group, MDNS))
            data, source = sender.recvfrom(99)
            assert (data, source[1]) == (b"announcement", MDNS)
            member.settimeout(0.3)
            with pytest.raises(TimeoutError):  # neither an echo nor a copy
                member.recv(99)
        wait_until(lambda: not has_joined(lab.host, group, "eth0"), 30, "left")


def test_broadcast_is_answered(lab: Lab, attached: Attached) -> None:
    with (
        lab.remote.udp("0.0.0.0", 9999) as server,
        attached.guest.udp("0.0.0.0", 40124) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"anybody?", ("255.255.255.255", 9999))
        data, asker = server.recvfrom(99)
        assert (data, asker) == (b"anybody?", (HOST4, 40124))
        server.sendto(b"me", asker)
        assert client.recvfrom(99) == (b"me", (REMOTE4, 9999))


def test_other_groups_are_not_relayed(lab: Lab, attached: Attached) -> None:
    tap = tap_of(attached.guest)
    with (
        lab.remote.udp("0.0.0.0", 5000) as server,
        speaker(attached.guest, False, 0, tap) as client,
    ):
        join(server, lab.remote, "239.1.2.3", "wire0")
        server.settimeout(0.3)
        client.sendto(b"x", ("239.1.2.3", 5000))
        with pytest.raises(TimeoutError):
            server.recv(9)


def test_nothing_is_relayed_unless_asked_for(lab: Lab) -> None:
    with (
        lab.attach(TRANSLATORS["passtpy"]) as attached,
        lab.remote.udp("0.0.0.0", SSDP) as server,
        speaker(attached.guest, False, 0, tap_of(attached.guest)) as client,
    ):
        join(server, lab.remote, SSDP4, "wire0")
        server.settimeout(0.3)
        client.sendto(b"M-SEARCH", (SSDP4, SSDP))
        with pytest.raises(TimeoutError):
            server.recv(9)


@BOTH
def test_a_forwarded_port_hears_a_group_as_a_group(lab: Lab, v6: bool) -> None:
    """A socket that is bound to the group hears it, and one of the guest's does not."""
    group = MDNS6 if v6 else MDNS4
    # Linux gives a socket of both families no group of IPv4, unless it has joined
    options = Attachment(extra=("-u", f"{'[::]' if v6 else '0.0.0.0'}/{MDNS}"))
    with (
        lab.attach(TRANSLATORS["passtpy"], options) as attached,
        lab.host.udp("::" if v6 else "0.0.0.0", 0) as somebody,
        speaker(lab.remote, v6, MDNS, "wire0") as sender,
        attached.guest.new_socket(family_of(group), socket.SOCK_DGRAM) as member,
    ):
        tap = tap_of(attached.guest)
        scope = (0, index_of(attached.guest, tap)) if v6 else ()
        member.bind((group, MDNS, *scope))
        join(somebody, lab.host, group, "eth0")  # else its kernel takes none
        join(member, attached.guest, group, tap)
        member.settimeout(0.2)
        wait_until(lambda: hears(member, sender, group), 30, "group heard")
