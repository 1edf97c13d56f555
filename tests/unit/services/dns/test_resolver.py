# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolver without a socket: who is asked, what is told, how long it holds."""

from collections.abc import Callable, Container, Sequence
from ipaddress import IPv4Address, ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdtypes.svcbbase
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import Address
from passtpy.config.zones import read_entry
from passtpy.errors import ConfigError, WireError
from passtpy.services.dns import resolver as under_test
from passtpy.services.dns.cache import MAX_FOUND, Cache, ttl_places
from passtpy.services.dns.message import EDNS_SIZE, MAX_TTL, Found, read_question
from passtpy.services.dns.resolver import Everything, Filter, Resolver, Server
from passtpy.services.dns.stream import Messages, framed
from passtpy.services.dns.zones import Zones

S = 1_000_000_000
FIRST, SECOND = (Server(IPv4Address(f"198.51.100.{i}")) for i in (1, 2))
Done = Callable[[bytes | None], None]


class Wire:
    """What a resolver asks; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[Server, bytes, bool, Done]] = []

    def ask(self, server: Server, query: bytes, tcp: bool, done: Done) -> None:
        self.asked.append((server, query, tcp, done))

    def answer(self, *records: str, rcode: int = 0, flags: int = 0) -> None:
        """Answer what was asked last."""
        _, query, _, done = self.asked[-1]
        done(answer_to(query, *records, rcode=rcode, flags=flags))


class Only:
    """A policy that knows one name, and no private addresses."""

    standing = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[tuple[str, tuple[Address, ...], int]] = []

    def refusal(self, name: str) -> dns.rcode.Rcode | None:
        return None if name == self.name else dns.rcode.NXDOMAIN

    def admit(
        self, name: str, addresses: Sequence[Address], ttl: int
    ) -> Container[Address]:
        public = tuple(addr for addr in addresses if addr != ip_address("10.0.0.1"))
        self.told.append((name, public, ttl))
        return public


class Asking:
    """A resolver, its clock, and what it told."""

    def __init__(self, names: Filter | None = None, *zones: str) -> None:
        self.now = 0
        self.wire = Wire()
        self.told: list[dns.message.Message] = []
        names = names or Everything()
        self.resolver = Resolver(names, self.wire, lambda: self.now, lambda n: n - 1)
        entries = [read_entry(text) for text in zones]
        self.resolver.configure(names, Zones(entries), (FIRST, SECOND))

    def ask(self, name: str, kind: str = "A", size: int | None = 1232) -> int:
        """Ask, and return the question's id."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
        self.say(query.to_wire(), size)
        return query.id

    def say(self, data: bytes, size: int | None = 1232) -> None:
        def told(message: bytes) -> None:
            self.told.append(dns.message.from_wire(message))

        self.resolver.question(data, told, size)

    @property
    def last(self) -> list[str]:
        return [rrset.to_text() for rrset in self.told[-1].answer]


def answer_to(query: bytes, *records: str, rcode: int = 0, flags: int = 0) -> bytes:
    answer = dns.message.make_response(dns.message.from_wire(query))
    answer.set_rcode(dns.rcode.Rcode.make(rcode))
    answer.flags |= flags
    for text in records:
        name, ttl, kind, *data = text.split()
        section = answer.authority if kind == "SOA" else answer.answer
        section.append(dns.rrset.from_text(name, int(ttl), "IN", kind, " ".join(data)))
    return answer.to_wire(max_size=0xFFFF)


def test_an_answer_comes_with_the_id_of_the_question() -> None:
    a = Asking()
    ident = a.ask("www.example")
    server, query, tcp, _ = a.wire.asked[0]
    assert (server, tcp) == (FIRST, False)
    assert query[:2] == b"\xff\xff"  # an id of our own
    a.wire.answer("www.example. 60 A 192.0.2.1")
    assert a.told[0].id == ident
    assert a.last == ["www.example. 60 IN A 192.0.2.1"]
    assert a.told[0].flags & dns.flags.RA


def test_what_is_known_is_not_asked_again_and_grows_older() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.answer("www.example. 60 A 192.0.2.1")
    a.now = 59 * S
    for name, size in (
        ("www.example", 1232),
        ("WWW.Example", 1232),
        ("www.example", None),
    ):
        a.ask(name, size=size)
        assert a.told[-1].answer[0].ttl == 1
    assert len(a.wire.asked) == 1
    a.now = 60 * S
    a.ask("www.example")
    assert len(a.wire.asked) == 2


