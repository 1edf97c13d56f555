# SPDX-License-Identifier: GPL-2.0-or-later
"""A sink takes finished log lines at once; an outlet writes them and may wait.

Between the two stand a queue of bounded length and a thread, so that a stopped
terminal, a pipe nobody reads or a slow disk holds up nothing but the lines. What finds
no room is counted, and told as soon as there is room again.

The thread starts when the process has given up its privileges, because each thread has
privileges of its own. Until then lines wait in the queue.
"""

import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Protocol

from passtpy.errors import SetupError

QUEUE_LEN: Final = 1 << 20  # bytes, about: some 10 000 lines
PATIENCE_S: Final = 1.0  # at the end, with an outlet that takes nothing
FILE_MODE: Final = 0o600
KEEP_SHARE: Final = 0.7  # of a log file, when it is rotated
_RECORD_LEN: Final = 128  # what a line takes besides its characters, about
_BATCH_LEN: Final = 1 << 16
_STACK_LEN: Final = 1 << 18
_DATAGRAMS: Final = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
# syslog(3): what a level is to the journal and to the system log.
PRIORITIES: Final = {"error": 3, "warning": 4, "info": 6}
PRIORITY_DEBUG: Final = 7
_FACILITY_DAEMON: Final = 3 << 3
_FILE_FLAGS: Final = os.O_CREAT | os.O_APPEND | os.O_RDWR | os.O_CLOEXEC

Record = tuple[str, str]  # level, line without newline


class Sink(Protocol):
    """Takes finished lines (without newline) and never waits."""

    @property
    def lost(self) -> int: ...

    def start(self) -> None: ...

    def write(self, level: str, line: str, /) -> None: ...

    def close(self) -> None: ...


