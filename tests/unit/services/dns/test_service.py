# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames with questions: what is asked again gets the frame that it would have got."""

from ipaddress import IPv4Address, IPv6Address

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passtpy.addr import Address, inany
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress
from passtpy.egress.model import Mode
from passtpy.egress.zones import Surroundings
from passtpy.errors import WireError
from passtpy.policy.listing import RuleIds
from passtpy.record import replace
from passtpy.resolving import _Names
from passtpy.services.dns.ready import MAX_READY, ReadyFrames
from passtpy.services.dns.resolver import Everything, Filter, Resolver, Server
from passtpy.services.dns.service import DnsService
from passtpy.services.dns.zones import Zones
from passtpy.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.udp import Udp
from tests.unit.services.conversation import GUEST4, GUEST6, GUEST_MAC, OUR_MAC, facts
from tests.unit.services.dns.test_resolver import S, Wire, answer_to

SERVER = Server(IPv4Address("198.51.100.1"))
STRANGER4, STRANGER6 = IPv4Address("203.0.113.99"), IPv6Address("2001:db8:9::9")
UNREADABLE = {18, 19, 24, 25}  # id and checksum of IPv4, which the datapath verifies


class Attentive(Everything):
    """A filter that wants to be asked about each question."""

    standing: int | None = None


class Asking:
    """A service, its clock, and what it asks a server."""

    def __init__(self, names: Filter | None = None) -> None:
        self.now = 0
        self.wire = Wire()
        self.late: list[bytes] = []
        self.names = names or Everything()
        self.resolver = Resolver(self.names, self.wire, lambda: self.now, lambda n: 1)
        self.service = DnsService(facts(), self.resolver, self.late.append)
        self.configure()

    def configure(self) -> None:
        self.resolver.configure(self.names, Zones(), (SERVER,))

    def learn(self, asks: bytes, *records: str, rcode: int = 0) -> None:
        """Ask twice: what is ready was known before."""
        assert self.service.handle(asks, self.now) == []
        self.wire.answer(*records, rcode=rcode)
        assert len(self.late) == 1
        assert len(self.say(asks)) == 1

    def say(self, frame: bytes) -> list[bytes]:
        return self.service.handle(frame, self.now)


def question(
    name: str, ident: int = 7, port: int = 40000, version: int = 4, kind: str = "A"
) -> bytes:
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232, id=ident)
    return framed(query.to_wire(), port, version)


def framed(data: bytes, port: int, version: int) -> bytes:
    packet: bytes
    if version == 4:
        datagram = Udp(port, 53, data).emit(GUEST4, STRANGER4)
        packet = Ipv4(GUEST4, STRANGER4, 17, datagram, 64).emit()
    else:
        datagram = Udp(port, 53, data).emit(GUEST6, STRANGER6)
        packet = Ipv6(GUEST6, STRANGER6, 17, datagram, 64).emit()
    kind = ETHERTYPE_IPV4 if version == 4 else ETHERTYPE_IPV6
    return Ethernet(OUR_MAC, GUEST_MAC, kind, packet).emit()


def pair(version: int, name: str, *records: str, rcode: int = 0) -> tuple[Asking, ...]:
    """Return one that has an answer ready, and one that makes each anew."""
    both = Asking(), Asking(Attentive())
    for each in both:
        each.learn(question(name, version=version), *records, rcode=rcode)
    return both


def ready(a: Asking) -> int:
    """Count the frames that are ready."""
    return len(a.service._ready)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["www.example", "wwww.example"])
@settings(max_examples=20)
@given(
    st.integers(0, 0xFFFF), st.integers(1, 0xFFFF), st.booleans(), st.integers(0, 59)
)
def test_a_frame_that_is_ready_is_the_one_that_would_be_made(
    version: int, name: str, ident: int, port: int, upper: bool, age: int
) -> None:
    quick, slow = pair(version, name, f"{name}. 60 A 192.0.2.1")
    asks = question(name.upper() if upper else name, ident, port, version)
    for each in (quick, slow):
        each.now = age * S
    for _ in range(3):  # not ready, ready, ready
        assert quick.say(asks) == slow.say(asks) != []
    assert (ready(quick), ready(slow)) == (1, 0)
    assert quick.resolver.counters == slow.resolver.counters
    assert quick.service.counters["dns_cached"] == 4


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("many", [0, 90])
def test_what_does_not_exist_or_does_not_fit_is_ready_too(
    version: int, many: int
) -> None:
    name = "www.example"
    records = [f"{name}. 60 A 192.0.2.{n}" for n in range(1, many)]
    quick, slow = pair(version, name, *records, rcode=0 if many else 3)
    for port in (1, 2):
        asks = question(name, port=port, version=version)
        assert quick.say(asks) == slow.say(asks) != []
    assert ready(quick) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_a_byte_that_differs_is_read(version: int) -> None:
    quick, slow = pair(version, "www.example", "www.example. 60 A 192.0.2.1")
    asks = question("www.example", version=version)
    for at in set(range(len(asks))) - (UNREADABLE if version == 4 else set()):
        for bit in (1, 0x20, 0x80):
            other = bytearray(asks)
            other[at] ^= bit
            assert outcome(quick, bytes(other)) == outcome(slow, bytes(other)), at
    for length in range(len(asks)):
        assert outcome(quick, asks[:length]) == outcome(slow, asks[:length])


