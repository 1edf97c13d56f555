# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 conversations, one message of RFC 8415 after the other."""

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from passtpy.addr import inany
from passtpy.services.duid import server_duid
from passtpy.wire.dhcpv6 import (
    Code,
    Dhcpv6,
    Ia,
    IaAddress,
    MessageType,
    Option,
    RawOption,
    Status,
    StatusCode,
)
from passtpy.wire.dnsname import decode_list
from tests.unit.services.conversation import (
    GUEST6,
    GUEST_LL,
    GUEST_MAC,
    HOST,
    OUR_LL,
    OUR_MAC,
    PEER6,
    RESOLVER,
    facts,
    make,
    read_dhcpv6,
    serve,
    udp6,
)

CLIENT = RawOption(Code.CLIENT_ID, b"\0\3\0\1" + GUEST_MAC)
DUID = server_duid(OUR_MAC, b"", b"")
SERVER = RawOption(Code.SERVER_ID, DUID)
OTHER_SERVER = RawOption(Code.SERVER_ID, b"\0\4" + bytes(16))
RAPID = RawOption(Code.RAPID_COMMIT)
INFINITE = 0xFFFFFFFF
GIVEN = Ia(Code.IA_NA, 7, 300, 525, (IaAddress(GUEST6, INFINITE, INFINITE),))
TELL_ALL = "--dhcp-dns --dhcp-search --fqdn guest.example.com"
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE = list(
    MessageType
)[:9]
INFORMATION_REQUEST = MessageType.INFORMATION_REQUEST


def ia(*addresses: IPv6Address, iaid: int = 7, code: int = Code.IA_NA) -> Ia:
    """A client's association that names addresses."""
    return Ia(code, iaid, addresses=tuple(IaAddress(addr) for addr in addresses))


def message(kind: MessageType, *options: Option, **frame: Any) -> bytes:
    return udp6(Dhcpv6(kind, 0x1234, options).emit(), **frame)


def ask(frame: bytes, line: str = "") -> Dhcpv6 | None:
    """The answer to a frame, if there is one."""
    services, _ = make(line)
    answers = serve(services, frame, 0)
    assert services.counters()["dhcpv6_malformed"] == 0
    return read_dhcpv6(answers[0])[2] if answers else None


def answer_to(
    kind: MessageType, *options: Option, line: str = ""
) -> tuple[MessageType, tuple[Option, ...]]:
    """Type and options of the answer, behind the identifiers."""
    answer = ask(message(kind, CLIENT, *options), line)
    assert answer is not None
    assert answer.xid == 0x1234
    assert answer.options[:2] == (SERVER, CLIENT)
    return answer.type, answer.options[2:]


def refused(code: StatusCode, iaid: int = 7, kind: int = Code.IA_NA) -> Ia:
    return Ia(kind, iaid, status=Status(code))


def test_solicit_is_advertised_the_guests_address() -> None:
    services, guest = make()
    (frame,) = serve(services, message(SOLICIT, CLIENT, ia()), 0)
    eth, packet, answer = read_dhcpv6(frame)
    assert (eth.destination, eth.source) == (GUEST_MAC, OUR_MAC)
    assert (packet.source, packet.destination) == (OUR_LL, GUEST_LL)
    assert answer == Dhcpv6(ADVERTISE, 0x1234, (SERVER, CLIENT, GIVEN))
    assert guest.link_local6 == inany(GUEST_LL)


def test_rapid_commit_skips_the_advertisement() -> None:
    assert answer_to(SOLICIT, RAPID, ia()) == (REPLY, (RAPID, GIVEN))


def test_hint_of_a_solicit_is_only_a_hint() -> None:
    assert answer_to(SOLICIT, ia(PEER6)) == (ADVERTISE, (GIVEN,))


def test_request_is_granted() -> None:
    assert answer_to(REQUEST, SERVER, ia(GUEST6)) == (REPLY, (GIVEN,))


def test_request_for_another_address_is_off_link() -> None:
    expected = refused(StatusCode.NOT_ON_LINK)
    assert answer_to(REQUEST, SERVER, ia(PEER6)) == (REPLY, (expected,))


