# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes lines to files: a log of bounded size, and a record of which all is kept.

Nothing here opens a file by its name once the program serves. A file takes another's
place as a descriptor, which comes from whoever may open one (*successor*): after a
SIGHUP, or because the log is full and shall go on in a new file. Then the full one has
the next number in its name, as have those before it, and the oldest is gone.
"""

import os
import select
import socket
import stat
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from passtpy.errors import SetupError
from passtpy.sinks import Record, lines_of

FILE_MODE: Final = 0o600
KEEP_SHARE: Final = 0.7  # of a log file, when it forgets its oldest lines
ANSWER_S: Final = 5.0  # how long a full log waits for the next file
FILE_FLAGS: Final = os.O_CREAT | os.O_APPEND | os.O_RDWR | os.O_CLOEXEC
_NEW_FLAGS: Final = FILE_FLAGS | os.O_EXCL
_MESSAGES: Final = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC


def turn(folder: int, name: str, files: int) -> int:
    """Give a full file, and those before it, the next number; return a new one.

    `files` are kept, the new one included. Those up to the first number that is free
    move on: whoever was killed here has left one, and costs no file.
    """
    names = [name, *(f"{name}.{number}" for number in range(1, files))]
    free = (number for number, each in enumerate(names) if not _is_there(each, folder))
    for number in range(next(free, files - 1), 0, -1):
        before, after = names[number - 1], names[number]
        os.rename(before, after, src_dir_fd=folder, dst_dir_fd=folder)
    return os.open(name, _NEW_FLAGS, FILE_MODE, dir_fd=folder)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class Successors:
    """Descriptors that take the place of an outlet's, from whichever thread.

    They go through a pair of sockets, for each thread may have a table of its own. The
    outlet's thread may ask for one, and is answered by a descriptor or without one.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, _MESSAGES)
        for each in (self._ours, self._theirs):
            each.setblocking(False)
        self._is_asked = False
        self._in_vain = False

    def descriptors(self) -> tuple[int]:
        """Return what take() needs."""
        return (self._theirs.fileno(),)

    def fileno(self) -> int:
        """Return what can be read once ask() or close() was called, for others."""
        return self._ours.fileno()

    def was_asked(self) -> bool:
        """Tell whether ask() was called since this was last asked, for others."""
        with suppress(OSError):
            return bool(self._ours.recv(1))
        return False

    def put(self, fd: int) -> None:
        """Hand a descriptor over."""
        with suppress(OSError):  # so many in so short a time that the last is as good
            socket.send_fds(self._ours, [b"\0"], [fd])
        os.close(fd)

    def refuse(self) -> None:
        """Let whoever has asked go on without."""
        with suppress(OSError):
            self._ours.send(b"\0")

    def ask(self) -> int | None:
        """Ask for one and wait for the answer, unless the last time was in vain."""
        if not self._is_asked:
            with suppress(OSError):  # the other thread has hung up
                self._theirs.send(b"?")
                self._is_asked = True
        if self._is_asked and not self._in_vain:
            poll = select.poll()
            poll.register(self._theirs, select.POLLIN)
            self._in_vain = not poll.poll(ANSWER_S * 1000)
        return self.take()

    def take(self) -> int | None:
        """Return the last that was handed over since this was last asked."""
        last: int | None = None
        with suppress(OSError):  # until there are no more
            while True:
                text, fds, _, _ = socket.recv_fds(self._theirs, 1, 1)
                if not text:  # the other thread has hung up
                    break
                self._is_asked = self._in_vain = False
                for fd in fds:
                    if last is not None:
                        os.close(last)
                    last = fd
        return last

    def close(self) -> None:
        """Take no more."""
        self._theirs.close()

    def hang_up(self) -> None:
        """Hand no more over; not for the thread of take()."""
        self._ours.close()


