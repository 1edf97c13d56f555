# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the kernel about an interface, and has interfaces changed.

The exchange is a plain blocking socket: the kernel has the answer to every question
ready. What it takes many messages to tell is read by dump.py, in pieces.
"""

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from errno import EPERM
from typing import Final

from passtpy.addr import Mac
from passtpy.net.kernel import rtnl
from passtpy.net.kernel.nlmsg import (
    ERRNO,
    HEADER,
    NLM_F_ACK,
    NLMSG_ERROR,
    RTM_GETLINK,
    attribute,
    split,
)
from passtpy.net.kernel.rtnl import Link, Request
from passtpy.net.kernel.rtnl_parse import read_link

_RECEIVE_LEN: Final = 1 << 18  # the kernel fills at most 32 KiB per message today


def open_socket() -> socket.socket:
    """Open a netlink socket, which stays in the namespace where it was opened."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
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

    def close(self) -> None:
        """End the conversation."""
        self._sock.close()

    def link(self, name: str) -> Link:
        """Return one interface; OSError (ENODEV) when there is none of that name."""
        asked = attribute(rtnl.IFLA_IFNAME, os.fsencode(name) + b"\0")
        message = rtnl.IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + asked
        reply = self._exchange(Request(RTM_GETLINK, NLM_F_ACK, message))
        return read_link(reply[0])

    def set_up(self, link: Link) -> None:
        """Bring an interface up."""
        self.ask(rtnl.set_link(link.index, up=True))

    def configure_tap(self, tap: Link, mac: Mac | None, mtu: int, queue: int) -> None:
        """Prepare a new tap, still down; 0 leaves the MTU as it is."""
        self.ask(rtnl.prepare_tap(tap.index, mac, mtu, queue))

    def probe_longer(self, link: Link, probes: int) -> None:
        """Have it ask so often where an address is, where the kernel lets us."""
        for neighbours in ("arp_cache", "ndisc_cache"):
            with suppress(OSError):
                self.ask(rtnl.probe_longer(link.index, neighbours, probes))

    def no_automatic_link_local(self, tap: Link) -> None:
        """Keep the kernel from making a link-local address, where it has any."""
        with suppress(OSError):
            self.ask(rtnl.no_automatic_link_local(tap.index))

    def ask(self, request: Request) -> None:
        """Send a request that is answered by an acknowledgement only."""
        self._exchange(request)

    def _exchange(self, request: Request) -> list[bytes]:
        """Send a request; return the answers before the acknowledgement."""
        self._sequence += 1
        self._sock.send(request.encode(self._sequence))
        answers: list[bytes] = []
        while True:
            for _, kind, sequence, data in split(self._sock.recv(_RECEIVE_LEN)):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    raise_error(data)
                    return answers
                answers.append(data)


def raise_error(message: bytes) -> None:
    """Raise what NLMSG_ERROR, or the end of a dump, says; 0 is no error.

    A dump that was cut short may end without a code.
    """
    if len(message) < HEADER.size + ERRNO.size:
        return
    code = -ERRNO.unpack_from(message, HEADER.size)[0]
    if code:
        raise OSError(code, os.strerror(code))
