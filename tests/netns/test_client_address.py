# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom a server takes for its client: the table of docs/forwarding.md, row by row."""

import socket
from typing import NamedTuple

import pytest

from tests.lab import GATEWAY4, HOST4, HOST6, REMOTE4, REMOTE6, Attached, Lab
from tests.lab.namespace import family_of
from tests.netns.test_forward import attached

INWARD, OUTWARD = 8000, 8100
SAME = "same port"  # as the client's; else of the kernel's choice


class Row(NamedTuple):
    """Who connects to what, and who that seems to be."""

    source: str  # the client is bound to it
    to: str
    seen: str
    port: str = ""
    options: tuple[str, ...] = ()
    at: str = "0.0.0.0"  # where the server listens
    outward: bool = False


KEEP, NO_SPLICE = ("--preserve-source",), ("--no-splice",)
ROWS = {
    "another machine": Row(REMOTE4, HOST4, REMOTE4, SAME),
    "another machine, IPv6": Row(REMOTE6, HOST6, REMOTE6, SAME, at="::"),
    "loopback": Row("127.0.0.9", "127.0.0.1", HOST4),
    "loopback, kept": Row("127.0.0.9", "127.0.0.1", "127.0.0.9", options=KEEP),
    "loopback, tap": Row("127.0.0.1", "127.0.0.1", GATEWAY4, SAME, NO_SPLICE),
    "shared address": Row(HOST4, HOST4, GATEWAY4, SAME),
    "shared address, kept": Row(HOST4, HOST4, HOST4, options=KEEP),
    "outward": Row("127.0.0.8", "127.0.0.1", "127.0.0.8", at="127.0.0.1", outward=True),
    "other family": Row(REMOTE6, HOST6, GATEWAY4, SAME),
}


def seen(lab: Lab, it: Attached, row: Row) -> tuple[str, bool]:
    """The client's address as its server sees it, and whether its port is the same."""
    near, far = (it.guest, lab.host) if row.outward else (lab.host, it.guest)
    port = OUTWARD if row.outward else INWARD
    if row.source in (REMOTE4, REMOTE6):
        near = lab.remote
    with (
        far.new_socket(family_of(row.at)) as server,
        near.new_socket(family_of(row.to)) as client,
    ):
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((row.at, port))
        server.listen()
        client.bind((row.source, 0))
        client.connect((row.to, port))
        accepted, peer = server.accept()
        accepted.close()
        return peer[0], peer[1] == client.getsockname()[1]


@pytest.mark.parametrize("name", ROWS)
def test_server_sees_what_the_table_says(name: str) -> None:
    row = ROWS[name]
    options = ("-t", str(INWARD), "-T", str(OUTWARD), *row.options)
    with attached(*options) as (lab, it):
        address, same = seen(lab, it, row)
    assert address == row.seen
    assert same or row.port != SAME
