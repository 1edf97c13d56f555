# SPDX-License-Identifier: GPL-2.0-or-later
"""Listens for clients of the control socket, and carries their bytes.

What the bytes mean is a conversation's business (http.py and the foreign dialects).
Here is decided who may talk, how many at once, and how long a client may be silent. A
client that does not read stops its own answer and nothing else. Where there are too
many clients, one that waits for no answer makes room for the next.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

MAX_CLIENTS: Final = 1200
ACCEPT_BACKLOG: Final = 128
SILENCE_S: Final = 30.0  # before a request is whole, or while an answer is not taken
_WRITE_HIGH: Final = 64 * 1024  # bytes a client has not taken before its answer stops
MOST_AHEAD: Final = 64 * 1024  # bytes a client may say into an endless answer
STREAM_BUFFER: Final = 8 * 1024  # bytes that the kernel keeps of a stream; it doubles
STREAM_DELAY_S: Final = 0.02  # so that many events are one piece, for many readers
_SO_NETNS_COOKIE: Final = 71
_CREDENTIALS: Final = struct.Struct("iII")
NOBODY: Final = 65534  # and whoever is not mapped into our user namespace

Failed = Callable[[str, Exception], None]
Admit = Callable[[socket.socket, int, Callable[[bool], None]], None]
WhoIs = Callable[[int, Callable[[int, int], None]], None]


class Dialect(Protocol):
    """A conversation: bytes in, bytes out, no socket."""

    def begin(self) -> bytes:
        """Return what is said before anything is asked."""

    def receive(self, data: bytes) -> bytes:
        """Take what the client sent (b"": it sends no more); return what to send."""

    def more(self) -> bytes:
        """Return the next piece of an answer under way; b"": none for now."""

    def leave(self) -> None:
        """Forget the answer under way: the client has gone."""

    @property
    def answering(self) -> bool:
        """Tell whether an answer is under way."""

    @property
    def streaming(self) -> bool:
        """Tell whether it is one that waits for events, which `woken` announces."""

    @property
    def gentle(self) -> bool:
        """Tell whether it is one of which little is kept, and nothing is urgent."""

    @property
    def over(self) -> bool:
        """Tell whether to hang up once everything is sent."""

    woken: Callable[[], None]


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return PID and user of whoever connected, as the kernel saw them then."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def admit_all(sock: socket.socket, pid: int, then: Callable[[bool], None]) -> None:
    """Admit whoever may connect: who makes such a socket says where."""
    del sock, pid
    then(True)


def nobody_knows(pid: int, then: Callable[[int, int], None]) -> None:
    """Know no process: where nobody looks at them for us."""
    del pid
    then(0, 0)


class Outside:
    """Admits clients that live where we do, and not in a guest's namespaces.

    Whoever runs a command in a namespace shares its user with the command. An accepted
    socket is of the network namespace of who connected, and its cookie says which that
    is (Linux 5.14); how deep a process lies in PID namespaces the lookout may read.
    """

    def __init__(self, who_is: WhoIs, depth: int) -> None:
        """`depth` is how deep we lie."""
        self._who_is = who_is
        self._depth = depth
        with socket.socket(socket.AF_UNIX) as ours:
            self._netns = _netns_of(ours)

    def __call__(
        self, sock: socket.socket, pid: int, then: Callable[[bool], None]
    ) -> None:
        """Call `then` with whether this client is admitted."""
        if _netns_of(sock) != self._netns:
            then(False)
        else:
            self._who_is(pid, lambda uid, depth: then(0 < depth <= self._depth))


def _netns_of(sock: socket.socket) -> bytes:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return b""  # an old kernel, which does not tell


class Server:
    """One listening socket and its clients."""

    def __init__(
        self,
        listening: socket.socket,
        dialect: Callable[[int], Dialect],
        users: frozenset[int] | None,
        failed: Failed,
        admit: Admit = admit_all,
        most: int = MAX_CLIENTS,
        who_is: WhoIs = nobody_knows,
    ) -> None:
        """`dialect(pid)` begins a conversation; `users` may have one, if admitted.

        None: whoever can connect. `most` may have one at a time. `who_is` is asked for
        users whom the kernel does not tell us.
        """
        self._listening = listening
        self._dialect = dialect
        self._users = users
        self._failed = failed
        self._admit = admit
        self._most = most
        self._who_is = who_is
        self._clients: dict[_Client, None] = {}  # in the order in which they came
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counters = {
            "control_clients": 0,
            "control_refused": 0,
            "control_failed": 0,
        }

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept clients from now on."""
        self._loop = loop
        self._listening.setblocking(False)
        loop.add_reader(self._listening.fileno(), self._accept)

    def counters(self) -> dict[str, int]:
        """Return how many clients came, were refused, and failed."""
        return dict(self._counters)

    def close(self) -> None:
        """Hang up on everybody; the socket's path is its owner's business."""
        if self._loop is not None:
            self._loop.remove_reader(self._listening.fileno())
            self._loop = None
        self._listening.close()
        for client in tuple(self._clients):
            client.finish()

    def _accept(self) -> None:
        """Take one client: the next one is an event of its own."""
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # gone already, or no descriptor: the backlog waits
        pid, uid = peer_of(sock)
        if self._users is None or uid != NOBODY:
            self._known(sock, pid, uid)
            return
        # The name of the socket has let in only its owner and root, so that a process
        # which has ended meanwhile, and whose number is another one's, wins nothing.
        self._who_is(
            pid, lambda uid, depth: self._known(sock, pid, uid if depth else -1)
        )

    def _known(self, sock: socket.socket, pid: int, uid: int) -> None:
        if self._users is not None and uid not in self._users:
            self._refuse(sock)
        else:
            self._admit(sock, pid, lambda yes: self._decided(sock, pid, yes))

    def _refuse(self, sock: socket.socket) -> None:
        self._counters["control_refused"] += 1
        sock.close()

    def _decided(self, sock: socket.socket, pid: int, admitted: bool) -> None:
        if not admitted or self._loop is None or not self._make_room():
            self._refuse(sock)
            return
        self._counters["control_clients"] += 1
        sock.setblocking(False)
        client = _Client(sock, self._dialect(pid), self._loop, self._gone, self._fail)
        self._clients[client] = None
        client.start()

    def _make_room(self) -> bool:
        """Hang up on who has been here longest and waits for nothing, if need be."""
        if len(self._clients) < self._most:
            return True
        idle = next((each for each in self._clients if each.is_idle), None)
        if idle is None:
            return False
        self._counters["control_refused"] += 1
        idle.abort()
        return True

    def _gone(self, client: "_Client") -> None:
        del self._clients[client]

    def _fail(self, error: Exception) -> None:
        self._counters["control_failed"] += 1
        self._failed("control", error)


