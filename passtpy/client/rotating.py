# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a stream of pcapng into one file after the other, each of them whole.

A file ends with a whole block, and each begins with the head of the stream: section
and interfaces. The oldest go when there are more than wanted.
"""

import os
from collections import deque
from contextlib import suppress
from struct import Struct
from typing import Final

FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_BLOCK: Final = Struct("=II")  # of every block: what it is, and how long
_HEAD: Final = (0x0A0D0D0A, 1)  # section, interface: what others refer to


def create(path: str) -> int:
    """Open a file of a capture for writing: it is nobody else's business."""
    return os.open(path, FLAGS, 0o600)


def write(fd: int, data: bytes) -> None:
    """Write all of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


class Rotating:
    """Files `NAME_00001.EXT` and so on, of about `size` bytes, the last `keep`."""

    def __init__(self, path: str, size: int, keep: int | None = None) -> None:
        self._path = path
        self._size = size
        self._keep = keep
        self._made: deque[str] = deque()
        self._count = 0
        self._head = b""
        self._waiting = bytearray()  # a block that is not whole yet
        self._written = 0
        self._fd = -1

    @property
    def latest(self) -> str:
        """Return the name of the file that is written to, once there is one."""
        return self._made[-1] if self._made else self._path

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream; OSError if they cannot be written."""
        self._waiting += data
        at = 0
        while len(self._waiting) - at >= _BLOCK.size:
            kind, length = _BLOCK.unpack_from(self._waiting, at)
            if len(self._waiting) - at < max(length, _BLOCK.size):
                break
            self._put(kind, bytes(self._waiting[at : at + length]))
            at += length
        del self._waiting[:at]

    def close(self) -> None:
        """Close the last file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, kind: int, block: bytes) -> None:
        if kind in _HEAD:
            self._head += block
        is_full = self._written + len(block) > self._size
        if self._fd < 0 or (is_full and self._written > len(self._head)):
            self._begin()
            if kind in _HEAD:  # it is there already
                return
        write(self._fd, block)
        self._written += len(block)

    def _begin(self) -> None:
        self.close()
        self._count += 1
        stem, extension = os.path.splitext(self._path)
        path = f"{stem}_{self._count:05}{extension}"
        self._fd = create(path)
        self._made.append(path)
        if self._keep is not None and len(self._made) > self._keep:
            with suppress(FileNotFoundError):
                os.unlink(self._made.popleft())
        write(self._fd, self._head)
        self._written = len(self._head)
