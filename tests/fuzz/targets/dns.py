# SPDX-License-Identifier: GPL-2.0-or-later
"""DNS: what a guest asks, over streams too, and what a resolver of the host answers.

The guest is told nothing that was not admitted, in messages that can be read. An input
is the length of a question (its last bit: over TCP), the question, and then an answer
behind its question: flags, counts, records.
"""

from collections.abc import Container, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

import dns.message
import dns.rcode
import dns.rdtypes.svcbbase

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.services.dns.message import HEADER_LEN, MAX_TTL
from passtpy.services.dns.stream import Messages, framed
from tests.unit.services.dns.test_resolver import Asking

_COUNTS: Final = 8  # bytes: flags, and three counts
_ECH: Final = dns.rdtypes.svcbbase.ParamKey.ECH
_MANDATORY: Final = dns.rdtypes.svcbbase.ParamKey.MANDATORY


class _Odd:
    """A policy that admits every other address, and refuses names that end in x."""

    standing = 0

    def refusal(self, name: str) -> dns.rcode.Rcode | None:
        return dns.rcode.NXDOMAIN if name.endswith("x") else None

    def admit(
        self, name: str, addresses: Sequence[Address], ttl: int
    ) -> Container[Address]:
        assert not name.endswith("x")
        assert 0 <= ttl <= MAX_TTL
        return [each for each in addresses if int(each) % 2]


def _is_admitted(text: str) -> bool:
    return bool(int(ip_address(text)) % 2)


def _check(message: dns.message.Message) -> None:
    for rrset in message.answer:
        for rdata in rrset:
            if rrset.rdtype in (1, 28) and rrset.rdclass == 1:
                assert _is_admitted(rdata.address), rdata
            if isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase):
                assert _ECH not in rdata.params
                for hint in rdata.params.values():
                    for text in getattr(hint, "addresses", ()):
                        assert _is_admitted(text), rdata


def _answer(query: bytes, said: bytes) -> bytes:
    """Return what was said as the answer to a question."""
    flags, counts = said[:2].ljust(2, b"\0"), said[2:_COUNTS].ljust(6, b"\0")
    head = query[:2] + bytes([flags[0] | 0x80]) + flags[1:] + b"\0\1" + counts
    end = query.index(0, HEADER_LEN) + 5
    return head + query[HEADER_LEN:end] + said[_COUNTS:]


def _pieces(data: bytes, size: int) -> list[bytes]:
    """Cut a stream in pieces of a size, and return its messages."""
    messages = Messages()
    found: list[bytes] = []
    with suppress(WireError):
        for at in range(0, len(data), size):
            found += messages.feed(data[at : at + size])
    return found


def play(data: bytes) -> None:
    """Ask, answer, and ask again what is in the cache by then."""
    if not data:
        return
    length, over_tcp = data[0] >> 1, data[0] & 1
    question, said = data[1 : 1 + length], data[1 + length :]
    size = None if over_tcp else 1232
    asking = Asking(_Odd())
    asking.say(question, size)
    for _server, query, _tcp, done in asking.wire.asked[:4]:
        done(_answer(query, said))
    asking.say(question, size)
    for message in asking.told:
        _check(message)
        assert question.startswith(message.id.to_bytes(2, "big"))
    assert _pieces(data, 1) == _pieces(data, max(1, len(data)))
    stream = framed(question) + framed(said)
    assert _pieces(stream, 3) == _pieces(stream, len(stream))
