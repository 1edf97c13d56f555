# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports of sockets that were opened before we were: `-t fd:NAME`."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab import HOST4, Lab, Passtpy, exchange, tcp_echo
from tests.netns.program import wait_for


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def activated(
    lab: Lab, words: list[str], **socks: socket.socket
) -> subprocess.Popen[str]:
    """Start pasta as systemd does: sockets from 3 on, and variables that tell."""
    fds = [sock.fileno() for sock in socks.values()]
    moves = " ".join(f"{3 + nth}<&{fd}" for nth, fd in enumerate(fds))
    closed = " ".join(f"{fd}<&-" for fd in fds)
    names = ":".join(name.rstrip("_") for name in socks)
    line = (
        f"exec {moves} {closed}; export LISTEN_PID=$$ LISTEN_FDS={len(fds)}"
        f" LISTEN_FDNAMES={names}; exec {shlex.join([Passtpy().program, *words])}"
    )
    return subprocess.Popen(
        lab.host.command(["bash", "-c", line]),
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listener(lab: Lab, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """What a .socket unit opens: for both families, below any number of ours."""
    sock = lab.host.new_socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(5)
    return sock


def test_a_passed_socket_is_forwarded(lab: Lab) -> None:
    guest = lab.guest()
    with listener(lab) as web, listener(lab, socket.SOCK_DGRAM) as names:
        words = ["-f", "-q", "--config-net", "--netns", str(guest.path)]
        words += ["-t", "fd:web:80", "-u", "fd:web:53"]
        port, names_port = web.getsockname()[1], names.getsockname()[1]
        # Who asks before we are there waits in the queue
        with (
            tcp_echo(guest, "0.0.0.0", 80),
            lab.remote.connect(HOST4, port) as early,
        ):
            running = activated(lab, words, web=web, web_=names)
            web.close()
            names.close()
            try:
                wait_for(guest.has_route4, "the guest is configured")
                assert exchange(early, b"early") == b"early"
                with lab.remote.connect(HOST4, port) as sock:
                    assert exchange(sock, b"hello") == b"hello"
                with (
                    guest.new_socket(kind=socket.SOCK_DGRAM) as server,
                    lab.remote.new_socket(kind=socket.SOCK_DGRAM) as client,
                ):
                    server.bind(("0.0.0.0", 53))
                    client.sendto(b"question", (HOST4, names_port))
                    _, where = server.recvfrom(99)
                    server.sendto(b"answer", where)
                    assert client.recvfrom(99) == (b"answer", (HOST4, names_port))
            finally:
                running.terminate()
                running.communicate(timeout=60)
        assert running.returncode == 0


def test_a_command_inherits_neither_sockets_nor_their_names(lab: Lab) -> None:
    with listener(lab) as web, listener(lab) as other:
        words = ["-q", "-t", "fd:web", "--", "sh", "-c"]
        words += ["ls /proc/self/fd; env | grep LISTEN"]
        done = activated(lab, words, web=web, other=other)
        out, err = done.communicate(timeout=60)
    assert err == ""
    assert out.split() == ["0", "1", "2", "3"]  # the last one is ls's own


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-t", "fd:site"], "-t fd:site: no listening TCP socket was passed"),
        (["-u", "fd:web"], "-u fd:web: no UDP socket was passed by this name"),
        (["-t", "fd:web", "-t", "fd:web"], "Forwarding configuration conflict"),
    ],
)
def test_what_was_not_passed_is_told(lab: Lab, words: list[str], line: str) -> None:
    with listener(lab) as web:
        done = activated(lab, ["-q", *words, "--", "true"], web=web)
        _, err = done.communicate(timeout=60)
    assert done.returncode == 1
    assert err.startswith(f"pasta: {line}")


def test_in_the_background_the_sockets_stay_open(lab: Lab) -> None:
    guest = lab.guest()
    pid_file = lab.dir / "pid"
    with listener(lab) as web:
        port = web.getsockname()[1]
        words = ["-q", "--config-net", "--netns", str(guest.path), "-P", str(pid_file)]
        starter = activated(lab, [*words, "-t", "fd:web:80"], web=web)
    assert starter.communicate(timeout=60) == ("", "")
    try:
        with tcp_echo(guest, "0.0.0.0", 80), lab.remote.connect(HOST4, port) as sock:
            assert exchange(sock, b"hello") == b"hello"
    finally:
        os.kill(int(pid_file.read_text()), 15)
