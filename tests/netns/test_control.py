# SPDX-License-Identifier: GPL-2.0-or-later
"""A running daemon is asked and changed, by programs and by people's commands."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from passtpy.pesto import PestoError
from passtpy.pesto import run as pesto
from tests.lab import (
    HOST4,
    REMOTE4,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.netns.program import PROGRAM, Commands

PASSTPY = TRANSLATORS["passtpy"]
EPHEMERAL = (32768, 60999)
SOON = 30.0
OTHER_USER = 12345  # neither root nor the one that the daemon becomes


class Daemon(Commands):
    """A daemon with every control socket, and those who ask it."""

    def __init__(self, lab: Lab, it: Attached) -> None:
        super().__init__(lab, lab.dir / "control")
        self.guest = it.guest
        self.process = it.process
        self.conf = str(lab.dir / "conf")
        self.slirp = str(lab.dir / "slirp")
        self.gvproxy = str(lab.dir / "gv")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        argv = ["curl", "-sS", "--unix-socket", self.control, "-X", method]
        if body is not None:
            argv += ["-d", json.dumps(body)]
        return json.loads(self.lab.host.run(*argv, f"http://localhost{path}").stdout)


@contextmanager
def daemon(*extra: str) -> Iterator[Daemon]:
    with Lab() as lab:
        names = {"--control": "control", "-c": "conf"}
        names |= {"--api-socket": "slirp", "--gvproxy-services": "gv"}
        sockets = [w for opt, name in names.items() for w in (opt, str(lab.dir / name))]
        none = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
        options = Attachment(extra=(*none, *sockets, "--name", "box", *extra))
        with lab.attach(PASSTPY, options) as it:
            made = Daemon(lab, it)
            paths = (made.control, made.conf, made.slirp, made.gvproxy)
            wait_until(lambda: all(map(os.path.exists, paths)), SOON, "sockets")
            yield made


@pytest.fixture(scope="module")
def box() -> Iterator[Daemon]:
    with daemon() as made:
        yield made


def test_the_instance_says_what_it_serves(box: Daemon) -> None:
    told = box.ask("GET", "/v1/instance")
    assert (told["name"], told["program"]) == ("box", "pasta")
    assert HOST4 in told["addresses"]


def test_flows_are_seen_explained_and_closed(box: Daemon) -> None:
    with tcp_echo(box.lab.remote, REMOTE4, 7000), ExitStack() as stack:
        socks = [
            stack.enter_context(box.guest.connect(REMOTE4, 7000)) for _ in range(3)
        ]
        assert [ping(sock) for sock in socks] == [b"hello"] * 3
        lines = box.say("flows", "tcp", "and", "dst", "port", "7000").splitlines()
        assert len(lines) == 4
        assert REMOTE4 in lines[1]
        (one,) = json_lines(box.say("flows", "--json", "-n", "1", "dport", "7000"))
        said, heard = one["bytes"]  # what a guest's kernel says again counts again
        assert (said % 5, heard) == (0, 5)
        assert said >= 5
        rules = {r["id"]: r["hits"] for r in box.ask("GET", "/v1/rules")["rules"]}
        assert rules[one["rule"]["id"]] >= 3

        told = box.say("explain", f"{REMOTE4}:7000")
        assert "verdict:   forward" in told
        assert f" {one['rule']['id']}  " in told

        assert box.say("close", str(one["id"])) == "1 flow closed\n"
        assert box.say("close", "dst", "port", "7000") == "2 flows closed\n"
        for sock in socks:
            with pytest.raises(ConnectionResetError):
                ping(sock)


def ping(sock: socket.socket) -> bytes:
    """Say hello to an echo server, and go on."""
    sock.sendall(b"hello")
    return sock.recv(5)


def json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_port_added_is_served_and_one_removed_is_not(box: Daemon) -> None:
    with tcp_echo(box.guest, "0.0.0.0", 80):
        said = box.say("ports", "add", "tcp:8080:80")
        number = said.split()[1].rstrip(":")
        for client, address in ((box.lab.remote, HOST4), (box.lab.host, "127.0.0.1")):
            with client.connect(address, 8080) as sock:
                assert exchange(sock, b"hello") == b"hello"
        box.say("ports", "remove", number)
        with pytest.raises(ConnectionRefusedError):
            box.lab.remote.connect(HOST4, 8080)


def test_a_batch_is_added_as_a_whole_or_not_at_all(box: Daemon) -> None:
    with box.lab.host.listen("0.0.0.0", 9001):
        done = box.run("ports", "add", "tcp:9000", "tcp:9001", "tcp:9002")
    assert done.returncode == 1
    assert "Listen failed for HOST TCP port */9001: Address already" in done.stderr
    assert not box.lab.host.is_bound("tcp", 9000)
    assert not box.lab.host.is_bound("tcp", 9002)


def test_a_port_that_stays_is_never_closed(box: Daemon) -> None:
    """Connections made all the time, while other ports come and go."""
    refused, made, stop = [], [0], threading.Event()

    def connect_on_and_on() -> None:
        while not stop.is_set():
            try:
                box.lab.remote.connect(HOST4, 8081).close()
                made[0] += 1
            except OSError as error:
                refused.append(error)

    with tcp_echo(box.guest, "0.0.0.0", 80), tcp_echo(box.guest, "0.0.0.0", 81):
        box.say("ports", "add", "tcp:8081:80")
        thread = threading.Thread(target=connect_on_and_on)
        thread.start()
        try:
            for spec in ("8090", "8090-8190", "8091"):
                pesto(["-A", "-t", spec, box.conf], EPHEMERAL)
                pesto(["-D", "-t", spec, box.conf], EPHEMERAL)
            pesto(["-t", "8081:81", box.conf], EPHEMERAL)  # leads elsewhere now
            pesto(["-t", "8081:80", box.conf], EPHEMERAL)
            wait_until(lambda: refused or made[0] > 10, SOON, "connections")
        finally:
            stop.set()
            thread.join()
            pesto(["-C", "HOST", box.conf], EPHEMERAL)
    assert not refused
    assert made[0] > 10


def test_pesto_says_which_port_cannot_be_had(box: Daemon) -> None:
    with (
        box.lab.host.listen("0.0.0.0", 9003),
        pytest.raises(PestoError, match=r"HOST TCP port \*/9003: Address already"),
    ):
        pesto(["-A", "-t", "9003", box.conf], EPHEMERAL)


def test_a_target_address_is_reached_over_the_tap(box: Daemon) -> None:
    inner = "198.51.100.77"
    box.guest.run("ip", "addr", "add", f"{inner}/32", "dev", "lo")
    with tcp_echo(box.guest, inner, 80):
        pesto(["-A", "-t", f"0.0.0.0/8083:{inner}/80", box.conf], EPHEMERAL)
        with box.lab.remote.connect(HOST4, 8083) as sock:
            assert exchange(sock, b"hello") == b"hello"
        pesto(["-D", "-t", f"0.0.0.0/8083:{inner}/80", box.conf], EPHEMERAL)


def test_slirp_and_gvproxy_see_the_same_forwards(box: Daemon) -> None:
    request = {
        "execute": "add_hostfwd",
        "arguments": {"proto": "tcp", "host_port": 8084, "guest_port": 84},
    }
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(box.slirp)
        sock.sendall(json.dumps(request).encode())
        sock.shutdown(socket.SHUT_WR)
        answer = json.loads(sock.recv(4096))
    assert "id" in answer["return"]
    assert box.lab.host.is_bound("tcp", 8084)
    argv = ["curl", "-sS", "--unix-socket", box.gvproxy]
    url = "http://localhost/services/forwarder"
    told = json.loads(subprocess.check_output([*argv, f"{url}/all"]))
    assert told[0]["local"] == "0.0.0.0:8084"
    body = json.dumps({"local": "0.0.0.0:8084"})
    subprocess.run([*argv, "-f", "-d", body, f"{url}/unexpose"], check=True)
    assert not box.lab.host.is_bound("tcp", 8084)


def test_events_tell_of_flows(box: Daemon) -> None:
    argv = box.lab.host.command([str(PROGRAM), "events", "-i", box.control, "--json"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        with tcp_echo(box.lab.remote, REMOTE4, 7001):
            seen: list[Any] = []
            reader = threading.Thread(
                target=lambda: seen.extend(json.loads(x) for x in listener.stdout or ())
            )
            reader.start()

            def opened() -> bool:
                with box.guest.connect(REMOTE4, 7001) as sock:
                    exchange(sock, b"hello")
                return {"flow.opened", "flow.closed"} <= {e["event"] for e in seen}

            wait_until(opened, SOON, "events")
        listener.kill()
        reader.join()


def test_the_level_of_the_log_goes_back_by_itself(box: Daemon) -> None:
    before = box.say("log")
    assert box.say("log", "trace", "--for", "1") == "log level: trace\n"
    wait_until(lambda: box.say("log") == before, SOON, "level as before")


def test_top_shows_the_daemon(box: Daemon) -> None:
    said = box.say("top", "-n", "1", "-d", "0.1")
    assert said.startswith("box  pasta ")


ASKING = """
import os, socket, sys
for user in map(int, sys.argv[2:]):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        sock.settimeout(30)
        try:
            sock.sendall(b"GET /v1/instance HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
            print(sock.recv(100).split(b"\\r")[0].decode() or "hung up")
        except (ConnectionResetError, BrokenPipeError):
            print("hung up")  # before it read what we asked, or we sent it
    except PermissionError:
        print("no way in")
"""


def refused(box: Daemon) -> int:
    count: int = box.ask("GET", "/v1/stats")["counters"]["control_refused"]
    return count


@pytest.mark.parametrize("where", ["network", "processes"])
def test_the_guest_is_refused_at_the_socket(box: Daemon, where: str) -> None:
    """A process with the same user and files, in a namespace that a guest lives in."""
    asking = [sys.executable, "-c", ASKING, box.control]
    assert box.lab.host.run(*asking).stdout == "HTTP/1.1 200 OK\n"
    before = refused(box)
    if where == "network":
        said = box.guest.run(*asking).stdout
    else:
        said = box.lab.host.run("unshare", "--pid", "--fork", *asking).stdout
    assert said == "hung up\n"
    assert refused(box) == before + 1


def test_another_user_is_refused_even_where_the_file_lets_it_in(box: Daemon) -> None:
    def ask(user: int) -> str:
        asking = [sys.executable, "-c", ASKING, box.control, str(user)]
        return box.lab.host.run(*asking).stdout.rstrip("\n")

    before = refused(box)
    assert (ask(0), ask(OTHER_USER)) == ("HTTP/1.1 200 OK", "no way in")
    assert refused(box) == before
    os.chmod(box.control, 0o666)
    try:
        assert (ask(0), ask(OTHER_USER)) == ("HTTP/1.1 200 OK", "hung up")
    finally:
        os.chmod(box.control, 0o600)
    assert refused(box) == before + 1


HOSTILE = """
import socket, struct, sys, time
control, conf = sys.argv[1:]
socks = []
for data in (b"GET / HT", b"GET /v1/flows HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n", b"\\0"):
    for _ in range(100):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(control)
        sock.settimeout(30)
        sock.sendall(data)
        socks.append(sock)
for _ in range(20):  # half an update, and no more
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(conf)
    sock.recv(8)
    sock.sendall(struct.pack("!BI", 1, 200) + bytes(30))
    socks.append(sock)
print("ready", flush=True)
time.sleep(60)
"""


def test_hostile_clients_stop_nobody(box: Daemon) -> None:
    argv = box.lab.host.command([sys.executable, "-c", HOSTILE, box.control, box.conf])
    with (
        tcp_echo(box.lab.remote, REMOTE4, 7002),
        subprocess.Popen(argv, stdout=subprocess.PIPE) as crowd,
    ):
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == b"ready\n"
        with box.guest.connect(REMOTE4, 7002) as sock:
            assert [ping(sock) for _ in range(50)] == [b"hello"] * 50
        assert box.ask("GET", "/v1/instance")["name"] == "box"
        pesto(["-A", "-t", "8085", box.conf], EPHEMERAL)
        pesto(["-D", "-t", "8085", box.conf], EPHEMERAL)
        crowd.kill()


def test_a_daemon_that_is_told_to_stop_leaves_no_socket() -> None:
    with daemon("--runas", "0:0") as made:
        made.say("stop")
        process = made.process
        assert process is not None
        wait_until(lambda: process.popen.poll() == 0, SOON, "the end")
        for path in (made.control, made.conf, made.slirp, made.gvproxy):
            assert not os.path.exists(path)


def test_control_that_is_off_listens_nowhere_and_imports_nothing() -> None:
    with Lab() as lab:
        pid_file = lab.dir / "pid"
        options = Attachment(extra=("--control", "none", "--pid", str(pid_file)))
        with lab.attach(PASSTPY, options) as it:
            assert it.process is not None
            wait_until(lambda: pid_file.exists() and pid_file.read_text(), SOON, "it")
            maps = it.process.maps()
            assert "passtpy" in maps
            unix = lab.host.read("unix") + Path("/proc/net/unix").read_text()
            assert f"passtpy/{it.process.popen.pid}.sock" not in unix


def test_a_path_that_is_taken_is_one_line() -> None:
    with daemon() as made:
        argv = [str(PROGRAM), "pasta", "-f", "--control", made.control, "--", "true"]
        done = made.lab.host.run(*argv, check=False)
    assert done.returncode == 1
    assert done.stderr == f"pasta: Socket path {made.control} already in use\n"
