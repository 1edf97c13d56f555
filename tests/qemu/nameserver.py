# SPDX-License-Identifier: GPL-2.0-or-later
"""A name server that knows one name and speaks just enough DNS for nslookup."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.lab import Namespace

NAME = "there.example.com"
ADDRESS4 = "203.0.113.7"
ADDRESS6 = "2001:db8:7::7"

HEADER = 12  # bytes
TYPE_A, TYPE_AAAA = 1, 28
ANSWERS = {
    TYPE_A: socket.inet_pton(socket.AF_INET, ADDRESS4),
    TYPE_AAAA: socket.inet_pton(socket.AF_INET6, ADDRESS6),
}
NO_SUCH_NAME = 3


def answer(query: bytes) -> bytes:
    """The answer to a query with one question (RFC 1035, section 4)."""
    end = query.index(b"\0", HEADER) + 5
    question = query[HEADER:end]
    wanted = b"".join(bytes([len(w)]) + w.encode() for w in NAME.split("."))
    data = ANSWERS.get(int.from_bytes(question[-4:-2]))
    if question[:-5].lower() != wanted or data is None:
        flags, record = 0x8180 | NO_SUCH_NAME, b""
    else:
        flags = 0x8180
        # The name is the one at offset 12; class IN, to be kept for 60 s
        record = b"\xc0\x0c" + question[-4:] + (60).to_bytes(4)
        record += len(data).to_bytes(2) + data
    counts = (1).to_bytes(2) + bool(record).to_bytes(2) + bytes(4)
    return query[:2] + flags.to_bytes(2) + counts + question + record


@contextmanager
def nameserver(where: Namespace, address: str) -> Iterator[None]:
    """Answer queries over UDP."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                query, peer = sock.recvfrom(512)
                sock.sendto(answer(query), peer)

    with where.udp(address, 53) as sock:
        sock.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
