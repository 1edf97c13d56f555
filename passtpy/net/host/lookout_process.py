# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at the host's files for a daemon that no longer can (the *lookout*).

A process of its own, forked before the daemon gives up its file system; no packet ever
reaches it. What may be asked stands in lookout.py. It may read files, write nothing but
the log, and make and remove nothing but sockets of the daemon.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from errno import EACCES, EIO
from functools import partial
from typing import TYPE_CHECKING, Final

from passtpy.config.model import RunAs, Seccomp
from passtpy.isolation import landlock, stages
from passtpy.isolation.calls import Process
from passtpy.logfile import FILE_FLAGS, FILE_MODE, turn
from passtpy.net.host.lookout import (
    CONNECTED,
    DIAL,
    ERRNO,
    FDS_MAX,
    LISTEN,
    LISTENS,
    LOG,
    REMOVED,
    TEXT_MAX,
    WHICH,
    WHO,
    WHO_IS,
    Lookout,
)
from passtpy.net.host.named import FOLDER, Folders, Named
from passtpy.net.host.resolv import PATH, ResolvWatch, UnusableError, read_text
from passtpy.net.kernel.local import Name
from passtpy.record import record

if TYPE_CHECKING:
    from passtpy.egress.source import PolicySource

_REQUEST_MAX: Final = 128  # a name is shorter: one that was cut off is none
_NOWHERE: Final = (-1, "")
_LOOK_S: Final = 1.0  # between two looks for a name that has no events


@record
class Orders:
    """What it may do, fixed when it starts."""

    user: RunAs | None
    logs: tuple[str | None, ...]  # files that are appended to
    policy: PolicySource | None
    names: tuple[Name, ...]
    seccomp: Seccomp
    targets: tuple[str, ...] = ()  # UNIX sockets that it connects to
    resolv: str = PATH
    namespace: tuple[int, str] | None = None  # an open folder, a name to look for
    folders: Folders = ()  # where UNIX sockets are made and reached
    log_files: int = 1  # how many there may be of the first log


def start(orders: Orders) -> Lookout:
    """Fork it; return the daemon's end. The daemon has one thread until then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        child = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if child == 0:
        try:
            _Process(theirs, orders).run()
        finally:
            os._exit(0)
    theirs.close()
    names = [name.path for name in orders.names]
    return Lookout(ours, orders.targets, names, [path for path, _ in orders.folders])


class _Loop:
    """As much of a loop as a watch of a file needs."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def remove_reader(self, fd: int) -> bool:
        self._poll.unregister(fd)
        return self._readers.pop(fd, None) is not None

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + delay, callback))

    def once(self) -> None:
        """Wait, and call whom it concerns."""
        until = min((when for when, _ in self._timers), default=None)
        wait = None if until is None else max(0.0, until - time.monotonic()) * 1000
        for fd, _ in self._poll.poll(wait):
            if fd in self._readers:
                self._readers[fd]()
        now = time.monotonic()
        due = [callback for when, callback in self._timers if when <= now]
        self._timers = [each for each in self._timers if each[0] > now]
        for callback in due:
            callback()


