# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaces forwards while they are in use: all that was asked for, or nothing.

Sockets of new forwards are opened first, and heard only when all of them are there.
A port that is open already, and stays at the same place, is handed from the old forward
to the new one: it is never closed, not for a moment. Only a socket that stands in the
way of a new one (any address instead of one, say) has to go first; it comes back if the
change fails.
"""

from collections.abc import Callable, Sequence
from typing import Final

from passtpy.config.forwards import Forward
from passtpy.net.forwarding.sockets import NAMES, Failures, Opened, Sockets
from passtpy.net.kernel.listen import describe
from passtpy.record import field, record

MAX_REASONS: Final = 20

OpenPorts = dict[int, set[int]]  # by id of a listed forward
Finish = Callable[["Change", Sequence[str]], None]


@record(frozen=False)
class Change:
    """What is to be done, and what has been done of it."""

    old: tuple[Forward, ...]
    new: tuple[Forward, ...]
    moves: list[tuple[int, Forward, Forward]] = field(default_factory=list)
    opened: dict[int, list[Opened]] = field(default_factory=dict)  # by forward's id
    failed: dict[int, list[tuple[int, str]]] = field(default_factory=dict)

    @property
    def added(self) -> list[Forward]:
        """Return the listed forwards that are new."""
        known = {each.id for each in self.old}
        return [f for f in self.new if f.id not in known and not f.rule.scan]

    @property
    def removed(self) -> list[Forward]:
        """Return the forwards that go."""
        kept = {each.id for each in self.new}
        return [each for each in self.old if each.id not in kept]


def same_place(a: Forward, b: Forward) -> bool:
    """Tell whether both listen at the same addresses of the same side."""
    return _where(a) == _where(b)


def _where(forward: Forward) -> tuple[object, ...]:
    rule = forward.rule
    at_file = rule.path, rule.mode
    return forward.pif, rule.proto, rule.addr, rule.ifname, at_file


def in_the_way(old: Forward, new: Forward, port: int) -> bool:
    """Tell whether a socket of `old` may keep `new` from having a port."""
    x, y = old.rule, new.rule
    if x.path is not None or y.path is not None:
        return x.path == y.path
    if (old.pif, x.proto) != (new.pif, y.proto) or port not in old.ports:
        return False
    return not (x.ifname and y.ifname and x.ifname != y.ifname)


def _all(forward: Forward) -> str:
    rule = forward.rule
    where = "*" if rule.addr is None else str(rule.addr)
    device = f"%{rule.ifname}" if rule.ifname else ""
    ports = f"{rule.first}" if rule.ports == 1 else f"{rule.first}-{rule.last}"
    return f"{forward.pif.name} {NAMES[rule.proto]} {where}{device}/{ports}"


class Changer:
    """Carries out one change; `finish` is told what went wrong, or nothing."""

    def __init__(
        self,
        sockets: Sockets,
        bits: int,
        change: Change,
        open_ports: OpenPorts,
        finish: Finish,
    ) -> None:
        self._sockets = sockets
        self._bits = bits
        self._change = change
        self._open = open_ports
        self._finish = finish
        self._due = 0  # ports whose sockets have not been answered for
        self._retry: list[tuple[Forward, int, str]] = []
        self._cleared: list[tuple[Forward, int]] = []  # closed to make room

    def start(self) -> None:
        """Open what is new."""
        plan = [(each, self._ports_to_open(each)) for each in self._change.added]
        self._due = sum(len(ports) for _, ports in plan)
        if not self._due:
            self._opened_all()
            return
        for forward, ports in plan:
            if ports:
                self._sockets.open(forward, self._bits, ports, self._noter(forward))

    def _ports_to_open(self, forward: Forward) -> list[int]:
        """Return the ports that are not open yet at the same place."""
        ports = list(forward.ports)
        for old in self._change.removed:
            if old.rule.scan or not same_place(old, forward):
                continue
            shared = self._open.get(old.id, set()).intersection(ports)
            self._change.moves += [(port, old, forward) for port in sorted(shared)]
            ports = [port for port in ports if port not in shared]
        return ports

    def _noter(self, forward: Forward) -> Callable[[Sequence[Opened], Failures], None]:
        def note(opened: Sequence[Opened], failures: Failures) -> None:
            self._change.opened.setdefault(forward.id, []).extend(opened)
            for port, reason in failures:
                self._note_failure(forward, port, reason)
            self._due -= len({each.port for each in opened} | {p for p, _ in failures})
            if not self._due:
                self._opened_all()

        return note

    def _note_failure(self, forward: Forward, port: int, reason: str) -> None:
        blocked = any(
            in_the_way(old, forward, port) and port in self._open.get(old.id, ())
            for old in self._change.removed
        )
        if blocked and (forward, port) not in [(f, p) for f, p, _ in self._retry]:
            self._retry.append((forward, port, reason))
        else:
            self._change.failed.setdefault(forward.id, []).append((port, reason))

    def _opened_all(self) -> None:
        if self._retry and not self.reasons():
            self._make_room()
            return
        reasons = self.reasons()
        if reasons:
            self._undo()
        self._finish(self._change, reasons)

    def _make_room(self) -> None:
        """Close what stands in the way of new sockets, and try those again."""
        retry, self._retry = self._retry, []
        moved = {(old.id, port) for port, old, _ in self._change.moves}
        for forward, port, _ in retry:
            for old in self._change.removed:
                if (old.id, port) in moved or not in_the_way(old, forward, port):
                    continue
                if port in self._open.get(old.id, ()):
                    self._sockets.close(old, port)
                    self._open[old.id].discard(port)
                    self._cleared.append((old, port))
        self._due = len(retry)
        for forward, port, _ in retry:
            self._sockets.open(forward, self._bits, [port], self._noter(forward))

    def reasons(self) -> list[str]:
        """Return what keeps this from being done, one line for each port."""
        reasons = []
        for forward in self._change.added:
            failed = self._change.failed.get(forward.id, ())
            if forward.rule.weak:
                if len(failed) == len(forward.ports):
                    reasons.append(f"All listens failed for {_all(forward)}")
                continue
            for port, reason in failed:
                where = describe(self._sockets.place(forward, self._bits), port)
                what = f"{forward.pif.name} {NAMES[forward.rule.proto]} port"
                if forward.rule.path is not None:
                    what = "UNIX socket"
                reasons.append(f"Listen failed for {what} {where}: {reason}")
        if len(reasons) > MAX_REASONS:
            more = len(reasons) - MAX_REASONS
            reasons = [*reasons[:MAX_REASONS], f"and {more} more"]
        return reasons

    def _undo(self) -> None:
        added = {each.id: each for each in self._change.added}
        for number, opened in self._change.opened.items():
            for each in opened:
                self._sockets.discard(added[number], each)
        self._change.opened.clear()
        for old, port in self._cleared:
            self._sockets.open(old, self._bits, [port], self._restorer(old))

    def _restorer(self, old: Forward) -> Callable[[Sequence[Opened], Failures], None]:
        def restore(opened: Sequence[Opened], _: Failures) -> None:
            lost = {port for port, _ in self._sockets.hear(old, opened)}
            ports = {each.port for each in opened} - lost
            self._open.setdefault(old.id, set()).update(ports)

        return restore
