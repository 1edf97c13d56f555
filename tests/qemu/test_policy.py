# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine under a policy, in which a real kernel and real clients try."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import GATEWAY4, REMOTE4, Lab, TcpServer, tcp_echo
from tests.netns.nameserver import NameServer
from tests.netns.resolvers import etc, with_etc
from tests.qemu.image import Image
from tests.qemu.machine import STREAM, Machine, machine, passt

PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ZONE = f"allowed.example. 300 A {REMOTE4}", f"hidden.example. 300 A {REMOTE4}"
POLICY = """\
version = 1
[[rule]]
to = "allowed.example"
ports = [80, 7001]
action = "allow"
"""


@pytest.fixture(scope="module")
def policed(
    image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("policed")
    folder.chmod(0o755)
    path: Path = folder / "policy.toml"
    path.write_text(POLICY)
    etc(folder, REMOTE4)

    def page(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(PAGE)

    with (
        Lab() as lab,
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        TcpServer(lab.remote, REMOTE4, page, 80),
        tcp_echo(lab.remote, REMOTE4, 7001),
        tcp_echo(lab.remote, REMOTE4, 7002),
        tcp_echo(lab.host, "127.0.0.1", 7001),
        machine(
            lab, image, STREAM, with_etc(folder, [*passt(), "--policy", str(path)])
        ) as made,
    ):
        made.start()
        made.take_lease()
        yield made


HOST = (
    "printf 'GET / HTTP/1.0\\r\\nHost: {}\\r\\n\\r\\n' | "
    f"nc -w 20 {REMOTE4} 80 | grep -o hello"
)
TALK = "nc -w 20 {} {} </dev/null"


def test_an_allowed_name_is_reached(policed: Machine) -> None:
    assert policed.run("wget -q -O - http://allowed.example/") == "hello"
    assert policed.run(HOST.format("allowed.example")) == "hello"
    assert policed.succeeds(TALK.format("allowed.example", 7001))


@pytest.mark.parametrize(
    "command",
    [
        "wget -q -T 20 -O - http://hidden.example/",
        HOST.format("hidden.example"),
        TALK.format(REMOTE4, 7002),
        TALK.format(GATEWAY4, 7001),
        f"ping -c 1 -W 5 {REMOTE4}",
        "nslookup hidden.example",
        f"nslookup hidden.example {REMOTE4}",
    ],
)
def test_nothing_else_is(policed: Machine, command: str) -> None:
    assert not policed.succeeds(command)
