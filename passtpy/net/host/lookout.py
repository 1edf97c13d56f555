# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the process that looks at files for a daemon that no longer can (*lookout*).

The daemon has no file system once it serves. A few things are found nowhere else, and
a process that no packet reaches looks at them: lookout_process.py. What the two say to
each other is in docs/lookout.md.
"""

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from errno import EIO, EMFILE, ENOENT
from typing import Final

from passtpy.config.unixend import place_of
from passtpy.net.kernel.loop import Readers

FDS_MAX: Final = 250  # the kernel takes 253 per message
ERRNO: Final = struct.Struct("=I")
WHICH: Final = struct.Struct("=cI")
WHO: Final = struct.Struct("=cI")
WHO_IS: Final = struct.Struct("=cII")
LOG: Final = struct.Struct("=cI")
CONNECTED: Final = struct.Struct("=cI")
LISTEN: Final = struct.Struct("=cII")  # and a name
LISTENS: Final = struct.Struct("=cII")
DIAL: Final = struct.Struct("=cI")  # and a name
REMOVED: Final = struct.Struct("=cI")
TEXT_MAX: Final = 1 << 16
END_S: Final = 1.0
_MESSAGE_MAX: Final = TEXT_MAX + 1

Who = Callable[[int, int], None]
Opened = tuple[int, int]  # errno and, where that is 0, a descriptor
LogOpened = Callable[[int, int], None]
Connected = Callable[[int, int], None]
Removed = Callable[[int], None]
PolicyOpened = Callable[[list[Opened]], None]


class Lookout:
    """The daemon's end."""

    def __init__(
        self,
        sock: socket.socket,
        targets: Sequence[str] = (),
        names: Sequence[str] = (),
        folders: Sequence[str] = (),
    ) -> None:
        """`targets`: the UNIX sockets that it may connect to, `names`: those of ours.

        `folders`: where it may connect to any, and make some.
        """
        self._sock = sock
        self._targets = tuple(targets)
        self._folders = tuple(folders)
        self._numbers = {path: number for number, path in enumerate(names)}
        self._connected: deque[Connected] = deque()
        self._listens: deque[tuple[str, Connected]] = deque()
        self._removed: deque[Removed] = deque()
        self._who: deque[Who] = deque()
        self._logs: deque[LogOpened] = deque()
        self._policies: deque[PolicyOpened] = deque()
        self._loop: Readers | None = None
        self._resolver: Callable[[bytes | None, str], None] = lambda text, why: None
        self._namespace_gone: Callable[[], None] = lambda: None
        self.gone = False

    def start(self, loop: Readers) -> None:
        """Hear from now on."""
        self._loop = loop
        self._sock.setblocking(False)
        loop.add_reader(self._sock.fileno(), self.hear)

    def fileno(self) -> int:
        """Return what can be read when hear() has something to do."""
        return self._sock.fileno()

    def on_resolver(self, changed: Callable[[bytes | None, str], None]) -> None:
        """Call this with the text of resolv.conf, or with None and why."""
        self._resolver = changed

    def on_namespace_gone(self, gone: Callable[[], None]) -> None:
        """Call this once the name of the namespace is gone, if it is looked for."""
        self._namespace_gone = gone

    def who_is(self, pid: int, then: Who) -> None:
        """Call `then` with the user and the depth of a process; (0, 0): unknown."""
        if self._ask(WHO.pack(b"W", pid)):
            self._who.append(then)
        else:
            then(0, 0)

    def open_log(self, which: int, then: LogOpened) -> None:
        """Call `then` with a descriptor of a log, or -1 and why; 0: there is none."""
        if self._ask(WHICH.pack(b"L", which)):
            self._logs.append(then)
        else:
            then(-1, EIO)

    def turn_log(self, then: LogOpened) -> None:
        """Call `then` with the file that follows a full log, or -1 and why."""
        if self._ask(b"T"):
            self._logs.append(then)
        else:
            then(-1, EIO)

    def connect(self, path: str, then: Connected) -> None:
        """Call `then` with a socket connected to a UNIX socket, or -1 and why."""
        request = None
        place = place_of(path, self._folders)
        if path in self._targets:
            request = WHICH.pack(b"C", self._targets.index(path))
        elif place is not None:
            request = DIAL.pack(b"D", place[0]) + os.fsencode(place[1])
        if request is not None and self._ask(request):
            self._connected.append(then)
        else:
            then(-1, EIO)

    def listen(self, path: str, mode: int, then: Connected) -> None:
        """Call `then` with a UNIX socket that listens there, or -1 and why."""
        place = place_of(path, self._folders)
        if place is not None:
            which, name = place
            if self._ask(LISTEN.pack(b"B", which, mode) + os.fsencode(name)):
                self._listens.append((path, then))
                return
        then(-1, EIO)

    def remove(self, path: str, then: Removed) -> None:
        """Remove the name of a UNIX socket of ours; call `then` with 0, or why not."""
        number = self._numbers.pop(path, None)
        if number is None:
            then(ENOENT)
        elif self._ask(WHICH.pack(b"X", number)):
            self._removed.append(then)
        else:
            then(EIO)

    def open_policy(self, then: PolicyOpened) -> None:
        """Call `then` with the files of the policy, in the order they are read."""
        if self._ask(b"P"):
            self._policies.append(then)
        else:
            then([(EIO, -1)])

    def close(self) -> None:
        """Let it end, and wait until it has tidied up, as far as it does soon."""
        if self._loop is not None and not self.gone:
            self._loop.remove_reader(self._sock.fileno())
        self._loop = None
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(END_S)
            while self._sock.recv(_MESSAGE_MAX):
                pass
        except OSError:
            pass
        self._sock.close()

    def _ask(self, request: bytes) -> bool:
        if self.gone:
            return False
        try:
            self._sock.send(request)
        except OSError:  # also if it is slow: whoever asks so much waits in vain
            return False
        return True

    def hear(self) -> None:
        """Take one message, and call whom it concerns."""
        try:
            text, fds, _, _ = socket.recv_fds(
                self._sock, _MESSAGE_MAX, FDS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            text, fds = b"", []
        if not text:
            self._fail()
        else:
            self._hear(text, fds)

    def _hear(self, text: bytes, fds: list[int]) -> None:
        match text[:1]:
            case b"W" if len(text) == WHO_IS.size and self._who:
                _, uid, depth = WHO_IS.unpack(text)
                self._who.popleft()(uid, depth)
            case b"L" if len(text) == LOG.size and self._logs:
                _, error = LOG.unpack(text)
                self._logs.popleft()(fds.pop() if fds else -1, error)
            case b"C" if len(text) == CONNECTED.size and self._connected:
                _, error = CONNECTED.unpack(text)
                self._connected.popleft()(fds.pop() if fds else -1, error)
            case b"B" if len(text) == LISTENS.size and self._listens:
                self._hear_listens(text, fds.pop() if fds else -1)
            case b"X" if len(text) == REMOVED.size and self._removed:
                _, error = REMOVED.unpack(text)
                self._removed.popleft()(error)
            case b"P" if self._policies and not (len(text) - 1) % ERRNO.size:
                self._policies.popleft()(_paired(text[1:], fds))
                fds = []
            case b"G":
                self._namespace_gone()
            case b"R":
                self._resolver(text[1:], "")
            case b"U":
                self._resolver(None, text[1:].decode(errors="replace"))
        for fd in fds:
            os.close(fd)

    def _hear_listens(self, text: bytes, fd: int) -> None:
        _, error, number = LISTENS.unpack(text)
        path, then = self._listens.popleft()
        if not error:
            self._numbers[path] = number
        if not error and fd < 0:  # we had no room for it
            self.remove(path, lambda _: None)
            error = EMFILE
        then(fd, error)

    def _fail(self) -> None:
        self.gone = True
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
        while self._logs:
            self._logs.popleft()(-1, EIO)
        while self._policies:
            self._policies.popleft()([(EIO, -1)])
        while self._connected:
            self._connected.popleft()(-1, EIO)
        while self._listens:
            self._listens.popleft()[1](-1, EIO)
        while self._removed:
            self._removed.popleft()(EIO)
        while self._who:
            self._who.popleft()(0, 0)
        self._resolver(None, os.strerror(EIO))


def _paired(errnos: bytes, fds: list[int]) -> list[Opened]:
    """Return each errno with its descriptor; one that is missing is an error."""
    left = iter(fds)
    opened = []
    for (error,) in ERRNO.iter_unpack(errnos):
        fd = -1 if error else next(left, -1)
        opened.append((error or (0 if fd >= 0 else EIO), fd))
    return opened