class _OnFile:
    """What outlets have in common whose file may become another one meanwhile."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.successors = Successors()

    def descriptors(self) -> Collection[int]:
        """Return the file, and where those that follow it come from."""
        return (self._fd, *self.successors.descriptors())

    def owned(self) -> Collection[int]:
        """Return all of them."""
        return self.descriptors()

    def reopen(self, fd: int) -> None:
        """Go on with this descriptor, the next line is written to it; any thread."""
        self.successors.put(fd)

    def hang_up(self) -> None:
        """There will be no other file."""
        self.successors.hang_up()

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._fd < 0:
            return
        self._finish()
        self._fd = -1
        self.successors.close()

    def _go_on_with(self, fd: int | None) -> bool:
        """Go on with another file, if there is one."""
        if fd is None:
            return False
        self._finish()
        self._fd = fd
        return True

    def _finish(self) -> None:
        with suppress(OSError):  # a pipe has no disk
            os.fsync(self._fd)
        os.close(self._fd)


class FileOutlet(_OnFile):
    """Lines to a file of bounded size.

    When it is full the next file takes its place, if there are to be several, or else
    its oldest part is forgotten.
    """

    def __init__(self, path: str, size: int, header: str, files: int = 1) -> None:
        super().__init__(_open(path, files))
        # A pipe or a device has no oldest part that could be forgotten.
        is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._limit = size if is_file else sys.maxsize
        self._files = files
        self._path: str | None = path
        self._header = header.encode(errors="replace") + b"\n"
        self._used = 0
        self._append(self._header)

    def leave_name(self) -> None:
        """Leave to others what is done by name: we cannot from now on."""
        self._path = None

    def write(self, records: Sequence[Record]) -> None:
        """Append lines, making room first when the limit is reached."""
        self._begin(self.successors.take())
        waiting = bytearray()
        for record in records:
            line = lines_of([record])
            if waiting and not self._has_room(len(waiting) + len(line)):
                self._append_with_room(bytes(waiting))
                waiting.clear()
            waiting += line
        self._append_with_room(bytes(waiting))

    def _begin(self, fd: int | None) -> None:
        """Go on with another file, if there is one, which may have lines already."""
        if not self._go_on_with(fd):
            return
        self._used = os.fstat(self._fd).st_size
        if not self._used:
            self._append(self._header)

    def _append_with_room(self, data: bytes) -> None:
        if not self._has_room(len(data)) and self._files > 1:
            self._begin(self._next())
        if not self._has_room(len(data)):
            self._forget()
        self._append(data)

    def _next(self) -> int | None:
        if self._path is None:
            return self.successors.ask()
        with suppress(OSError):
            return _turn_at(self._path, self._files)
        return None

    def _has_room(self, count: int) -> bool:
        return self._used + count <= self._limit

    def _append(self, data: bytes) -> None:
        self._used += os.write(self._fd, data)

    def _forget(self) -> None:
        """Keep the header and the newest lines, in place: the path may be gone."""
        keep = int(self._limit * KEEP_SHARE)
        os.lseek(self._fd, max(self._used - keep, 0), os.SEEK_SET)
        tail = os.read(self._fd, keep)
        tail = tail[tail.find(b"\n") + 1 :]
        os.ftruncate(self._fd, 0)
        self._used = 0
        self._append(self._header + b"(older lines were discarded)\n" + tail)


class AppendOutlet(_OnFile):
    """Lines at the end of a file, all of which are kept."""

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, FILE_FLAGS, FILE_MODE))

    def write(self, records: Sequence[Record]) -> None:
        """Append lines."""
        self._go_on_with(self.successors.take())
        data = memoryview(lines_of(records))
        while data:
            data = data[os.write(self._fd, data) :]


def _open(path: str, files: int) -> int:
    """Open an empty log file; what another run has left is kept, if several are."""
    try:
        if files > 1 and os.path.isfile(path) and os.path.getsize(path):
            return _turn_at(path, files)
        return os.open(path, FILE_FLAGS | os.O_TRUNC, FILE_MODE)
    except OSError as error:
        raise SetupError(f"Couldn't open log file {path}: {error.strerror}") from error


def _turn_at(path: str, files: int) -> int:
    folder, name = os.path.split(os.path.realpath(path))
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return turn(held, name, files)
    finally:
        os.close(held)
