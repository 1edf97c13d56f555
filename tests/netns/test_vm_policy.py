# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine may reach by name, and our resolver for it, behind closed doors."""

import socket
import threading
from contextlib import suppress

from tests.lab import GATEWAY4, HOST4, REMOTE4, Lab
from tests.netns.machine import PATIENCE, passt
from tests.netns.nameserver import NameServer, ask, told
from tests.netns.program import Commands
from tests.netns.resolvers import etc

ANYBODY = "203.0.113.99"  # whom the guest asks for names does not matter
ZONE = (
    f"allowed.example. 300 A {REMOTE4}",
    f"hidden.example. 300 A {REMOTE4}",
)


def _get(sock: socket.socket, host: str) -> bytes:
    """What comes of a request for this host."""
    with suppress(ConnectionError):
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return sock.recv(99)
    return b""


def test_names_are_answered_and_the_client_is_heard(lab: Lab) -> None:
    place, control = lab.dir / "place", lab.dir / "control"
    etc(place, REMOTE4)
    words = ("--allow", "allowed.example", "--control", str(control))

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as peer:
                    peer.settimeout(PATIENCE)
                    if peer.recv(999):
                        peer.sendall(b"hello")

    with (
        NameServer(*ZONE).serving(lab.remote, REMOTE4),
        lab.remote.listen(REMOTE4, 80) as listener,
        passt(lab, *words, place=place) as daemon,
        daemon.cable() as cable,
    ):
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        cable.configure4(f"{HOST4}/24", GATEWAY4)
        for tcp in (False, True):
            answer = ask(cable.guest, ANYBODY, "allowed.example", tcp=tcp)
            assert told(answer) == {REMOTE4}
        with cable.guest.connect(REMOTE4, 80) as sock:
            assert _get(sock, "allowed.example") == b"hello"
        with cable.guest.connect(REMOTE4, 80) as sock:
            assert _get(sock, "hidden.example").startswith(b"HTTP/1.1 403 ")
        asker = Commands(lab, control)
        assert "8080" in asker.say("ports", "add", "tcp:8080:80")
        listener.shutdown(socket.SHUT_RDWR)
