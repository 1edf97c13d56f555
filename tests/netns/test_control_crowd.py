# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile crowd at all control sockets, and a guest whose traffic goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from passtpy.client.connect import Client
from tests.lab import REMOTE4, tcp_echo, wait_until
from tests.netns.test_control import OTHER_USER, SOON, Daemon, box, ping

__all__ = ["box"]

PORT = 7003
CONNECTIONS = 3000  # at each look of those who only connect
EXCHANGES, NEW = 300, 40

# Each kind of client does what it does again and again, from a thread of its own, until
# our stdin ends; then it is told how often each has done it. "ready": each has once.
CROWD = """
import json, os, resource, socket, struct, sys, threading, time
native, pesto, slirp, gvproxy, user, connections = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (8000, 8000))
over, done, lock = threading.Event(), {}, threading.Lock()

def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    return sock

def said(path, *pieces, end=None, read=True):
    with connect(path) as sock:
        for piece in pieces:
            sock.sendall(piece)
        if end is not None:
            sock.shutdown(end)
        while read and sock.recv(65536):
            pass

def request(target, body=b"", method="GET"):
    head = f"{method} {target} HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: {len(body)}"
    return head.encode() + b"\\r\\n\\r\\n" + body

kept = []
def thousands():
    while kept:
        kept.pop().close()
    for n in range(int(connections)):
        kept.append(connect((native, native, pesto, slirp, gvproxy)[n % 5]))

slow = []
def a_byte_a_second():
    if not slow:
        slow.extend((connect(p), iter(request("/v1/flows?filter=" + "x" * 999)))
                    for p in (native, gvproxy, slirp, pesto) for _ in range(20))
    for sock, data in slow:
        try:
            sock.send(bytes([next(data)]))
        except OSError:
            pass  # hung up on
    over.wait(1)

def huge():
    for path in (native, gvproxy, slirp, pesto):
        said(path, request("/v1/capture", b" " * 5_000_000, "POST"))
        said(path, b"GET /" + b"x" * 100_000)
    said(native, request("/v1/flows", json.dumps({"filter": "tcp " * 4000}).encode()))

def half_closed():
    for path in (native, gvproxy, slirp, pesto):
        for data in (request("/v1/flows"), request("/v1/events"), b"GET / HT", b""):
            said(path, data, end=socket.SHUT_WR)
            said(path, data, end=socket.SHUT_RD, read=False)
    said(pesto, struct.pack("!BI", 1, 200) + bytes(30), end=socket.SHUT_WR)

def pipelined():
    many = request("/v1/rules") * 1000
    with connect(native) as sock:  # 64 KiB at a time, nothing read
        sock.settimeout(0.5)
        sock.sendall(many[:60_000])
        try:
            sock.sendall(many * 5)
        except OSError:
            pass
    said(native, many[:65_536], end=socket.SHUT_WR)

def wrong_user():
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresuid(*[int(user)] * 3)
        for _ in range(100):
            try:
                said(native, request("/v1/stop", method="POST"))
            except OSError:
                pass
        os._exit(0)
    os.waitpid(pid, 0)

kinds = thousands, a_byte_a_second, huge, half_closed, pipelined, wrong_user
def repeat(kind):
    while not over.is_set():
        try:
            kind()
        except OSError:
            pass  # hung up on, or a queue that is full
        with lock:
            done[kind.__name__] = done.get(kind.__name__, 0) + 1
            if done[kind.__name__] == 1 and len(done) == len(kinds):
                print("ready", flush=True)

threads = [threading.Thread(target=repeat, args=(kind,)) for kind in kinds]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(done))
"""


@contextmanager
def crowd(box: Daemon) -> Iterator[subprocess.Popen[str]]:
    """The crowd, once every kind of it has been there."""
    paths = (box.control, box.conf, box.slirp, box.gvproxy)
    words = [sys.executable, "-c", CROWD, *paths]
    words += [str(OTHER_USER), str(CONNECTIONS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        box.lab.host.command(words), text=True, stdin=pipe, stdout=pipe
    ) as popen:
        try:
            assert popen.stdout is not None
            assert popen.stdout.readline() == "ready\n"
            yield popen
        finally:
            popen.kill()


def ask(box: Daemon, path: str) -> Any:
    """Ask as the commands do, which wait their turn where connections are queued."""
    with box.lab.host.entered():
        return Client(box.control).ask("GET", path)


def refused(box: Daemon) -> int:
    count: int = ask(box, "/v1/stats")["counters"]["control_refused"]
    return count


@pytest.mark.timeout(900)  # a busy machine has it for minutes
def test_a_crowd_stops_neither_the_guest_nor_who_asks(box: Daemon) -> None:
    os.chmod(box.control, 0o666)  # so that only its credentials stop another user
    before = box.ask("GET", "/v1/stats")["counters"]
    try:
        with (
            tcp_echo(box.lab.remote, REMOTE4, PORT),
            box.guest.connect(REMOTE4, PORT) as old,
            crowd(box) as popen,
        ):
            for n in range(EXCHANGES):
                assert ping(old) == b"hello"
                if n % (EXCHANGES // NEW) == 0:
                    with box.guest.connect(REMOTE4, PORT) as new:
                        assert ping(new) == b"hello"
                    assert ask(box, "/v1/instance")["name"] == "box"
            wanted = before["control_refused"] + 100
            wait_until(lambda: refused(box) >= wanted, SOON, "refused users")
            done, _ = popen.communicate()
            assert min(json.loads(done).values()) >= 1
            assert ping(old) == b"hello"
            flow = ask(box, f"/v1/flows?filter=dport+{PORT}+and+bytes+>+1000")
    finally:
        os.chmod(box.control, 0o600)
    after = ask(box, "/v1/stats")["counters"]
    said, heard = flow["bytes"]  # what a guest's kernel says again counts again
    assert heard == 5 * (EXCHANGES + 1) <= said
    assert after["control_failed"] == 0
    assert after["flows_opened"] >= before["flows_opened"] + NEW
    assert box.process is not None
    assert "control.failed" not in box.process.stderr()
