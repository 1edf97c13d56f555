# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the listening sockets of forwards, on the host and in the namespace.

A socket of the host is made here, one of the namespace by the process that stayed
there. Opening many takes long: it is done in pieces, between which packets move, unless
nobody is served yet.
"""

import os
from collections.abc import Callable, Collection, Sequence
from errno import EINVAL, EIO, ENOENT
from typing import Final, Protocol

from passtpy.addr import Address, inany
from passtpy.config.forwards import SOCKETS_PER_PORT, Forward
from passtpy.config.passed import Passed
from passtpy.config.unixend import nameless
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, Pif
from passtpy.net.kernel.listen import Place, opener, wildcard
from passtpy.net.kernel.local import Name, name_of, reason, remove
from passtpy.net.kernel.loop import Loop
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory_client import Factory, close_all, in_batches
from passtpy.record import record

ANY_CLIENT: Final = nameless(ipv4=True)
PIECE: Final = 64  # sockets of one callback
NAMES: Final = {IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}

# Whoever serves a guest opens nothing by name any more: another process does
NOBODY_LEFT: Final = "the process that makes sockets by name has ended"

Failures = Sequence[tuple[int, str]]  # port, reason


@record
class Opened:
    """A socket that listens, and the number under which it will be heard."""

    port: int
    number: int
    fd: int


Done = Callable[[Sequence[Opened], Failures], None]


class Listeners(Protocol):
    """The part of a datapath that is needed here."""

    def listen(
        self, fd: int, proto: int, listener: int, pif: int = Pif.HOST
    ) -> None: ...

    def listen_nameless(
        self, fd: int, listener: int, addr: bytes, port: int
    ) -> None: ...

    def unlisten(self, listener: int) -> None: ...

    def renumber(self, old: int, new: int, /) -> None: ...


class Names(Protocol):
    """Who makes UNIX sockets, and removes their names, while a guest is served."""

    def listen(self, path: str, mode: int, then: Callable[[int, int], None]) -> None:
        """Call `then` with a socket, or -1 and the errno; EIO: nobody is left."""

    def remove(self, path: str, then: Callable[[int], None]) -> None:
        """Call `then` with 0, or the errno; ENOENT: that name is not ours."""


class Sockets:
    """Opens ports on either side, and hands sockets to the datapath."""

    def __init__(
        self,
        datapath: Listeners,
        source: Factory | None,
        freebind: bool,
        passed: Sequence[Passed] = (),
        name: Address = ANY_CLIENT,
        kept: Callable[[str, str], None] = lambda path, why: None,
    ) -> None:
        """`passed`: sockets of the host that are open already.

        `name`: the address that clients of UNIX sockets appear to have. `kept` is told
        of the file of one that could not be removed, and why.
        """
        self._name = inany(name)
        self._kept = kept
        self._names: Names | None = None
        self._removals = 0  # of names, that have not been answered
        self._awaiting: list[Callable[[], None]] = []  # their end
        self._files: dict[str, Name] = {}  # of our UNIX sockets, by path
        self._datapath = datapath
        self._factory = source
        self._freebind = freebind
        self._loop: Loop | None = None
        # Listener numbers that have a twin: see factory.py about old kernels.
        self.doubled: set[int] = set()
        # UDP ports of the host that were closed, whose flows may live on at them
        self._had: set[int] = set()
        self._passed = {(it.proto, it.addr, it.ifname, it.port): it.fd for it in passed}

    def start(self, loop: Loop) -> None:
        """Open in pieces from now on."""
        self._loop = loop

    def name_by(self, names: Names) -> None:
        """Have UNIX sockets made and removed there: we see no files from now on."""
        self._names = names

    def place(self, forward: Forward, bits: int) -> Place:
        """Return where the sockets of `forward` are, for these families."""
        rule = forward.rule
        if rule.scan and rule.addr is None:
            return wildcard(rule.proto, bits, rule.ifname)
        place = rule.proto, rule.addr, rule.ifname, self._freebind
        return Place(*place, rule.path, rule.mode)

    def open(
        self, forward: Forward, bits: int, ports: Sequence[int], done: Done
    ) -> None:
        """Open ports; `done` is told once for each piece, at once or later."""
        if forward.pif is Pif.HOST:
            self._open_here(forward, bits, ports, done)
        else:
            self._open_inside(forward, bits, ports, done)

    def hear(self, forward: Forward, opened: Sequence[Opened]) -> Failures:
        """Let the datapath listen at these sockets."""
        failures, seen = [], set[int]()
        for each in opened:
            try:
                self._listen(forward, each)
            except OSError as error:
                self.discard(forward, each)
                number = error.errno or EINVAL
                failures.append((each.port, os.strerror(number)))
                continue
            if each.port in seen:
                self.doubled.add(forward.number(each.port))
            seen.add(each.port)
        return failures

    def _listen(self, forward: Forward, each: Opened) -> None:
        rule = forward.rule
        if rule.path is None:
            self._datapath.listen(each.fd, rule.proto, each.number, forward.pif)
        else:
            self._datapath.listen_nameless(each.fd, each.number, self._name, each.port)

    def discard(self, forward: Forward, each: Opened) -> None:
        """Close a socket that nobody has heard yet."""
        os.close(each.fd)
        self._remove_file(forward)

    def files(self) -> list[str]:
        """Return where our UNIX sockets are."""
        return list(self._files)

    def remove_files(self) -> None:
        """Remove the names of our UNIX sockets, as far as we may."""
        for name in self._files.values():
            remove(name)
        self._files.clear()

    def _remove_file(self, forward: Forward) -> None:
        path = forward.rule.path
        if path is None:
            return
        name = self._files.pop(path, None)
        if self._names is None:
            if name is not None:
                remove(name)
            return

        def removed(error: int) -> None:
            if error not in (0, ENOENT):
                self._kept(path, NOBODY_LEFT if error == EIO else os.strerror(error))
            self._removals -= 1
            self.when_removed()

        self._removals += 1
        self._names.remove(path, removed)

    def when_removed(self, *then: Callable[[], None]) -> None:
        """Call `then` once every name is removed of which we asked that."""
        self._awaiting += then
        while self._awaiting and not self._removals:
            self._awaiting.pop(0)()

    def move(self, port: int, old: Forward, new: Forward) -> None:
        """Let the open socket of a port belong to another forward."""
        for nth in range(1 + (old.number(port) in self.doubled)):
            self._datapath.renumber(old.number(port, nth), new.number(port, nth))
        if old.number(port) in self.doubled:
            self.doubled.discard(old.number(port))
            self.doubled.add(new.number(port))

    def close(self, forward: Forward, port: int) -> None:
        """Close the sockets of a port."""
        number = forward.number(port)
        self._datapath.unlisten(number)
        self._remove_file(forward)
        if forward.rule.proto == IPPROTO_UDP and forward.pif is Pif.HOST:
            self._had.add(port)
        if number in self.doubled:
            self.doubled.discard(number)
            self._datapath.unlisten(forward.number(port, 1))

    def _open_here(
        self, forward: Forward, bits: int, ports: Sequence[int], done: Done
    ) -> None:
        """Open a piece, and the rest in another callback."""
        if self._names is not None and forward.rule.path is not None:
            self._open_named(self._names, forward, done)
            return
        piece, rest = ports, ports[:0]
        if self._loop is not None:
            piece, rest = ports[:PIECE], ports[PIECE:]
        done(*self._piece(forward, bits, piece))
        if rest and self._loop is not None:
            self._loop.call_soon(lambda: self._open_here(forward, bits, rest, done))

    def _open_named(self, names: Names, forward: Forward, done: Done) -> None:
        rule = forward.rule
        assert rule.path is not None

        def made(fd: int, error: int) -> None:
            if fd >= 0:
                done([Opened(rule.first, forward.number(rule.first), fd)], ())
            else:
                why = NOBODY_LEFT if error == EIO else reason(error)
                done((), [(rule.first, why)])

        names.listen(rule.path, rule.mode, made)

    def _piece(
        self, forward: Forward, bits: int, ports: Sequence[int]
    ) -> tuple[list[Opened], Failures]:
        opened, failures = [], []
        place = self.place(forward, bits)
        open_port, open_shared = opener(place), opener(place, share=True)
        had: Collection[int] = self._had if place.proto == IPPROTO_UDP else ()
        for port in ports:
            number = forward.number(port)
            fd = self._passed.pop((place.proto, place.address, place.ifname, port), -1)
            if fd >= 0:
                opened.append(Opened(port, number, fd))
                continue
            try:
                sock = open_shared(port) if port in had else open_port(port)
            except OSError as error:
                failures.append((port, error.strerror or str(error)))
                continue
            opened.append(Opened(port, number, sock.detach()))
            name = None if place.path is None else name_of(place.path)
            if name is not None:
                self._files[name.path] = name
        return opened, failures

    def _open_inside(
        self, forward: Forward, bits: int, ports: Sequence[int], done: Done
    ) -> None:
        source = self._factory
        if source is None or source.gone:
            done((), [(port, "no way into the namespace") for port in ports])
            return
        for batch in in_batches(ports):
            request = factory.listen_request(forward.rule.proto, bits, batch)
            if self._loop is None:
                done(*_taken(forward, batch, *source.now(request)))
            else:
                source.ask(request, _taker(forward, batch, done))


def _taker(
    forward: Forward, ports: Sequence[int], done: Done
) -> Callable[[bytes, list[int]], None]:
    return lambda text, fds: done(*_taken(forward, ports, text, fds))


def _taken(
    forward: Forward, ports: Sequence[int], text: bytes, fds: list[int]
) -> tuple[list[Opened], Failures]:
    """Return what the factory made, and what it could not."""
    answers = factory.read_ports(text, len(ports))
    counts = [count for _, count in answers]
    if sum(counts) != len(fds) or max(counts) > SOCKETS_PER_PORT[forward.pif]:
        close_all(fds)
        return [], [(port, "lost on the way from the namespace") for port in ports]
    opened, failures = [], []
    left = iter(fds)
    for port, (error, count) in zip(ports, answers, strict=True):
        opened += [
            Opened(port, forward.number(port, nth), next(left)) for nth in range(count)
        ]
        if error:
            failures.append((port, os.strerror(error)))
    return opened, failures
