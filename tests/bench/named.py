# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about names: answers of our resolver beside a stream; what inspecting costs.

Both compare us with us, in pairs that are measured one after the other.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import dns.message

from tests.bench.cell import Cell
from tests.bench.measure import Metrics, Stream
from tests.bench.row import Metric, Row, Target
from tests.lab import REMOTE4, Attached, Attachment
from tests.lab.namespace import Namespace
from tests.netns.nameserver import NameServer

NAME = "allowed.example"
PAIRS = 5
DNS_RATE = 5500  # questions a second
SETTLE = 1.0
UPSTREAM = ("--dns-host", REMOTE4)
RECORD = f"{NAME}. 3600 A {REMOTE4}"
BY_NAME = (*UPSTREAM, "--allow", NAME)
WEB_PORT = 80
_ports = itertools.count(46000)

# Asks at an even rate, SECONDS long; says how many answers came each second
ASK = """
import json, socket, sys, time
question, rate = bytes.fromhex(sys.argv[1]), int(sys.argv[2])
seconds = float(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
sock.connect(("203.0.113.99", 53))
sock.setblocking(False)
start = time.monotonic()
sent = came = 0
while (passed := time.monotonic() - start) < seconds:
    while sent < passed * rate:
        sock.send((sent % 65536).to_bytes(2, "big") + question[2:])
        sent += 1
    try:
        while sock.recv(2048):
            came += 1
    except BlockingIOError:
        time.sleep(0.002)
print(json.dumps({"answers": came / seconds}), flush=True)
"""
SERVE = f"""
import socket
server = socket.create_server(("{REMOTE4}", {WEB_PORT}), backlog=1024)
while True:
    sock, _ = server.accept()
    with sock:
        if sock.recv(4096):
            sock.send(b"HTTP/1.1 204 No Content\\r\\nConnection: close\\r\\n\\r\\n")
"""
# Connects, asks, reads to the end, on and on; says how often a second
VISIT = f"""
import json, socket, sys, time
request = b"GET / HTTP/1.1\\r\\nHost: {NAME}\\r\\n\\r\\n"
seconds, done = float(sys.argv[1]), 0
start = time.monotonic()
while time.monotonic() - start < seconds:
    with socket.create_connection(("{REMOTE4}", {WEB_PORT}), 20) as sock:
        sock.sendall(request)
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 204"), answer
        assert not sock.recv(1)
        done += 1
print(json.dumps({{"visits": done / (time.monotonic() - start)}}), flush=True)
"""


@contextmanager
def guest_with(cell: Cell, *extra: str) -> Iterator[Attached]:
    """A fresh guest of ours with these options, that has asked for the name."""
    lab = cell.lab
    guest = lab.guest()
    options = Attachment(extra=extra)
    argv = cell.translator.attach_command(guest, options)
    attached = Attached(lab, guest, lab.start(lab.host, *argv))
    try:
        attached.wait_ready(options)
        time.sleep(SETTLE)  # what is imported between packets
        if UPSTREAM[0] in extra:
            assert _ask(guest, 100, 1)["answers"]
        yield attached
    finally:
        attached.close()


def _said(where: Namespace, script: str, *words: str) -> dict[str, float]:
    done = where.run(sys.executable, "-c", script, *words, timeout=60)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _question() -> str:
    return dns.message.make_query(NAME, "A").to_wire().hex()


def _ask(guest: Namespace, rate: int, seconds: float) -> dict[str, float]:
    return _said(guest, ASK, _question(), str(rate), str(seconds))


def answers(cell: Cell) -> Metrics:
    """A stream of the guest alone, and beside its questions."""
    with (
        NameServer(RECORD).serving(cell.lab.remote, REMOTE4),
        guest_with(cell, *BY_NAME, "--allow", REMOTE4) as attached,
    ):
        inside = replace(cell, attached=attached, ports=_ports)
        cpu = attached.cpu_seconds()
        alone = _ask(attached.guest, DNS_RATE, cell.seconds)["answers"] * cell.seconds
        cpu = attached.cpu_seconds() - cpu
        stream = Stream(to_client=False)
        kept, counts = [], []
        for _ in range(PAIRS):
            undisturbed = stream(inside)["gbit"]
            words = (ASK, _question(), str(DNS_RATE), str(cell.seconds + 1.5))
            asking = cell.lab.start(attached.guest, sys.executable, "-c", *words)
            beside = stream(inside)["gbit"]
            asking.wait(60)
            counts.append(json.loads(asking.stdout())["answers"])
            kept.append(beside / undisturbed)
    return {
        "answers": median(counts),
        "kept": median(kept),
        "answer_us": cpu / alone * 1e6,
    }


def visits(cell: Cell) -> Metrics:
    """Connections with a request each: without a policy, and where a name is read."""
    server = cell.lab.start(cell.lab.remote, sys.executable, "-c", SERVE)
    try:
        cell.lab.remote.wait_bound("tcp", WEB_PORT)
        with (
            NameServer(RECORD).serving(cell.lab.remote, REMOTE4),
            guest_with(cell) as plain,
            guest_with(cell, *BY_NAME) as named,
        ):
            pairs = [
                tuple(
                    _said(it.guest, VISIT, str(cell.seconds))["visits"]
                    for it in (plain, named)
                )
                for _ in range(PAIRS)
            ]
    finally:
        server.stop()
    return {
        "plain": median(plain for plain, _ in pairs),
        "named": median(named for _, named in pairs),
        "kept": median(named / plain for plain, named in pairs),
    }


def _row(key: str, title: str, metrics: Sequence[Metric], *targets: Target) -> Row:
    measure = {"dns": answers, "inspect": visits}[key]
    return Row(
        f"policy-{key}",
        "policy",
        title,
        measure,
        tuple(metrics),
        targets,
        quick=True,
        without=("direct", "pasta", "slirp4netns"),
    )


def named_rows() -> Iterator[Row]:
    """Names that are asked for, and names that are read."""
    yield _row(
        "dns",
        f"{DNS_RATE} cached DNS questions/s beside a stream",
        (
            Metric("answers", "answers/s", 0),
            Metric("kept", "× stream alone", 2),
            Metric("answer_us", "CPU of an answer, without it, µs"),
        ),
        Target("answers", 5000, at_least=True),
        Target("kept", 0.9, at_least=True),
    )
    yield _row(
        "inspect",
        "connect, request, close to a name's port 80",
        (
            Metric("plain", "without a policy, /s", 0),
            Metric("named", "inspected, /s", 0),
            Metric("kept", "× without", 2),
        ),
        Target("kept", 0.7, at_least=True),
    )
