# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets of the host as ends of forwards, with clients and servers as people use.

The daemon was started by root and becomes nobody: so the folder is everybody's, and so
is the socket of the server.
"""

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.lab import GATEWAY4, HOST4
from tests.netns.test_forward import attached

SOON = 30.0
PORT = 8000


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which everybody may do anything."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def curl(*words: str) -> list[str]:
    return ["curl", "-sS", "--max-time", str(SOON), *words]


def answer_one(server: socket.socket) -> str:
    """Answer a request with whom it comes from; return that."""
    conn, peer = server.accept()
    with conn:
        conn.settimeout(SOON)
        request = b""
        while b"\r\n\r\n" not in request:
            piece = conn.recv(65536)
            assert piece, "the request ended early"
            request += piece
        who = str(peer[0]) if peer else "somebody"
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(who)}\r\n\r\n"
        conn.sendall((head + who).encode())
        return who


@pytest.mark.parametrize(
    ("options", "seen"),
    [((), HOST4), (("--no-splice",), GATEWAY4)],
    ids=["spliced", "tap"],
)
def test_curl_reaches_the_guest_by_a_unix_socket(
    folder: Path, options: tuple[str, ...], seen: str
) -> None:
    path = folder / "web.sock"
    with (
        attached("-t", f"unix:{path}:{PORT},mode=640", *options) as (_, it),
        it.guest.new_socket(socket.AF_INET) as server,
    ):
        assert path.lstat().st_mode & 0o777 == 0o640
        server.bind(("0.0.0.0", PORT))
        server.listen()
        server.settimeout(SOON)
        request = curl("--unix-socket", str(path), "http://guest/")
        with subprocess.Popen(request, stdout=subprocess.PIPE, text=True) as asking:
            answer_one(server)
            told, _ = asking.communicate(timeout=SOON)
    assert told == seen


def test_curl_of_the_guest_reaches_a_unix_socket_of_the_host(folder: Path) -> None:
    path = folder / "docker.sock"
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        server.bind(str(path))
        server.listen()
        server.settimeout(SOON)
        os.chmod(path, 0o666)
        _, it = stack.enter_context(attached("-T", f"2375:unix:{path}"))
        told = []
        for url in ("http://127.0.0.1:2375/", "http://[::1]:2375/"):
            answering = threading.Thread(target=answer_one, args=(server,))
            answering.start()
            asked = it.guest.command(curl(url))
            told.append(subprocess.check_output(asked, text=True, timeout=SOON))
            answering.join()
        server.close()
        path.unlink()
        refused = it.guest.command(curl("http://127.0.0.1:2375/"))
        failed = subprocess.run(refused, capture_output=True, timeout=SOON)
    assert told == ["somebody", "somebody"]
    # A reset, which curl may meet at any of its steps; never a success, nor a time-out
    assert failed.returncode not in (0, 28), failed.stderr
    assert failed.stdout == b""
