# SPDX-License-Identifier: GPL-2.0-or-later
"""gvproxy's services as its callers use them."""

import json
from ipaddress import ip_address
from typing import Any

import pytest

from passtpy.control.gvproxy import GVPROXY_VERBS, Services, as_text
from passtpy.control.http import Conversation, Router
from tests.unit.control.fakes import Forwards, rule
from tests.unit.control.test_http import request, split

GUEST = ip_address("192.168.127.2")


def ask(
    forwards: Forwards, method: str, target: str, body: object = None
) -> tuple[int, bytes]:
    services = Services(
        forwards,
        lambda: GUEST,
        lambda: {GUEST: bytes.fromhex("5a94ef e40cee")},
        lambda: {"tap_tx_bytes": 7, "tap_rx_bytes": 9},
    )

    def failed(at: str, error: Exception) -> None:
        raise error

    client = Conversation(Router(GVPROXY_VERBS, services, failed, as_text))
    return split(client.receive(request(method, target, body)))


def expose(forwards: Forwards, **body: Any) -> tuple[int, bytes]:
    return ask(forwards, "POST", "/services/forwarder/expose", body)


def test_ports_are_exposed_listed_and_unexposed() -> None:
    forwards = Forwards()
    assert expose(forwards, local=":8080", remote="192.168.127.2:80") == (200, b"")
    told = expose(
        forwards,
        local="127.0.0.1:53",
        remote="192.168.127.9:54",
        protocol="udp",
        unknown="ignored",
    )
    assert told == (200, b"")
    assert forwards.now[0].rules == (
        rule(8080, delta=-8000),
        rule(
            53,
            proto=17,
            addr=ip_address("127.0.0.1"),
            delta=1,
            target=ip_address("192.168.127.9"),
        ),
    )
    raw = ask(forwards, "GET", "/services/forwarder/all")[1]
    assert json.loads(raw) == [
        {"local": ":8080", "remote": "192.168.127.2:80", "protocol": "tcp"},
        {"local": "127.0.0.1:53", "remote": "192.168.127.9:54", "protocol": "udp"},
    ]
    body = {"local": ":8080"}
    path = "/services/forwarder/unexpose"
    assert ask(forwards, "POST", path, body) == (200, b"")
    assert len(list(forwards.now[0].rules)) == 1
    assert ask(forwards, "POST", path, body) == (500, b"proxy not found\n")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"local": ":80"}, 400, "remote is missing"),
        ({"local": ":x", "remote": "1.2.3.4:5"}, 500, "local: no port in ':x'"),
        ({"local": ":80", "remote": "a:5"}, 500, "remote: 'a' is no address"),
        (
            {"local": ":80", "remote": "1.2.3.4:5", "protocol": "npipe"},
            500,
            "npipe: Windows has named pipes, use unix",
        ),
        (
            {"local": ":80", "remote": ":5", "protocol": "sctp"},
            500,
            "unsupported protocol sctp",
        ),
        ({"local": ":22", "remote": "192.168.127.2:22"}, 500, "proxy already running"),
    ],
)
def test_errors_are_text(body: dict[str, Any], status: int, text: str) -> None:
    assert expose(Forwards(rule(22)), **body) == (status, f"{text}\n".encode())


def test_unix_sockets_are_exposed_listed_and_unexposed() -> None:
    forwards = Forwards(rule(22))
    ends = {"local": "/run/x/docker.sock", "remote": "tcp://192.168.127.2:2375"}
    whole = ends | {"protocol": "unix"}
    assert expose(forwards, **whole) == (200, b"")
    at = {"path": "/run/x/docker.sock"}
    assert list(forwards.now[0].rules) == [rule(22), rule(2375, **at)]
    raw = ask(forwards, "GET", "/services/forwarder/all")[1]
    assert whole in json.loads(raw)
    assert expose(forwards, **whole) == (500, b"proxy already running\n")
    path = "/services/forwarder/unexpose"
    body = {"local": ends["local"], "protocol": "unix"}
    assert ask(forwards, "POST", path, body) == (200, b"")
    assert list(forwards.now[0].rules) == [rule(22)]
    assert ask(forwards, "POST", path, body) == (500, b"proxy not found\n")


def test_a_unix_socket_that_cannot_be_made_is_told() -> None:
    forwards = Forwards()
    forwards.reasons = ("unix:/x: only at start, or with --unix-folder",)
    told = expose(forwards, local="/x", remote="tcp://:80", protocol="unix")
    assert told == (500, f"{forwards.reasons[0]}\n".encode())


@pytest.mark.parametrize(
    ("local", "remote", "text"),
    [
        ("x.sock", "tcp://:80", "local: 'x.sock': not the absolute path of a socket"),
        ("/" + "x" * 200, "tcp://:80", "201 bytes, more than 107"),
        ("@x", "tcp://:80", "local: '@x': an abstract name has no permissions"),
        ("/x", ":80", "remote: ':80' is not tcp://ADDR:PORT"),
        ("/x", "ssh-tunnel://core@192.168.127.2:22/run/podman.sock?key=/k",
         "is not tcp://ADDR:PORT"),
        ("/x", "tcp://192.168.127.9:80",
         "remote: a UNIX socket leads to the guest itself"),
        ("/x", "tcp://192.168.127.2", "remote: no port in '192.168.127.2'"),
    ],
)  # fmt: skip
def test_unix_sockets_that_are_refused(local: str, remote: str, text: str) -> None:
    forwards = Forwards()
    status, told = expose(forwards, local=local, remote=remote, protocol="unix")
    assert (status, text in told.decode()) == (500, True), told
    assert forwards.asked == []


def test_wrong_methods_and_bodies_are_bad_requests() -> None:
    assert ask(Forwards(), "GET", "/services/forwarder/expose")[0] == 400
    assert ask(Forwards(), "POST", "/services/forwarder/expose", [1])[0] == 400


@pytest.mark.parametrize("path", ["/services/dhcp/leases", "/leases"])
def test_leases(path: str) -> None:
    told = json.loads(ask(Forwards(), "GET", path)[1])
    assert told == {"192.168.127.2": "5a:94:ef:e4:0c:ee"}


def test_statistics_and_zones() -> None:
    told = json.loads(ask(Forwards(), "GET", "/stats")[1])
    assert (told["BytesSent"], told["BytesReceived"]) == (7, 9)
    assert json.loads(ask(Forwards(), "GET", "/services/dns/all")[1]) == []
