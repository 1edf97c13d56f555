# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the listening sockets of forwards, on the host and in the namespace.

A socket of the host is made here, one of the namespace by the process that stayed
there. Opening many takes long: it is done in pieces, between which packets move, unless
nobody is served yet.
"""

import os
from collections.abc import Callable, Collection, Sequence
from errno import EINVAL
from typing import Final, Protocol

from passtpy.addr import Address, inany
from passtpy.config.forwards import SOCKETS_PER_PORT, Forward
from passtpy.config.passed import Passed
from passtpy.config.unixend import nameless
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, Pif
from passtpy.net.kernel.listen import Place, opener, wildcard
from passtpy.net.kernel.local import Name, name_of, remove
from passtpy.net.kernel.loop import Loop
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory_client import Factory, close_all, in_batches
from passtpy.record import record

ANY_CLIENT: Final = nameless(ipv4=True)
PIECE: Final = 64  # sockets of one callback
NAMES: Final = {IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}

# Whoever serves a guest opens nothing by name any more
ONLY_AT_START: Final = "a name can be taken only at start"

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


class Sockets:
    """Opens ports on either side, and hands sockets to the datapath."""

    def __init__(
        self,
        datapath: Listeners,
        source: Factory | None,
        freebind: bool,
        passed: Sequence[Passed] = (),
        name: Address = ANY_CLIENT,
    ) -> None:
        """`passed`: sockets of the host that are open already.

        `name`: the address that clients of UNIX sockets appear to have.
        """
        self._name = inany(name)
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
        name = self._files.pop(forward.rule.path or "", None)
        if name is not None:
            remove(name)

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
        if self._loop is not None and forward.rule.path is not None:
            done((), [(port, ONLY_AT_START) for port in ports])
            return
        piece, rest = ports, ports[:0]
        if self._loop is not None:
            piece, rest = ports[:PIECE], ports[PIECE:]
        done(*self._piece(forward, bits, piece))
        if rest and self._loop is not None:
            self._loop.call_soon(lambda: self._open_here(forward, bits, rest, done))

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
