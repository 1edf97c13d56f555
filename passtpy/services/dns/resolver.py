# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers questions: who may ask, what is known, whom to ask, and what is told.

Bytes in, bytes out: whoever has sockets sends what is to be asked (`Exchange`) and
calls back with what came. Time comes from a clock that is given (monotonic, ns).
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Final, Protocol

import dns.message
import dns.rcode
import dns.rrset

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.record import record, replace
from passtpy.services.dns.cache import Cache, Told
from passtpy.services.dns.message import (
    CNAME,
    MAX_CHAIN,
    MAX_SIZE,
    Found,
    Key,
    Question,
    RefusedError,
    addressed,
    aliased,
    ask,
    belongs,
    build,
    is_truncated,
    other_names,
    read_answer,
    read_question,
)
from passtpy.services.dns.zones import Zones

MAX_PENDING: Final = 256  # questions that we ask at a time
MAX_WAITING: Final = 16  # clients' messages for one of them
MAX_ALIASES: Final = 4096
ZONE_TTL: Final = 30  # seconds; a zone may be another one after a reload
SICK_NS: Final = 30_000_000_000  # a server that did not answer comes last for so long
_NS: Final = 1_000_000_000

Reply = Callable[[bytes], None]
Tell = Callable[[Found], None]


@record
class Server:
    """A resolver of the host."""

    address: Address
    port: int = 53


class Filter(Protocol):
    """Says which names a guest may know, and which of their addresses."""

    @property
    def standing(self) -> int | None:
        """Return a number that is another one when it has forgotten what was told.

        None: it wants to be asked about each question.
        """

    def refusal(self, name: str, /) -> dns.rcode.Rcode | None:
        """Return the code that refuses a question for a name; None: it may be asked."""

    def admit(
        self, name: str, addresses: Sequence[Address], ttl: int, /
    ) -> Container[Address]:
        """Return those addresses that the guest may be told for a name.

        Asked for each answer, those of the cache included: what the guest is told, it
        may use for `ttl` seconds.
        """


class Exchange(Protocol):
    """Carries one question to a server."""

    def ask(
        self,
        server: Server,
        query: bytes,
        tcp: bool,
        done: Callable[[bytes | None], None],
        /,
    ) -> None:
        """Call `done` once, later: with an answer, or None if there was none."""


class Everything:
    """The filter of who has no policy."""

    standing: int | None = 0

    def refusal(self, _name: str) -> None:
        """Let every name be asked for."""

    def admit(
        self, _name: str, addresses: Sequence[Address], _ttl: int
    ) -> Container[Address]:
        """Let every address be told."""
        return addresses


@record(frozen=False)
class _Pending:
    """A question that a server has been asked, and who waits for the answer."""

    question: Question  # the first one; the others ask the same
    name: str  # whose rule it is
    query: bytes
    servers: list[Server]
    waiting: list[Tell]
    tcp: bool = False