def test_a_ttl_is_never_beyond_bounds() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.answer("www.example. 100000 A 192.0.2.1")
    assert a.told[-1].answer[0].ttl == MAX_TTL
    a.ask("zero.example")
    a.wire.answer("zero.example. 0 A 192.0.2.1")
    a.ask("zero.example")  # within the same second
    assert len(a.wire.asked) == 2
    a.now = S
    a.ask("zero.example")
    assert len(a.wire.asked) == 3


def test_who_asks_the_same_waits_for_the_same_answer() -> None:
    a = Asking()
    idents = [a.ask("www.example") for _ in range(5)]
    assert len(a.wire.asked) == 1
    a.wire.answer("www.example. 60 A 192.0.2.1")
    assert [told.id for told in a.told] == idents


def test_questions_under_way_are_bounded() -> None:
    a = Asking()
    for i in range(under_test.MAX_PENDING + 1):
        a.ask(f"n{i}.example")
    assert len(a.wire.asked) == under_test.MAX_PENDING
    assert [told.rcode() for told in a.told] == [dns.rcode.SERVFAIL]
    assert a.resolver.counters["dns_full"] == 1


@pytest.mark.parametrize("failure", ["silence", "servfail", "refused", "garbage"])
def test_another_server_is_asked(failure: str) -> None:
    a = Asking()
    a.ask("www.example")
    _, query, _, done = a.wire.asked[0]
    match failure:
        case "silence":
            done(None)
        case "servfail":
            a.wire.answer(rcode=dns.rcode.SERVFAIL)
        case "refused":
            a.wire.answer(rcode=dns.rcode.REFUSED)
        case _:
            done(query[:2] + b"\x80\0\0\1\0\5" + query[8:])
    assert [asked[0] for asked in a.wire.asked] == [FIRST, SECOND]
    a.wire.answer("www.example. 60 A 192.0.2.1")
    assert a.last == ["www.example. 60 IN A 192.0.2.1"]


def test_a_silent_server_comes_last_for_a_while() -> None:
    a = Asking()
    a.ask("a.example")
    a.wire.asked[0][3](None)
    a.wire.answer("a.example. 60 A 192.0.2.1")
    a.ask("b.example")
    assert a.wire.asked[-1][0] == SECOND
    a.wire.answer("b.example. 60 A 192.0.2.1")
    a.now = under_test.SICK_NS
    a.ask("c.example")
    assert a.wire.asked[-1][0] == FIRST


def test_nobody_answers() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.asked[0][3](None)
    a.wire.asked[1][3](None)
    assert a.told[-1].rcode() == dns.rcode.SERVFAIL
    a.ask("www.example")  # not kept
    assert len(a.wire.asked) == 3


def test_what_is_cut_short_is_asked_for_over_tcp() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.answer(flags=dns.flags.TC)
    assert [(s, tcp) for s, _, tcp, _ in a.wire.asked] == [
        (FIRST, False),
        (FIRST, True),
    ]
    a.wire.answer(*[f"www.example. 60 A 192.0.2.{i}" for i in range(1, 5)])
    assert len(a.told[-1].answer[0]) == 4


def test_a_long_answer_is_cut_short_for_a_datagram_only() -> None:
    a = Asking()
    record = "long.example. 60 TXT " + " ".join(f'"{i:0250}"' for i in range(6))
    a.ask("long.example", "TXT")
    a.wire.answer(record)
    assert a.told[-1].flags & dns.flags.TC
    assert not a.told[-1].answer
    a.ask("long.example", "TXT", size=None)
    assert not a.told[-1].flags & dns.flags.TC
    assert a.told[-1].answer


@pytest.mark.parametrize("change", ["id", "name", "type", "not-an-answer"])
def test_a_forged_answer_is_not_taken(change: str) -> None:
    a = Asking()
    a.ask("www.example")
    _, query, _, done = a.wire.asked[0]
    forged = dns.message.make_query(
        "xxx.example" if change == "name" else "www.example",
        "AAAA" if change == "type" else "A",
        id=1 if change == "id" else 0xFFFF,
    )
    data = answer_to(forged.to_wire(), "www.example. 60 A 203.0.113.66")
    done(query if change == "not-an-answer" else data)
    assert not a.told
    assert len(a.wire.asked) == 2


def test_nothing_is_told_that_was_not_asked_for() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.answer(
        "other.example. 60 A 203.0.113.66",
        "www.example. 60 A 192.0.2.1",
        "www.example. 60 TXT text",
        "example. 60 NS ns.example.",
    )
    assert a.last == ["www.example. 60 IN A 192.0.2.1"]