@pytest.mark.parametrize("options", [(RENEW, SERVER), (REBIND,)])
def test_renewal_extends_ours_and_ends_others(options: tuple[Any, ...]) -> None:
    given = replace(GIVEN, addresses=(*GIVEN.addresses, IaAddress(PEER6, 0, 0)))
    kind, *rest = options
    assert answer_to(kind, *rest, ia(PEER6, GUEST6)) == (REPLY, (given,))


def test_renewal_of_an_old_address_brings_the_new_one() -> None:
    given = replace(GIVEN, addresses=(*GIVEN.addresses, IaAddress(PEER6, 0, 0)))
    assert answer_to(RENEW, SERVER, ia(PEER6)) == (REPLY, (given,))


def test_there_is_one_address_for_one_association() -> None:
    kind, options = answer_to(SOLICIT, ia(iaid=1), ia(GUEST6, iaid=2))
    nothing = refused(StatusCode.NO_ADDRESSES, 1)
    assert (kind, options) == (ADVERTISE, (nothing, replace(GIVEN, iaid=2)))
    _, options = answer_to(RENEW, SERVER, ia(GUEST6, iaid=1), ia(iaid=2))
    assert options[1] == refused(StatusCode.NO_BINDING, 2)


def test_neither_prefixes_nor_temporary_addresses() -> None:
    asked = (ia(code=Code.IA_PD), ia(code=Code.IA_TA))
    assert answer_to(SOLICIT, *asked)[1] == (
        refused(StatusCode.NO_PREFIXES, kind=Code.IA_PD),
        refused(StatusCode.NO_ADDRESSES, kind=Code.IA_TA),
    )


@pytest.mark.parametrize(
    ("addresses", "code"),
    [
        ((GUEST6,), StatusCode.SUCCESS),
        ((PEER6,), StatusCode.NOT_ON_LINK),
        ((GUEST6, PEER6), StatusCode.NOT_ON_LINK),
    ],
)
def test_confirm_tells_whether_all_addresses_fit(
    addresses: tuple[IPv6Address, ...], code: StatusCode
) -> None:
    assert answer_to(CONFIRM, ia(*addresses)) == (REPLY, (Status(code),))


def test_confirm_of_nothing_is_not_answered() -> None:
    assert ask(message(CONFIRM, CLIENT, ia())) is None


@pytest.mark.parametrize(
    ("kind", "counter"),
    [(RELEASE, "dhcpv6_released"), (DECLINE, "dhcpv6_declined")],
)
def test_address_given_up_is_acknowledged_and_counted(
    kind: MessageType, counter: str
) -> None:
    services, _ = make()
    asked = message(kind, CLIENT, SERVER, ia(GUEST6), ia(PEER6, iaid=8))
    (frame,) = serve(services, asked, 0)
    answer = read_dhcpv6(frame)[2]
    assert answer.type is REPLY
    assert answer.options[2:] == (
        Status(StatusCode.SUCCESS),
        refused(StatusCode.NO_BINDING, 8),
    )
    assert services.counters()[counter] == 1


def test_information_request_gets_what_there_is() -> None:
    wanted = RawOption(Code.WANTED, b"\0\x17\0\x18\0\x20")
    answer = ask(message(INFORMATION_REQUEST, wanted), TELL_ALL)
    assert answer is not None
    assert (answer.type, answer.options[0]) == (REPLY, SERVER)
    assert answer.raw(Code.DNS) == IPv6Address("2001:db8:1::53").packed
    assert decode_list(answer.raw(Code.SEARCH) or b"") == RESOLVER.search
    assert answer.raw(Code.REFRESH_TIME) == (600).to_bytes(4, "big")
    assert answer.raw(Code.CLIENT_ID) is None


