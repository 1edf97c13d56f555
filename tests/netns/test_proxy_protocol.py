# SPDX-License-Identifier: GPL-2.0-or-later
"""Real servers in a namespace are told who their client is: PROXY protocol v1, v2."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import HOST4, HOST6, Attached, Lab
from tests.netns.nginx import nginx
from tests.netns.test_forward import attached

SERVERS = {"nginx": 9000, "haproxy": 9001}
PORTS = {("nginx", 1): 8000, ("nginx", 2): 8001, ("haproxy", 1): 8002}
PORTS["haproxy", 2] = 8003
FORWARDS = [
    word
    for (server, version), port in PORTS.items()
    for word in ("-t", f"{port}:{SERVERS[server]},proxy=v{version}")
]
SOON = 30.0

HTTP = """\
    server {
        listen 9000 proxy_protocol;
        listen [::]:9000 ipv6only=on proxy_protocol;
        location / {
            return 200 "$proxy_protocol_addr $proxy_protocol_port \
$proxy_protocol_server_addr $proxy_protocol_server_port";
        }
    }
"""

HAPROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend all
    bind 0.0.0.0:9001 accept-proxy
    bind [::]:9001 v6only accept-proxy
    http-request return status 200 content-type text/plain \
        lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, SERVERS)) and "CI" not in os.environ,
    reason="needs Debian's packages nginx and haproxy",
)


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Lab, Attached]]:
    with ExitStack() as stack:
        lab, it = stack.enter_context(attached(*FORWARDS))
        haproxy = lab.dir / "haproxy.cfg"
        haproxy.write_text(HAPROXY)
        for argv in (
            nginx(lab.dir, HTTP),
            ["haproxy", "-q", "-f", str(haproxy)],
        ):
            running = stack.enter_context(
                subprocess.Popen(it.guest.command(argv), stderr=subprocess.DEVNULL)
            )
            stack.callback(running.terminate)
        for port in SERVERS.values():
            it.guest.wait_bound("tcp", port, SOON)
        yield lab, it


def told(sock: socket.socket) -> str:
    """What a server says of the client of a request."""
    sock.settimeout(SOON)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := sock.recv(65536):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return body.decode().strip()


@pytest.mark.parametrize("address", [HOST4, HOST6, "127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("server", SERVERS)
def test_server_sees_the_clients_address(
    world: tuple[Lab, Attached], server: str, version: int, address: str
) -> None:
    """Over the tap from another machine, spliced from the host's loopback."""
    lab, _ = world
    port = PORTS[server, version]
    client = lab.remote if address in (HOST4, HOST6) else lab.host
    with client.connect(address, port) as sock:
        mine = sock.getsockname()
        assert told(sock) == f"{mine[0]} {mine[1]} {address} {port}"
