# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody who should read what we write, and does not, stops the traffic."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.lab.process import identify, kill_all, process_tree
from tests.lab.translators import Passtpy
from tests.netns.program import PATIENCE, pasta, run, terminate, wait_for
from tests.netns.resolvers import with_etc

GATEWAY = "192.0.2.1"
FLOWS = 300  # each with dozens of trace lines: more than any pipe holds

CLIENT = """\
import socket, sys
for number in range(int(sys.argv[2])):
    with socket.create_connection(("192.0.2.1", int(sys.argv[1])), timeout=60) as s:
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
print("all there")
"""

# Runs the program with something done to it before.
PATCHED = """\
import sys
from passtpy.session import Session

def fail():
    raise KeyError("nobody expects this")

run = Session.run

def run_and_fail(session):
    session.loop.call_later(0.05, fail)
    return run(session)

Session.run = run_and_fail
from passtpy.__main__ import pasta
sys.exit(pasta())
"""


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server on the host's loopback that answers with what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(peer.recv(5))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def guest() -> Iterator[Namespace]:
    """A bare namespace."""
    namespace = Namespace.create(f"passtpyunread-{os.getpid()}")
    yield namespace
    namespace.delete()


NETWORK = ("-a", "192.0.2.77/24", "-g", GATEWAY, "-4", "--config-net")


@pytest.mark.parametrize("level", ["--trace", "-d"])
def test_a_full_pipe_under_trace_does_not_stop_traffic(echo: int, level: str) -> None:
    client = [sys.executable, "-c", CLIENT, str(echo), str(FLOWS)]
    argv = pasta("root", level, *NETWORK, "-t", "none", "-u", "none", "--", *client)
    unread, stderr = os.pipe()
    popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, text=True)
    os.close(stderr)
    try:
        out, _ = popen.communicate(timeout=PATIENCE)
    finally:
        kill_all(identify(process_tree(popen.pid)))
        os.close(unread)
    assert (popen.returncode, out) == (0, "all there\n")


def _full_log(path: Path) -> list[socket.socket]:
    """A system log nobody reads, and whose queue is full."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(path))
    path.chmod(0o666)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sender.connect(str(path))
    with suppress(BlockingIOError):
        while True:
            sender.send(b"<30>x")
    return [log, sender]


def test_a_system_log_nobody_reads_does_not_stop_the_start(
    guest: Namespace, tmp_path: Path
) -> None:
    tmp_path.chmod(0o711)
    kept = _full_log(tmp_path / "log")
    pid_file = tmp_path / "pid"
    old = tmp_path / "dev"
    old.mkdir()
    prepare = f"mount --bind /dev {old}; mount -t tmpfs -o mode=755 none /dev; "
    prepare += f"mkdir /dev/net; ln -s {tmp_path}/log /dev/log; "
    prepare += "for f in null tty urandom net/tun; do "
    prepare += f"touch /dev/$f; mount --bind {old}/$f /dev/$f; done"
    words = [*NETWORK, "-P", str(pid_file), "--netns", str(guest.path)]
    done = run(pasta("root", *words, prepare=prepare))
    assert done.returncode == 0, done.stdout
    terminate(int(pid_file.read_text()))
    for sock in kept:
        sock.close()


def test_an_exception_in_the_background_reaches_the_log_file(
    guest: Namespace, tmp_path: Path
) -> None:
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    words = [*NETWORK, "-l", str(log), "-P", str(pid_file), "--netns", str(guest.path)]
    done = run([sys.executable, "-c", PATCHED, *words])
    assert done.returncode == 0, done.stdout
    wait_for(lambda: "loop.failed" in log.read_text(), "it is logged")
    terminate(int(pid_file.read_text()))  # it went on
    text = log.read_text()
    assert "KeyError: 'nobody expects this'" in text
    assert "in fail" in text


def test_a_capture_that_nobody_reads_does_not_stop_traffic(echo: int) -> None:
    client = [sys.executable, "-c", CLIENT, str(echo), str(FLOWS)]
    unread, capture = os.pipe()
    path = f"/proc/{os.getpid()}/fd/{capture}"
    argv = pasta("root", "-q", "-p", path, *NETWORK, "-t", "none", "--", *client)
    done = run(argv)
    os.close(capture)
    os.close(unread)
    assert (done.returncode, done.stdout) == (0, "all there\n")


def test_a_resolv_conf_nobody_writes_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "resolv.conf")
    argv = [Passtpy().program, *NETWORK, "--", "true"]
    done = run(with_etc(tmp_path, argv))
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "resolver" in line]
    # It is told again where the command lasts until the file is watched.
    assert lines
    for line in lines:
        assert line.endswith("/etc/resolv.conf reason='it is no regular file'")
