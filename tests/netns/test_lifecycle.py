# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon tells its service manager, and what signals make it do."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab import Lab, Namespace
from tests.netns.program import PATIENCE, PROGRAM, Running, pasta, run, wait_for


class Place(NamedTuple):
    """Where a daemon lives, whose ports nobody else has, and its guest."""

    host: Namespace
    guest: Namespace


@pytest.fixture
def place(lab: Lab) -> Place:
    return Place(lab.host, lab.guest())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def _told(manager: socket.socket) -> dict[str, str]:
    text = manager.recv(4096).decode()
    return dict(line.split("=", 1) for line in text.splitlines())


def _serve(place: Place, *words: str, env: tuple[str, ...] = ()) -> Running:
    argv = pasta("root", "-f", "-I", "net0", "--config-net", *words)
    argv = ["env", *env, *argv, "--netns", str(place.guest.path)]
    return Running(place.host.command(argv))


def _supervised(tmp_path: Path, *more: str) -> tuple[str, ...]:
    return (f"NOTIFY_SOCKET={tmp_path / 'notify'}", *more)


# The service manager


WAYS = ["signal", "command"]  # in which a daemon is told what to do


def _order(
    place: Place, running: Running, way: str, number: signal.Signals, control: Path
) -> None:
    """Tell it by a signal, or by the command that does the same."""
    if way == "signal":
        running.popen.send_signal(number)
        return
    word = {signal.SIGHUP: "reload", signal.SIGTERM: "stop"}[number]
    done = run(place.host.command([str(PROGRAM), word, "-i", str(control)]))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_it_is_told_from_readiness_to_the_end(
    place: Place, manager: socket.socket, tmp_path: Path, way: str
) -> None:
    control = tmp_path / "control"
    env = _supervised(tmp_path)
    with _serve(place, "--control", str(control), env=env) as running:
        assert _told(manager) == {"READY": "1", "STATUS": "serving net0"}
        assert "net0" in place.guest.ip("link")  # ready is when it is there
        _order(place, running, way, signal.SIGHUP, control)
        reloading = _told(manager)
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert _told(manager)["READY"] == "1"
        _order(place, running, way, signal.SIGTERM, control)
        assert _told(manager)["STOPPING"] == "1"
        assert running.wait() == 0


def test_its_watchdog_hears_that_the_loop_turns(
    place: Place, manager: socket.socket, tmp_path: Path
) -> None:
    env = _supervised(tmp_path, "WATCHDOG_USEC=200000")
    with _serve(place, env=env):
        assert _told(manager)["READY"] == "1"
        for _ in range(3):
            assert _told(manager) == {"WATCHDOG": "1"}


def test_the_manager_of_somebody_else_is_told_nothing(
    place: Place, manager: socket.socket, tmp_path: Path
) -> None:
    """podman in a service leaves its own NOTIFY_SOCKET to what it starts."""
    env = _supervised(tmp_path, f"SYSTEMD_EXEC_PID={os.getpid()}")
    log = tmp_path / "log"
    with _serve(place, "-l", str(log), env=env) as running:
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        running.popen.terminate()
        assert running.wait() == 0
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_manager_that_is_not_there_costs_nothing(
    place: Place, tmp_path: Path
) -> None:
    log, env = tmp_path / "log", ("NOTIFY_SOCKET=/nonexistent/notify",)
    with _serve(place, "-l", str(log), env=env) as running:
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        running.popen.terminate()
        assert running.wait() == 0


# Signals


def _connect(place: Place, port: int) -> socket.socket:
    """A connection of the host to a port forwarded into the namespace, accepted."""
    return place.host.connect("127.0.0.1", port, PATIENCE)