class Resolver:
    """The resolver of one guest."""

    def __init__(
        self,
        names: Filter,
        exchange: Exchange,
        clock: Callable[[], int],
        random: Callable[[int], int],
    ) -> None:
        self._filter = names
        self._exchange = exchange
        self._now = clock
        self._random = random  # of secrets.randbelow: ids must not be guessed
        self._zones = Zones()
        self._servers: tuple[Server, ...] = ()
        self._sick: dict[Server, int] = {}  # until when they come last
        self._cache = Cache()
        self._pending: dict[Key, _Pending] = {}
        # Where aliases lead: whose rule holds, and until when
        self._aliases: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._changed: Callable[[], None] = lambda: None
        self.counters = {
            "dns_queries": 0,
            "dns_cached": 0,
            "dns_local": 0,
            "dns_refused": 0,
            "dns_asked": 0,
            "dns_failed": 0,
            "dns_timeouts": 0,
            "dns_malformed": 0,
            "dns_addresses_dropped": 0,
            "dns_full": 0,
        }

    def configure(self, names: Filter, zones: Zones, servers: Sequence[Server]) -> None:
        """Answer by these from now on; what was known is asked for again."""
        self._filter, self._zones = names, zones
        self._servers = tuple(servers)
        self._sick.clear()
        self._cache.clear()
        self._changed()
        self._aliases.clear()
        for key, pending in list(self._pending.items()):
            self._finish(key, pending, Found(dns.rcode.SERVFAIL))

    @property
    def standing(self) -> int | None:
        """Return a number; while it is the same, the filter need not be asked again.

        None: it has to be, about each question.
        """
        return self._filter.standing

    def when_changed(self, changed: Callable[[], None]) -> None:
        """Have somebody told when no answer may be given again."""
        self._changed = changed

    def question(self, data: bytes, reply: Reply, size: int | None = None) -> int:
        """Answer one message, now or later, or never if it is none.

        `size`: what the way back takes, in bytes; None: over TCP. Returned is until
        when the same message has this answer; 0: for this time only.
        """
        self.counters["dns_queries"] += 1
        if size is not None:
            known = self._known(data)
            if known is not None and len(known.message) <= size:
                self.counters["dns_cached"] += 1
                reply(known.message)
                return known.until
        self._read_and_answer(data, reply, size)
        return 0

    def _read_and_answer(self, data: bytes, reply: Reply, size: int | None) -> None:
        try:
            question = read_question(data)
        except WireError:
            self.counters["dns_malformed"] += 1
            return
        except RefusedError as error:
            self.counters["dns_malformed"] += 1
            reply(error.answer)
            return
        room = MAX_SIZE if size is None else min(size, question.size)

        def tell(found: Found) -> None:
            message = build(question, found, room)
            if size is not None:
                self._cache.keep_message(data, message, question.key, self._now())
            reply(message)

        self._answer(question, tell)

    def look_up(
        self, name: str, kind: str, done: Callable[[tuple[Address, ...]], None]
    ) -> None:
        """Find the addresses of a name as the guest would have to: A or AAAA."""
        question = read_question(dns.message.make_query(name, kind).to_wire())
        self._answer(question, lambda found: done(found.addresses))

    def _known(self, data: bytes) -> Told | None:
        """Return the answer to a message that was asked before."""
        now = self._now()
        known = self._cache.find_message(data, now)
        if known is None:
            return None
        found = self._cache.find(known.key, now)
        owner = self._owner(known.key[0], now)
        if found is None or isinstance(owner, dns.rcode.Rcode):
            return None
        self._admit_again(owner, *found)
        return known

    def _admit_again(self, owner: str, found: Found, age: int) -> None:
        """Tell the filter that the guest is told once more what it was told."""
        ttl = found.ttl()
        if found.addresses and ttl is not None:
            self._filter.admit(owner, found.addresses, max(ttl - age, 0))

    def _answer(self, question: Question, tell: Tell) -> None:
        found = self._local(question)
        if found is not None:
            self.counters["dns_local"] += 1
            tell(found)
            return
        now = self._now()
        owner = self._owner(question.name, now)
        if isinstance(owner, dns.rcode.Rcode):
            self.counters["dns_refused"] += 1
            tell(Found(owner))
            return
        known = self._cache.find(question.key, now)
        if known is not None:
            self.counters["dns_cached"] += 1
            self._admit_again(owner, *known)
            tell(_aged(*known))
            return
        self._ask(question, owner, tell)

    def _local(self, question: Question) -> Found | None:
        """Return what our own zones say, aliases followed among them."""
        entry = self._zones.find(question.name)
        if entry is None:
            return None
        if entry.alias:
            return Found(dns.rcode.NOERROR, tuple(self._aliased(question, entry.alias)))
        if self._filter.refusal(question.name) is None:
            self._filter.admit(question.name, entry.addresses, ZONE_TTL)
        return addressed(question, question.name, entry.addresses, ZONE_TTL)

    def _aliased(self, question: Question, alias: str) -> Iterator[dns.rrset.RRset]:
        """Yield what a name of ours is, and what that is if it is ours as well."""
        name = question.name
        for _ in range(MAX_CHAIN):
            yield aliased(name, alias, ZONE_TTL)
            entry = None if question.type == CNAME else self._zones.find(alias)
            if entry is None:
                return
            if not entry.alias:
                found = addressed(question, alias, entry.addresses, ZONE_TTL)
                yield from found.answer
                return
            name, alias = alias, entry.alias

    def _owner(self, name: str, now: int) -> str | dns.rcode.Rcode:
        """Return by whose rule a name may be asked for: its own, or an alias's.

        Or the code that refuses it.
        """
        owner, until = self._aliases.get(name, ("", 0))
        if until > now and self._filter.refusal(owner) is None:
            return owner
        refusal = self._filter.refusal(name)
        return name if refusal is None else refusal

    def _ask(self, question: Question, owner: str, tell: Tell) -> None:
        key = question.key
        pending = self._pending.get(key)
        if pending is not None and len(pending.waiting) < MAX_WAITING:
            pending.waiting.append(tell)
            return
        if pending is not None or len(self._pending) >= MAX_PENDING:
            self.counters["dns_full"] += 1
            tell(Found(dns.rcode.SERVFAIL))
            return
        pending = _Pending(
            question,
            owner,
            ask(question, self._random(1 << 16)),
            self._in_order(self._now()),
            [tell],
        )
        self._pending[key] = pending
        self._ask_next(key, pending)

    def _in_order(self, now: int) -> list[Server]:
        """Return the servers as resolv.conf has them, those that fail at the end."""
        return sorted(self._servers, key=lambda s: self._sick.get(s, 0) > now)

    def _ask_next(self, key: Key, pending: _Pending) -> None:
        if not pending.servers:
            self.counters["dns_failed"] += 1
            self._finish(key, pending, Found(dns.rcode.SERVFAIL))
            return
        self.counters["dns_asked"] += 1
        server, query = pending.servers[0], pending.query
        self._exchange.ask(
            server, query, pending.tcp, lambda data: self._came(key, pending, data)
        )

    def _came(self, key: Key, pending: _Pending, data: bytes | None) -> None:
        if self._pending.get(key) is not pending:
            return
        if data is not None and not belongs(pending.query, data):
            data = None
        if data is not None and is_truncated(data) and not pending.tcp:
            pending.tcp = True
            self._ask_next(key, pending)
            return
        self._take(key, pending, data)

    def _take(self, key: Key, pending: _Pending, data: bytes | None) -> None:
        """Use an answer, or go on with the next server."""
        found = None if data is None else self._read(pending, data)
        if found is None or found.rcode not in (
            dns.rcode.NOERROR,
            dns.rcode.NXDOMAIN,
        ):
            failed = pending.servers.pop(0)
            pending.tcp = False
            if data is None:
                self.counters["dns_timeouts"] += 1
                self._sick[failed] = self._now() + SICK_NS
            self._ask_next(key, pending)
            return
        self._sick.pop(pending.servers[0], None)
        now = self._now()
        self._cache.keep(key, found, now)
        self._lead_on(pending, found, now)
        self._finish(key, pending, found)

    def _read(self, pending: _Pending, data: bytes) -> Found | None:
        def admits(told: Sequence[Address], ttl: int) -> Container[Address]:
            admitted = self._filter.admit(pending.name, told, ttl)
            dropped = sum(addr not in admitted for addr in told)
            self.counters["dns_addresses_dropped"] += dropped
            return admitted

        try:
            return read_answer(pending.question, data, admits)
        except WireError:
            self.counters["dns_malformed"] += 1
            return None

    def _lead_on(self, pending: _Pending, found: Found, now: int) -> None:
        """Let the names be asked for to which this one leads."""
        for name, ttl in other_names(pending.question, found):
            self._aliases[name] = (pending.name, now + max(ttl, ZONE_TTL) * _NS)
            self._aliases.move_to_end(name)
            if len(self._aliases) > MAX_ALIASES:
                self._aliases.popitem(last=False)

    def _finish(self, key: Key, pending: _Pending, found: Found) -> None:
        del self._pending[key]
        for tell in pending.waiting:
            tell(found)


def _aged(found: Found, age: int) -> Found:
    """Return what was found `age` seconds ago, with the TTLs that are left."""
    if not age:
        return found

    def older(rrsets: tuple[dns.rrset.RRset, ...]) -> tuple[dns.rrset.RRset, ...]:
        return tuple(
            dns.rrset.from_rdata_list(rrset.name, max(rrset.ttl - age, 0), list(rrset))
            for rrset in rrsets
        )

    return replace(found, answer=older(found.answer), authority=older(found.authority))
