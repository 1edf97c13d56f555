# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that people type: looked up by the command, and told."""

import json
import socket
from typing import Any

import pytest

from passtpy.client import names
from passtpy.client.cli import run
from passtpy.client.connect import ClientError
from passtpy.client.names import Names

ADDRESSES = {
    socket.AF_INET: ["192.0.2.7", "192.0.2.8"],
    socket.AF_INET6: ["2001:db8::7", "fe80::1%eth0"],
}


def lookup(name: str, port: None, family: int, kind: int) -> list[tuple[Any, ...]]:
    assert kind == socket.SOCK_STREAM
    if name != "host.example":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    wanted = [f for f in ADDRESSES if family in (socket.AF_UNSPEC, f)]
    return [(f, kind, 6, "", (addr, 0)) for f in wanted for addr in ADDRESSES[f]]


@pytest.mark.parametrize(
    ("text", "beside", "resolved"),
    [
        ("host.example:443", None, "192.0.2.7:443"),
        ("host.example:443", "198.51.100.1", "192.0.2.7:443"),
        ("host.example:443", "198.51.100.1:9", "192.0.2.7:443"),
        ("host.example:443", "2001:db8::1", "[2001:db8::7]:443"),
        ("host.example:443", "[2001:db8::1]:9", "[2001:db8::7]:443"),
        ("host.example:443", "other.example:9", "192.0.2.7:443"),
        ("192.0.2.1:443", None, "192.0.2.1:443"),
        ("[2001:db8::1]:443", None, "[2001:db8::1]:443"),
        ("2001:db8::1", None, "2001:db8::1"),
        ("host.example", None, "host.example"),
        (":443", None, ":443"),
    ],
)
def test_a_name_becomes_an_address_of_the_right_family(
    text: str, beside: str | None, resolved: str
) -> None:
    assert Names(lookup).resolve(text, beside, needs_port=True) == resolved


def test_what_was_used_is_remembered() -> None:
    it = Names(lookup)
    assert it.resolve("host.example", None, needs_port=False) == "192.0.2.7"
    assert it.resolve("192.0.2.1:1", None, needs_port=True) == "192.0.2.1:1"
    assert it.told == [
        {
            "name": "host.example",
            "address": "192.0.2.7",
            "others": ["192.0.2.8", "2001:db8::7", "fe80::1"],
        }
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.example:80", "nowhere.example: Name or service not known"),
        (f"{'x' * 70}.example:80", "is neither an address nor a name"),
    ],
)
def test_a_name_that_is_none_is_one_line(text: str, message: str) -> None:
    def strict(name: str, *words: Any) -> list[tuple[Any, ...]]:
        name.encode("idna")
        return lookup(name, *words)

    with pytest.raises(ClientError, match=message):
        Names(strict).resolve(text, None, needs_port=True)


def test_explain_says_which_address_it_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(names.Names.__init__, "__defaults__", (lookup,))
    words = ["explain", "host.example:80", "--", "passt", "-a", "192.0.2.5/24"]
    assert run(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "address:   host.example is 192.0.2.7 (and 192.0.2.8, 2001:db8::7, fe80::1)"
    )
    assert run([words[0], "--json", *words[1:]]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resolved"][0]["address"] == "192.0.2.7"
    assert "192.0.2.7" in told["host"]


def test_explain_takes_every_line_that_a_daemon_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["pasta", "--vhost-user", "-s", "/nowhere", "-t", "80:81"]
    assert run(["explain", "192.0.2.9:80", "--from", "host", "--", *line]) == 0
    assert "forward" in capsys.readouterr().out
