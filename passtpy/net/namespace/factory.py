# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes sockets in the guest's namespace, for the daemon (the *socket factory*).

A socket belongs for life to the namespace in which it was made, and the daemon enters
none. So the process that configured the namespace stays there, makes what it is asked
for, and passes it back. Requests and answers are fixed structures on a SOCK_SEQPACKET
socket, one answer per request, in order; the process ends with that socket.

Requests begin with a byte that tells their kind:

    S family kind count transparent   unbound sockets; the answer is an errno
    L proto families port…            listeners on the device lo; an errno for each port
    D                                 a socket for sock_diag; the answer is an errno
    P                                 the tables below /proc; the answer is an errno
    R                                 a socket for rtnetlink; the answer is an errno
    N message…                        rtnetlink requests that change addresses and
                                      routes; an errno for each

An answer carries the descriptors of everything in it that succeeded, in order.
"""

import array
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from errno import EINVAL, EPERM, EPIPE
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import Address
from passtpy.config.ports import LOOPBACK_DEVICE
from passtpy.flow import IPPROTO_UDP
from passtpy.net.kernel import netlink
from passtpy.net.kernel.listen import V4, V6, Place, opener, wildcard
from passtpy.net.kernel.nlmsg import (
    ERRNO,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
)
from passtpy.net.kernel.sockdiag import open_diag, open_proc
from passtpy.record import field, record

FDS_MAX: Final = 250  # the kernel takes 253 per message
PORTS_MAX: Final = FDS_MAX // 2  # a port may need two sockets
MESSAGES_LEN: Final = 32768  # of rtnetlink, altogether
REQUEST_MAX: Final = 1 + MESSAGES_LEN

IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75

_SOCKETS: Final = struct.Struct("=cBBBB")
_LISTEN: Final = struct.Struct("=cBB")
_PORT: Final = struct.Struct("=iB")  # errno, number of sockets
_LOOPBACKS: Final[dict[int, Address]] = {
    V4: IPv4Address("127.0.0.1"),
    V6: IPv6Address("::1"),
}
_MAY_CHANGE: Final = frozenset((RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE))

Answer = tuple[bytes, Sequence[int]]


def sockets_request(family: int, kind: int, count: int, transparent: bool) -> bytes:
    """Ask for `count` unbound sockets, FDS_MAX at most."""
    return _SOCKETS.pack(b"S", family, kind, count, transparent)


def listen_request(proto: int, families: int, ports: Sequence[int]) -> bytes:
    """Ask for listeners on the namespace's loopback; PORTS_MAX ports at most."""
    return _LISTEN.pack(b"L", proto, families) + array.array("H", ports).tobytes()


def diag_request() -> bytes:
    """Ask for a socket that tells what listens in the namespace."""
    return b"D"


def proc_request() -> bytes:
    """Ask for the tables below /proc, which tell the same."""
    return b"P"


def route_request() -> bytes:
    """Ask for a socket that tells which addresses the namespace has."""
    return b"R"


def netlink_request(messages: Sequence[bytes]) -> bytes:
    """Ask for changes to the namespace; MESSAGES_LEN bytes at most."""
    return b"N" + b"".join(m.ljust((len(m) + 3) & ~3, b"\0") for m in messages)


def read_errnos(answer: bytes, count: int) -> list[int]:
    """Return the errno of each of `count` requests; 0: it worked."""
    if len(answer) != count * ERRNO.size:
        return [EPIPE] * count
    return [number for (number,) in ERRNO.iter_unpack(answer)]


def errno_answer(number: int) -> bytes:
    """Return the answer that is only an errno; 0: it worked."""
    return ERRNO.pack(number)


def read_errno(answer: bytes) -> int:
    """Return the errno of an answer that has one; no answer at all is EPIPE."""
    return int(ERRNO.unpack_from(answer)[0]) if answer else EPIPE


def read_ports(answer: bytes, count: int) -> list[tuple[int, int]]:
    """Return (errno, number of sockets) for each of `count` ports asked for."""
    if len(answer) != count * _PORT.size:
        return [(EPIPE, 0)] * count
    return list(_PORT.iter_unpack(answer))


Openers = Sequence[Callable[[int], socket.socket]]


