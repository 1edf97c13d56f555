# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets sockets from the process in the namespace (factory.py), and keeps a stock.

A new spliced flow needs a socket of the namespace at once. A few of each kind are kept
ready and replaced in batches while packets move; a flow that comes when there are none
waits for the next batch, and nothing else waits with it.

Whoever is root of the namespace may stop or end the factory. One that is silent for
too long answers nothing more, to anybody, until it is heard again.
"""

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from errno import EIO
from typing import Final

from passtpy.net.kernel.loop import Loop, Timer
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory import FDS_MAX, PORTS_MAX

LOW: Final = 32  # more are asked for when fewer are ready
BATCH: Final = 64
SILENCE_S: Final = 5.0  # without an answer, while there is one to come
STARTS_S: Final = 30.0  # the same before start(): nothing else goes on meanwhile
_ANSWER_MAX: Final = 4096
_FD: Final = struct.Struct("=i")
_FDS_SPACE: Final = socket.CMSG_SPACE(FDS_MAX * _FD.size)

Key = tuple[int, int]  # address family, socket type
Then = Callable[[bytes, list[int]], None]
Take = Callable[[int], None]
Told = Callable[[bool], None]


class Factory:
    """Sends requests and hands each answer to whoever asked, in order.

    Before start() requests may be made with now(), which waits for the answer. An
    empty answer means that the factory is gone, and so it stays from then on, or that
    it is silent.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_gone: Callable[[], None] = lambda: None,
        on_silent: Told = lambda silent: None,
    ) -> None:
        """`on_silent` is called when it is silent (True), and when it no longer is."""
        self._sock = sock
        self._on_gone = on_gone
        self._on_silent = on_silent
        self._waiting: deque[Then] = deque()
        self._unsent: deque[bytes] = deque()
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._owed = 0  # answers that come too late: first in line, for nobody
        self.gone = False

    @property
    def silent(self) -> bool:
        """Tell whether it owes us an answer for too long."""
        return self._owed > 0

    def start(self, loop: Loop) -> None:
        """Answer asynchronously from now on."""
        if self.gone:
            return
        self._sock.setblocking(False)
        self._loop = loop
        loop.add_reader(self._sock.fileno(), self._on_readable)

    def close(self) -> None:
        """Let the factory end."""
        self._forget_loop()
        self._sock.close()
        self.gone = True

    def now(self, request: bytes) -> tuple[bytes, list[int]]:
        """Ask and wait; only before start()."""
        if self.gone:
            return b"", []
        try:
            self._sock.settimeout(STARTS_S)
            self._sock.send(request)
            return self._receive()
        except OSError:
            self._fail()  # what it says later would be taken for another answer
            return b"", []

    def ask(self, request: bytes, then: Then) -> None:
        """Ask; `then` is called with the answer and its descriptors."""
        if self.gone or self.silent:
            then(b"", [])
            return
        self._waiting.append(then)
        self._unsent.append(request)
        self._send()
        self._listen_for_silence()

    def _listen_for_silence(self) -> None:
        if self._loop is not None and self._timer is None and self._waiting:
            first = self._waiting[0]
            self._timer = self._loop.call_later(SILENCE_S, lambda: self._late(first))

    def _late(self, first: Then) -> None:
        """Give up, if whoever was the first in line still is."""
        self._timer = None
        if not self._waiting or self._waiting[0] is not first:
            self._listen_for_silence()
            return
        self._owed = len(self._waiting) - len(self._unsent)
        self._answer_all()
        self._on_silent(True)

    def _send(self) -> None:
        # What the socket does not take now goes out after the next answer: there is
        # one to come for whatever fills it.
        try:
            while self._unsent:
                self._sock.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._fail()

    def _receive(self) -> tuple[bytes, list[int]]:
        # Not recv_fds(): it forgets the flags.
        text, ancillary, flags, _ = self._sock.recvmsg(
            _ANSWER_MAX, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC
        )
        fds = [
            fd
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (fd,) in _FD.iter_unpack(data[: len(data) // _FD.size * _FD.size])
        ]
        if flags & socket.MSG_CTRUNC:  # no room for all: they are lost
            close_all(fds)
            return factory.errno_answer(EIO), []
        return text, fds

    def _on_readable(self) -> None:
        try:
            text, fds = self._receive()
        except BlockingIOError:
            return
        except OSError:
            text, fds = b"", []
        if text and self._owed:
            close_all(fds)
            self._owed -= 1
            if not self._owed:
                self._on_silent(False)
            return
        if not text or not self._waiting:
            close_all(fds)
            self._fail()
            return
        self._waiting.popleft()(text, fds)
        if self._unsent and not self.gone:
            self._send()

    def _fail(self) -> None:
        self.gone = True
        self._forget_loop()
        self._answer_all()
        self._on_gone()

    def _answer_all(self) -> None:
        """Tell everybody who waits that there is no answer."""
        self._unsent.clear()
        waiting, self._waiting = self._waiting, deque()
        for then in waiting:
            then(b"", [])

    def _forget_loop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop = None


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


class SocketStock:
    """Unbound sockets of the namespace, ready to connect."""

    def __init__(self, source: Factory, transparent: bool = False) -> None:
        self._factory = source
        self._transparent = transparent
        self._ready: dict[Key, deque[int]] = {}
        self._waiting: dict[Key, deque[Take]] = {}
        self._asked: dict[Key, int] = {}
        # What was made and not used is in the stock: so many descriptors
        names = ("splice_made", "splice_used", "splice_waited", "splice_refused")
        self._counters = dict.fromkeys(names, 0)

    def take(self, family: int, kind: int, use: Take) -> None:
        """Call `use` with a socket, which it then owns, or with -1 if there is none."""
        key = (family, kind)
        ready = self._ready.setdefault(key, deque())
        if ready:
            self._hand_out(ready, use)
        else:
            self._counters["splice_waited"] += 1
            self._waiting.setdefault(key, deque()).append(use)
        self.fill(family, kind)

    def fill(self, family: int, kind: int) -> None:
        """Ask for more, unless there are enough or enough are on their way."""
        key = (family, kind)
        waiting = len(self._waiting.get(key, ()))
        have = len(self._ready.get(key, ())) + self._asked.get(key, 0) - waiting
        if have > LOW or (self._factory.gone and not waiting):
            return
        count = min(BATCH + waiting, FDS_MAX)
        self._asked[key] = self._asked.get(key, 0) + count
        request = factory.sockets_request(family, kind, count, self._transparent)
        self._factory.ask(request, lambda text, fds: self._came(key, count, fds))

    def close(self) -> None:
        """Close what was not used."""
        for ready in self._ready.values():
            close_all(ready)
            ready.clear()
        for waiting in self._waiting.values():
            self._refuse(waiting)

    def counters(self) -> dict[str, int]:
        """Return how many sockets came and went; who had to wait, and who in vain."""
        return dict(self._counters)

    def _came(self, key: Key, count: int, fds: list[int]) -> None:
        self._asked[key] -= count
        self._counters["splice_made"] += len(fds)
        ready = self._ready.setdefault(key, deque())
        ready.extend(fds)
        waiting = self._waiting.get(key, deque())
        while waiting and ready:
            self._hand_out(ready, waiting.popleft())
        if not fds:  # it failed: nothing better is to be expected
            self._refuse(waiting)
        if waiting:
            self.fill(*key)

    def _hand_out(self, ready: deque[int], use: Take) -> None:
        self._counters["splice_used"] += 1
        use(ready.popleft())

    def _refuse(self, waiting: deque[Take]) -> None:
        while waiting:
            self._counters["splice_refused"] += 1
            waiting.popleft()(-1)


def in_batches(ports: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield pieces of `ports` that fit into one request."""
    for start in range(0, len(ports), PORTS_MAX):
        yield ports[start : start + PORTS_MAX]