def outcome(a: Asking, frame: bytes) -> list[bytes] | None:
    try:
        return a.say(frame)
    except WireError:
        return None


def test_header_options_are_not_ready() -> None:
    a = Asking()
    query = dns.message.make_query("www.example", "A").to_wire()
    datagram = Udp(40000, 53, query).emit(GUEST6, STRANGER6)
    options = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    packet = Ipv6(GUEST6, STRANGER6, 60, options + datagram).emit()
    asks = Ethernet(OUR_MAC, GUEST_MAC, ETHERTYPE_IPV6, packet).emit()
    a.learn(asks, "www.example. 60 A 192.0.2.1")
    assert ready(a) == 0
    assert a.say(asks) != []


def test_a_ttl_counts_down_and_ends() -> None:
    a = Asking()
    asks = question("www.example")
    a.learn(asks, "www.example. 2 A 192.0.2.1")
    ttls = []
    for now in (0, S - 1, S, 2 * S - 1):
        a.now = now
        message = dns.message.from_wire(a.say(asks)[0][42:])
        ttls.append(message.answer[0].ttl)
    assert ttls == [2, 2, 1, 1]
    a.now = 2 * S
    assert a.say(asks) == []
    assert len(a.wire.asked) == 2


def test_what_changed_is_not_ready_any_more() -> None:
    a = Asking()
    asks = question("www.example")
    a.learn(asks, "www.example. 60 A 192.0.2.1")
    a.service.update(replace(facts(), our_mac=GUEST_MAC))
    assert a.say(asks)[0][6:12] == GUEST_MAC
    a.configure()
    assert a.say(asks) == []
    assert len(a.wire.asked) == 2


class World:
    """A policy that knows some names, and a service that obeys it."""

    def __init__(self, *names: str) -> None:
        text = f'version = 1\n[[rule]]\nto = {list(names)}\naction = "allow"\n'
        policy = parse_policy(text, "policy", lambda name: "")
        self.egress = Egress(policy, Surroundings(), RuleIds().give, lambda: 0)
        self.asking = Asking(_Names(self.egress, lambda: self.asking.now))

    def names_of(self, address: Address) -> tuple[str, ...]:
        return self.egress.pins.names_of(inany(address), self.asking.now)


def test_a_pin_that_is_gone_is_there_again_with_the_next_answer() -> None:
    w = World("a.example", "b.example")
    a, asks = w.asking, question("a.example")
    told = IPv4Address("203.0.113.1")
    a.learn(asks, f"a.example. 60 A {told}")
    assert a.say(asks) != []
    for n in range(2, 130):  # others' addresses take its place
        w.egress.may_answer("a.example", [inany(told + n)], 1, 0)
    assert w.names_of(told) == ()
    assert a.say(asks) != []
    assert w.names_of(told) == ("a.example",)


def test_pins_last_as_long_as_the_answer_and_a_grace() -> None:
    w = World("a.example")
    a, asks = w.asking, question("a.example")
    told = IPv4Address("203.0.113.1")
    a.learn(asks, f"a.example. 60 A {told}")
    for at in (0, S // 2, 30 * S, 59 * S, 60 * S - 1):
        a.now = at
        assert len(a.say(asks)) == 1
        a.now = at + 60 * S  # what was told may be used
        assert w.names_of(told) == ("a.example",)


def test_who_observes_hears_of_each_question() -> None:
    w = World("a.example")
    w.egress.replace(replace(w.egress.policy, mode=Mode.OBSERVE))
    asks = question("b.example")
    w.asking.learn(asks, "b.example. 60 A 203.0.113.1")
    before = w.egress.counters()["policy_names_refused"]
    for _ in range(5):
        w.asking.say(asks)
    assert w.egress.counters()["policy_names_refused"] == before + 5


def test_what_is_ready_is_bounded() -> None:
    frames = ReadyFrames()
    asks = question("www.example")
    reply = framed(answer_to(asks[42:], "www.example. 60 A 192.0.2.1"), 53, 4)
    for n in range(MAX_READY + 10):
        each = asks[:6] + n.to_bytes(6, "big") + asks[12:]
        frames.keep(each, reply, S, 0)
        assert frames.answer(each, 0, 0) is not None
        assert len(frames) <= MAX_READY