def test_information_for_another_server_is_left_to_it() -> None:
    assert ask(message(INFORMATION_REQUEST, OTHER_SERVER)) is None


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (RawOption(Code.WANTED, b"\0\x27"), b"\4\5guest\7example\3com\0"),
        (RawOption(Code.FQDN, b"\1\1x"), b"\6\5guest\7example\3com\0"),
        (RawOption(Code.FQDN, b""), b"\4\5guest\7example\3com\0"),
    ],
)
def test_full_name_is_told_to_who_asks(asked: RawOption, answer: bytes) -> None:
    _, options = answer_to(SOLICIT, ia(), asked, line=TELL_ALL)
    assert options[-1] == RawOption(Code.FQDN, answer)


def test_full_name_is_not_told_unasked() -> None:
    _, options = answer_to(SOLICIT, ia(), line="--fqdn guest.example.com")
    assert options == (GIVEN,)


@pytest.mark.parametrize("kind", [REQUEST, RENEW, RELEASE, DECLINE])
def test_unicast_is_sent_to_multicast(kind: MessageType) -> None:
    frame = message(kind, CLIENT, SERVER, ia(GUEST6), destination=OUR_LL)
    answer = ask(frame)
    assert answer is not None
    assert answer.options[2:] == (Status(StatusCode.USE_MULTICAST),)


@pytest.mark.parametrize("kind", [SOLICIT, CONFIRM, REBIND, INFORMATION_REQUEST])
def test_unicast_to_any_server_is_dropped(kind: MessageType) -> None:
    rest = () if kind is INFORMATION_REQUEST else (ia(GUEST6),)
    assert ask(message(kind, CLIENT, *rest, destination=OUR_LL)) is None


@pytest.mark.parametrize(
    "frame",
    [
        message(SOLICIT, ia()),
        message(SOLICIT, CLIENT, SERVER, ia()),
        message(REBIND, CLIENT, SERVER, ia(GUEST6)),
        message(CONFIRM, CLIENT, SERVER, ia(GUEST6)),
        message(REQUEST, CLIENT, ia(GUEST6)),
        message(RENEW, CLIENT, ia(GUEST6)),
        message(INFORMATION_REQUEST, ia()),
        message(ADVERTISE, CLIENT, SERVER),
        message(SOLICIT, CLIENT, *(ia(iaid=i) for i in range(17))),
        message(SOLICIT, CLIENT, ia(*[PEER6] * 17)),
        message(SOLICIT, RawOption(Code.CLIENT_ID, bytes(131))),
        message(SOLICIT, CLIENT, source=IPv6Address("::")),
        udp6(b"\x0c" + bytes(40)),  # from a relay
        udp6(b"\1"),
    ],
)
def test_what_must_be_discarded_is_counted(frame: bytes) -> None:
    services, _ = make()
    assert serve(services, frame, 0) == []
    assert services.counters()["dhcpv6_malformed"] == 1


@pytest.mark.parametrize("host", [{"ipv6": False}, {"guest6": None}])
def test_without_an_address_nothing_is_answered(host: dict[str, Any]) -> None:
    services, _ = make(host=replace(HOST, **host))
    assert serve(services, message(SOLICIT, CLIENT, ia()), 0) == []


def test_address_that_changes_is_told_to_who_renews() -> None:
    services, _ = make()
    moved = IPv6Address("2001:db8:f::5")
    services.update(facts(host=replace(HOST, guest6=moved)))
    (frame,) = serve(services, message(RENEW, CLIENT, SERVER, ia(GUEST6)), 0)
    (given,) = read_dhcpv6(frame)[2].associations
    assert given.addresses == (
        IaAddress(moved, INFINITE, INFINITE),
        IaAddress(GUEST6, 0, 0),
    )


def test_server_identity_belongs_to_the_guest() -> None:
    def server_of(line: str) -> bytes | None:
        answer = ask(message(SOLICIT, CLIENT, ia()), line)
        assert answer is not None
        return answer.raw(Code.SERVER_ID)

    assert server_of("--netns a") == server_of("--netns a")
    assert server_of("--netns a") != server_of("--netns b")
    assert server_of("-M 02:00:00:00:00:01") != DUID
    assert len(DUID) == 18
    assert DUID[:2] == b"\0\4"
