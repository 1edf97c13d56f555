# SPDX-License-Identifier: GPL-2.0-or-later
"""A sink takes finished log lines at once; an outlet writes them and may wait.

Between the two stand a queue of bounded length and a thread, so that a stopped
terminal, a pipe nobody reads or a slow disk holds up nothing but the lines. What finds
no room is counted, and told as soon as there is room again.

The thread starts when the process has given up its privileges, because each thread has
privileges of its own. Until then lines wait in the queue. It may have a table of
descriptors of its own, too: then the kernel need not count, at every call of the other
thread, who uses what.
"""

import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
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
# Called by a thread: hold nothing but these; False if all are shared as before
HoldOnly = Callable[[Collection[int]], bool]


class Sink(Protocol):
    """Takes finished lines (without newline) and never waits."""

    @property
    def lost(self) -> int: ...

    def start(self, hold_only: HoldOnly | None = None) -> None: ...

    def write(self, level: str, line: str, /) -> None: ...

    def close(self) -> None: ...


class Outlet(Protocol):
    """Writes lines where they belong, however long it takes; OSError if it cannot."""

    def descriptors(self) -> Collection[int]:
        """Return all that are needed for it."""

    def owned(self) -> Collection[int]:
        """Return those among them that nobody else uses."""

    def hang_up(self) -> None:
        """Let go of what is not in the table of who writes; the last to be called."""

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
        self._settled = threading.Event()
        self._alone = False  # the thread has a table of descriptors of its own

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

    def start(self, hold_only: HoldOnly | None = None) -> None:
        """Write from now on, in a thread that may hold descriptors of its own."""
        if self._thread is not None:
            return
        before = threading.stack_size(_STACK_LEN)
        # Signals are the other thread's. SIGTTOU is the one that matters: blocked, a
        # terminal takes what the background writes, instead of stopping us.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread = threading.Thread(
                target=self._run, args=(hold_only,), daemon=True
            )
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.stack_size(before)
        self._settled.wait()  # we may be allowed less than that afterwards
        if self._alone:
            for fd in self._outlet.owned():
                os.close(fd)

    def close(self) -> None:
        """Write the rest, as long as that makes any progress, and close the outlet."""
        if self._thread is None and self._queue.empty() and not self._untold:
            with suppress(OSError):
                self._outlet.close()
            self._outlet.hang_up()
            return  # nothing was ever said: no thread for it
        self.start()
        self._queue.put(None)
        thread, done = self._thread, -1
        assert thread is not None
        while thread.is_alive() and done != self._done:
            done = self._done
            thread.join(self._patience)
        self._outlet.hang_up()

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

    def _settle(self, hold_only: HoldOnly | None) -> None:
        """Part from the other thread's descriptors, and tell it that this is done."""
        try:
            self._alone = hold_only is not None and hold_only(
                self._outlet.descriptors()
            )
        finally:
            self._settled.set()

    def _run(self, hold_only: HoldOnly | None) -> None:
        self._settle(hold_only)
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


class Successors:
    """Descriptors that take the place of an outlet's, from whichever thread.

    They go through a pair of sockets, for each thread may have a table of its own.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, _DATAGRAMS)
        for each in (self._ours, self._theirs):
            each.setblocking(False)

    def descriptors(self) -> tuple[int]:
        """Return what take() needs."""
        return (self._theirs.fileno(),)

    def put(self, fd: int) -> None:
        """Hand a descriptor over."""
        with suppress(OSError):  # so many in so short a time that the last is as good
            socket.send_fds(self._ours, [b"\0"], [fd])
        os.close(fd)

    def take(self) -> int | None:
        """Return the last that was handed over since this was last asked."""
        last: int | None = None
        with suppress(OSError):  # until there are no more
            while True:
                for fd in socket.recv_fds(self._theirs, 1, 1)[1]:
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


class StreamOutlet:
    """Lines to an open file descriptor, normally stderr, which stays open."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd

    def descriptors(self) -> Collection[int]:
        """Return where lines go."""
        return (self._fd,)

    def owned(self) -> Collection[int]:
        """Return nothing: it belongs to others."""
        return ()

    def hang_up(self) -> None:
        """Nothing else was open."""

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


