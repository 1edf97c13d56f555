# SPDX-License-Identifier: GPL-2.0-or-later
"""What is between a guest of the datapath tests and its tap: one frame at a time."""

import socket
import struct
from typing import Protocol

from tests.lab.ethernet import unpadded

MIN_FRAME = 60  # on a real wire, without the check sequence
MAX_FRAME = 10 + 14 + 65535
_PREFIX = struct.Struct("!I")


class Link(Protocol):
    """The guest's end; nothing blocks."""

    def send(self, frame: bytes) -> None:
        """Send one frame."""

    def recv(self) -> bytes:
        """Return the next frame; BlockingIOError when there is none."""

    def fileno(self) -> int:
        """What is readable when there may be one."""

    def close(self) -> None:
        """Let go of the datapath."""


class MessageLink:
    """A socket that keeps message boundaries, as the tun backend reads it."""

    kind = socket.SOCK_SEQPACKET

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.close = sock.close

    def send(self, frame: bytes) -> None:
        """Send one frame, its virtio-net header included."""
        self.sock.send(frame)

    def recv(self) -> bytes:
        """Return the next frame; BlockingIOError when there is none."""
        return self.sock.recv(MAX_FRAME)


class StreamLink:
    """A stream socket as qemu speaks it: four bytes of length before each frame."""

    kind = socket.SOCK_STREAM

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.close = sock.close
        self._unsent = b""
        self._received = bytearray()

    def send(self, frame: bytes) -> None:
        """Send one frame; what the socket does not take goes with the next ones."""
        self._unsent += _PREFIX.pack(len(frame)) + frame
        self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def recv(self) -> bytes:
        """Return the next frame; BlockingIOError when there is none."""
        while (frame := self._take()) is None:
            if self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
            got = self.sock.recv(1 << 20)
            if not got:
                raise ConnectionResetError("the datapath closed the socket")
            self._received += got
        return frame

    def _take(self) -> bytes | None:
        if len(self._received) < _PREFIX.size:
            return None
        (length,) = _PREFIX.unpack_from(self._received)
        end = _PREFIX.size + length
        if len(self._received) < end:
            return None
        frame = bytes(self._received[_PREFIX.size : end])
        del self._received[:end]
        assert len(frame) >= MIN_FRAME
        packet = unpadded(frame)
        assert not any(frame[len(packet) :]), "padding carries bytes"
        return packet