class Outlet(Protocol):
    """Writes lines where they belong, however long it takes; OSError if it cannot."""

    def write(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class Writer:
    """The sink of an outlet that may wait.

    `notice` makes the line that tells how many lines were lost.
    """

    def __init__(
        self,
        outlet: Outlet,
        notice: Callable[[int], str],
        limit: int = QUEUE_LEN,
        patience: float = PATIENCE_S,
    ) -> None:
        self.lost = 0  # ever
        self._outlet = outlet
        self._notice = notice
        self._limit = limit
        self._patience = patience
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._put = 0  # characters ever queued; changed by who says lines
        self._done = 0  # of these written, or lost; changed by the thread
        self._untold = 0
        self._lock = threading.Lock()  # of both numbers of lost lines
        self._thread: threading.Thread | None = None

    def write(self, level: str, line: str, /) -> None:
        """Queue one line, or count it as lost."""
        size = len(line) + _RECORD_LEN
        if self._put - self._done + size > self._limit:
            self._lose(1)
            return
        untold = self._told()
        if untold:
            self._queue.put(("warning", self._notice(untold)))
        self._put += size
        self._queue.put((level, line))

    def start(self) -> None:
        """Write from now on."""
        if self._thread is not None:
            return
        before = threading.stack_size(_STACK_LEN)
        # Signals are the other thread's. SIGTTOU is the one that matters: blocked, a
        # terminal takes what the background writes, instead of stopping us.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.stack_size(before)

    def close(self) -> None:
        """Write the rest, as long as that makes any progress, and close the outlet."""
        if self._thread is None and self._queue.empty() and not self._untold:
            with suppress(OSError):
                self._outlet.close()
            return  # nothing was ever said: no thread for it
        self.start()
        self._queue.put(None)
        thread, done = self._thread, -1
        assert thread is not None
        while thread.is_alive() and done != self._done:
            done = self._done
            thread.join(self._patience)

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost += count
            self._untold += count

    def _told(self) -> int:
        """Return how many lines were lost since this was last asked."""
        if not self._untold:
            return 0
        with self._lock:
            count, self._untold = self._untold, 0
        return count

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, size, ended = self._next()
            self._hand_over(batch)
            self._done += size
            untold = self._told() if self._queue.empty() else 0
            if untold:
                self._hand_over([("warning", self._notice(untold))])
        with suppress(OSError):
            self._outlet.close()

    def _next(self) -> tuple[list[Record], int, bool]:
        """Wait for lines; return those that go together, and whether they are all."""
        batch: list[Record] = []
        size = 0
        while size < _BATCH_LEN:
            record = self._queue.get()
            if record is None:
                return batch, size, True
            batch.append(record)
            size += len(record[1]) + _RECORD_LEN
            if self._queue.empty():
                break
        return batch, size, False

    def _hand_over(self, batch: Sequence[Record]) -> None:
        if not batch:
            return
        try:
            self._outlet.write(batch)
        except OSError:  # a disk that is full, a terminal that went away
            self._lose(len(batch))


class StreamOutlet:
    """Lines to an open file descriptor, normally stderr, which stays open."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd

    def write(self, records: Sequence[Record]) -> None:
        """Write them, whatever mode others have set for the same terminal or pipe."""
        data = memoryview(_lines(records))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()

    def close(self) -> None:
        """Leave the descriptor to its owner."""


class FileOutlet:
    """Lines to a file of bounded size; when full, its oldest part is forgotten."""

    def __init__(self, path: str, size: int, header: str) -> None:
        try:
            self._fd = os.open(path, _FILE_FLAGS | os.O_TRUNC, FILE_MODE)
        except OSError as error:
            raise SetupError(
                f"Couldn't open log file {path}: {error.strerror}"
            ) from error
        # A pipe or a device has no oldest part that could be forgotten.
        is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._limit = size if is_file else sys.maxsize
        self._header = header.encode(errors="replace") + b"\n"
        self._used = 0
        self._append(self._header)
        self._next: SimpleQueue[int] = SimpleQueue()  # descriptors to go on with

    def reopen(self, fd: int) -> None:
        """Go on with this descriptor, the next line is written to it; any thread."""
        self._next.put(fd)

    def write(self, records: Sequence[Record]) -> None:
        """Append lines, making room first when the limit is reached."""
        while not self._next.empty():
            self._go_on_with(self._next.get())
        waiting: list[Record] = []
        size = 0
        for record in records:
            length = len(_lines([record]))
            if waiting and self._used + size + length > self._limit:
                self._append_or_rotate(_lines(waiting))
                waiting, size = [], 0
            waiting.append(record)
            size += length
        self._append_or_rotate(_lines(waiting))

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._fd < 0:
            return
        with suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _go_on_with(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd
        self._used = os.fstat(fd).st_size
        if not self._used:
            self._append(self._header)

    def _append_or_rotate(self, data: bytes) -> None:
        if self._used + len(data) > self._limit:
            self._rotate()
        self._append(data)

    def _append(self, data: bytes) -> None:
        self._used += os.write(self._fd, data)

    def _rotate(self) -> None:
        """Keep the header and the newest lines, in place: the path may be gone."""
        keep = int(self._limit * KEEP_SHARE)
        os.lseek(self._fd, max(self._used - keep, 0), os.SEEK_SET)
        tail = os.read(self._fd, keep)
        tail = tail[tail.find(b"\n") + 1 :]
        os.ftruncate(self._fd, 0)
        self._used = 0
        self._append(self._header + b"(older lines were discarded)\n" + tail)


class AppendOutlet:
    """Lines at the end of a file, all of which are kept."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, _FILE_FLAGS, FILE_MODE)
        self._next: SimpleQueue[int] = SimpleQueue()  # descriptors to go on with

    def reopen(self, fd: int) -> None:
        """Go on with this descriptor, the next line is written to it; any thread."""
        self._next.put(fd)

    def write(self, records: Sequence[Record]) -> None:
        """Append lines."""
        while not self._next.empty():
            os.close(self._fd)
            self._fd = self._next.get()
        data = memoryview(_lines(records))
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Flush to the disk and close."""
        with suppress(OSError):  # a pipe has no disk
            os.fsync(self._fd)
        os.close(self._fd)


def _connected(path: str) -> socket.socket:
    """Return a socket whose datagrams go to whoever is at the path."""
    sock = socket.socket(socket.AF_UNIX, _DATAGRAMS)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class SyslogOutlet:
    """Lines to the system log (RFC 3164), for a daemon that has no other place.

    syslog(3) would ask for the process's number, and open sockets and files, at any
    time; we may not by then.
    """

    PATH: Final = "/dev/log"

    def __init__(self, ident: str, path: str = PATH) -> None:
        """Connect now: the path is out of reach later. OSError: nobody is there."""
        self._who = f"{ident}[{os.getpid()}]"
        self._sock = _connected(path)
        time.localtime()  # reads which zone this is

    def write(self, records: Sequence[Record]) -> None:
        """Send them one by one."""
        for level, line in records:
            stamp = time.strftime("%b %e %H:%M:%S")
            priority = _FACILITY_DAEMON | PRIORITIES.get(level, PRIORITY_DEBUG)
            head = f"<{priority}>{stamp} {self._who}: "
            self._sock.send(f"{head}{line}".encode(errors="replace"))

    def close(self) -> None:
        """Disconnect."""
        self._sock.close()


class JournalOutlet:
    """Records to systemd's journal, in its native protocol: fields that stay fields.

    A record is a datagram of `NAME=value` lines, made by log.render_journal().
    """

    PATH: Final = "/run/systemd/journal/socket"

    def __init__(self, path: str = PATH) -> None:
        """Connect now: the path is out of reach later. OSError: nobody is there."""
        self._sock = _connected(path)

    def write(self, records: Sequence[Record]) -> None:
        """Send them one by one."""
        for _, record in records:
            self._sock.send(record.encode(errors="replace"))

    def close(self) -> None:
        """Disconnect."""
        self._sock.close()


def is_journal(fd: int, journal_stream: str | None) -> bool:
    """Tell whether this descriptor leads to the journal: $JOURNAL_STREAM says which.

    A parent may have left us the variable, but another descriptor.
    """
    device, _, inode = (journal_stream or "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _lines(records: Sequence[Record]) -> bytes:
    return "".join(f"{line}\n" for _, line in records).encode(errors="replace")
