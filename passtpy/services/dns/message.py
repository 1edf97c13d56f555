# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads questions and makes answers (RFC 1035, 6891), with dnspython for the bytes.

A question comes from a guest, an answer from a resolver of the host: neither is
believed. Of an answer only what belongs to the question is kept.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.svcbbase
import dns.rrset

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.record import record

for _type in dns.rdatatype.RdataType:  # nothing is imported once packets move
    dns.rdata.get_rdata_class(dns.rdataclass.IN, _type)  # type: ignore[no-untyped-call]

HEADER_LEN: Final = 12
PLAIN_SIZE: Final = 512  # what every client can take (RFC 1035 4.2.1)
EDNS_SIZE: Final = 1232  # fits into every path's packets: DNS Flag Day 2020
MAX_SIZE: Final = 0xFFFF  # over TCP
MAX_CHAIN: Final = 16  # aliases that one name may have
MAX_RECORDS: Final = 128  # of one set; a name with more has these
MAX_TTL: Final = 3600  # seconds; a guest that believes longer misses what changes

A, AAAA, CNAME = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME
SOA, RRSIG = dns.rdatatype.SOA, dns.rdatatype.RRSIG
_SERVICES: Final = (dns.rdatatype.SVCB, dns.rdatatype.HTTPS)
_ADDRESSES: Final = (dns.rdtypes.IN.A.A, dns.rdtypes.IN.AAAA.AAAA)
_KEYS = dns.rdtypes.svcbbase.ParamKey
_HINTS: Final = (_KEYS.IPV4HINT, _KEYS.IPV6HINT)

# Name, type, DO, CD
Key = tuple[str, int, bool, bool]
# Takes all addresses of an answer and its TTL; returns those that may be told
Admits = Callable[[Sequence[Address], int], Container[Address]]


@record
class Question:
    """What a guest asks. `name`: lower case, without its last dot; "" is the root."""

    id: int
    name: str
    type: int
    size: int  # bytes that the client takes over UDP
    wants_signatures: bool  # DO (RFC 3225)
    unchecked: bool  # CD (RFC 4035 3.2.2)
    message: dns.message.Message

    @property
    def key(self) -> Key:
        """Return what two questions share that have the same answer."""
        return self.name, self.type, self.wants_signatures, self.unchecked


@record
class Found:
    """What is known for a question: records, or why there are none."""

    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()
    authentic: bool = False  # AD (RFC 4035 3.2.3)
    addresses: tuple[Address, ...] = ()  # all that it tells, hints included

    def ttl(self) -> int | None:
        """Return for how many seconds it holds; None if it does not say."""
        if self.answer:
            return min(rrset.ttl for rrset in self.answer)
        soas = [rrset for rrset in self.authority if rrset.rdtype == SOA]
        # RFC 2308 section 5: a name that does not exist stays so for that long
        return min((min(soa.ttl, soa[0].minimum) for soa in soas), default=None)


class RefusedError(Exception):
    """A question that is answered by its error code alone."""

    def __init__(self, rcode: dns.rcode.Rcode, header: bytes) -> None:
        super().__init__(dns.rcode.to_text(rcode))
        flags = header[2] & 0x79 | 0x80  # an answer; opcode and RD as asked
        self.answer = header[:2] + bytes([flags, 0x80 | rcode]) + bytes(8)


def read_question(data: bytes) -> Question:
    """Read a question; WireError for what is none, RefusedError for no usable one."""
    if len(data) < HEADER_LEN:
        raise WireError("dns: truncated")
    if data[2] & 0x80:
        raise WireError("dns: an answer")
    if (data[2] >> 3) & 0xF != dns.opcode.QUERY:
        raise RefusedError(dns.rcode.NOTIMP, data)
    try:
        message = dns.message.from_wire(data, ignore_trailing=False)
    except (dns.exception.DNSException, ValueError):
        raise RefusedError(dns.rcode.FORMERR, data) from None
    if len(message.question) != 1 or message.answer or message.authority:
        raise RefusedError(dns.rcode.FORMERR, data)
    asked = message.question[0]
    if message.edns > 0:
        raise RefusedError(dns.rcode.FORMERR, data)  # BADVERS needs a version of ours
    if asked.rdclass != dns.rdataclass.IN or dns.rdatatype.is_metatype(asked.rdtype):
        raise RefusedError(dns.rcode.REFUSED, data)
    size = max(PLAIN_SIZE, message.payload) if message.edns >= 0 else PLAIN_SIZE
    return Question(
        message.id,
        name_of(asked.name),
        int(asked.rdtype),
        min(size, EDNS_SIZE),
        bool(message.ednsflags & dns.flags.DO),
        bool(message.flags & dns.flags.CD),
        message,
    )