class _Client:
    """Moves the bytes of one client, a piece for each callback of the loop."""

    def __init__(
        self,
        sock: socket.socket,
        dialect: Dialect,
        loop: asyncio.AbstractEventLoop,
        gone: Callable[["_Client"], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._sock = sock
        self._dialect = dialect
        self._loop = loop
        self._gone = gone
        self._failed = failed
        self._waiting = bytearray()  # not taken by the socket yet
        self._reads = self._ended = False
        self._ahead = 0
        self._writes = False
        self._again: asyncio.Handle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._closed = False
        self._streams = False
        dialect.woken = self._wake

    @property
    def is_idle(self) -> bool:
        """Tell whether no answer is under way."""
        return not (self._dialect.answering or self._waiting)

    def start(self) -> None:
        self._read(True)
        self._send(self._dialect.begin)

    def finish(self) -> None:
        """Hang up, behind the end of an answer that has ended by now."""
        if self._dialect.streaming:
            self._send(self._dialect.more)
        self.abort()

    def abort(self) -> None:
        """Hang up now."""
        if self._closed:
            return
        self._closed = True
        self._dialect.leave()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for handle in (self._again, self._silence):
            if handle is not None:
                handle.cancel()
        self._sock.close()
        self._gone(self)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if not data:
            self._ended = True
            self._read(False)
        self._ahead = self._ahead + len(data) if self._dialect.streaming else 0
        self._send(lambda: self._dialect.receive(data))
        if self._closed or not self._dialect.streaming:
            return
        if not data or self._ahead > MOST_AHEAD:
            self.abort()  # nobody half-closes an endless answer, or talks into it

    def _read(self, wanted: bool) -> None:
        """Hear the client, or let the kernel keep what it says."""
        wanted = wanted and not self._ended
        if wanted is self._reads:
            return
        self._reads = wanted
        if wanted:
            self._loop.add_reader(self._sock.fileno(), self._readable)
        else:
            self._loop.remove_reader(self._sock.fileno())

    def _send(self, make: Callable[[], bytes]) -> None:
        try:
            self._waiting += make()
        except Exception as error:
            self._failed(error)
            self.abort()
            return
        self._flush()

    def _flush(self) -> None:
        """Send what the socket takes, and see to it that the rest follows."""
        if self._closed:
            return
        if self._waiting:
            try:
                sent = self._sock.send(self._waiting)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.abort()
                return
            del self._waiting[:sent]
            if sent:
                self._heard()
                self._catch_up()
        if bool(self._waiting) is not self._writes:
            self._writes = bool(self._waiting)
            if self._writes:
                self._loop.add_writer(self._sock.fileno(), self._flush)
            else:
                self._loop.remove_writer(self._sock.fileno())
        self._go_on()

    def _go_on(self) -> None:
        dialect = self._dialect
        if dialect.over and not self._waiting:
            self.abort()
            return
        # More is read once all that was asked has been answered: memory is bounded. The
        # end of a client that has an endless answer is heard meanwhile.
        self._read(dialect.streaming or not (dialect.answering or self._waiting))
        if dialect.answering and not dialect.streaming:
            self._wake()
        if self._silence is None and not (dialect.streaming and not self._waiting):
            self._heard()

    def _catch_up(self) -> None:
        """Go on with an answer that stopped because the client was behind."""
        if self._dialect.streaming and (self._writes or self._dialect.gentle):
            self._wake()

    def _wake(self) -> None:
        """Make the next piece of the answer soon, unless the client is behind."""
        if self._again is not None:
            return
        if self._dialect.gentle:
            if not self._waiting:
                self._again = self._loop.call_later(STREAM_DELAY_S, self._more)
        elif len(self._waiting) < _WRITE_HIGH:
            self._again = self._loop.call_soon(self._more)

    def _more(self) -> None:
        self._again = None
        if self._dialect.gentle:
            if self._waiting:
                return  # once that is taken
            if not self._streams:
                self._streams = True
                buffer = socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER
                self._sock.setsockopt(*buffer)
        self._send(self._dialect.more)

    def _heard(self) -> None:
        """Be patient for another while."""
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._loop.call_later(SILENCE_S, self._silent)

    def _silent(self) -> None:
        self._silence = None
        if self._dialect.streaming:
            return  # what it does not take is dropped and counted
        self.abort()
