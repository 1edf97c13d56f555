# SPDX-License-Identifier: GPL-2.0-or-later
"""What a namespace's kernel tells of its addresses becomes what is known of the guest.

The kernel is the other end of a socket pair.
"""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from typing import cast

import pytest

from passtpy.addr import from_inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.net.following.inside import MAX_ADDRESSES, NamespaceAddresses
from passtpy.net.kernel.nlmsg import (
    ATTRIBUTE,
    HEADER,
    NLMSG_DONE,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
)
from passtpy.net.kernel.rtnl import (
    IFA_ADDRESS,
    IFA_F_DEPRECATED,
    IFA_F_TENTATIVE,
    IFADDRMSG,
    RT_SCOPE_LINK,
)
from passtpy.net.namespace.factory_client import Factory

LO, ETH0 = 1, 2


class Kernel:
    """A loop, a factory and the kernel behind it, all in one."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fds = [ours.detach()]
        self.guest = GuestAddresses()
        self.readers: dict[int, Callable[[], None]] = {}
        self.mirror = NamespaceAddresses(self.guest)

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int, /) -> None:
        del self.readers[fd]

    def ask(self, _request: bytes, then: Callable[[bytes, list[int]], None]) -> None:
        then(b"", self.fds)

    def start(self) -> None:
        self.mirror.start(self, cast(Factory, self))

    def tell(self, *messages: bytes) -> None:
        """Send them in one piece, and let them be read."""
        self.sock.send(b"".join(messages))
        for callback in list(self.readers.values()):
            callback()

    def present(self) -> list[str] | None:
        known = self.guest.present
        return None if known is None else [str(from_inany(raw)) for raw in known]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    made.start()
    yield made
    made.mirror.close()
    made.sock.close()


def message(
    text: str,
    kind: int = RTM_NEWADDR,
    index: int = ETH0,
    flags: int = 0,
    scope: int = 0,
) -> bytes:
    address = ip_interface(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    body = IFADDRMSG.pack(family, address.network.prefixlen, flags, scope, index)
    body += ATTRIBUTE.pack(ATTRIBUTE.size + len(packed), IFA_ADDRESS) + packed
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


DONE = HEADER.pack(HEADER.size + 4, NLMSG_DONE, 0, 1, 0) + bytes(4)


def test_nothing_is_known_before_the_whole_was_told(kernel: Kernel) -> None:
    assert HEADER.unpack_from(kernel.sock.recv(100))[1] == RTM_GETADDR
    assert kernel.present() is None
    kernel.tell(message("192.0.2.7/24"))
    assert kernel.present() is None
    kernel.tell(message("2001:db8::7/64"), DONE)
    assert kernel.present() == ["192.0.2.7", "2001:db8::7"]


def test_a_namespace_may_have_none(kernel: Kernel) -> None:
    kernel.tell(DONE)
    assert kernel.present() == []


def test_what_is_announced_counts(kernel: Kernel) -> None:
    kernel.tell(message("192.0.2.7/24"), DONE)
    kernel.tell(message("192.0.2.8/24"), message("192.0.2.7/24", RTM_DELADDR))
    assert kernel.present() == ["192.0.2.8"]


def test_what_cannot_be_used_is_left_out(kernel: Kernel) -> None:
    kernel.tell(
        message("127.0.0.1/8", index=LO),
        message("fe80::1/64", scope=RT_SCOPE_LINK),
        message("2001:db8::7/64", flags=IFA_F_TENTATIVE),
        message("2001:db8::8/64", flags=IFA_F_DEPRECATED),
        message("2001:db8::9/64"),
        DONE,
    )
    assert kernel.present() == ["2001:db8::9", "2001:db8::8"]
    kernel.tell(message("2001:db8::7/64"))  # nobody else had it
    assert kernel.present() == ["2001:db8::9", "2001:db8::7", "2001:db8::8"]


def test_a_guest_with_thousands_of_addresses_costs_little(kernel: Kernel) -> None:
    kernel.tell(DONE)
    for number in range(3000):
        kernel.tell(message(f"2001:db8::{number:x}/64"))
    assert kernel.guest.present is not None
    assert len(kernel.guest.present) == MAX_ADDRESSES


def test_garbage_is_left_alone(kernel: Kernel) -> None:
    kernel.tell(message("192.0.2.7/24"), DONE)
    kernel.tell(HEADER.pack(3, RTM_NEWADDR, 0, 1, 0))
    kernel.tell(message("192.0.2.8/24")[:-6])
    assert kernel.present() == ["192.0.2.7"]


def test_a_factory_that_cannot_tells_nothing() -> None:
    made = Kernel()
    fds, made.fds = made.fds, []
    made.start()
    assert made.present() is None
    assert made.readers == {}
    made.mirror.close()
    socket.socket(fileno=fds[0]).close()
    made.sock.close()


def test_closing_leaves_the_loop() -> None:
    made = Kernel()
    made.start()
    made.tell(message("192.0.2.7/24"), DONE)
    made.mirror.close()
    assert made.readers == {}
    assert made.present() == ["192.0.2.7"]
    made.sock.close()
