# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets a guest say where it wants to go before it gets there: TLS and HTTP.

An address may be that of many names, and a guest may dial it with any of them. So a
connection that only a name allows begins at one end of a pair of sockets. What the
guest says first, at the other end, names the server; the policy decides again, about
that name, and the connection goes on to an address that we found for it ourselves.
From then on it is like any other: no byte passes through here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from passtpy.addr import Address, from_inany
from passtpy.egress.answers import Asked
from passtpy.egress.egress import Egress, Ruling
from passtpy.egress.model import Effect, Via
from passtpy.egress.names import NameFault, normalise
from passtpy.errors import WireError
from passtpy.flow import IPPROTO_TCP, FlowWhy, MissLike, Verdict
from passtpy.net.host.proxied import Proxied, conversation
from passtpy.net.kernel.connecting import Connecting, WriterLoop
from passtpy.net.kernel.leaving import Leaving
from passtpy.net.kernel.loop import Timer
from passtpy.wire.client_hello import is_tls, read_client_hello
from passtpy.wire.http_head import is_http, read_host
from passtpy.wire.proxy import Conversation, Credentials

HELLO_S: Final = 10.0  # until when a guest has to have said it
MOST: Final = 512  # connections that have not said it
_READ: Final = 1 << 14
# RFC 8446 section 6.2: a fatal alert, unrecognized_name
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x70"
_PAGE: Final = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)

Found = Callable[[Sequence[bytes]], None]
Again = Callable[[], None]  # decides once more


def conversation_with(via: Via, host: str | Address, port: int) -> Conversation:
    """Return what is said to the proxy of a rule."""
    who = None if via.user is None else Credentials(via.user, via.password)
    return conversation(via.scheme.value, host, port, who)


class Flows(Protocol):
    """The verbs of a datapath that are needed here."""

    def open(self, miss_id: int, verdict: Verdict, fd: int, /) -> int | None: ...

    def adopt(self, flow_id: int, fd: int, /) -> None: ...

    def close_flow(self, flow_id: int, why: int, /) -> None: ...