def name_of(name: dns.name.Name) -> str:
    """Return a name as rules write it; bytes that no rule can name are escaped."""
    return name.to_text(omit_final_dot=True).lower()


def ask(question: Question, ident: int) -> bytes:
    """Return the question that we ask in our own name."""
    asked = question.message.question[0]
    message = dns.message.make_query(
        asked.name,
        asked.rdtype,
        use_edns=0,
        payload=EDNS_SIZE,
        want_dnssec=question.wants_signatures,
        id=ident,
    )
    if question.unchecked:
        message.flags |= dns.flags.CD
    return message.to_wire()


def is_truncated(data: bytes) -> bool:
    """Tell whether an answer says that it is not all (TC)."""
    return bool(data[2] & 0x02)


def belongs(query: bytes, data: bytes) -> bool:
    """Tell whether `data` may be the answer to `query`: id, and question."""
    if len(data) < HEADER_LEN or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    if data[4:6] == b"\0\0":  # an error may come without the question
        return data[3] & 0xF != dns.rcode.NOERROR
    end = _question_end(query)
    return data[4:6] == b"\0\1" and data[HEADER_LEN:end] == query[HEADER_LEN:end]


def _question_end(query: bytes) -> int:
    """Return where the question of a message of ours ends: nothing is compressed."""
    at = HEADER_LEN
    while query[at]:
        at += 1 + query[at]
    return at + 5


def read_answer(question: Question, data: bytes, admits: Admits) -> Found:
    """Return what an answer says to the question, cleared of everything else.

    Kept are the aliases that lead on from the name, the records at their end, and
    their signatures. An address that is not admitted is left out, in hints of services
    too (RFC 9460 7.3); so are parameters that would hide the name of a later
    connection (`ech`). WireError if it cannot be read.
    """
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise WireError(f"dns: {error}") from None
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Found(rcode)
    asked = question.message.question[0]
    names, chain = _aliases(message, asked.name, question.type)
    answer: list[dns.rrset.RRset] = list(chain)
    addresses: list[Address] = []
    changed = False
    for rrset in message.answer:
        if rrset.rdclass != dns.rdataclass.IN:
            continue
        rrset.ttl = min(rrset.ttl, MAX_TTL)
        if rrset.rdtype == question.type and rrset.name == names[-1]:
            told = [addr for rdata in list(rrset)[:MAX_RECORDS] for addr in _in(rdata)]
            admitted = admits(told, rrset.ttl) if told else ()
            addresses += (addr for addr in told if addr in admitted)
            kept = _cleared(rrset, admitted)
            changed |= len(kept) != len(rrset) or any(r not in kept for r in rrset)
            if len(kept):
                answer.append(kept)
        elif (
            rrset.rdtype == RRSIG and question.wants_signatures and rrset.name in names
        ):
            answer.append(rrset)
    authority = tuple(
        rrset
        for rrset in message.authority
        if rrset.rdtype == SOA and names[-1].is_subdomain(rrset.name)
    )
    authentic = bool(message.flags & dns.flags.AD) and not changed
    return Found(rcode, tuple(answer), authority, authentic, tuple(addresses))


def _aliases(
    message: dns.message.Message, name: dns.name.Name, rdtype: int
) -> tuple[list[dns.name.Name], list[dns.rrset.RRset]]:
    """Follow the chain of CNAMEs; return all names on it, and its records."""
    names = [name]
    chain: list[dns.rrset.RRset] = []
    aliases = {
        r.name: r
        for r in message.answer
        if r.rdtype == CNAME and r.rdclass == dns.rdataclass.IN and len(r)
    }
    while rdtype != CNAME and names[-1] in aliases and len(chain) < MAX_CHAIN:
        alias = aliases.pop(names[-1])  # a circle ends
        chain.append(alias)
        names.append(alias[0].target)
    return names, chain