def test_a_circle_of_aliases_ends() -> None:
    a = Asking()
    a.ask("a.example")
    a.wire.answer("a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example.")
    assert a.told[-1].rcode() == dns.rcode.NOERROR


def test_a_name_that_is_not_there_is_known_for_as_long_as_its_zone_says() -> None:
    a = Asking()
    a.ask("no.example")
    soa = "example. 300 SOA ns.example. host.example. 1 2 3 4 30"
    a.wire.answer(soa, rcode=dns.rcode.NXDOMAIN)
    assert a.told[-1].rcode() == dns.rcode.NXDOMAIN
    a.now = 29 * S
    a.ask("no.example")
    assert len(a.wire.asked) == 1
    assert a.told[-1].authority
    a.now = 30 * S
    a.ask("no.example")
    assert len(a.wire.asked) == 2


def test_a_refused_name_leaves_nothing_outside() -> None:
    a = Asking(Only("www.example"))
    for name in (
        "example",
        "x.www.example",
        "wwww.example",
        "secret.data.evil.example",
    ):
        a.ask(name)
        assert a.told[-1].rcode() == dns.rcode.NXDOMAIN
    assert not a.wire.asked


def test_every_answer_is_told_to_the_policy() -> None:
    names = Only("www.example")
    a = Asking(names)
    a.ask("www.example")
    a.wire.answer("www.example. 60 A 192.0.2.1")
    a.now = 10 * S
    a.ask("www.example")
    a.ask("www.example", size=None)
    found = (ip_address("192.0.2.1"),)
    assert names.told == [("www.example", found, 60)] + 2 * [("www.example", found, 50)]


def test_an_address_that_is_not_admitted_is_left_out() -> None:
    a = Asking(Only("www.example"))
    a.ask("www.example")
    a.wire.answer("www.example. 60 A 10.0.0.1")
    assert a.told[-1].rcode() == dns.rcode.NOERROR
    assert a.last == []
    assert a.resolver.counters["dns_addresses_dropped"] == 1


def test_aliases_belong_to_the_name_that_was_asked_for() -> None:
    names = Only("www.example")
    a = Asking(names)
    a.ask("cdn.net")
    assert a.told[-1].rcode() == dns.rcode.NXDOMAIN
    a.ask("www.example")
    a.wire.answer("www.example. 60 CNAME cdn.net.", "cdn.net. 60 A 192.0.2.1")
    a.ask("cdn.net")
    a.wire.answer("cdn.net. 60 A 192.0.2.2")
    assert names.told[-1] == ("www.example", (ip_address("192.0.2.2"),), 60)
    a.now = 61 * S
    a.ask("cdn.net")
    assert a.told[-1].rcode() == dns.rcode.NXDOMAIN


def test_an_alias_to_a_private_address_is_empty() -> None:
    a = Asking(Only("www.example"))
    a.ask("www.example")
    a.wire.answer("www.example. 60 CNAME in.net.", "in.net. 60 A 10.0.0.1")
    assert a.last == ["www.example. 60 IN CNAME in.net."]


def test_a_service_does_not_hide_the_name_nor_hint_at_what_is_refused() -> None:
    a = Asking(Only("www.example"))
    a.ask("www.example", "HTTPS")
    _, query, _, done = a.wire.asked[0]
    hints = "1 . alpn=h2 ipv4hint=10.0.0.1,192.0.2.1"
    rdata = dns.rdata.from_text("IN", "HTTPS", hints)
    assert isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase)
    ech = dns.rdtypes.svcbbase.ECHParam(b"\0\4\xfe\x0d\0\0")  # type: ignore[no-untyped-call]
    hidden = {**rdata.params, dns.rdtypes.svcbbase.ParamKey.ECH: ech}
    told = type(rdata)(rdata.rdclass, rdata.rdtype, 1, rdata.target, hidden)
    answer = dns.message.make_response(dns.message.from_wire(query))
    name = dns.name.from_text("www.example.")
    answer.answer.append(dns.rrset.from_rdata(name, 60, told))
    assert " ech=" in answer.answer[0].to_text()
    done(answer.to_wire())
    assert a.last == [
        'www.example. 60 IN HTTPS 1 . alpn="h2" ipv4hint="192.0.2.1"',
    ]


