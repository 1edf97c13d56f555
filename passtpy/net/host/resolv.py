# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the host's resolv.conf, and tells when it may have changed.

The file is often a symbolic link to one that a resolver or a network manager replaces
by renaming. So every directory on the way is watched, links followed one by one, and
the file itself as well: in a container it is a mount, and its directory sees nothing.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOMEM
from typing import Final, Protocol

from passtpy import _native
from passtpy.config.resolver import Resolver, parse_resolv_conf
from passtpy.net.kernel.inotify import inotify_events
from passtpy.net.kernel.loop import Readers

PATH: Final = "/etc/resolv.conf"
MAX_LEN: Final = 1 << 16
_OUT_OF_RESOURCES: Final = frozenset((EMFILE, ENFILE, ENOMEM))
_MAX_LINKS: Final = 16
_POLL_S: Final = 1.0

IN_MODIFY: Final = 0x002
IN_ATTRIB: Final = 0x004
IN_CLOSE_WRITE: Final = 0x008
IN_MOVED: Final = 0x0C0
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
_IN_DIRECTORY: Final = (
    IN_CREATE | IN_DELETE | IN_MOVED | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF
)
_IN_FILE: Final = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB


class UnusableError(Exception):
    """The file is nothing that we would read; the message tells why."""


def read_resolver(path: str = PATH) -> Resolver | None:
    """Return what the file says; None when it is not there, or not for us."""
    text = read_text(path)
    return None if text is None else resolver_of(text)


def resolver_of(text: bytes) -> Resolver:
    """Return what the text of the file says."""
    return parse_resolv_conf(text.decode(errors="replace"))


def read_text(path: str) -> bytes | None:
    """Return what is in the file; None when it is not there, or not for us.

    UnusableError when it is something else than a file of reasonable length, which a
    FIFO without a writer would keep from ever being read; OSError when it cannot be
    read just now, but may be later.
    """
    try:
        # Looked at before it is opened: to open a device may be enough to do harm.
        _check(os.stat(path))
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _OUT_OF_RESOURCES:
            raise
        return None
    with open(fd, "rb", buffering=0) as file:
        _check(os.fstat(fd))
        return file.read(MAX_LEN)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnusableError("it is no regular file")
    if found.st_size > MAX_LEN:
        raise UnusableError(f"it is longer than {MAX_LEN} bytes")


def places(path: str) -> Iterator[tuple[str, str]]:
    """Yield (existing directory, name in it) for each link on the way to the file."""
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        while folder != "/" and not os.path.isdir(folder):  # wait for it to be made
            folder, name = os.path.split(folder)
        yield folder, name
        try:
            target = os.readlink(os.path.join(folder, name))
        except OSError:
            return
        path = os.path.join(folder, target)


class ResolverFeed:
    """What the file says, as another process tells whenever it has changed."""

    def __init__(self, resolver: Resolver | None) -> None:
        self._resolver = resolver
        self._why = ""
        self._changed: Callable[[], None] = lambda: None

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever it says something else."""
        self._changed = changed

    def close(self) -> None:
        """Call nobody any more."""
        self._changed = lambda: None

    def hear(self, text: bytes | None, why: str) -> None:
        """Learn what the file says now; None: nothing, and why."""
        before = self._resolver, self._why
        self._why = why
        if text is not None:
            self._resolver = resolver_of(text)
        if (self._resolver, self._why) != before:
            self._changed()

    def read(self) -> Resolver | None:
        """Return what the file says; UnusableError tells why it cannot be read."""
        if self._why:
            raise UnusableError(self._why)
        return self._resolver


class WatchLoop(Readers, Protocol):
    """Calls back when a descriptor can be read, and later."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class ResolvWatch:
    """Calls back whenever the file may say something else."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._fd = -1
        self._names: set[bytes] = set()
        self._state: tuple[int, ...] = ()
        self._loop: WatchLoop | None = None
        self._changed: Callable[[], None] = lambda: None
        self._arm()

    def start(self, loop: WatchLoop, changed: Callable[[], None]) -> None:
        """Watch from now on."""
        self._loop, self._changed = loop, changed
        self._listen()

    def close(self) -> None:
        """Stop watching."""
        self._leave()
        self._loop = None

    def _arm(self) -> None:
        """Watch the way as it is now; without inotify, look once a second."""
        ways = list(places(self._path))
        self._names = {os.fsencode(name) for _, name in ways}
        fd = -1
        try:
            for folder in dict.fromkeys(folder for folder, _ in ways):
                fd = _native.inotify_watch(folder, _IN_DIRECTORY, fd)
        except OSError:  # out of instances, or of watches
            if fd >= 0:
                os.close(fd)
            fd = -1
        if fd >= 0:
            with suppress(OSError):  # there may be none yet
                _native.inotify_watch(self._path, _IN_FILE, fd)
        self._fd = fd

    def _listen(self) -> None:
        if self._loop is None:
            return
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._on_event)
        else:
            self._state = self._look()
            self._loop.call_later(_POLL_S, self._on_timer)

    def _leave(self) -> None:
        if self._fd < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _on_event(self) -> None:
        events = inotify_events(os.read(self._fd, 1 << 16))
        if not any(not name or name in self._names for _, name in events):
            return
        # Before the file is read again: what happens now will be told.
        self._leave()
        self._arm()
        self._listen()
        self._changed()

    def _on_timer(self) -> None:
        if self._loop is None:
            return
        state = self._look()
        if state != self._state:
            self._state = state
            self._changed()
        self._loop.call_later(_POLL_S, self._on_timer)

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
