# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets a guest say where it wants to go before it gets there: TLS and HTTP.

An address may be that of many names, and a guest may dial it with any of them. So the
datapath completes the handshake of a connection that only a name allows, keeps what the
guest says first, and shows it here. It names the server; the policy decides again,
about that name, and the connection goes on to an address that we found for it
ourselves. From then on it is like any other: no byte passes through here.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from passtpy.addr import Address, from_inany, is_v4
from passtpy.egress.answers import Asked
from passtpy.egress.egress import Egress, Ruling
from passtpy.egress.model import Effect, Via
from passtpy.egress.names import NameFault, normalise
from passtpy.errors import WireError
from passtpy.flow import IPPROTO_TCP, Action, FlowWhy, MissLike, Verdict
from passtpy.net.host.proxied import Proxied, conversation
from passtpy.net.kernel.connecting import Connecting, WriterLoop
from passtpy.net.kernel.leaving import Leaving
from passtpy.wire.client_hello import HelloReader, is_tls
from passtpy.wire.http_head import is_http, read_host
from passtpy.wire.proxy import Conversation, Credentials

if TYPE_CHECKING:
    from passtpy.net.kernel.loop import Timer

HELLO_S: Final = 10.0  # until when a guest has to have said it
MOST: Final = 512  # connections that have not gone on
_NS: Final = 1_000_000_000
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
    return conversation(via.scheme.value, host, port, credentials_of(via))


def credentials_of(via: Via) -> Credentials | None:
    """Return who we are for the proxy of a rule; None: nobody."""
    return None if via.user is None else Credentials(via.user, via.password)


class Flows(Protocol):
    """The verbs of a datapath that are needed here."""

    def open(self, miss_id: int, verdict: Verdict, /) -> int | None: ...

    def connect(self, flow_id: int, eaddr: bytes, eport: int, /) -> None: ...

    def adopt(self, flow_id: int, fd: int, *, forget: bool = False) -> None: ...

    def verdict(
        self, flow_id: int, *, rule: int, generation: int, admit: bool = False
    ) -> None: ...

    def close_flow(self, flow_id: int, why: int, /) -> None: ...