def test_a_new_policy_knows_nothing_of_the_old_one() -> None:
    a = Asking()
    a.ask("www.example")
    a.wire.answer("www.example. 60 A 192.0.2.1")
    a.ask("slow.example")
    names = Only("other.example")
    a.resolver.configure(names, Zones(), (FIRST,))
    assert a.told[-1].rcode() == dns.rcode.SERVFAIL  # who waited knows at once
    a.wire.answer("slow.example. 60 A 192.0.2.1")
    a.ask("www.example")
    assert a.told[-1].rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(("kind", "of"), [("AXFR", "IN"), ("ANY", "IN"), ("A", "CH")])
def test_what_we_do_not_do_is_refused(kind: str, of: str) -> None:
    a = Asking()
    a.say(dns.message.make_query("www.example", kind, of).to_wire())
    assert a.told[-1].rcode() == dns.rcode.REFUSED
    assert not a.wire.asked


def test_other_requests_are_not_implemented() -> None:
    a = Asking()
    query = bytearray(dns.message.make_query("www.example", "A").to_wire())
    query[2] |= 4 << 3  # NOTIFY
    told: list[bytes] = []
    a.resolver.question(bytes(query), told.append, 1232)
    assert told[0][:2] == query[:2]
    assert told[0][3] & 0xF == dns.rcode.NOTIMP


@given(st.binary(max_size=120))
def test_no_bytes_of_a_guest_do_any_harm(data: bytes) -> None:
    a = Asking()
    told: list[bytes] = []
    a.resolver.question(data, told.append, 1232)
    for message in told:
        assert message[:2] == data[:2]


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_no_answer_of_a_server_does_any_harm(junk: bytes, at: int, byte: int) -> None:
    a = Asking()
    a.ask("www.example")
    _, query, _, done = a.wire.asked[0]
    answer = bytearray(answer_to(query, "www.example. 60 A 192.0.2.1") + junk)
    answer[at % len(answer)] = byte
    done(bytes(answer))
    assert len(a.told) + len(a.wire.asked) >= 2


def test_the_cache_is_bounded() -> None:
    cache = Cache()
    for i in range(MAX_FOUND + 10):
        cache.keep((f"n{i}", 1, False, False), Found(dns.rcode.NOERROR), 0)
    assert len(cache) == MAX_FOUND


def test_ttls_are_found_behind_names_of_every_form() -> None:
    query = dns.message.make_query("www.example", "A", use_edns=0)
    records = "www.example. 60 CNAME a.b.", "a.b. 7 A 192.0.2.1"
    wire = answer_to(query.to_wire(), *records)
    places = ttl_places(wire)
    assert places is not None
    assert [int.from_bytes(wire[p : p + 4], "big") for p in places] == [60, 7]


@given(st.binary(max_size=80))
def test_ttls_of_no_message_are_no_places(data: bytes) -> None:
    for place in ttl_places(data.ljust(12, b"\0")) or ():
        assert place + 4 <= max(len(data), 12)


@given(st.lists(st.binary(min_size=12, max_size=40), max_size=6), st.integers(1, 9))
def test_a_stream_may_come_in_any_pieces(messages: list[bytes], piece: int) -> None:
    stream = b"".join(map(framed, messages))
    reader = Messages()
    got: list[bytes] = []
    for at in range(0, len(stream), piece):
        got += reader.feed(stream[at : at + piece])
    assert got == messages


def test_a_stream_of_something_else_ends() -> None:
    with pytest.raises(WireError):
        list(Messages().feed(b"\0\3abc"))


def test_questions_have_one_form() -> None:
    wire = dns.message.make_query("WWW.Example.", "A").to_wire()
    assert read_question(wire).name == "www.example"
    assert read_question(wire).size == 512
    big = dns.message.make_query("x.", "A", use_edns=0, payload=65000).to_wire()
    assert read_question(big).size == EDNS_SIZE


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "=192.0.2.1", "a=", "a b=192.0.2.1", "/[/=192.0.2.1"),
        *("/=192.0.2.1", "a=192.0.2.1,b", "a=1 2", "*.=192.0.2.1"),
        *("a..b=192.0.2.1", "//=192.0.2.1"),
    ],
)
def test_records_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError):
        read_entry(text)


def test_the_longest_suffix_wins() -> None:
    zones = Zones(
        map(read_entry, ("*.a.b=192.0.2.1", "*.b=192.0.2.2", "/.*b/=192.0.2.3"))
    )

    def found(name: str) -> str:
        entry = zones.find(name)
        return "" if entry is None else str(entry.addresses[0])

    assert found("x.y.a.b") == "192.0.2.1"
    assert found("a.b") == "192.0.2.2"
    assert found("b") == "192.0.2.3"
    assert found("c") == ""
