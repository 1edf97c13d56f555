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
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Protocol

QUEUE_LEN: Final = 1 << 20  # bytes, about: some 10 000 lines
PATIENCE_S: Final = 1.0  # at the end, with an outlet that takes nothing
_RECORD_LEN: Final = 128  # what a line takes besides its characters, about
_BATCH_LEN: Final = 1 << 16
_STACK_LEN: Final = 1 << 18
_DATAGRAMS: Final = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
# syslog(3): what a level is to the journal and to the system log.
PRIORITIES: Final = {"error": 3, "warning": 4, "info": 6}
PRIORITY_DEBUG: Final = 7
_FACILITY_DAEMON: Final = 3 << 3

Record = tuple[str, str]  # level, line without newline
# Called by a thread: hold nothing but these; False if all are shared as before
HoldOnly = Callable[[Collection[int]], bool]
# Called at the end, for so many seconds or until the thread has ended
Meanwhile = Callable[[float], None]


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
        """Let go of what is not in the table of who writes: nothing else will come."""

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

    def close(self, meanwhile: Meanwhile | None = None) -> None:
        """Write the rest, as long as that makes any progress, and close the outlet.

        `meanwhile` does what the thread may need of others.
        """
        if self._thread is None and self._queue.empty() and not self._untold:
            with suppress(OSError):
                self._outlet.close()
            self._outlet.hang_up()
            return  # nothing was ever said: no thread for it
        self.start()
        self._queue.put(None)
        assert self._thread is not None
        if meanwhile is not None:
            self._wait(meanwhile)
        self._outlet.hang_up()
        self._wait(self._thread.join)

    def _wait(self, a_while: Meanwhile) -> None:
        """Let the thread write as long as it gets anywhere."""
        done = -1
        while self._thread is not None and self._thread.is_alive():
            if done == self._done:
                return
            done = self._done
            a_while(self._patience)

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
        data = memoryview(lines_of(records))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()

    def close(self) -> None:
        """Leave the descriptor to its owner."""


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


def lines_of(records: Sequence[Record]) -> bytes:
    """Return what records are in a file or on a terminal."""
    return "".join(f"{line}\n" for _, line in records).encode(errors="replace")