class Inspecting:
    """All connections whose server is not known yet.

    `find` looks up the addresses of a name, those of a version of IP first; `ask` has
    somebody say whether a connection may be, or returns False; `go_on` has what was
    said to the datapath take effect.
    """

    def __init__(
        self,
        loop: WriterLoop,
        flows: Flows,
        policy: Egress,
        find: Callable[[str, int, Found], None],
        ask: Callable[[Asked, Again], bool],
        go_on: Callable[[], None],
        interfaces: tuple[str | None, str | None],
        clock: Callable[[], int],
    ) -> None:
        self.loop = loop
        self.flows = flows
        self.policy = policy
        self.find = find
        self.ask = ask
        self.go_on = go_on
        self.interfaces = interfaces
        self.clock = clock
        self.open: set[_Inspected] = set()
        self.counters = {
            "inspected": 0,
            "inspected_refused": 0,
            "inspected_failed": 0,
            "inspected_full": 0,
        }

    def take(
        self, miss: MissLike, miss_id: int, verdict: Verdict, ruling: Ruling
    ) -> bool:
        """Let a connection begin here; False: there is no place for it."""
        if len(self.open) >= MOST:
            self.counters["inspected_full"] += 1
            return False
        ours, theirs = socket.socketpair(
            type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            flow_id = self.flows.open(miss_id, verdict, theirs.fileno())
        except OSError:  # the guest has been told, or is gone
            ours.close()
            theirs.close()
            return True
        assert flow_id is not None
        theirs.detach()
        self.counters["inspected"] += 1
        self.open.add(_Inspected(self, ours, flow_id, miss, verdict, ruling))
        return True

    def close(self) -> None:
        """Forget all of them; the datapath is about to go."""
        for each in list(self.open):
            each.close()


class _Inspected:
    """One connection, from its beginning to the socket that it goes on with."""

    def __init__(
        self,
        all_: Inspecting,
        ours: socket.socket,
        flow_id: int,
        miss: MissLike,
        verdict: Verdict,
        ruling: Ruling,
    ) -> None:
        self._all = all_
        self._ours = ours
        self._flow_id = flow_id
        self._miss = miss
        self._verdict = verdict
        self._ruling = ruling
        self._said = b""  # by the guest, and not passed on
        self._ended = False  # the guest says no more
        self._connecting: Connecting | Proxied | None = None
        self._there: socket.socket | None = None
        self._over = False
        loop = all_.loop
        self._timer: Timer = loop.call_later(HELLO_S, self._too_late)
        loop.add_reader(ours.fileno(), self._read)

    def close(self) -> None:
        """Leave the connection to the datapath, or to its end."""
        self._over = True
        self._timer.cancel()
        self._all.loop.remove_reader(self._ours.fileno())
        self._ours.close()
        if self._connecting is not None:
            self._connecting.close()
        if self._there is not None:
            self._all.loop.remove_writer(self._there.fileno())
            self._there.close()
        self._all.open.discard(self)

    def _pull(self) -> None:
        """Take what the guest has said by now."""
        try:
            while not self._ended:
                data = self._ours.recv(_READ)
                self._said += data
                self._ended = not data
        except BlockingIOError:
            pass
        except OSError:
            self._ended = True

    def _read(self) -> None:
        self._pull()
        try:
            name = self._name()
        except (WireError, NameFault) as error:
            self._refuse(f"no name that could be checked: {error}")
            return
        if name is not None:
            self._timer.cancel()
            self._all.loop.remove_reader(self._ours.fileno())
            self._decide(name)
        elif self._ended:
            self._reset()

    def _name(self) -> str | None:
        """Return the server that the guest has named; None: more has to come."""
        data = self._said
        if not data:
            return None
        if is_tls(data):
            hello = read_client_hello(data)
            if hello is None:
                return None
            if hello.name is None:
                raise WireError("tls: no server name")
            return normalise(hello.name)
        if is_http(data):
            host = read_host(data)
            return None if host is None else normalise(host)
        raise WireError("neither TLS nor HTTP")

    def _too_late(self) -> None:
        self._refuse(f"no name within {HELLO_S:.0f} s")

    def _decide(self, name: str) -> None:
        """Let the policy decide again, about the name."""
        if self._over:
            return
        verdict, policy = self._verdict, self._all.policy
        ruling = policy.judge_named(verdict.eaddr, verdict.eport, name)
        asked = self._ruling.effect is Effect.ASK
        self._ruling = ruling
        if ruling.effect is Effect.ASK:
            self._ask(name)
        elif ruling.effect is not Effect.ALLOW:
            self._refuse(f"{name} is not allowed")
        else:
            if asked:
                policy.passed(ruling)
            self._go_to(name)

    def _ask(self, name: str) -> None:
        verdict, all_ = self._verdict, self._all
        ends = IPPROTO_TCP, verdict.eaddr, verdict.eport
        question = all_.policy.question(self._ruling, *ends)
        if not all_.ask(question, lambda: self._decide(name)):
            self._refuse(f"nobody can be asked about {name}")

    def _go_to(self, name: str) -> None:
        """Connect to where the name is, or where the rule is about the address."""
        dialled, policy, now = (
            self._verdict.eaddr,
            self._all.policy,
            self._all.clock(),
        )
        if self._ruling.via is not None:
            self._connect_through(self._ruling.via, name)
        elif not self._ruling.by_name or name in policy.pins.names_of(dialled, now):
            self._connect((dialled,))
        elif known := policy.pins.addresses_of(name, now):
            self._connect_allowed(name, known)
        else:
            found = partial(self._connect_allowed, name)
            self._all.find(name, from_inany(dialled).version, found)

    def _connect_allowed(self, name: str, addresses: Sequence[bytes]) -> None:
        """Connect to those addresses that the policy lets the name lead to."""
        if self._over:
            return
        port, judge = self._verdict.eport, self._all.policy.judge_named
        rulings = [(each, judge(each, port, name)) for each in addresses]
        allowed = [
            address
            for address, ruling in rulings
            if ruling.effect is Effect.ALLOW and ruling.via is None
        ]
        if rulings and not allowed:
            address, self._ruling = rulings[0]
            self._verdict = self._verdict._replace(eaddr=address)
            self._refuse(f"{name} leads to {from_inany(address)}, which is not allowed")
        else:
            self._connect(allowed)

    def _connect(self, addresses: Sequence[bytes]) -> None:
        port = self._verdict.eport
        leaving = Leaving((self._verdict.oaddr,), self._all.interfaces)
        targets = [(address, port) for address in addresses]
        loop = self._all.loop
        self._connecting = Connecting(loop, targets, leaving, self._connected)

    def _connect_through(self, via: Via, name: str) -> None:
        talk = conversation_with(via, name, self._verdict.eport)
        loop, place = self._all.loop, (via.address, via.port)
        leaving = Leaving((self._verdict.oaddr,), self._all.interfaces)
        self._connecting = Proxied(loop, place, talk, leaving, self._connected)

    def _connected(self, there: socket.socket | int | str) -> None:
        self._connecting = None
        if isinstance(there, int | str):
            self._all.counters["inspected_failed"] += 1
            self._reset()
            return
        self._there = there
        self._hand_over()

    def _hand_over(self) -> None:
        """Pass on what was said, then leave the rest to the datapath.

        Between the last look for more and adopt() nothing else runs, so that no byte
        stays behind in the pair.
        """
        assert self._there is not None
        self._pull()
        while self._said:
            try:
                self._said = self._said[self._there.send(self._said) :]
            except BlockingIOError:
                self._all.loop.add_writer(self._there.fileno(), self._hand_over)
                return
            except OSError:
                self._reset()
                return
            self._pull()
        there, self._there = self._there, None
        self._all.loop.remove_writer(there.fileno())
        try:
            self._all.flows.adopt(self._flow_id, there.fileno())
        except OSError:  # the guest has gone
            there.close()
        else:
            there.detach()
        self.close()
        self._all.go_on()

    def _refuse(self, why: str) -> None:
        """Tell the policy, and the guest in words of its own."""
        self._all.counters["inspected_refused"] += 1
        verdict = self._verdict
        refused = self._ruling._replace(effect=Effect.REJECT)
        end = verdict.eaddr, verdict.eport
        self._all.policy.refused(self._miss, *end, refused, why=why)
        words = f"passtpy: refused by policy: {why}\n".encode("ascii", "replace")
        answer = _ALERT if is_tls(self._said) else b""
        if not answer and is_http(self._said):
            answer = _PAGE % (len(words), words)
        if not answer or self._ended:
            self._reset(FlowWhy.POLICY)
            return
        with suppress(OSError):
            self._ours.send(answer)
        self.close()

    def _reset(self, why: FlowWhy = FlowWhy.ASKED) -> None:
        self.close()
        with suppress(OSError):  # it may have ended by itself
            self._all.flows.close_flow(self._flow_id, why)
        self._all.go_on()
