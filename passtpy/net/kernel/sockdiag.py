# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a network namespace which of its sockets wait for others.

The kernel tells over sock_diag netlink, a socket of which works for the namespace in
which it was opened, wherever it is used. Where that is not permitted, /proc/net/tcp
and its like tell the same, less exactly. Both are read in pieces of a fraction of a
millisecond, so that the loop can move packets in between.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from errno import EAGAIN
from typing import Final, Protocol

from passtpy.addr import V4_PREFIX
from passtpy.config.portrule import MAX_PORT
from passtpy.config.ports import Span
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.net.kernel.nlmsg import (
    ATTRIBUTE,
    ERRNO,
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    split,
)
from passtpy.policy.auto import Heard

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
INET_DIAG_REQ_BYTECODE: Final = 1
INET_DIAG_SKV6ONLY: Final = 11
_S_GE: Final = 2
_S_LE: Final = 3
_SPANS_MAX: Final = 1024  # the second distance of a step has 16 bits
TCP_LISTEN: Final = 10
TCP_CLOSE: Final = 7  # of UDP sockets: bound, and connected to nobody

# The questions of one scan, in order.
TABLES: Final = (
    (IPPROTO_TCP, socket.AF_INET),
    (IPPROTO_TCP, socket.AF_INET6),
    (IPPROTO_UDP, socket.AF_INET),
    (IPPROTO_UDP, socket.AF_INET6),
)
PROC_FILES: Final = ("tcp", "tcp6", "udp", "udp6")

_REQUEST: Final = struct.Struct("=BBBBI48x")
_MESSAGE: Final = struct.Struct("=BBBB2s2s16s16sI8x20x")
_STEP: Final = struct.Struct("=BBH")
_RECEIVE_LEN: Final = 1 << 16  # the kernel fills at most 32 KiB
_LINES: Final = 256  # of /proc read at a time

Found = dict[int, list[Heard]]  # by protocol
Skip = Mapping[int, Sequence[Span]]  # ports nobody asks about, by protocol


def skip_ports(spans: Iterable[Span]) -> bytes:
    """Return an attribute that keeps the kernel from telling about these ports.

    It is a program for inet_diag's little machine. Every instruction says how far to
    go on if its comparison holds and if not; four beyond the end means "no". The first
    distance has 8 bits, the second 16, so the way out is always the second one.
    """
    spans = list(spans)[:_SPANS_MAX]
    steps = sum(1 if high == MAX_PORT else 2 for _, high in spans)
    if not steps:
        return b""
    left, code = steps * 2 * _STEP.size, b""
    for low, high in spans:
        if high < MAX_PORT:
            beyond = 4 * _STEP.size
            code += _step(_S_GE, low, beyond) + _step(_S_GE, high + 1, left - 4)
            left -= beyond
        else:
            code += _step(_S_LE, low - 1, left + 4)
            left -= 2 * _STEP.size
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(code), INET_DIAG_REQ_BYTECODE) + code


def _step(compare: int, port: int, otherwise: int) -> bytes:
    return _STEP.pack(compare, 2 * _STEP.size, otherwise) + _STEP.pack(0, 0, port)


class Source(Protocol):
    """One way to ask; a scan is begin(), then step() until it returns False."""

    def begin(self) -> None: ...

    def step(self, block: bool) -> bool: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...

    @property
    def found(self) -> Found: ...


