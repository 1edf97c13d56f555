# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries the frames of a machine that shares its memory with us (vhost-user).

Its hypervisor, the front-end, says over the socket where the memory and the rings in it
are; the datapath does the rest.

Messages are read exactly, header and then payload, never beyond: the kernel hands out
descriptors with the first bytes they were sent beside, and whoever reads across the end
of a message cannot tell whose they are. Every descriptor that comes in is noted before
anything else happens, and struck off when it is closed or handed over; what is still
noted when the conversation ends is closed then. That is why none can leak.

What a front-end does wrong ends its conversation, with one reason, and nothing else.
"""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from errno import EFAULT, EPROTO
from typing import ClassVar, Final, Protocol, assert_never

from passtpy._native import VHOST_FEATURES
from passtpy.errors import WireError
from passtpy.log import Log
from passtpy.services.vhost_user import (
    TO_GUEST,
    Action,
    Answer,
    CloseFd,
    Conversation,
    EnableRing,
    MapMemory,
    SetCall,
    StartRing,
    StopRing,
    UseFeatures,
)
from passtpy.wire.vhost_user import HEADER_LEN, MAX_FDS, Header, Message

MESSAGES_PER_WAKE: Final = 64  # then other tasks of the loop get their chance
_FD: Final = array.array("i").itemsize
_ROOM_FOR_FDS: Final = socket.CMSG_SPACE(MAX_FDS * _FD)

Region = tuple[int, int, int, int, int]  # guest_addr, size, user_addr, mmap_offset, fd


class VhostDatapath(Protocol):
    """What a transport asks of the datapath."""

    def vhost_features(self, features: int, /) -> None: ...

    def vhost_memory(self, regions: Sequence[Region], /) -> None: ...

    def vhost_ring(
        self,
        index: int,
        *,
        size: int,
        desc: int,
        used: int,
        avail: int,
        base: int,
        kick_fd: int,
        call_fd: int,
    ) -> None: ...

    def vhost_call(self, index: int, call_fd: int, /) -> None: ...

    def vhost_enable(self, index: int, enabled: bool, /) -> None: ...

    def vhost_stop(self, index: int, /) -> int: ...

    def detach(self) -> None: ...


class _Left(Exception):
    """The front-end is not there any more."""


class _Line:
    """A front-end's socket, and the descriptors that came through it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._noted: set[int] = set()
        self._data = bytearray()
        self._header: Header | None = None
        self._fds: list[int] = []  # of the message that is being read

    def close(self) -> None:
        """Close the socket, and every descriptor that nobody took."""
        self.sock.close()
        for fd in self._noted:
            os.close(fd)
        self._noted.clear()

    def close_fd(self, fd: int) -> None:
        """Close a descriptor that came through here."""
        self.strike(fd)
        os.close(fd)

    def strike(self, fd: int) -> None:
        """Forget a descriptor: somebody has taken it over."""
        self._noted.remove(fd)

    def read(self) -> tuple[Message, tuple[int, ...]] | None:
        """Return the next message, None when it is not all there yet."""
        while True:
            size = HEADER_LEN if self._header is None else self._header.size
            if len(self._data) < size and not self._fill(size - len(self._data)):
                return None
            if len(self._data) < size:
                continue
            data = bytes(self._data)
            self._data.clear()
            if self._header is None:
                self._header = Header.parse(data)
                continue
            message = Message.parse(self._header, data)
            fds, self._header, self._fds = tuple(self._fds), None, []
            return message, fds

    def _fill(self, missing: int) -> bool:
        """Read at most `missing` bytes; False when there are none now."""
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(
                missing, _ROOM_FOR_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError as error:
            raise _Left(error.strerror) from error
        for level, kind, raw in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i", raw[: len(raw) // _FD * _FD])
                self._noted.update(fds)
                self._fds += fds
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise WireError("vhost-user: too many descriptors")
        if not data:
            whole = self._header is None and not self._data
            raise _Left("connection closed" + ("" if whole else " within a message"))
        self._data += data
        return True

    def write(self, data: bytes) -> None:
        """Send an answer; a front-end waits for it, so there is room."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise _Left(error.strerror) from error
        if sent < len(data):
            raise WireError("vhost-user: the front-end does not read our answers")


class VhostTransport:
    """Serves one front-end after the other; each starts from nothing."""

    # Why the datapath may give up a guest by itself
    reasons: ClassVar[Mapping[int, str]] = {
        EFAULT: "its memory was taken away",
        EPROTO: "a kick that is no event descriptor",
    }

    def __init__(
        self,
        datapath: VhostDatapath,
        log: Log,
        on_ready: Callable[[], None],
        features: int = VHOST_FEATURES,
    ) -> None:
        """Call `on_ready` whenever a guest's driver begins to listen to frames."""
        self._datapath = datapath
        self._log = log
        self._on_ready = on_ready
        self._features = features
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: _Line | None = None
        self._conversation = Conversation(features)
        self._on_gone: Callable[[str], None] | None = None

    def attach(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_gone: Callable[[str], None],
    ) -> None:
        """Take over a connected socket; `on_gone` is told why it came to an end."""
        assert self._line is None, "one front-end at a time"
        self._line, self._loop, self._on_gone = _Line(sock), loop, on_gone
        self._conversation = Conversation(self._features)
        loop.add_reader(sock.fileno(), self.pump)

    def detach(self) -> None:
        """Let go of the front-end, its rings and its memory, if there is one."""
        line, self._line, self._on_gone = self._line, None, None
        if line is not None and self._loop is not None:
            self._loop.remove_reader(line.sock.fileno())
            line.close()
            self._datapath.detach()

    def pump(self) -> None:
        """Handle what has come; the loop calls this when the socket is readable."""
        try:
            for _ in range(MESSAGES_PER_WAKE):
                if self._line is None or (got := self._line.read()) is None:
                    break
                self._handle(self._line, *got)
        except (_Left, WireError) as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        on_gone = self._on_gone
        self.detach()
        if on_gone is not None:
            on_gone(reason)

    def _handle(self, line: _Line, message: Message, fds: tuple[int, ...]) -> None:
        self._log.debug("vhost.message", message=message)
        actions = self._conversation.handle(message, fds)
        try:
            for action in actions:
                self._do(line, action)
        except (OSError, ValueError) as error:
            for action in self._conversation.refuse(message):
                self._do(line, action)
            raise WireError(f"vhost-user: {message.request.name}: {error}") from error

    def _do(self, line: _Line, action: Action) -> None:
        datapath = self._datapath
        match action:
            case UseFeatures(features):
                self._log.debug("vhost.features", features=f"{features:#x}")
                datapath.vhost_features(features)
            case MapMemory():
                self._map(line, action)
            case StartRing():
                self._start(line, action)
            case SetCall(index, call_fd):
                datapath.vhost_call(index, call_fd)
                if call_fd >= 0:
                    line.strike(call_fd)
            case EnableRing(index, enabled):
                datapath.vhost_enable(index, enabled)
                if index == TO_GUEST and enabled:
                    self._on_ready()
            case StopRing(index):
                base = datapath.vhost_stop(index)
                self._do(line, self._conversation.stopped(index, base))
            case CloseFd(fd):
                line.close_fd(fd)
            case Answer(message):
                line.write(message.emit())
            case _:
                assert_never(action)

    def _map(self, line: _Line, memory: MapMemory) -> None:
        self._datapath.vhost_memory(
            [
                (r.guest_addr, r.size, r.user_addr, r.mmap_offset, fd)
                for r, fd in zip(memory.regions, memory.fds, strict=True)
            ]
        )
        for fd in memory.fds:  # what is mapped stays mapped
            line.close_fd(fd)

    def _start(self, line: _Line, ring: StartRing) -> None:
        self._datapath.vhost_ring(
            ring.address.index,
            size=ring.size,
            desc=ring.address.desc,
            used=ring.address.used,
            avail=ring.address.avail,
            base=ring.base,
            kick_fd=ring.kick_fd,
            call_fd=ring.call_fd,
        )
        for fd in (ring.kick_fd, ring.call_fd):
            if fd >= 0:
                line.strike(fd)
