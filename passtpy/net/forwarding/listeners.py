# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens every listening socket, and keeps the automatic ones in step.

Ports that were asked for by number are opened at start, before privileges are dropped:
a port below 1024, or one that somebody else has, is found out while there is still
somebody to tell. Automatic ports are looked up on the other side once a second, in
small pieces between turns, and opened or closed as policy/auto.py tells.
"""

import os
import resource
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EINVAL
from typing import Final, Protocol

from passtpy.config.model import Config, SpawnCommand
from passtpy.config.ports import Span
from passtpy.errors import SetupError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, Pif
from passtpy.log import Log
from passtpy.net.forwarding.scan import Follower
from passtpy.net.kernel.listen import Place, describe, opener, wildcard
from passtpy.net.kernel.loop import Loop
from passtpy.net.kernel.sockdiag import Found
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory_client import Factory, close_all, in_batches
from passtpy.policy import auto
from passtpy.policy.forward import (
    SOCKETS_PER_PORT,
    Forward,
    forwards_from_config,
)

FLOW_RESERVE: Final = 1024  # descriptors that listening sockets leave to flows
_FAR: Final = {Pif.HOST: Pif.SPLICE, Pif.SPLICE: Pif.HOST}  # the other side
_NAMES: Final = {IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}

Failures = Sequence[tuple[int, str]]  # port, reason
Done = Callable[[Failures], None]


class Listeners(Protocol):
    """The part of a datapath that is needed here."""

    def listen(
        self, fd: int, proto: int, listener: int, pif: int = Pif.HOST
    ) -> None: ...

    def unlisten(self, listener: int) -> None: ...


@dataclass(slots=True)
class _Table:
    """The ports of an automatic forward, as they are now."""

    forward: Forward
    bound: dict[int, int] = field(default_factory=dict)  # port: families
    failed: dict[int, str] = field(default_factory=dict)  # port: reason
    missed: set[int] = field(default_factory=set)  # not there at the last look


class Sockets:
    """Opens ports on either side and hands them to the datapath."""

    def __init__(
        self, datapath: Listeners, source: Factory | None, freebind: bool
    ) -> None:
        self._datapath = datapath
        self._factory = source
        self._freebind = freebind
        self._openers: dict[Place, Callable[[int], int]] = {}
        # Listener numbers that have a twin: see factory.py about old kernels.
        self.doubled: set[int] = set()
        self._had: set[int] = set()  # UDP: flows may live on at these ports

    def place(self, forward: Forward, bits: int) -> Place:
        """Return where the sockets of `forward` are, for these families."""
        if forward.auto:
            return wildcard(forward.proto, bits, forward.ifname)
        return Place(forward.proto, forward.address, forward.ifname, self._freebind)

    def open(
        self, forward: Forward, bits: int, ports: Sequence[int], done: Done, wait: bool
    ) -> None:
        """Open ports; `done` is told about those that could not be opened.

        What is opened in the namespace is answered later, unless we are to wait.
        """
        if forward.pif is Pif.HOST:
            done(self._open_here(forward, bits, ports))
            return
        assert self._factory is not None
        for batch in in_batches(ports):
            request = factory.listen_request(forward.proto, bits, batch)
            if wait:
                text, fds = self._factory.now(request)
                done(self._take(forward, batch, text, fds))
            else:
                self._factory.ask(request, self._taker(forward, batch, done))

    def close(self, forward: Forward, port: int) -> None:
        """Close the sockets of a port."""
        number = forward.number(port)
        self._datapath.unlisten(number)
        if forward.proto == IPPROTO_UDP:
            self._had.add(number)
        if number in self.doubled:
            self.doubled.discard(number)
            self._datapath.unlisten(forward.number(port, 1))

    def _open_here(self, forward: Forward, bits: int, ports: Iterable[int]) -> Failures:
        failures = []
        place = self.place(forward, bits)
        open_port, open_shared = opener(place), opener(place, share=True)
        listen, proto, number = self._datapath.listen, forward.proto, forward.number
        for port in ports:
            try:
                again = self._had and number(port) in self._had
                sock = open_shared(port) if again else open_port(port)
            except OSError as error:
                failures.append((port, error.strerror or str(error)))
                continue
            listen(sock.detach(), proto, number(port))
        return failures

    def _taker(
        self, forward: Forward, ports: Sequence[int], done: Done
    ) -> Callable[[bytes, list[int]], None]:
        return lambda text, fds: done(self._take(forward, ports, text, fds))

    def _take(
        self, forward: Forward, ports: Sequence[int], text: bytes, fds: list[int]
    ) -> Failures:
        """Give the datapath what the factory made."""
        answers = factory.read_ports(text, len(ports))
        counts = [count for _, count in answers]
        if sum(counts) != len(fds) or max(counts) > SOCKETS_PER_PORT[forward.pif]:
            close_all(fds)
            return [(port, "lost on the way from the namespace") for port in ports]
        failures = []
        left = iter(fds)
        for port, (error, count) in zip(ports, answers, strict=True):
            for nth in range(count):
                error = self._give(forward, forward.number(port, nth), next(left))
            if error:
                failures.append((port, os.strerror(error)))
            elif count > 1:
                self.doubled.add(forward.number(port))
        return failures

    def _give(self, forward: Forward, number: int, fd: int) -> int:
        try:
            self._datapath.listen(fd, forward.proto, number, Pif.SPLICE)
        except OSError as error:
            os.close(fd)
            return error.errno or EINVAL
        return 0


class Forwarding:
    """What listens, and why."""

    def __init__(
        self,
        config: Config,
        datapath: Listeners,
        source: Factory | None,
        log: Log,
    ) -> None:
        self._config = config
        self._factory = source
        self._log = log
        self._sockets = Sockets(datapath, source, config.freebind)
        self._forwards = tuple(forwards_from_config(config))
        self._tables = [_Table(f) for f in self._forwards if f.auto]
        self._bits = config.ipv4 * auto.V4 | config.ipv6 * auto.V6
        # What we listen on ourselves, so that neither direction follows the other.
        self._ours: dict[tuple[Pif, int], set[int]] = {
            (pif, proto): set() for pif in (Pif.HOST, Pif.SPLICE) for proto in _NAMES
        }
        self._room = _descriptors_left()
        self._follower: Follower | None = None

    def open(self) -> None:
        """Open what can be opened by now; SetupError when that is not enough."""
        for forward in self._forwards:
            if not forward.auto:
                self._open_listed(forward)
        self._check_any_opened()
        sides = {_FAR[table.forward.pif] for table in self._tables}
        if sides:
            skip = {
                pif: {proto: spans(self._ours[pif, proto]) for proto in _NAMES}
                for pif in sides
            }
            self._follower = Follower(self._factory, skip)
            if self._follower.blind:
                self._log.warning("forward.blind", text="no answer from the namespace")
            # A namespace that was just made has nothing to find.
            fresh = isinstance(self._config.target, SpawnCommand)
            self._follow(*self._follower.now(namespace=not fresh), wait=True)
        if self._sockets.doubled:
            text = "listening on 127.0.0.1 and ::1 instead of device lo"
            self._log.warning("listen.no_device", text=f"{text} (requires kernel 5.7+)")

    def start(self, loop: Loop) -> None:
        """Follow automatic ports from now on."""
        if self._follower is not None:
            self._follower.start(loop, self._follow)

    def close(self) -> None:
        """Stop following; the sockets are the datapath's."""
        if self._follower is not None:
            self._follower.close()

    # Ports asked for by number

    def _open_listed(self, forward: Forward) -> None:
        ports = self._within_limit(forward)
        failures: list[tuple[int, str]] = []
        self._sockets.open(forward, self._bits, ports, failures.extend, wait=True)
        if failures and not forward.weak:
            port, reason = failures[0]
            name = _NAMES[forward.proto]
            where = describe(self._sockets.place(forward, self._bits), port)
            raise SetupError(
                f"Listen failed for {forward.pif.name} {name} port {where}: {reason}\n"
                f"Couldn't listen on requested {name} ports"
            )
        opened = set(ports).difference(port for port, _ in failures)
        self._ours[forward.pif, forward.proto] |= opened
        self._room -= len(opened)
        self._warn(forward, dict(failures))

    def _within_limit(self, forward: Forward) -> Sequence[int]:
        """Return the ports for which there are descriptors."""
        ports = forward.ports
        if len(ports) <= self._room:
            return ports
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = f"{len(ports)} sockets for {forward.why}"
        text += f": the limit of open files is {limit}, see ulimit -Hn"
        if not forward.weak:
            raise SetupError(f"Couldn't open {text}")
        ports = ports[: max(self._room, 0)]
        self._log.warning("listen.limit", text=text, opened=len(ports))
        return ports

    def _check_any_opened(self) -> None:
        """Weak ports are not worth an error, unless none could be had."""
        listed = [f for f in self._forwards if not f.auto]
        for forward in listed:
            if not self._ours[forward.pif, forward.proto]:
                name = _NAMES[forward.proto]
                raise SetupError(f"Couldn't listen on requested {name} ports")

    def _warn(self, forward: Forward, failed: Mapping[int, str]) -> None:
        """Tell about ports that could not be had: one record for each reason."""
        for reason in dict.fromkeys(failed.values()):
            ports = show_ports(port for port in failed if failed[port] == reason)
            fields = {"side": forward.pif.name, "proto": _NAMES[forward.proto]}
            self._log.warning("listen.failed", **fields, ports=ports, reason=reason)

    # Automatic ports

    def _follow(self, host: Found, inside: Found, wait: bool = False) -> None:
        """Open and close ports after what was found listening on either side."""
        found = {Pif.HOST: inside, Pif.SPLICE: host}
        # All of it before any change: what we close now was still found.
        wanted = [self._wanted(t.forward, found[t.forward.pif]) for t in self._tables]
        for table, ports in zip(self._tables, wanted, strict=True):
            if ports is not None:
                self._change(table, ports, wait)

    def _wanted(self, forward: Forward, found: Found) -> auto.Ports | None:
        if not found:
            return None  # that side was not looked at
        inbound = forward.pif is Pif.HOST
        reach = self._inbound_reach() if inbound else auto.HOST_LOOPBACK
        far = _FAR[forward.pif]
        tcp, udp = (
            auto.served(found[proto], reach, self._ours[far, proto])
            for proto in (IPPROTO_TCP, IPPROTO_UDP)
        )
        if forward.proto == IPPROTO_UDP:
            tcp = auto.joined(udp, tcp)
        listed = self._ours[far, forward.proto]
        return auto.limited({p: tcp[p] for p in tcp if p not in listed}, self._bits)

    def _inbound_reach(self) -> auto.Reach:
        config = self._config
        return auto.Reach(
            loopback=config.host_lo_to_ns_lo, outside=not config.splice_only
        )

    def _change(self, table: _Table, wanted: auto.Ports, wait: bool) -> None:
        forward, bound = table.forward, table.bound
        close, open_ = auto.changes(bound, wanted)
        ours = self._ours[forward.pif, forward.proto]
        # A table that changes while it is read may hide a socket: look twice.
        gone = {port for port in close if port not in wanted}
        close = [port for port in close if port not in gone - table.missed]
        table.missed = gone.difference(close)
        for port in close:
            self._sockets.close(forward, port)
            del bound[port]
            ours.discard(port)
        table.failed = {p: why for p, why in table.failed.items() if p in wanted}
        for bits in {wanted[port] for port in open_}:
            ports = [port for port in open_ if wanted[port] == bits]
            # Ours from now on, although the namespace answers later.
            bound.update(dict.fromkeys(ports, bits))
            ours.update(ports)
            self._sockets.open(forward, bits, ports, self._noter(table), wait)

    def _noter(self, table: _Table) -> Done:
        return lambda failures: self._note(table, failures)

    def _note(self, table: _Table, failures: Failures) -> None:
        """Forget ports that could not be opened: the next look tries them again."""
        forward, news = table.forward, dict[int, str]()
        for port, reason in failures:
            table.bound.pop(port, None)
            self._ours[forward.pif, forward.proto].discard(port)
            if table.failed.get(port) != reason:
                table.failed[port] = news[port] = reason
        if forward.pif is Pif.HOST:
            self._warn(forward, news)
        elif news:  # the namespace has a service of its own there
            self._log.debug("listen.failed", ports=show_ports(news), side="SPLICE")


def spans(ports: Iterable[int]) -> list[Span]:
    """Return ports as the fewest spans, in rising order."""
    found: list[Span] = []
    for port in sorted(ports):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found


def show_ports(ports: Iterable[int]) -> str:
    """Return `22,80-90`."""
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans(ports))


def _descriptors_left() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    used = len(os.listdir("/proc/self/fd"))
    return limit - used - min(FLOW_RESERVE, limit // 8)