def open_diag() -> socket.socket:
    """Open a socket for questions about the current namespace."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
    )
    sock.bind((0, 0))
    return sock


def open_proc() -> tuple[int, ...]:
    """Open the tables below /proc; they stay those of this namespace."""
    found = []
    for name in PROC_FILES:
        with suppress(OSError):
            path = f"/proc/self/net/{name}"
            found.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            continue
        found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    return tuple(found)


class Diag:
    """Asks over netlink; OSError from step() when the kernel does not answer that."""

    def __init__(self, sock: socket.socket, skip: Skip | None = None) -> None:
        self._sock = sock
        self._skip = {proto: skip_ports(s) for proto, s in (skip or {}).items()}
        self._sequence = 0
        self._left: list[tuple[int, int]] = []
        self._proto = 0
        self.found: Found = {}

    @classmethod
    def from_fd(cls, fd: int, skip: Skip | None = None) -> "Diag":
        """Use a socket that was opened in another namespace."""
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG, fileno=fd
        )
        return cls(sock, skip)

    def fileno(self) -> int:
        """Return what is readable while an answer waits."""
        return self._sock.fileno()

    def begin(self) -> None:
        """Ask the first question."""
        self.found = {IPPROTO_TCP: [], IPPROTO_UDP: []}
        self._left = list(reversed(TABLES))
        self._ask()

    def step(self, block: bool) -> bool:
        """Read one piece of an answer; False when there are no more questions."""
        flags = 0 if block else socket.MSG_DONTWAIT
        try:
            data = self._sock.recv(_RECEIVE_LEN, flags)
        except OSError as error:
            if error.errno == EAGAIN:
                return True
            raise
        if self._read(data):
            return self._ask()
        return True

    def close(self) -> None:
        """Forget the socket."""
        self._sock.close()

    def _ask(self) -> bool:
        if not self._left:
            return False
        self._proto, family = self._left.pop()
        state = TCP_LISTEN if self._proto == IPPROTO_TCP else TCP_CLOSE
        body = _REQUEST.pack(family, self._proto, 0, 0, 1 << state)
        body += self._skip.get(self._proto, b"")
        self._sequence += 1
        head = HEADER.pack(
            HEADER.size + len(body),
            SOCK_DIAG_BY_FAMILY,
            NLM_F_REQUEST | NLM_F_DUMP,
            self._sequence,
            0,
        )
        self._sock.send(head + body)
        return True

    def _read(self, data: bytes) -> bool:
        """Keep what one datagram tells; True when the answer is complete."""
        found = self.found[self._proto]
        for length, kind, sequence, message in split(data):
            if sequence != self._sequence:
                continue
            if kind == NLMSG_DONE:
                return True
            if kind == NLMSG_ERROR:
                code = -ERRNO.unpack_from(message, HEADER.size)[0]
                raise OSError(code, os.strerror(code))
            if kind == SOCK_DIAG_BY_FAMILY:
                found.append(_heard(message, HEADER.size, length))
        return False


def _heard(data: bytes, start: int, end: int) -> Heard:
    family, _, _, _, port, _, address, _, device = _MESSAGE.unpack_from(data, start)
    number = int.from_bytes(port, "big")
    if family == socket.AF_INET:
        return Heard(number, V4_PREFIX + address[:4], False, False, device)
    only = False
    offset = start + _MESSAGE.size
    while offset + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if kind == INET_DIAG_SKV6ONLY:
            only = data[offset + ATTRIBUTE.size] != 0
            break
        offset += (max(length, ATTRIBUTE.size) + 3) & ~3
    return Heard(number, address, True, only, device)


class ProcTables:
    """Reads the tables below /proc, opened by open_proc().

    They do not tell whether a socket is for IPv6 only, nor its device: it is taken to
    serve both families, on any device.
    """

    def __init__(self, files: tuple[int, ...]) -> None:
        self._files = files
        self._reader: Iterator[None] = iter(())
        self.found: Found = {}

    def fileno(self) -> int:
        """Return what is always readable: nothing here ever waits."""
        return -1

    def begin(self) -> None:
        """Start over."""
        self.found = {IPPROTO_TCP: [], IPPROTO_UDP: []}
        self._reader = self._read_all()

    def step(self, block: bool) -> bool:  # noqa: ARG002
        """Read a piece; False when all was read."""
        return next(self._reader, self) is None

    def close(self) -> None:
        """Close the files."""
        for fd in self._files:
            os.close(fd)
        self._files = ()

    def _read_all(self) -> Iterator[None]:
        for fd, (proto, family) in zip(self._files, TABLES, strict=True):
            os.lseek(fd, 0, os.SEEK_SET)
            with open(fd, encoding="ascii", closefd=False) as file:
                for number, line in enumerate(file):
                    heard = parse_proc_line(line, proto, family)
                    if heard is not None:
                        self.found[proto].append(heard)
                    if number % _LINES == _LINES - 1:
                        yield
            yield


def parse_proc_line(line: str, proto: int, family: int) -> Heard | None:
    """Return the socket of one line, if it waits for others."""
    wanted = TCP_LISTEN if proto == IPPROTO_TCP else TCP_CLOSE
    words = line.split(maxsplit=4)
    if len(words) < 5 or words[3] != f"{wanted:02X}":
        return None
    address, _, port = words[1].partition(":")
    # The kernel prints the address as host-order words.
    packed = bytes.fromhex(address)
    words_ = struct.unpack(f">{len(packed) // 4}I", packed)
    raw = struct.pack(f"={len(words_)}I", *words_)
    v6 = family == socket.AF_INET6
    return Heard(int(port, 16), raw if v6 else V4_PREFIX + raw, v6)
