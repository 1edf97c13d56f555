# SPDX-License-Identifier: GPL-2.0-or-later
"""passtpy-slirp4netns, called as podman 4 and rootlesskit 1 call slirp4netns."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab import HOST4, REMOTE4, Lab, Namespace, exchange, tcp_echo
from tests.netns.program import PROGRAM, run
from tests.netns.resolvers import ask, resolver

HOST, DNS, GUEST = "10.0.2.2", "10.0.2.3", "10.0.2.100"
PORT = 18090
PATIENCE = 60.0


class Slirp:
    """The program, and the descriptors by which a caller knows and ends it."""

    def __init__(self, popen: subprocess.Popen[str], ready: int, exit_: int) -> None:
        self.popen = popen
        self.ready = ready
        self.exit = exit_

    def wait_ready(self) -> None:
        assert os.read(self.ready, 16) == b"1"


@contextmanager
def slirp(lab: Lab, guest: Namespace, *options: str) -> Iterator[Slirp]:
    ready_in, ready_out = os.pipe()
    exit_in, exit_out = os.pipe()
    words = [
        *("nsenter", f"--net={lab.host.path}", "--", sys.executable, "-m", "passtpy"),
        *("slirp4netns", *options, "-e", str(exit_in), "-r", str(ready_out)),
        *("--netns-type=path", str(guest.path), "tap0"),
    ]
    with ExitStack() as stack:
        stack.callback(os.close, ready_in)
        popen = subprocess.Popen(
            words,
            pass_fds=(exit_in, ready_out),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack.enter_context(popen)
        stack.callback(popen.kill)
        os.close(exit_in)
        os.close(ready_out)
        running = Slirp(popen, ready_in, exit_out)
        stack.callback(_close, running)
        yield running


def _close(running: Slirp) -> None:
    if running.exit >= 0:
        os.close(running.exit)
        running.exit = -1


def inside(guest: Namespace, *argv: str) -> str:
    return run(["nsenter", f"--net={guest.path}", "--", *argv]).stdout


def talks(where: Namespace, address: str, port: int) -> bool:
    """Whether an echo server is reached from there."""
    with where.connect(address, port) as sock:
        return exchange(sock, b"hello") == b"hello"


def test_the_network_is_slirps(lab: Lab) -> None:
    guest = lab.guest()
    with slirp(lab, guest, "-c", "--mtu=65520", "--enable-ipv6") as running:
        running.wait_ready()
        shown = inside(guest, "ip", "addr", "show", "tap0")
        assert f"inet {GUEST}/24" in shown
        assert "inet6 fd00::100/64" in shown
        assert "mtu 65520" in shown
        assert f"default via {HOST}" in inside(guest, "ip", "route")
        assert "default via fd00::2" in inside(guest, "ip", "-6", "route")
        with tcp_echo(lab.remote, REMOTE4, PORT):
            assert talks(guest, REMOTE4, PORT)


def test_without_configure_there_is_an_interface_and_no_more(lab: Lab) -> None:
    guest = lab.guest()
    with slirp(lab, guest) as running:
        running.wait_ready()
        shown = inside(guest, "ip", "addr", "show", "tap0")
        assert "state DOWN" in shown
        assert "inet " not in shown
        inside(guest, "ip", "link", "set", "tap0", "up")
        inside(guest, "ip", "addr", "add", f"{GUEST}/24", "dev", "tap0")
        inside(guest, "ip", "route", "add", "default", "via", HOST)
        with tcp_echo(lab.remote, REMOTE4, PORT):
            assert talks(guest, REMOTE4, PORT)


def test_the_loopback_of_the_host_is_there_unless_disabled(lab: Lab) -> None:
    with tcp_echo(lab.host, "127.0.0.1", PORT):
        guest = lab.guest()
        with slirp(lab, guest, "-c") as running:
            running.wait_ready()
            assert talks(guest, HOST, PORT)
        guest = lab.guest()
        with slirp(lab, guest, "-c", "--disable-host-loopback") as running:
            running.wait_ready()
            for nobody in (HOST, "10.0.2.77"):  # no such network outside either
                with pytest.raises(ConnectionRefusedError):
                    talks(guest, nobody, PORT)


def test_names_are_asked_at_its_address(lab: Lab) -> None:
    guest = lab.guest()
    nameserver = Path("/etc/resolv.conf").read_text()
    words = [w.split() for w in nameserver.splitlines()]
    first = next((w[1] for w in words if w[:1] == ["nameserver"]), "127.0.0.1")
    if ":" in first:
        pytest.skip("this machine has an IPv6 resolver, which the lab lacks")
    run(["ip", "-n", lab.host.name, "addr", "add", f"{first}/32", "dev", "lo"])
    with resolver(lab.host, first, "ours"), slirp(lab, guest, "-c") as running:
        running.wait_ready()
        assert ask(guest, DNS) == "ours"


def test_it_ends_when_its_caller_does(lab: Lab) -> None:
    with slirp(lab, lab.guest(), "-c") as running:
        running.wait_ready()
        os.close(running.exit)
        running.exit = -1
        assert running.popen.wait(PATIENCE) == 0
        assert running.popen.stdout is not None
        said = running.popen.stdout.read()
    assert said.startswith("Starting slirp\n* MTU:             1500\n")
    assert said.endswith("* Recommended IP:  10.0.2.100\n")


def test_ports_are_forwarded_by_its_socket(lab: Lab, tmp_path: Path) -> None:
    guest, path = lab.guest(), tmp_path / "api"

    def api(request: dict[str, object]) -> dict[str, object]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode())
            sock.shutdown(socket.SHUT_WR)
            answer: dict[str, object] = json.loads(sock.recv(65536))
            return answer

    with slirp(lab, guest, "-c", "--api-socket", str(path)) as running:
        running.wait_ready()
        arguments = {"proto": "tcp", "host_port": PORT, "guest_port": 80}
        answer = api({"execute": "add_hostfwd", "arguments": arguments})
        assert answer == {"return": {"id": 1}}
        listed = api({"execute": "list_hostfwd"})["return"]
        assert listed == {
            "entries": [
                {
                    "id": 1,
                    "proto": "tcp",
                    "host_addr": "0.0.0.0",
                    "host_port": PORT,
                    "guest_addr": GUEST,
                    "guest_port": 80,
                }
            ]
        }
        with tcp_echo(guest, GUEST, 80):
            assert talks(lab.remote, HOST4, PORT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("99999999 tap0", "/proc/99999999/ns/net: No such process"),
        (
            "--netns-type=path /nope tap0",
            "existing path expected when --netns-type=path",
        ),
        ("--userns-path=/nope 1 tap0", "userns path doesn't exist: /nope"),
        ("-r 987 1 tap0", "ready-fd 987: Bad file descriptor"),
        ("--outbound-addr=nope 1 tap0", "outbound-addr has to be valid ipv4 address"),
        ("1", "TAPNAME"),
    ],
)
def test_what_cannot_be_is_one_line(words: str, said: str) -> None:
    done = run([sys.executable, "-m", "passtpy", "slirp4netns", *words.split()])
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout


def test_a_link_of_its_name_is_enough(tmp_path: Path) -> None:
    link = tmp_path / "slirp4netns"
    link.symlink_to(PROGRAM)
    done = run([str(link), "--version"])
    assert done.stdout.startswith("slirp4netns version ")
    assert done.returncode == 0