class SaidLike(Protocol):
    """The fields of `_native.Said`."""

    @property
    def flow_id(self) -> int: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def ended(self) -> bool: ...


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
        self.open: dict[int, _Inspected] = {}
        # Of these, who has not named its server yet: until when it may, in that order
        self._silent: dict[int, int] = {}
        self._timer: Timer | None = None
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
        try:
            flow_id = self.flows.open(miss_id, verdict._replace(action=Action.INSPECT))
        except OSError:  # the guest has been told, or is gone
            return True
        if flow_id is None:  # beyond a limit
            return True
        self.counters["inspected"] += 1
        self.open[flow_id] = _Inspected(self, flow_id, miss, verdict, ruling)
        self._silent[flow_id] = self.clock() + int(HELLO_S * _NS)
        if self._timer is None:
            self._timer = self.loop.call_later(HELLO_S, self._lose_patience)
        return True

    def hear(self, said: SaidLike) -> None:
        """Read what a guest has said, all of it."""
        each = self.open.get(said.flow_id)
        if each is None:  # it was refused meanwhile
            return
        if said.data is None:
            each.close()
        elif said.flow_id in self._silent:
            each.hear(said.data, said.ended)

    def named(self, flow_id: int) -> None:
        """A guest has said where it wants to go: it may wait from now on."""
        self._silent.pop(flow_id, None)

    def close(self) -> None:
        """Forget all of them; the datapath is about to go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in list(self.open.values()):
            each.close()

    def _lose_patience(self) -> None:
        """Refuse who has said nothing of use for too long."""
        self._timer = None
        now = self.clock()
        for flow_id, until in list(self._silent.items()):
            if until > now:
                delay = (until - now) / _NS
                self._timer = self.loop.call_later(delay, self._lose_patience)
                return
            self.open[flow_id].too_late()


class _Inspected:
    """One connection, from its beginning until it goes on."""

    __slots__ = (
        "_all",
        "_connecting",
        "_ended",
        "_flow_id",
        "_hello",
        "_miss",
        "_over",
        "_ruling",
        "_said",
        "_verdict",
    )

    def __init__(
        self,
        all_: Inspecting,
        flow_id: int,
        miss: MissLike,
        verdict: Verdict,
        ruling: Ruling,
    ) -> None:
        self._all = all_
        self._flow_id = flow_id
        self._miss = miss
        self._verdict = verdict
        self._ruling = ruling
        self._said = b""
        self._ended = False  # the guest says no more
        self._hello = HelloReader()
        self._connecting: Connecting | Proxied | None = None
        self._over = False

    def close(self) -> None:
        """Leave the connection to the datapath, or to its end."""
        self._over = True
        if self._connecting is not None:
            self._connecting.close()
        self._all.named(self._flow_id)
        self._all.open.pop(self._flow_id, None)

    def hear(self, data: bytes, ended: bool) -> None:
        """Look for a name in all that the guest has said."""
        self._said, self._ended = data, ended
        try:
            name = self._name()
        except (WireError, NameFault) as error:
            self._refuse(f"no name that could be checked: {error}")
            return
        if name is not None:
            self._all.named(self._flow_id)
            self._decide(name)
        elif ended:
            self._reset()

    def _name(self) -> str | None:
        """Return the server that the guest has named; None: more has to come."""
        data = self._said
        if not data:
            return None
        if is_tls(data):
            hello = self._hello.read(data)
            if hello is None:
                return None
            if hello.name is None:
                raise WireError("tls: no server name")
            return normalise(hello.name)
        if is_http(data):
            host = read_host(data)
            return None if host is None else normalise(host)
        raise WireError("neither TLS nor HTTP")

    def too_late(self) -> None:
        """Refuse a guest that did not say it in time."""
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
        verdict, policy, now = self._verdict, self._all.policy, self._all.clock()
        dialled = verdict.eaddr
        if self._ruling.rule != verdict.rule and not self._is_admitted():
            return
        if self._ruling.via is not None:
            self._connect_through(self._ruling.via, name)
        elif not self._ruling.by_name or name in policy.pins.names_of(dialled, now):
            self._connect((dialled,))
        elif known := policy.pins.addresses_of(name, now):
            self._connect_allowed(name, known)
        else:
            found = partial(self._connect_allowed, name)
            self._all.find(name, from_inany(dialled).version, found)

    def _is_admitted(self) -> bool:
        """Come under the rule that is about the name, if its limits let us."""
        rule, generation = self._ruling.rule, self._verdict.generation
        try:
            self._all.flows.verdict(
                self._flow_id, rule=rule, generation=generation, admit=True
            )
        except OSError as error:
            if error.errno in (errno.EUSERS, errno.EDQUOT):
                spent = error.errno == errno.EDQUOT
                self._refuse(self._all.policy.beyond(self._ruling, spent=spent))
            else:  # the guest has gone
                self.close()
            return False
        return True

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
        """Let the datapath connect, unless there is a choice to be made."""
        verdict = self._verdict
        port = verdict.eport
        if len(addresses) == 1 and is_v4(addresses[0]) == is_v4(verdict.eaddr):
            try:
                self._all.flows.connect(self._flow_id, addresses[0], port)
            except OSError:  # there is no way, or the guest has gone
                self._failed()
            else:
                self.close()
            return
        leaving = Leaving((verdict.oaddr,), self._all.interfaces)
        targets = [(address, port) for address in addresses]
        loop = self._all.loop
        self._connecting = Connecting(loop, targets, leaving, self._connected)

    def _connect_through(self, via: Via, name: str) -> None:
        is_about = self._all.policy.name_for(self._ruling, (name,)) is not None
        host = name if is_about else from_inany(self._verdict.eaddr)
        talk = conversation_with(via, host, self._verdict.eport)
        loop, place = self._all.loop, (via.address, via.port)
        leaving = Leaving((self._verdict.oaddr,), self._all.interfaces)
        self._connecting = Proxied(loop, place, talk, leaving, self._connected)

    def _connected(self, there: socket.socket | int | str) -> None:
        self._connecting = None
        if isinstance(there, int | str):
            self._failed()
            return
        self._give(there)

    def _give(self, there: socket.socket, *, forget: bool = False) -> None:
        """Leave the rest to the datapath, which has kept what the guest said."""
        try:
            self._all.flows.adopt(self._flow_id, there.fileno(), forget=forget)
        except OSError:  # whoever is there has gone already, or the guest has
            there.close()
            if forget:
                self._reset(FlowWhy.POLICY)
            else:
                self._failed()
            return
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
        try:
            ours, theirs = socket.socketpair()
        except OSError:  # no descriptor is left
            self._reset(FlowWhy.POLICY)
            return
        with ours:
            ours.send(answer)
            theirs.setblocking(False)
            self._give(theirs, forget=True)

    def _failed(self) -> None:
        self._all.counters["inspected_failed"] += 1
        self._reset()

    def _reset(self, why: FlowWhy = FlowWhy.ASKED) -> None:
        self.close()
        with suppress(OSError):  # it may have ended by itself
            self._all.flows.close_flow(self._flow_id, why)
        self._all.go_on()