class _OnFile:
    """What outlets have in common whose file may become another one meanwhile."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._next = Successors()

    def descriptors(self) -> Collection[int]:
        """Return the file, and where those that follow it come from."""
        return (self._fd, *self._next.descriptors())

    def owned(self) -> Collection[int]:
        """Return all of them."""
        return self.descriptors()

    def reopen(self, fd: int) -> None:
        """Go on with this descriptor, the next line is written to it; any thread."""
        self._next.put(fd)

    def hang_up(self) -> None:
        """There will be no other file."""
        self._next.hang_up()

    def _renew(self) -> bool:
        """Go on with another file, if there is one."""
        fd = self._next.take()
        if fd is None:
            return False
        os.close(self._fd)
        self._fd = fd
        return True


class FileOutlet(_OnFile):
    """Lines to a file of bounded size; when full, its oldest part is forgotten."""

    def __init__(self, path: str, size: int, header: str) -> None:
        try:
            fd = os.open(path, _FILE_FLAGS | os.O_TRUNC, FILE_MODE)
        except OSError as error:
            raise SetupError(
                f"Couldn't open log file {path}: {error.strerror}"
            ) from error
        super().__init__(fd)
        # A pipe or a device has no oldest part that could be forgotten.
        is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._limit = size if is_file else sys.maxsize
        self._header = header.encode(errors="replace") + b"\n"
        self._used = 0
        self._append(self._header)

    def write(self, records: Sequence[Record]) -> None:
        """Append lines, making room first when the limit is reached."""
        self._go_on()
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
        self._next.close()

    def _go_on(self) -> None:
        if not self._renew():
            return
        self._used = os.fstat(self._fd).st_size
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


class AppendOutlet(_OnFile):
    """Lines at the end of a file, all of which are kept."""

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, _FILE_FLAGS, FILE_MODE))

    def write(self, records: Sequence[Record]) -> None:
        """Append lines."""
        self._renew()
        data = memoryview(_lines(records))
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Flush to the disk and close."""
        with suppress(OSError):  # a pipe has no disk
            os.fsync(self._fd)
        os.close(self._fd)
        self._next.close()


class _OnSocket:
    """What outlets have in common that are connected with a reader of datagrams."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, _DATAGRAMS)
        try:
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise

    def descriptors(self) -> Collection[int]:
        """Return the socket."""
        return (self._sock.fileno(),)

    def owned(self) -> Collection[int]:
        """Return it as well."""
        return self.descriptors()

    def close(self) -> None:
        """Disconnect."""
        self._sock.close()

    def hang_up(self) -> None:
        """Nothing else was open."""


class SyslogOutlet(_OnSocket):
    """Lines to the system log (RFC 3164), for a daemon that has no other place.

    syslog(3) would ask for the process's number, and open sockets and files, at any
    time; we may not by then.
    """

    PATH: Final = "/dev/log"

    def __init__(self, ident: str, path: str = PATH) -> None:
        """Connect now: the path is out of reach later. OSError: nobody is there."""
        self._who = f"{ident}[{os.getpid()}]"
        super().__init__(path)
        time.localtime()  # reads which zone this is

    def write(self, records: Sequence[Record]) -> None:
        """Send them one by one."""
        for level, line in records:
            stamp = time.strftime("%b %e %H:%M:%S")
            priority = _FACILITY_DAEMON | PRIORITIES.get(level, PRIORITY_DEBUG)
            head = f"<{priority}>{stamp} {self._who}: "
            self._sock.send(f"{head}{line}".encode(errors="replace"))


class JournalOutlet(_OnSocket):
    """Records to systemd's journal, in its native protocol: fields that stay fields.

    A record is a datagram of `NAME=value` lines, made by log.render_journal().
    """

    PATH: Final = "/run/systemd/journal/socket"

    def __init__(self, path: str = PATH) -> None:
        """Connect now: the path is out of reach later. OSError: nobody is there."""
        super().__init__(path)

    def write(self, records: Sequence[Record]) -> None:
        """Send them one by one."""
        for _, record in records:
            self._sock.send(record.encode(errors="replace"))


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