@record(frozen=False)
class _Maker:
    """What the factory has learnt about its namespace."""

    binds_devices: bool = True
    rtnetlink: socket.socket | None = None
    had: set[int] = field(default_factory=set)  # UDP: flows may live on at these ports
    openers: tuple[tuple[int, int, bool, bool] | None, Openers] = (None, ())
    tables: tuple[int, ...] = ()  # below /proc: nothing is opened by name later

    def answer(self, request: bytes) -> Answer:
        """Make what `request` asks for."""
        match request[:1]:
            case b"S":
                return _counted(lambda: _sockets(request))
            case b"L":
                return self._listeners(request)
            case b"D":
                return _counted(lambda: [open_diag().detach()])
            case b"P":
                return _counted(lambda: [os.dup(fd) for fd in self.tables])
            case b"R":
                return _counted(lambda: [netlink.open_socket().detach()])
            case b"N":
                return self._change_network(request[1:])
        return errno_answer(EINVAL), ()

    def _change_network(self, messages: bytes) -> Answer:
        if self.rtnetlink is None:
            self.rtnetlink = netlink.open_socket()
        return netlink.pass_on(self.rtnetlink, messages, _MAY_CHANGE), ()

    def _listeners(self, request: bytes) -> Answer:
        _, proto, families = _LISTEN.unpack_from(request)
        ports = array.array("H", request[_LISTEN.size :])
        text, fds = bytearray(), list[int]()
        for port in ports:
            again = proto == IPPROTO_UDP and port in self.had
            error, made = _open_all(self._openers(proto, families, again), port)
            if error == EPERM and self.binds_devices:
                self.binds_devices = False
                error, made = _open_all(self._openers(proto, families, again), port)
            if proto == IPPROTO_UDP and made:
                self.had.add(port)
            text += _PORT.pack(error, len(made))
            fds += made
        return bytes(text), fds

    def _openers(self, proto: int, families: int, share: bool) -> Openers:
        """Return what opens a port everywhere; the same as the last time, mostly."""
        key = proto, families, share, self.binds_devices
        if self.openers[0] != key:
            places = [wildcard(proto, families, LOOPBACK_DEVICE)]
            if not self.binds_devices:
                bits = [bit for bit in (V4, V6) if families & bit]
                places = [Place(proto, _LOOPBACKS[bit]) for bit in bits]
            self.openers = key, tuple(opener(place, share) for place in places)
        return self.openers[1]


def _open_all(openers: Openers, port: int) -> tuple[int, list[int]]:
    """Open a port everywhere, or nowhere and tell why."""
    made: list[int] = []
    try:
        for open_port in openers:
            made.append(open_port(port).detach())
    except OSError as error:
        _close(made)
        return error.errno or EINVAL, []
    return 0, made


def _counted(make: Callable[[], Sequence[int]]) -> Answer:
    try:
        return errno_answer(0), make()
    except OSError as error:
        return errno_answer(error.errno or EINVAL), ()


def _sockets(request: bytes) -> list[int]:
    _, family, kind, count, transparent = _SOCKETS.unpack_from(request)
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made: list[int] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, kind | flags)
            if transparent:
                _make_transparent(sock)
            made.append(sock.detach())
    except OSError:
        if not made:
            raise
    return made


def _make_transparent(sock: socket.socket) -> None:
    """Let a socket bind to addresses that are not here, where we have the right."""
    with suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


class Server:
    """The factory's end: fileno() is readable when somebody wants something."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._maker = _Maker()
        self._maker.tables = open_proc()

    def fileno(self) -> int:
        """Return what to wait for."""
        return self._sock.fileno()

    def held(self) -> set[int]:
        """Return every descriptor that is needed."""
        return {self._sock.fileno(), *self._maker.tables}

    def serve_all(self) -> None:
        """Answer requests until there will not be another one."""
        while self.serve():
            pass

    def serve(self) -> bool:
        """Answer one request; False when there will not be another one."""
        try:
            request = self._sock.recv(REQUEST_MAX)
            if not request:
                return False
            text, fds = self._maker.answer(request)
            try:
                socket.send_fds(self._sock, [text], fds)
            finally:
                _close(fds)
        except OSError:
            return False
        return True
