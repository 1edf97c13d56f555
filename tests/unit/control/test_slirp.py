# SPDX-License-Identifier: GPL-2.0-or-later
"""slirp4netns' API as transcripts: one request, one answer, known texts."""

import json
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.control.slirp import SlirpApi, SlirpConversation
from tests.unit.control.fakes import Forwards, rule

GUEST = IPv4Address("10.0.2.100")
ANY = IPv4Address(0)


def ask(forwards: Forwards, request: object) -> Any:
    client = SlirpConversation(SlirpApi(forwards, lambda: GUEST))
    raw = request if isinstance(request, bytes) else json.dumps(request).encode()
    said = client.begin() + client.receive(raw) + client.receive(b"")
    assert client.over
    return json.loads(said)


def add(**more: Any) -> dict[str, Any]:
    fields = {"proto": "tcp", "host_port": 8080, "guest_port": 80}
    return {"execute": "add_hostfwd", "arguments": fields | more}


def test_a_forward_is_added_listed_and_removed() -> None:
    forwards = Forwards()
    assert ask(forwards, add()) == {"return": {"id": 1}}
    request = add(proto="udp", host_addr="127.0.0.1", guest_addr="10.0.2.7")
    assert ask(forwards, request) == {"return": {"id": 2}}
    assert forwards.now[0].rules == (
        rule(8080, addr=ANY, delta=-8000),
        rule(
            8080,
            proto=17,
            addr=ip_address("127.0.0.1"),
            delta=-8000,
            target=ip_address("10.0.2.7"),
        ),
    )
    listed = ask(forwards, {"execute": "list_hostfwd"})
    assert listed["entries"] == listed["return"]["entries"]
    assert listed["entries"] == [
        {
            "id": 1,
            "proto": "tcp",
            "host_addr": "0.0.0.0",
            "host_port": 8080,
            "guest_addr": "10.0.2.100",
            "guest_port": 80,
        },
        {
            "id": 2,
            "proto": "udp",
            "host_addr": "127.0.0.1",
            "host_port": 8080,
            "guest_addr": "10.0.2.7",
            "guest_port": 80,
        },
    ]
    remove = {"execute": "remove_hostfwd", "arguments": {"id": 1}}
    assert ask(forwards, remove) == {"return": {}}
    assert len(list(forwards.now[0].rules)) == 1
    assert "slirp_remove_hostfwd failed" in ask(forwards, remove)["error"]["desc"]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (b"{", "cannot parse JSON"),
        (b"[" * 4000, "cannot parse JSON"),
        (b"", "cannot parse JSON"),
        ([], "no execute found"),
        ({}, "no execute found"),
        ({"execute": 3}, "no execute found"),
        ({"execute": "x"}, "unknown execute"),
        (b" " * 4096, "too large message"),
        (add(proto="sctp"), "add_hostfwd: bad arguments.proto"),
        (add(host_addr="x"), "add_hostfwd: bad arguments.host_addr"),
        (add(host_port=0), "add_hostfwd: bad arguments.host_port"),
        (add(host_port="80"), "add_hostfwd: bad arguments.host_port"),
        (add(host_port=True), "add_hostfwd: bad arguments.host_port"),
        (add(guest_addr=7), "add_hostfwd: bad arguments.guest_addr"),
        (add(guest_port=65536), "add_hostfwd: bad arguments.guest_port"),
        ({"execute": "remove_hostfwd"}, "remove_hostfwd: bad arguments.id"),
    ],
)
def test_bad_requests_have_known_texts(request_: object, text: str) -> None:
    forwards = Forwards()
    assert ask(forwards, request_) == {"error": {"desc": f"bad request: {text}"}}
    assert not forwards.asked


def test_a_port_that_is_taken_is_told() -> None:
    forwards = Forwards(rule(8080))
    text = "bad request: add_hostfwd: slirp_add_hostfwd failed"
    assert ask(forwards, add()) == {"error": {"desc": text}}
    forwards = Forwards()
    forwards.reasons = ("in use",)
    assert ask(forwards, add()) == {"error": {"desc": text}}


def test_the_answer_waits_for_the_socket() -> None:
    forwards = Forwards()
    forwards.waits = True
    client = SlirpConversation(SlirpApi(forwards, lambda: GUEST))
    client.receive(json.dumps(add()).encode())
    assert not client.receive(b"")
    assert forwards.applied is not None
    forwards.applied(())
    assert json.loads(client.more()) == {"return": {"id": 1}}


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    client = SlirpConversation(SlirpApi(Forwards(), lambda: GUEST))
    for piece in (*pieces, b""):
        client.receive(piece)
    assert client.over
