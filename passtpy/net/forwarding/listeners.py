# SPDX-License-Identifier: GPL-2.0-or-later
"""Owns the forwards of a running daemon: what listens, why, and how that changes.

Ports that were asked for by number are opened at start, before privileges are dropped:
a port below 1024, or one that somebody else has, is found out while there is still
somebody to tell. Automatic ports are looked up on the other side once a second, in
small pieces between turns, and opened or closed as policy/auto.py tells.
"""

import os
import resource
from collections import Counter, deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Final

from passtpy.config.forwards import (
    Forward,
    ForwardBook,
    NumbersExhausted,
    book_for,
    unix_targets,
)
from passtpy.config.model import Config, SpawnCommand
from passtpy.config.portrule import PortRule, PortTable, RuleError, Side
from passtpy.config.ports import Span
from passtpy.config.unixend import nameless, place_of
from passtpy.errors import SetupError
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, Pif
from passtpy.log import Log
from passtpy.net.forwarding.change import Change, Changer
from passtpy.net.forwarding.scan import Follower, HostSources
from passtpy.net.forwarding.sockets import (
    NAMES,
    PIECE,
    Done,
    Failures,
    Listeners,
    Names,
    Opened,
    Sockets,
)
from passtpy.net.kernel.loop import Loop
from passtpy.net.kernel.sockdiag import Found
from passtpy.net.namespace.factory_client import Factory
from passtpy.policy import auto
from passtpy.record import field, record, replace

FLOW_RESERVE: Final = 1024  # descriptors that listening sockets leave to flows
LOOKED_AT: Final = 512  # sockets that listen on the other side, in one step
_FAR: Final = {Pif.HOST: Pif.SPLICE, Pif.SPLICE: Pif.HOST}  # the other side
_PIFS: Final = {Side.HOST: Pif.HOST, Side.SPLICE: Pif.SPLICE}
_SIDES: Final = {pif: side for side, pif in _PIFS.items()}

Tables = tuple[PortTable, ...]
Applied = Callable[[Sequence[str]], None]
Changed = Callable[[tuple[Forward, ...]], None]


@record(frozen=False)
class _Scanned:
    """The ports of an automatic forward, as they are now."""

    forward: Forward
    bound: dict[int, int] = field(default_factory=dict)  # port: families
    failed: dict[int, str] = field(default_factory=dict)  # port: reason
    missed: set[int] = field(default_factory=set)  # not there at the last look


@record
class Standing:
    """A forward that stands, and on how many of its ports a socket listens."""

    forward: Forward
    open_ports: int