class _Process:
    """The process itself, from its first moment to its end."""

    def __init__(self, sock: socket.socket, orders: Orders) -> None:
        self._sock = sock
        self._orders = orders
        self._over = False
        self._places: list[tuple[int, str]] = []  # of logs: a folder, and a name in it
        self._named = Named(orders.names, [fd for _, fd in orders.folders])
        self._turned = _NOWHERE  # the place of the first log, if there may be several

    def run(self) -> None:
        """Watch and answer until the daemon has ended; then tidy up."""
        loop = _Loop()
        self._settle()
        watch = ResolvWatch(self._orders.resolv)
        watch.start(loop, self._tell_resolver)
        self._tell_resolver()  # it may have changed since the daemon read it
        loop.add_reader(self._sock.fileno(), self._on_request)
        if self._orders.namespace is not None:
            self._look_for_namespace(loop, *self._orders.namespace)
        while not self._over:
            loop.once()
        self._named.remove_all()

    def _settle(self) -> None:
        """Hold nothing, be nobody, and make no call that is not in the table."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        keep = {self._sock.fileno(), *self._named.held()}
        for path in self._orders.logs:
            self._places.append(_place(path))
            keep.add(self._places[-1][0])
        if self._orders.log_files > 1 and self._orders.logs[0] is not None:
            # Whatever the name is a link to: the link stays
            self._turned = _place(os.path.realpath(self._orders.logs[0]))
            keep.add(self._turned[0])
        if self._orders.namespace is not None:
            keep.add(self._orders.namespace[0])
        if self._orders.policy is not None:
            keep.update(self._orders.policy.held())
        folders = [fd for _, fd in self._orders.folders]
        opened = self._rules()
        beneath = [*opened, *((fd, landlock.SOCKETS) for fd in folders)]
        keep.update(folder for folder, _ in beneath)
        stages.hold_only(os.open(os.devnull, os.O_RDWR), keep - {-1})
        if self._orders.user is not None:
            stages.become(self._orders.user)
        stages.lock()
        stages.restrict(Process.LOOKOUT, beneath)
        for folder, _ in opened:
            os.close(folder)
        stages.shut(Process.LOOKOUT, self._orders.seccomp)

    def _rules(self) -> list[tuple[int, int]]:
        """Open the folders where something may be done, each with what: Landlock's.

        resolv.conf, and what it is a link to, may be anywhere.
        """
        logs = [path for path in self._orders.logs if path is not None]
        wanted = [("/", landlock.READ)]
        for path in logs:
            for name in (os.path.abspath(path), os.path.realpath(path)):
                wanted.append((os.path.dirname(name), landlock.APPEND))
        if self._turned is not _NOWHERE:
            wanted.append((os.path.dirname(os.path.realpath(logs[0])), landlock.TURN))
        for each in self._orders.names:
            wanted.append((os.path.dirname(each.path), landlock.REMOVE))
        opened = []
        for name, allowed in wanted:
            with suppress(OSError):
                opened.append((os.open(name, FOLDER), allowed))
        return opened

    def _look_for_namespace(self, loop: _Loop, folder: int, name: str) -> None:
        """Look for its name now and again; tell when it is gone."""
        try:
            os.stat(name, dir_fd=folder)
        except OSError as error:
            if error.errno != EACCES:  # there, but not for us
                self._send(b"G")
                return
        loop.call_later(_LOOK_S, partial(self._look_for_namespace, loop, folder, name))

    def _on_request(self) -> None:
        try:
            request = self._sock.recv(_REQUEST_MAX)
        except OSError:
            request = b""
        if request[:1] == b"W" and len(request) == WHO.size:
            _, pid = WHO.unpack(request)
            self._send(WHO_IS.pack(b"W", *who_is(pid)))
        elif request[:1] == b"L" and len(request) == WHICH.size:
            self._open_log(WHICH.unpack(request)[1])
        elif request == b"T":
            self._turn_log()
        elif request[:1] == b"C" and len(request) == WHICH.size:
            self._connect(WHICH.unpack(request)[1])
        elif request[:1] == b"B" and len(request) > LISTEN.size:
            _, which, mode = LISTEN.unpack_from(request)
            number, made = self._named.listen(which, mode, request[LISTEN.size :])
            self._send_socket(LISTENS.pack(b"B", made[0], number), made[1])
        elif request[:1] == b"D" and len(request) > DIAL.size:
            _, which = DIAL.unpack_from(request)
            error, sock = self._named.dial(which, request[DIAL.size :])
            self._send_socket(CONNECTED.pack(b"C", error), sock)
        elif request[:1] == b"X" and len(request) == WHICH.size:
            error = self._named.remove(WHICH.unpack(request)[1])
            self._send(REMOVED.pack(b"X", error))
        elif request == b"P":
            self._open_policy()
        else:  # the end, or nonsense
            self._over = True

    def _open_log(self, which: int) -> None:
        folder, name = self._places[which] if which < len(self._places) else _NOWHERE

        def opened() -> int:
            return os.open(name, FILE_FLAGS, FILE_MODE, dir_fd=folder)

        self._send_log(opened if folder >= 0 else None)

    def _turn_log(self) -> None:
        """Give the full log file another name, and open the one after it."""
        folder, name = self._turned
        files = self._orders.log_files
        self._send_log(partial(turn, folder, name, files) if folder >= 0 else None)

    def _send_log(self, opened: Callable[[], int] | None) -> None:
        fds, number = list[int](), 0
        try:
            if opened is not None:
                fds = [opened()]
        except OSError as error:
            number = error.errno or EIO
        self._send(LOG.pack(b"L", number), fds)
        for fd in fds:
            os.close(fd)

    def _connect(self, which: int) -> None:
        """Connect to a UNIX socket; one whose queue is full has no place for it."""
        targets, kind = self._orders.targets, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        if which >= len(targets):
            self._send(CONNECTED.pack(b"C", EIO))
            return
        with socket.socket(socket.AF_UNIX, kind) as sock:
            error = sock.connect_ex(targets[which])
            self._send(CONNECTED.pack(b"C", error), [] if error else [sock.fileno()])

    def _send_socket(self, message: bytes, sock: socket.socket | None) -> None:
        if sock is None:
            self._send(message)
            return
        with sock:
            self._send(message, [sock.fileno()])

    def _open_policy(self) -> None:
        source = self._orders.policy
        opened = [] if source is None else source.open_files()
        told = opened[:FDS_MAX]
        fds = [fd for _, fd in told if fd >= 0]
        self._send(b"P" + b"".join(ERRNO.pack(error) for error, _ in told), fds)
        for _, fd in opened:
            if fd >= 0:
                os.close(fd)

    def _tell_resolver(self) -> None:
        try:
            text = read_text(self._orders.resolv)
        except (UnusableError, OSError) as error:
            self._send(b"U" + str(error).encode(errors="replace")[:TEXT_MAX])
            return
        if text is not None:
            self._send(b"R" + text)

    def _send(self, message: bytes, fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._sock, [message], fds or [])
        except OSError:
            self._over = True


def _place(path: str | None) -> tuple[int, str]:
    """Return an open folder, and a name in it: where a log file is.

    Opened while whoever started us may walk there.
    """
    if path is None:
        return _NOWHERE
    with suppress(OSError):
        folder, name = os.path.split(os.path.abspath(path))
        return os.open(folder, FOLDER), name
    return _NOWHERE


def who_is(pid: int) -> tuple[int, int]:
    """Return the user of a process, and how many PID namespaces it lies in."""
    uid = depth = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                words = line.split()
                if words[0] == b"Uid:":
                    uid = int(words[2])
                elif words[0] == b"NSpid:":
                    depth = len(words) - 1
    except (OSError, IndexError, ValueError):
        return 0, 0
    return uid, max(depth, 1)
