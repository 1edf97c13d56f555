# SPDX-License-Identifier: GPL-2.0-or-later
"""A minute of coming and going leaves nothing; `make soak` takes an hour."""

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from socket import AF_UNIX, socket

import pytest

from tests.soak.deeds import Deed
from tests.soak.held import NOISE_KIB, Held, complaints, growth_kib
from tests.soak.run import PASTA, Clients, soak

SECONDS = 60.0
FEW = 1000

LEAKS = """
import os
print(flush=True)
input()
kept = [bytearray(4096) for _ in range(2000)], os.pipe()
print(flush=True)
input()
"""


def held(had: int, sockets: int = 4, kib: int = 20_000, *flows: str) -> Held:
    return Held(had, Counter(socket=sockets), Counter({"7 [heap]": kib}), flows)


def test_growth_is_the_slope() -> None:
    looks = [held(0), held(100_000, kib=20_030), held(200_000, kib=20_060)]
    assert growth_kib(looks) == pytest.approx(300)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (held(1000, 3, 20_000 + NOISE_KIB), []),
        (held(1000, 6), ["2 descriptors more: socket"]),
        (held(1000, 4, 29_000), ["9000 KiB more: 9000 in 7 [heap]"]),
        (held(1000, 4, 20_000, "tcp"), ["open flow: tcp"]),
        (held(50_000_000, 4, 29_000), []),
    ],
)
def test_what_has_grown_is_named(last: Held, said: list[str]) -> None:
    assert complaints([held(0), last]) == said


def test_what_a_process_keeps_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        looks = []
        for _ in range(2):
            process.stdout.readline()
            looks.append(Held.by([process.pid]))
            process.stdin.write(b"\n")
            process.stdin.flush()
    more, grown = complaints(looks)
    assert more == "2 descriptors more: pipe"
    assert " KiB more: " in grown


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_returns_to_its_start() -> None:
    soaked = soak(SECONDS)
    assert soaked.complaints() == [], soaked.report()
    assert min(looks[-1].had for looks in soaked.held.values()) > FEW


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clients_that_stay_are_found() -> None:
    stayed = ExitStack()

    def stay(clients: Clients) -> dict[str, Deed]:
        def once() -> None:
            sock = stayed.enter_context(socket(AF_UNIX))
            sock.connect(clients[PASTA].path)
            sock.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
            sock.recv(1)

        return {"clients that stay": once}

    with stayed:
        soaked = soak(3, stay)
    # Not what others did: in three seconds they may have done nothing yet
    said = complaints(soaked.held[PASTA])
    assert any(text.endswith("descriptors more: socket") for text in said)
