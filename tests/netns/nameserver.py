# SPDX-License-Identifier: GPL-2.0-or-later
"""A real name server of a test's remote host, and questions that a guest asks."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from tests.lab import Namespace
from tests.lab.namespace import family_of
from tests.netns.resolvers import answering

PATIENCE_S = 30.0
AGAIN_S = 5.0


class NameServer:
    """Answers from a few lines of a zone file; counts what it was asked."""

    def __init__(self, *records: str, truncate: bool = False) -> None:
        self.records = [_record(text) for text in records]
        self.asked: list[str] = []
        self.over_tcp = 0
        self._heard: set[tuple[object, bytes]] = set()
        self._truncate = truncate

    def answer(self, data: bytes, tcp: bool, peer: object = None) -> bytes:
        query = dns.message.from_wire(data)
        asked = query.question[0]
        if tcp or (peer, data) not in self._heard:  # else the same, sent again
            self.asked.append(asked.name.to_text().lower())
        self._heard.add((peer, data))
        self.over_tcp += tcp
        answer = dns.message.make_response(query)
        if self._truncate and not tcp:
            answer.flags |= dns.flags.TC
            return answer.to_wire()
        name = asked.name
        for record in self.records * 2:  # aliases may be told in any order
            if record.name == name and record not in answer.answer:
                if record.rdtype == dns.rdatatype.CNAME:
                    answer.answer.append(record)
                    name = record[0].target
                elif record.rdtype == asked.rdtype:
                    answer.answer.append(record)
        if not any(record.name == asked.name for record in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()

    @contextmanager
    def serving(self, where: Namespace, address: str) -> Iterator["NameServer"]:
        """Answer at an address, over both transports."""
        with answering(where, address, (53,), self._answer):
            yield self

    def _answer(self, sock: socket.socket) -> None:
        if sock.type == socket.SOCK_DGRAM:
            data, peer = sock.recvfrom(4096)
            sock.sendto(self.answer(data, False, peer), peer)
            return
        with sock.accept()[0] as peer_sock:
            peer_sock.settimeout(PATIENCE_S)
            query, _ = dns.query.receive_tcp(peer_sock)
            wire = self.answer(query.to_wire(), True)
            peer_sock.sendall(len(wire).to_bytes(2, "big") + wire)


def _record(text: str) -> dns.rrset.RRset:
    name, ttl, kind, *data = text.split()
    return dns.rrset.from_text(name, int(ttl), "IN", kind, " ".join(data))


def ask(
    guest: Namespace,
    address: str,
    name: str,
    kind: str = "A",
    tcp: bool = False,
    patience: float = PATIENCE_S,
) -> dns.message.Message:
    """Let the guest ask a server; the answer."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    type_ = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with guest.new_socket(family_of(address), type_) as sock:
        sock.settimeout(patience)
        sock.connect((address, 53))
        if tcp:
            dns.query.send_tcp(sock, query)
            return dns.query.receive_tcp(sock)[0]
        answer = dns.message.from_wire(_asked(sock, query.to_wire(), patience))
    assert query.is_response(answer)
    return answer


def _asked(sock: socket.socket, query: bytes, patience: float) -> bytes:
    """What comes back; a question that is lost is asked again, as resolvers do."""
    deadline = time.monotonic() + patience
    while True:
        sock.send(query)
        left = deadline - time.monotonic()
        sock.settimeout(max(0.01, min(AGAIN_S, left)))
        try:
            return sock.recv(4096)
        except TimeoutError:
            if left <= AGAIN_S:
                raise


def told(answer: dns.message.Message) -> set[str]:
    """What an answer says: the last word of each of its records."""
    return {rd.to_text() for rrset in answer.answer for rd in rrset}