class Forwarding:
    """What listens, and why."""

    def __init__(
        self,
        config: Config,
        tables: Tables,
        datapath: Listeners,
        source: Factory | None,
        log: Log,
        changed: Changed = lambda forwards: None,
    ) -> None:
        """`changed` is told of new forwards before their sockets are heard."""
        self._config = config
        self._tables = tables
        self._factory = source
        self._log = log
        self._changed = changed
        given = config.freebind, config.passed_sockets
        name = nameless(config.ipv4)
        self._sockets = Sockets(datapath, source, *given, name, self._file_kept)
        self._book: ForwardBook = book_for(config)
        self.forwards = self._plan(tables)
        self._book.keep(self.forwards)
        self._targets = set(unix_targets(config))
        self._open: dict[int, set[int]] = {}  # ports of listed forwards, by id
        self._scanned = {f.id: _Scanned(f) for f in self.forwards if f.rule.scan}
        self._bits = config.ipv4 * auto.V4 | config.ipv6 * auto.V6
        # What we listen on ourselves, so that neither direction follows the other.
        self._ours: dict[tuple[Pif, int], Counter[int]] = {
            (pif, proto): Counter() for pif in (Pif.HOST, Pif.SPLICE) for proto in NAMES
        }
        self._room = _descriptors_left()
        self._host_sources: HostSources | None = None
        self._follower: Follower | None = None
        self._loop: Loop | None = None
        self._steps: Iterator[None] | None = None  # of what a look has found
        self._waiting: deque[tuple[Tables, Tables, Applied]] = deque()
        self._changing = False

    def open(self) -> None:
        """Open what can be opened by now; SetupError when that is not enough."""
        # Who names a port comes before who wants as many as there are descriptors for
        for forward in sorted(self.forwards, key=lambda each: each.rule.weak):
            if not forward.rule.scan:
                self._open_listed(forward)
        self._check_any_opened()
        if self._scanned:
            self._follow_at_start()
        if self._sockets.doubled:
            text = "listening on 127.0.0.1 and ::1 instead of device lo"
            self._log.warning("listen.no_device", text=f"{text} (requires kernel 5.7+)")

    def prepare(self) -> None:
        """Open what automatic ports that come later will need."""
        if self._host_sources is None:
            self._host_sources = HostSources()

    def name_by(self, names: Names) -> None:
        """Have UNIX sockets made and removed there from now on."""
        self._sockets.name_by(names)

    def start(self, loop: Loop) -> None:
        """Follow automatic ports, and take changes, from now on."""
        self._loop = loop
        self._sockets.start(loop)
        if self._follower is not None:
            self._follower.start(loop, self._follow)

    def close(self) -> None:
        """Stop following; the sockets are the datapath's."""
        self._loop = None
        self._sockets.remove_files()
        if self._follower is not None:
            self._follower.close()
        if self._host_sources is not None:
            self._host_sources.close()

    def files(self) -> list[str]:
        """Return the paths of UNIX sockets at which we listen."""
        return self._sockets.files()

    def tables(self) -> Tables:
        """Return what is asked for now."""
        return self._tables

    def standing(self) -> list[Standing]:
        """Return the forwards, and how many of their ports are open."""
        found = []
        for forward in self.forwards:
            scanned = self._scanned.get(forward.id)
            ports = self._open.get(forward.id, ()) if scanned is None else scanned.bound
            found.append(Standing(forward, len(ports)))
        return found

    # Changes

    def replace(self, old: Tables, new: Tables, applied: Applied) -> None:
        """Make true what is different in `new`, all of it or nothing.

        `old` are the tables that whoever asks has seen; what others have changed since
        then stays changed.
        """
        self._waiting.append((old, new, applied))
        self._next_change()

    def stop_listening(self, proto: int) -> None:
        """Close every port of a protocol, listed or automatic, for good."""
        without = tuple(
            replace(table, rules=tuple(r for r in table.rules if r.proto != proto))
            for table in self._tables
        )
        self.replace(self._tables, without, lambda reasons: None)

    def _next_change(self) -> None:
        if self._changing or not self._waiting:
            return
        old, new, applied = self._waiting.popleft()
        try:
            tables = _merged(self._tables, old, new)
            forwards = self._plan(tables)
            self._check_ends(forwards)
        except RuleError as error:
            applied(str(error).splitlines())
            self._next_change()
            return
        except NumbersExhausted:
            applied(["Too many listening sockets"])
            self._next_change()
            return
        self._changing = True
        self._log.say("forward.rules", _show(tables))

        def finish(change: Change, reasons: Sequence[str]) -> None:
            if not reasons:
                self._commit(tables, change)
            self._sockets.when_removed(lambda: told(reasons))

        def told(reasons: Sequence[str]) -> None:
            self._changing = False
            applied(reasons)
            self._next_change()

        change = Change(self.forwards, forwards)
        Changer(self._sockets, self._bits, change, self._open, finish).start()

    def _check_ends(self, forwards: Sequence[Forward]) -> None:
        """Refuse a new UNIX socket in a folder that was not named at start."""
        folders = self._config.unix_folders
        known = {each.id for each in self.forwards}
        for forward in forwards:
            rule = forward.rule
            path = rule.path or rule.to_path
            if path is None or forward.id in known or rule.to_path in self._targets:
                continue
            if not folders:
                raise RuleError(f"unix:{path}: only at start, or with --unix-folder")
            if place_of(path, folders) is None:
                where = " or ".join(folders)
                raise RuleError(f"unix:{path}: not directly in {where} (--unix-folder)")

    def _file_kept(self, path: str, why: str) -> None:
        self._log.warning("unix.kept", path=path, reason=why)

    def _plan(self, tables: Tables) -> tuple[Forward, ...]:
        rules: dict[Side, tuple[PortRule, ...]] = {t.side: t.rules for t in tables}
        return self._book.plan(rules.get(Side.HOST, ()), rules.get(Side.SPLICE, ()))

    def _commit(self, tables: Tables, change: Change) -> None:
        """Every socket is there: let the change be true."""
        self._tables, self.forwards = tables, change.new
        self._book.keep(change.new)
        self._changed(change.new)
        moved = set()
        for port, old, new in change.moves:
            self._sockets.move(port, old, new)
            self._open.setdefault(new.id, set()).add(port)
            moved.add((old.id, port))
        for forward in change.removed:
            self._close_all(forward, moved)
        for forward in change.added:
            opened = change.opened.get(forward.id, ())
            self._heard(forward, opened, change.failed.get(forward.id, ()))
        for forward in change.new:
            if forward.rule.scan and forward.id not in self._scanned:
                self._scanned[forward.id] = _Scanned(forward)
        if self._scanned:
            self._follow_more()

    def _close_all(self, forward: Forward, moved: set[tuple[int, int]]) -> None:
        ours = self._ours[forward.pif, forward.rule.proto]
        scanned = self._scanned.pop(forward.id, None)
        ports: Iterable[int] = self._open.pop(forward.id, set())
        if scanned is not None:
            ports = scanned.bound
        for port in ports:
            ours[port] -= 1
            if (forward.id, port) not in moved:
                self._sockets.close(forward, port)
                self._room += 1
        for _, port in moved & {(forward.id, port) for port in ports}:
            ours[port] += 1  # another forward has it now

    def _follow_more(self) -> None:
        """Look at sides that were not looked at until now."""
        if self._follower is None and self._loop is not None:
            self._follower = self._make_follower()
            self._follower.start(self._loop, self._follow)

    # Ports asked for by number

    def _open_listed(self, forward: Forward) -> None:
        ports = self._within_limit(forward)
        got: list[Opened] = []
        failures: list[tuple[int, str]] = []

        def done(opened: Sequence[Opened], failed: Failures) -> None:
            got.extend(opened)
            failures.extend(failed)

        self._sockets.open(forward, self._bits, ports, done)
        change = Change((), (forward,), failed={forward.id: failures})
        reasons = Changer(
            self._sockets, self._bits, change, {}, lambda change, reasons: None
        ).reasons()
        if reasons and not forward.rule.weak:
            raise SetupError(f"{reasons[0]}\nCouldn't listen on requested ports")
        self._heard(forward, got, failures)

    def _heard(
        self, forward: Forward, opened: Sequence[Opened], failures: Failures
    ) -> None:
        """Let these sockets be heard, and tell about those that could not be had."""
        lost = self._sockets.hear(forward, opened)
        ports = {each.port for each in opened} - {port for port, _ in lost}
        self._open.setdefault(forward.id, set()).update(ports)
        self._ours[forward.pif, forward.rule.proto].update(ports)
        self._room -= len(opened)
        self._warn(forward, dict((*failures, *lost)))

    def _within_limit(self, forward: Forward) -> Sequence[int]:
        """Return the ports for which there are descriptors."""
        ports = forward.ports
        if len(ports) <= self._room:
            return ports
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = f"{len(ports)} sockets for {str(forward.rule).strip()}"
        text += f": the limit of open files is {limit}, see ulimit -Hn"
        if not forward.rule.weak:
            raise SetupError(f"Couldn't open {text}")
        ports = ports[: max(self._room, 0)]
        self._log.warning("listen.limit", text=text, opened=len(ports))
        return ports

    def _check_any_opened(self) -> None:
        """Weak ports are not worth an error, unless none could be had."""
        groups: dict[tuple[Pif, int, object, str | None], bool] = {}
        for forward in self.forwards:
            rule = forward.rule
            if not rule.scan and rule.path is None:
                key = forward.pif, rule.proto, rule.addr, rule.ifname
                groups[key] = groups.get(key, False) or bool(self._open[forward.id])
        for (pif, proto, addr, ifname), opened in groups.items():
            if not opened:
                where = f"{addr or '*'}{f'%{ifname}' if ifname else ''}"
                raise SetupError(
                    f"All listens failed for {pif.name} {NAMES[proto]} {where}\n"
                    "Couldn't listen on requested ports"
                )

    def _warn(self, forward: Forward, failed: Mapping[int, str]) -> None:
        """Tell about ports that could not be had: one record for each reason."""
        for reason in dict.fromkeys(failed.values()):
            ports = show_ports(port for port in failed if failed[port] == reason)
            fields = {"side": forward.pif.name, "proto": NAMES[forward.rule.proto]}
            if forward.rule.path is not None:
                fields["path"] = forward.rule.path
            self._log.warning("listen.failed", **fields, ports=ports, reason=reason)

    # Automatic ports

    def _make_follower(self) -> Follower:
        sides = {_FAR[each.forward.pif] for each in self._scanned.values()}
        skip = {
            pif: {proto: spans(self._served(pif, proto)) for proto in NAMES}
            for pif in sides
        }
        if self._host_sources is None:
            self._host_sources = HostSources()
        follower = Follower(self._host_sources, self._factory, skip)
        if follower.blind:
            self._log.warning("forward.blind", text="no answer from the namespace")
        return follower

    def _follow_at_start(self) -> None:
        self._follower = self._make_follower()
        # A namespace that was just made has nothing to find.
        fresh = isinstance(self._config.target, SpawnCommand)
        self._follow(*self._follower.now(namespace=not fresh))

    def _served(self, pif: Pif, proto: int) -> list[int]:
        """Return the ports on which we listen ourselves."""
        return [port for port, count in self._ours[pif, proto].items() if count > 0]

    def _follow(self, host: Found, inside: Found) -> None:
        """Open and close ports after what was found listening on either side.

        There may be thousands: done at once at start, in steps later. A look that comes
        before the last step of the one before is not needed: there will be another.
        """
        if self._loop is None:
            for _ in self._following(host, inside):
                pass
        elif self._steps is None:
            self._steps = self._following(host, inside)
            self._step()

    def _step(self) -> None:
        if self._loop is None or self._steps is None:
            return
        if next(self._steps, self) is self:
            self._steps = None
        else:
            self._loop.call_soon(self._step)

    def _following(self, host: Found, inside: Found) -> Iterator[None]:
        """Do the same; each step is short."""
        found = {Pif.HOST: inside, Pif.SPLICE: host}
        # All of it before any change: what we close now was still found.
        wanted: list[tuple[_Scanned, auto.Ports]] = []
        for table in list(self._scanned.values()):
            side = found[table.forward.pif]
            if side:  # else it was not looked at
                ports = yield from self._wanted(table.forward, side)
                wanted.append((table, ports))
        for table, ports in wanted:
            yield from self._change_scanned(table, ports)

    def _wanted(
        self, forward: Forward, found: Found
    ) -> Generator[None, None, auto.Ports]:
        inbound = forward.pif is Pif.HOST
        reach = self._inbound_reach() if inbound else auto.HOST_LOOPBACK
        far, proto = _FAR[forward.pif], forward.rule.proto
        served: dict[int, int] = {}
        for each in (IPPROTO_TCP, IPPROTO_UDP)[: 1 + (proto == IPPROTO_UDP)]:
            own = frozenset(self._served(far, each))
            for start in range(0, len(found[each]), LOOKED_AT):
                piece = found[each][start : start + LOOKED_AT]
                auto.gather(served, auto.served(piece, reach, own))
                yield
        ours = self._ours[far, proto]
        delta, ports = forward.rule.delta, forward.ports
        shifted = {port - delta: served[port] for port in served if not ours[port]}
        bits = self._bits
        if forward.rule.addr is not None:
            bits &= auto.V4 if forward.rule.addr.version == 4 else auto.V6
        return auto.limited({p: shifted[p] for p in shifted if p in ports}, bits)

    def _inbound_reach(self) -> auto.Reach:
        config = self._config
        return auto.Reach(
            loopback=config.host_lo_to_ns_lo, outside=not config.splice_only
        )

    def _change_scanned(self, table: _Scanned, wanted: auto.Ports) -> Iterator[None]:
        forward, bound = table.forward, table.bound
        close, open_ = auto.changes(bound, wanted)
        ours = self._ours[forward.pif, forward.rule.proto]
        # A table that changes while it is read may hide a socket: look twice.
        gone = {port for port in close if port not in wanted}
        close = [port for port in close if port not in gone - table.missed]
        table.missed = gone.difference(close)
        for number, port in enumerate(close, start=1):
            if self._scanned.get(forward.id) is not table:
                return  # it was removed meanwhile
            if bound.pop(port, None) is not None:
                self._sockets.close(forward, port)
                ours[port] -= 1
            if number % PIECE == 0:
                yield
        if self._scanned.get(forward.id) is not table:
            return
        table.failed = {p: why for p, why in table.failed.items() if p in wanted}
        for bits in {wanted[port] for port in open_}:
            ports = [port for port in open_ if wanted[port] == bits]
            # Ours from now on, although the namespace answers later.
            bound.update(dict.fromkeys(ports, bits))
            ours.update(ports)
            self._sockets.open(forward, bits, ports, self._noter(table))

    def _noter(self, table: _Scanned) -> Done:
        return lambda opened, failures: self._note(table, opened, failures)

    def _note(
        self, table: _Scanned, opened: Sequence[Opened], failures: Failures
    ) -> None:
        """Forget ports that could not be opened: the next look tries them again."""
        forward, news = table.forward, dict[int, str]()
        if self._scanned.get(forward.id) is not table:
            for each in opened:  # it was removed meanwhile
                os.close(each.fd)
            return
        for port, reason in (*failures, *self._sockets.hear(forward, opened)):
            if table.bound.pop(port, None) is not None:
                self._ours[forward.pif, forward.rule.proto][port] -= 1
            if table.failed.get(port) != reason:
                table.failed[port] = news[port] = reason
        if forward.pif is Pif.HOST:
            self._warn(forward, news)
        elif news:  # the namespace has a service of its own there
            self._log.debug("listen.failed", ports=show_ports(news), side="SPLICE")


def _merged(now: Tables, old: Tables, new: Tables) -> Tables:
    """Return `now` with what is different between `old` and `new`."""
    before = {table.side: table.rules for table in old}
    after = {table.side: table.rules for table in new}
    merged = []
    for table in now:
        side = table.side
        gone = set(before[side]).difference(after[side])
        kept = replace(table, rules=tuple(r for r in table.rules if r not in gone))
        for rule in after[side]:
            if rule not in before[side] and rule not in kept.rules:
                kept = kept.add(rule)
        merged.append(_in_order(kept, after[side]))
    return tuple(merged)


def _in_order(table: PortTable, wanted: tuple[PortRule, ...]) -> PortTable:
    """Return the table in the order that is wanted, rules of others behind."""
    first = [rule for rule in wanted if rule in table.rules]
    rest = [rule for rule in table.rules if rule not in wanted]
    return replace(table, rules=(*first, *rest))


def _show(tables: Tables) -> list[str]:
    lines = []
    for table in tables:
        lines.append(f"New forwarding rules for {table.side.value}:")
        lines += [f"    {rule}" for rule in table.rules]
    return lines


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