ECHO = """
import socket, threading
server = socket.create_server(("0.0.0.0", {port}))
print("ready", flush=True)
def serve(conn):
    while data := conn.recv(100):
        conn.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@contextmanager
def _served(
    place: Place, tmp_path: Path, port: int, *words: str
) -> Iterator[tuple[Running, socket.socket, Path]]:
    """A daemon that forwards a port to a server, a connection there, and its log."""
    log = tmp_path / "log"
    server = Running(place.guest.command(["python3", "-c", ECHO.format(port=port)]))
    daemon = _serve(place, "-t", str(port), "-l", str(log), *words)
    with server, daemon as running:
        assert server.line() == "ready"
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        with _connect(place, port) as old:
            assert _echo(old) == b"a"
            yield running, old, log


@pytest.mark.parametrize("way", WAYS)
def test_draining_lets_open_connections_end(
    place: Place, tmp_path: Path, way: str
) -> None:
    port, control = 18431, tmp_path / "control"
    words = ("--drain-timeout", "60", "--control", str(control))
    with _served(place, tmp_path, port, *words) as (running, old, log):
        _order(place, running, way, signal.SIGTERM, control)
        wait_for(lambda: "drain.started" in _text(log), "the drain")
        wait_for(lambda: _is_refused(place, port), "no new connections")
        assert _echo(old) == b"a"
        assert running.popen.poll() is None
        old.close()
        assert running.wait() == 0
    assert "drain.ended connections_left=0" in _text(log)


def test_the_second_sigterm_does_not_wait(place: Place, tmp_path: Path) -> None:
    with _served(place, tmp_path, 18432, "--drain-timeout", "3600") as served:
        running, _, log = served
        running.popen.terminate()
        wait_for(lambda: "drain.started" in _text(log), "the drain")
        running.popen.terminate()
        assert running.wait() == 0


def _echo(sock: socket.socket) -> bytes:
    sock.sendall(b"a")
    return sock.recv(1)


def _is_refused(place: Place, port: int) -> bool:
    try:
        _connect(place, port).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was being closed
        return False
    return False


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rotated", [False, True])
def test_the_log_is_opened_again(
    place: Place, tmp_path: Path, rotated: bool, way: str
) -> None:
    os.chmod(tmp_path, 0o777)  # the daemon is nobody by then
    log, old, control = (tmp_path / name for name in ("log", "log.1", "control"))
    words = ("-l", str(log), "--runas", "0:0", "--control", str(control))
    with _serve(place, *words) as running:
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        if rotated:
            log.rename(old)
        _order(place, running, way, signal.SIGHUP, control)
        wait_for(lambda: "reloaded" in _text(log), "the new file")
        running.popen.terminate()
        assert running.wait() == 0
    assert ("namespace.ready" in _text(log)) != rotated
    assert _text(log).startswith("passtpy ")


def test_a_name_that_cannot_be_opened_keeps_the_file(
    place: Place, tmp_path: Path
) -> None:
    log, old = tmp_path / "log", tmp_path / "log.1"
    with _serve(place, "-l", str(log), "--runas", "0:0") as running:
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        log.rename(old)
        log.mkdir()
        running.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in _text(old), "the old file")
        running.popen.terminate()
        assert running.wait() == 0
    assert f"log.kept {log} reason='Is a directory'" in _text(old)


def test_who_looks_at_files_may_die(place: Place, tmp_path: Path) -> None:
    """The daemon goes on, and says what that costs."""
    log = tmp_path / "log"
    with _serve(place, "-l", str(log), "-t", "none", "-T", "none") as running:
        wait_for(lambda: "namespace.ready" in _text(log), "readiness")
        pid = running.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        here = f"net:[{place.host.path.stat().st_ino}]"
        (lookout,) = [c for c in children if os.readlink(f"/proc/{c}/ns/net") == here]
        os.kill(int(lookout), signal.SIGKILL)
        wait_for(lambda: "resolver.unusable" in _text(log), "that it knows")
        running.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in _text(log), "that it lives")
        running.popen.terminate()
        assert running.wait() == 0
    assert "log.kept" in _text(log)


def test_sigusr1_logs_what_is_open(place: Place, tmp_path: Path) -> None:
    with _served(place, tmp_path, 18433) as (running, old, log):
        running.popen.send_signal(signal.SIGUSR1)
        wait_for(lambda: "summary.counters" in _text(log), "the summary")
        old.close()
        running.popen.terminate()
        assert running.wait() == 0
    assert "summary.flows total=1 tcp_splice=1" in _text(log)
