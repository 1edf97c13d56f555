# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the kernel about links, addresses and routes, and has them changed.

The exchange is a plain blocking socket of our own: the kernel has the answer to every
question ready, and pyroute2's front door imports all of the library, which would be the
largest part of our start-up time.
"""

import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from errno import EPERM
from ipaddress import ip_interface, ip_network
from typing import Any, Final

from passtpy.addr import Mac, parse_mac
from passtpy.net.kernel import rtnl
from passtpy.net.kernel.nlmsg import (
    ERRNO,
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    split,
)
from passtpy.net.kernel.rtnl import (
    RTM_F_CLONED,
    Link,
    LinkAddress,
    Request,
    Route,
)

_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_RECEIVE_LEN: Final = 1 << 18  # the kernel fills at most 32 KiB per message today


def open_socket() -> socket.socket:
    """Open a netlink socket, which stays in the namespace where it was opened."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    sock.bind((0, 0))
    return sock


def pass_on(sock: socket.socket, messages: bytes, kinds: Collection[int]) -> bytes:
    """Send somebody else's requests, of these kinds only; return their errnos."""
    answer = bytearray()
    for _, kind, sequence, data in split(messages):
        code = EPERM
        if kind in kinds:
            sock.send(data)
            code = _acknowledged(sock, sequence)
        answer += ERRNO.pack(code)
    return bytes(answer)


def _acknowledged(sock: socket.socket, sequence: int) -> int:
    while True:
        for _, kind, number, data in split(sock.recv(_RECEIVE_LEN)):
            if number == sequence and kind == NLMSG_ERROR:
                code: int = ERRNO.unpack_from(data, HEADER.size)[0]
                return -code


class Netlink:
    """A conversation with the kernel about one network namespace."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock = sock if sock is not None else open_socket()
        self._sequence = 0
        self._ifinfmsg = rtnl.load("ifinfmsg").ifinfmsg
        self._ifaddrmsg = rtnl.load("ifaddrmsg").ifaddrmsg
        self._rtmsg = rtnl.load("rtmsg").rtmsg

    def close(self) -> None:
        """End the conversation."""
        self._sock.close()

    def links(self) -> Iterator[Link]:
        """Yield all interfaces; read them all before asking anything else."""
        for data in self._dump(RTM_GETLINK, self._ifinfmsg()):
            yield self._link(data)

    def link(self, name: str) -> Link:
        """Return one interface; OSError (ENODEV) when there is none of that name."""
        request = self._ifinfmsg()
        request["attrs"] = [("IFLA_IFNAME", name)]
        reply = list(self._exchange(Request(RTM_GETLINK, NLM_F_ACK, request)))
        return self._link(reply[0])

    def addresses(self) -> Iterator[LinkAddress]:
        """Yield all addresses of all interfaces, in the kernel's order."""
        for data in self._dump(RTM_GETADDR, self._ifaddrmsg()):
            yield self._address(data)

    def routes(self) -> Iterator[Route]:
        """Yield the unicast routes of the main table, in the kernel's order.

        A multipath route comes as one route through its heaviest hop.
        """
        for family in (socket.AF_INET, socket.AF_INET6):
            request = self._rtmsg()
            request["family"] = family
            for data in self._dump(RTM_GETROUTE, request):
                if _is_ordinary(data):  # before the costly part, which is to decode
                    yield _route(_decoded(self._rtmsg, data))

    def set_up(self, link: Link) -> None:
        """Bring an interface up."""
        self.ask(rtnl.set_link(link.index, up=True))

    def configure_tap(self, tap: Link, mac: Mac | None, mtu: int, queue: int) -> None:
        """Prepare a new tap, still down; 0 leaves the MTU as it is."""
        self.ask(rtnl.prepare_tap(tap.index, mac, mtu, queue))

    def no_automatic_link_local(self, tap: Link) -> None:
        """Keep the kernel from making a link-local address, where it has any."""
        with suppress(OSError):
            self.ask(rtnl.no_automatic_link_local(tap.index))

    def ask(self, request: Request) -> None:
        """Send a request that is answered by an acknowledgement only."""
        for _ in self._exchange(request):
            pass

    def _dump(self, kind: int, message: Any) -> Iterator[bytes]:
        yield from self._exchange(Request(kind, NLM_F_DUMP, message))

    def _exchange(self, request: Request) -> Iterator[bytes]:
        """Send a request; yield the answers until the kernel says that is all."""
        self._sequence += 1
        self._sock.send(request.encode(self._sequence))
        while True:
            for length, answer, sequence, data in split(self._sock.recv(_RECEIVE_LEN)):
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    # A dump may end without a code when it was cut short.
                    short = length < HEADER.size + ERRNO.size
                    code = 0 if short else ERRNO.unpack_from(data, HEADER.size)[0]
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield data

    def _link(self, data: bytes) -> Link:
        message = _decoded(self._ifinfmsg, data)
        mac = message.get_attr("IFLA_ADDRESS")
        return Link(
            index=message["index"],
            name=message.get_attr("IFLA_IFNAME"),
            mac=parse_mac(mac) if mac and len(mac) == 17 else bytes(6),
            mtu=message.get_attr("IFLA_MTU") or 0,
            flags=message["flags"],
        )

    def _address(self, data: bytes) -> LinkAddress:
        message = _decoded(self._ifaddrmsg, data)
        remote = message.get_attr("IFA_ADDRESS")
        local = message.get_attr("IFA_LOCAL") or remote
        flags = message.get_attr("IFA_FLAGS")
        return LinkAddress(
            index=message["index"],
            address=ip_interface(f"{local}/{message['prefixlen']}"),
            scope=message["scope"],
            flags=message["flags"] if flags is None else flags,
            peer=remote if remote != local else None,
            broadcast=message.get_attr("IFA_BROADCAST"),
        )


def _decoded(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message


def _is_ordinary(data: bytes) -> bool:
    """Tell whether a route message is a unicast route of the main table."""
    fixed = _RTMSG.unpack_from(data, HEADER.size)
    table, kind, flags = fixed[4], fixed[7], fixed[8]
    return (
        table == rtnl.RT_TABLE_MAIN
        and kind == rtnl.RTN_UNICAST
        and not flags & RTM_F_CLONED
    )


# Attributes of a route that only fit the interface, or the moment, it was read from.
_NOT_COPIED: Final = frozenset(
    (
        "RTA_OIF",
        "RTA_DST",
        "RTA_GATEWAY",
        "RTA_TABLE",
        "RTA_PREFSRC",
        "RTA_NH_ID",
        "RTA_CACHEINFO",
        "RTA_EXPIRES",
        "RTA_MULTIPATH",
    )
)


def _route(message: Any) -> Route:
    family = message["family"]
    anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    where = message.get_attr("RTA_DST") or anywhere
    hop = message
    hops = message.get_attr("RTA_MULTIPATH")
    if hops:
        hop = max(hops, key=lambda each: each["hops"])
    oif = hop["oif"] if hops else message.get_attr("RTA_OIF")
    kept = tuple(
        (name, rtnl.frozen(value))
        for name, value in message["attrs"]
        if name not in _NOT_COPIED
    )
    return Route(
        family=family,
        destination=ip_network(f"{where}/{message['dst_len']}", strict=False),
        oif=oif or 0,
        gateway=hop.get_attr("RTA_GATEWAY"),
        scope=message["scope"],
        proto=message["proto"],
        tos=message["tos"],
        flags=hop["flags"],
        attributes=kept,
    )
