# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to ports 80 and 443 of a name: the server that the client names counts.

Two names share an address here, as at any large host. One of them is allowed.
"""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab import REMOTE4, Lab, Namespace, wait_until
from tests.netns.nameserver import NameServer, ask
from tests.netns.policed import ANYBODY, SOON, Policed, policed

SECOND4 = "198.51.100.7"
ZONE = (
    f"allowed.example. 300 A {REMOTE4}",
    f"hidden.example. 300 A {REMOTE4}",
    f"second.example. 300 A {SECOND4}",
)
ALLOW = ("--allow", "allowed.example", "--allow", "second.example")
BULK = 1 << 20


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.remote.ip("addr", "add", f"{SECOND4}/32", "dev", "lo")
        yield made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = folder / "key", folder / "cert"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x", "-days", "2"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


class Servers:
    """TLS on port 443, plain HTTP on port 80: each says at which address it is."""

    def __init__(self, where: Namespace, certificate: tuple[Path, Path]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._stack = ExitStack()
        self.accepted = 0
        for address in (REMOTE4, SECOND4):
            for port in (80, 443):
                sock = where.listen(address, port)
                self._stack.callback(sock.close)
                args = sock, address, port == 443
                threading.Thread(target=self._serve, args=args, daemon=True).start()

    def close(self) -> None:
        self._stack.close()

    def _serve(self, listener: socket.socket, address: str, tls: bool) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.accepted += 1
                args = sock, address, tls
                threading.Thread(target=self._answer, args=args, daemon=True).start()

    def _answer(self, sock: socket.socket, address: str, tls: bool) -> None:
        page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
        with ExitStack() as stack, suppress(OSError):
            stack.enter_context(sock)
            sock.settimeout(SOON)
            if tls:
                sock = self._context.wrap_socket(sock, server_side=True)
                stack.enter_context(sock)
            while request := sock.recv(1 << 16):
                if request.startswith(b"GET /bulk "):
                    sock.sendall(page % (BULK, b"x" * BULK))
                else:
                    sock.sendall(page % (len(address), address.encode()))


@contextmanager
def named(
    lab: Lab, certificate: tuple[Path, Path]
) -> Iterator[tuple[Policed, Servers]]:
    """A guest that may reach two of the three names, and knows where they are."""
    servers = Servers(lab.remote, certificate)
    try:
        with (
            NameServer(*ZONE).serving(lab.remote, REMOTE4),
            policed(lab, *ALLOW, resolv=(REMOTE4,)) as it,
        ):
            for name in ("allowed.example", "second.example"):
                assert ask(it.guest, ANYBODY, name).answer
            yield it, servers
    finally:
        servers.close()


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def over_tls(
    guest: Namespace, address: str, name: str | None, path: str = "/"
) -> bytes:
    """What is read over TLS, the head cut off; the alert or error if it is refused."""
    with guest.connect(address, 443) as plain:
        plain.settimeout(SOON)
        with _context().wrap_socket(plain, server_hostname=name) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return _body(sock)


def _body(sock: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(1 << 16)
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].split()[0])
    while len(body) < length:
        body += sock.recv(1 << 16)
    return body


def over_http(guest: Namespace, address: str, *requests: bytes) -> bytes:
    """All that is answered to these pieces of a request, until it ends."""
    with guest.connect(address, 80) as sock:
        sock.settimeout(SOON)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in requests:
            sock.sendall(each)
        got = b""
        with suppress(ConnectionResetError):
            while piece := sock.recv(1 << 16):
                got += piece
                if got.endswith((REMOTE4.encode(), SECOND4.encode())):
                    break
        return got


Guests = tuple[Policed, Servers]


@pytest.fixture(scope="module")
def served(lab: Lab, certificate: tuple[Path, Path]) -> Iterator[Guests]:
    with named(lab, certificate) as made:
        yield made


def test_an_allowed_name_is_reached(served: Guests) -> None:
    it, _ = served
    assert over_tls(it.guest, REMOTE4, "allowed.example") == REMOTE4.encode()
    assert over_tls(it.guest, REMOTE4, "Allowed.Example") == REMOTE4.encode()
    get = b"GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
    assert over_http(it.guest, REMOTE4, get).endswith(REMOTE4.encode())


def test_much_comes_through_whole(served: Guests) -> None:
    it, _ = served
    got = over_tls(it.guest, REMOTE4, "allowed.example", "/bulk")
    assert got == b"x" * BULK


def test_another_name_at_the_same_address_is_not(served: Guests) -> None:
    it, servers = served
    before = servers.accepted
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        over_tls(it.guest, REMOTE4, "hidden.example")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        over_tls(it.guest, REMOTE4, None)
    get = b"GET / HTTP/1.1\r\nHost: hidden.example\r\n\r\n"
    assert over_http(it.guest, REMOTE4, get).startswith(b"HTTP/1.1 403 Forbidden")
    assert servers.accepted == before  # nothing left the host
    it.wait_refused("hidden.example is not allowed", port=443)


def test_a_name_is_reached_where_it_is_whatever_was_dialled(served: Guests) -> None:
    it, _ = served
    assert over_tls(it.guest, REMOTE4, "second.example") == SECOND4.encode()
    assert over_tls(it.guest, SECOND4, "allowed.example") == REMOTE4.encode()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://hidden.example/ HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: allowed.example\r\nHost: hidden.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: allowed.example.\r\n hidden.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\nHost: hidden\r\nHost: allowed.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: allowed.example@hidden.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: allowed.example\0hidden.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: xn--llowed-cua.example\r\n\r\n",
        b"CONNECT hidden.example:443 HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\0\1\2\3",
    ],
)
def test_no_trick_with_a_request_reaches_anybody(
    served: Guests, request_: bytes
) -> None:
    it, servers = served
    before = servers.accepted
    got = over_http(it.guest, REMOTE4, request_)
    assert not got or got.startswith(b"HTTP/1.1 403 Forbidden")
    assert servers.accepted == before


def test_it_may_come_byte_by_byte(served: Guests) -> None:
    it, _ = served
    get = b"GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
    pieces = [get[at : at + 1] for at in range(len(get))]
    assert over_http(it.guest, REMOTE4, *pieces).endswith(REMOTE4.encode())


def test_its_first_request_decides_about_a_connection(served: Guests) -> None:
    """Known, and told in docs/policy.md: a later request may say another host."""
    it, _ = served
    with it.guest.connect(REMOTE4, 80) as sock:
        sock.settimeout(SOON)
        for host in (b"allowed.example", b"hidden.example"):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
            assert _body(sock) == REMOTE4.encode()


def test_who_leaves_before_it_says_anything_leaves_nothing_behind(
    served: Guests,
) -> None:
    it, servers = served
    before = servers.accepted
    for _ in range(50):
        it.guest.connect(REMOTE4, 443).close()
    wait_until(lambda: it.counters()["inspected"] >= 50, SOON, "50 inspected")
    wait_until(lambda: not it.say("flows").count(":443"), SOON, "no flows left")
    assert servers.accepted == before


def test_curl_says_why(served: Guests) -> None:
    it, _ = served
    hosts = ("--resolve", f"hidden.example:443:{REMOTE4}", "--max-time", "60", "-k")
    words = ["curl", "-sS", *hosts, "https://hidden.example/"]
    done = it.guest.run(*words, check=False)
    assert "unrecognized name" in done.stderr
    place = ("--resolve", f"hidden.example:80:{REMOTE4}", "--max-time", "60")
    done = it.guest.run("curl", "-sS", *place, "http://hidden.example/", check=False)
    assert "refused by policy: hidden.example is not allowed" in done.stdout