def _cleared(rrset: dns.rrset.RRset, admitted: Container[Address]) -> dns.rrset.RRset:
    """Return a set without what a guest must not be told."""
    kept = dns.rrset.RRset(rrset.name, rrset.rdclass, rrset.rdtype)
    for rdata in list(rrset)[:MAX_RECORDS]:
        if isinstance(rdata, _ADDRESSES):
            if _address(rdata.address) in admitted:
                kept.add(rdata, rrset.ttl)
        elif isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase):
            kept.add(_cleared_service(rdata, admitted), rrset.ttl)
        else:
            kept.add(rdata, rrset.ttl)
    return kept


def _address(text: str) -> Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def _cleared_service(
    rdata: dns.rdtypes.svcbbase.SVCBBase, admitted: Container[Address]
) -> dns.rdtypes.svcbbase.SVCBBase:
    params = dict(rdata.params)
    params.pop(_KEYS.ECH, None)
    for key in _HINTS:
        hints = params.pop(key, None)
        addresses = [
            text
            for text in getattr(hints, "addresses", ())
            if _address(text) in admitted
        ]
        if hints is not None and addresses:
            params[key] = type(hints)(addresses)
    mandatory = params.get(_KEYS.MANDATORY)
    if mandatory is not None and any(key not in params for key in mandatory.keys):
        left = [key for key in mandatory.keys if key in params]
        params.pop(_KEYS.MANDATORY)
        if left:
            params[_KEYS.MANDATORY] = type(mandatory)(left)
    return type(rdata)(
        rdata.rdclass, rdata.rdtype, rdata.priority, rdata.target, params
    )


def _in(rdata: dns.rdata.Rdata) -> Iterator[Address]:
    """Yield the addresses that a record tells, hints included."""
    if isinstance(rdata, _ADDRESSES):
        yield _address(rdata.address)
    elif isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase):
        for key in _HINTS:
            for text in getattr(rdata.params.get(key), "addresses", ()):
                yield _address(text)


def other_names(question: Question, found: Found) -> Iterator[tuple[str, int]]:
    """Yield the names to which an answer leads on (aliases, services), and TTLs."""
    for rrset in found.answer:
        for rdata in rrset:
            if rrset.rdtype == CNAME or rrset.rdtype in _SERVICES:
                name = name_of(rdata.target)
                if name not in ("", question.name):
                    yield name, rrset.ttl


def addressed(
    question: Question, name: str, addresses: Iterable[Address], ttl: int
) -> Found:
    """Return the answer that a name has these addresses, of the family asked for."""
    kind = dns.rdatatype.RdataType.make(question.type)
    version = {A: 4, AAAA: 6}.get(kind)
    told = tuple(addr for addr in addresses if addr.version == version)
    if not told:
        return Found(dns.rcode.NOERROR)
    rrset = dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *map(str, told))
    return Found(dns.rcode.NOERROR, (rrset,), addresses=told)


def aliased(name: str, alias: str, ttl: int) -> dns.rrset.RRset:
    """Return the record that a name is another one."""
    return dns.rrset.from_text(f"{name}.", ttl, "IN", CNAME, f"{alias}.")


def build(question: Question, found: Found, size: int) -> bytes:
    """Return the answer in at most `size` bytes: with TC if it is not all."""
    message = dns.message.make_response(
        question.message, recursion_available=True, our_payload=EDNS_SIZE
    )
    message.set_rcode(found.rcode)
    message.flags |= dns.flags.CD if question.unchecked else 0
    if found.authentic:
        message.flags |= dns.flags.AD
    message.answer.extend(found.answer)
    message.authority.extend(found.authority)
    try:
        return message.to_wire(max_size=size)
    except dns.exception.TooBig:
        message.answer.clear()
        message.authority.clear()
        message.flags |= dns.flags.TC
        return message.to_wire()
