# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out once a second which ports of host and namespace are listened on.

A look is made of small steps, each a callback of the loop, so that packets move in
between. The kernel is asked (sock_diag) where it answers; otherwise /proc is read.
"""

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from passtpy.flow import Pif
from passtpy.net.kernel.loop import Loop, Timer
from passtpy.net.kernel.sockdiag import (
    Diag,
    Found,
    ProcTables,
    Skip,
    Source,
    open_diag,
    open_proc,
)
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory_client import Factory, close_all

PERIOD_S: Final = 1.0


class _Look:
    """One side: a source, and what to fall back to."""

    def __init__(self, source: Source, tables: Source) -> None:
        self._source = source
        self._tables: Source | None = tables
        self._loop: Loop | None = None
        self._done: Callable[[Found], None] = lambda found: None

    def now(self) -> Found:
        """Look, and wait for the answers; nothing is found when that fails."""
        while True:
            try:
                self._source.begin()
                while self._source.step(block=True):
                    pass
                self._forget_tables()
                return self._source.found
            except OSError:
                if not self._fall_back():
                    return {}

    def begin(self, loop: Loop, done: Callable[[Found], None]) -> None:
        """Look in steps; `done` gets what was found."""
        self._loop, self._done = loop, done
        try:
            self._source.begin()
        except OSError:
            self._failed()
            return
        if self._source.fileno() >= 0:
            loop.add_reader(self._source.fileno(), self._step)
        else:
            loop.call_soon(self._step)

    def close(self) -> None:
        """Stop looking and forget the sources."""
        self._leave()
        self._source.close()
        if self._tables is not None:
            self._tables.close()

    def _step(self) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            if self._source.step(block=False):
                if self._source.fileno() < 0:
                    loop.call_soon(self._step)
                return
        except OSError:
            self._failed()
            return
        found = self._source.found
        self._leave()
        self._forget_tables()
        self._done(found)

    def _failed(self) -> None:
        loop = self._loop
        self._leave()
        if loop is not None and self._fall_back():
            self.begin(loop, self._done)
        else:
            self._done({})

    def _leave(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._source.fileno() >= 0:
            loop.remove_reader(self._source.fileno())

    def _forget_tables(self) -> None:
        """Whoever was answered once will be again."""
        if self._tables is not None and self._tables is not self._source:
            self._tables.close()
        self._tables = None

    def _fall_back(self) -> bool:
        if self._tables is None:
            return False
        if self._tables is not self._source:
            self._source.close()
        self._source, self._tables = self._tables, None
        return True


class HostSources:
    """What tells about the host's sockets, opened while that is possible."""

    def __init__(self) -> None:
        self._tables = open_proc()
        self._diag: socket.socket | None = None
        with suppress(OSError):
            self._diag = open_diag()

    def look(self, skip: Skip) -> _Look:
        """Return somebody who looks, with descriptors of its own."""
        tables = ProcTables(tuple(map(os.dup, self._tables)))
        if self._diag is None:
            return _Look(tables, tables)
        return _Look(Diag(self._diag.dup(), skip), tables)

    def close(self) -> None:
        """Close them."""
        close_all(self._tables)
        self._tables = ()
        if self._diag is not None:
            self._diag.close()


def _look_inside(source: Factory, skip: Skip) -> _Look | None:
    text, fds = source.now(factory.proc_request())
    if factory.read_errno(text):
        close_all(fds)
        return None
    tables = ProcTables(tuple(fds))
    text, fds = source.now(factory.diag_request())
    if factory.read_errno(text) or len(fds) != 1:
        return _Look(tables, tables)
    return _Look(Diag.from_fd(fds[0], skip), tables)


class Follower:
    """Both sides, as far as they are to be looked at.

    A side is given by the ports that need not be looked at: our own, when there are
    many, are the bulk of what listens.
    """

    def __init__(
        self, host: HostSources, inside: Factory | None, skip: Mapping[Pif, Skip]
    ) -> None:
        self._host = host.look(skip[Pif.HOST]) if Pif.HOST in skip else None
        self._inside: _Look | None = None
        if inside is not None and Pif.SPLICE in skip:
            self._inside = _look_inside(inside, skip[Pif.SPLICE])
        self.blind = Pif.SPLICE in skip and self._inside is None
        self._looking = False
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._tell: Callable[[Found, Found], None] = lambda host, inside: None

    def now(self, namespace: bool) -> tuple[Found, Found]:
        """Return what is found on the host and in the namespace, if it is looked at."""
        host = self._host.now() if self._host is not None else {}
        inside: Found = {}
        if namespace and self._inside is not None:
            inside = self._inside.now()
        return host, inside

    def start(self, loop: Loop, tell: Callable[[Found, Found], None]) -> None:
        """Look once a second, and `tell` what was found."""
        self._loop, self._tell = loop, tell
        self._timer = loop.call_later(PERIOD_S, self._begin)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        for look in (self._host, self._inside):
            if look is not None:
                look.close()

    def _begin(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self._timer = loop.call_later(PERIOD_S, self._begin)
        if self._looking:  # there is a lot to look at
            return
        self._looking = True
        if self._host is not None:
            self._host.begin(loop, self._found_on_host)
        else:
            self._found_on_host({})

    def _found_on_host(self, host: Found) -> None:
        loop = self._loop
        if loop is not None and self._inside is not None:
            self._inside.begin(loop, lambda inside: self._found_all(host, inside))
        else:
            self._found_all(host, {})

    def _found_all(self, host: Found, inside: Found) -> None:
        self._looking = False
        self._tell(host, inside)
