# SPDX-License-Identifier: GPL-2.0-or-later
"""Published ports as podman 6 and rootlesskit 3 change them: through `pesto`.

The argument vectors are theirs, word for word. podman has one daemon for all rootless
bridges: a container is behind a bridge of the namespace that the daemon serves, so that
what a port leads to is not on the tap's link. rootlesskit's child is the server itself.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab import (
    HOST4,
    HOST6,
    Lab,
    Namespace,
    UdpEcho,
    exchange,
    tcp_echo,
)
from tests.lab.process import identify, kill_all
from tests.netns.program import Running, command_line, pasta, run

BRIDGE4, CONTAINER4 = "10.89.0.1", "10.89.0.5"
BRIDGE6, CONTAINER6 = "fd57:89::1", "fd57:89::5"
OWN6, ROUTER6 = "fd57:2::100", "fd57:2::1"  # what podman gives the namespace
PORT = 18080
SOON = 30.0

# One network with one container, as netavark makes them
NETWORK = f"""\
link add podman1 type bridge
addr add {BRIDGE4}/24 dev podman1
addr add {BRIDGE6}/64 dev podman1 nodad
link set podman1 up
link add veth0 type veth peer name eth0 netns {{container}}
link set veth0 master podman1
link set veth0 up
"""
CONTAINER = f"""\
addr add {CONTAINER4}/24 dev eth0
addr add {CONTAINER6}/64 dev eth0 nodad
link set eth0 up
route add default via {BRIDGE4}
route add default via {BRIDGE6}
"""


class Bench:
    """A daemon with a socket for pesto, and a server that its ports may lead to."""

    def __init__(self, lab: Lab, server: Namespace, folder: Path) -> None:
        self.lab, self.server = lab, server
        self.path = str(folder / "pasta.sock")
        self._pesto = folder / "pesto"
        if not self._pesto.is_symlink():
            self._pesto.symlink_to(Path(sys.executable).with_name("passtpy-pesto"))

    def pesto(self, *words: str) -> CompletedProcess[str]:
        argv = [str(self._pesto), *words]
        return run(["nsenter", f"--net={self.lab.host.path}", "--", *argv])

    def change(self, *words: str) -> None:
        done = self.pesto(*words, self.path)
        assert (done.returncode, done.stdout) == (0, "")

    def rules(self) -> list[str]:
        """Those of the host's table."""
        host, _, _ = self.pesto(self.path).stdout.partition("\n  SPLICE")
        lines = host.splitlines()[2:]  # behind the path, and the table's name
        return [line.strip() for line in lines]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("podman")
    pid = folder / "pid"
    with Lab() as lab:
        namespace, container = lab.guest(), lab.guest()
        batch = NETWORK.format(container=container.name)
        namespace.ip("-batch", "-", batch=batch)
        namespace.sysctl("net.ipv4.ip_forward", "1")
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")
        container.ip("-batch", "-", batch=CONTAINER)
        bench = Bench(lab, container, folder)
        words = [
            *("--config-net", "--dns-forward", "169.254.1.1"),
            *("--pid", str(pid), "-c", bench.path),
            *("--map-guest-addr", "169.254.1.2", "--map-guest-addr", "fd57:2::2"),
            *("--address", OWN6, "--gateway", ROUTER6),
            *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
            *("--no-map-gw", "--quiet", "--netns", str(namespace.path)),
        ]
        argv = ["nsenter", f"--net={lab.host.path}", "--", *pasta("root", *words)]
        done = run(argv)
        assert (done.returncode, done.stdout) == (0, "")
        try:
            yield bench
        finally:
            kill_all(identify([int(pid.read_text())]))


@contextmanager
def published(bench: Bench, *specs: tuple[str, str]) -> Iterator[None]:
    """Publish ports as podman does when a container starts, until it stops."""
    for option, spec in specs:
        bench.change("--add", option, spec)
    try:
        yield
    finally:
        for option, spec in specs:
            bench.change("--delete", option, spec)
    assert bench.rules() == []


def tcp_answers(where: Namespace, address: str, port: int) -> bool:
    with where.connect(address, port, timeout=SOON) as sock:
        return exchange(sock, b"hello") == b"hello"


def udp_answers(where: Namespace, address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with where.new_socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SOON)
        sock.connect((address, port))
        sock.send(b"hello")
        return sock.recv(99) == b"hello"


ANSWERS = {"-t": tcp_answers, "-u": udp_answers}
KINDS = {"-t": tcp_echo, "-u": UdpEcho}


@pytest.mark.parametrize("option", ["-t", "-u"])
@pytest.mark.parametrize(
    ("host", "asked", "inner"),
    [
        ("0.0.0.0", HOST4, CONTAINER4),
        (HOST4, HOST4, CONTAINER4),
        ("[::]", HOST6, CONTAINER6),
        (f"[{HOST6}]", HOST6, CONTAINER6),
    ],
)
def test_a_container_behind_a_bridge_is_reached(
    podman: Bench, option: str, host: str, asked: str, inner: str
) -> None:
    spec = f"{host}/{PORT}:{inner}/80"
    with KINDS[option](podman.server, inner, 80):
        with published(podman, (option, spec)):
            assert ANSWERS[option](podman.lab.remote, asked, PORT)
        with pytest.raises(ConnectionRefusedError):
            ANSWERS[option](podman.lab.remote, asked, PORT)


@pytest.mark.parametrize(
    ("host", "asked", "inner"),
    [("0.0.0.0", "127.0.0.1", CONTAINER4), ("[::]", "::1", CONTAINER6)],
)
def test_it_is_reached_from_the_hosts_loopback(
    podman: Bench, host: str, asked: str, inner: str
) -> None:
    with (
        tcp_echo(podman.server, inner, 80),
        published(podman, ("-t", f"{host}/{PORT}:{inner}/80")),
    ):
        assert tcp_answers(podman.lab.host, asked, PORT)


@pytest.mark.parametrize("option", ["-t", "-u"])
def test_a_range_is_shifted(podman: Bench, option: str) -> None:
    specs = [
        (option, f"0.0.0.0/{PORT}-{PORT + 2}:{CONTAINER4}/90-92"),
        (option, f"[::]/{PORT}-{PORT + 2}:{CONTAINER6}/90-92"),
    ]
    with ExitStack() as stack:
        for port in range(90, 93):
            for inner in (CONTAINER4, CONTAINER6):
                stack.enter_context(KINDS[option](podman.server, inner, port))
        with published(podman, *specs):
            assert len(podman.rules()) == 2
            for shift in range(3):
                for asked in (HOST4, HOST6):
                    assert ANSWERS[option](podman.lab.remote, asked, PORT + shift)


def test_the_ports_of_two_containers_do_not_meet(podman: Bench) -> None:
    first = ("-t", f"0.0.0.0/{PORT}:{CONTAINER4}/80")
    with tcp_echo(podman.server, CONTAINER4, 80), published(podman, first):
        with podman.lab.remote.connect(HOST4, PORT) as sock:
            with published_beside(podman, ("-u", f"0.0.0.0/{PORT}:{CONTAINER4}/81")):
                assert len(podman.rules()) == 2
            assert exchange(sock, b"hello") == b"hello"
        assert podman.rules() == [f"TCP [0.0.0.0]:{PORT}  =>  {CONTAINER4}:80"]


@contextmanager
def published_beside(bench: Bench, *specs: tuple[str, str]) -> Iterator[None]:
    for option, spec in specs:
        bench.change("--add", option, spec)
    yield
    for option, spec in specs:
        bench.change("--delete", option, spec)


def test_what_goes_wrong_is_shown(podman: Bench) -> None:
    """podman prints what pesto says if its exit status is not 0."""
    spec = f"0.0.0.0/{PORT}:{CONTAINER4}/80"
    text = f"TCP [0.0.0.0]:{PORT}  =>  {CONTAINER4}:80 "
    with podman.lab.host.listen("0.0.0.0", PORT):
        done = podman.pesto("--add", "-t", spec, podman.path)
    assert done.returncode == 1
    wanted = f"Listen failed for HOST TCP port 0.0.0.0/{PORT}: Address already in use"
    assert done.stdout.splitlines()[0] == wanted
    done = podman.pesto("--delete", "-t", spec, podman.path)
    assert (done.returncode, done.stdout) == (
        1,
        (
            f"Couldn't find forwarding rule to delete: {text}\n"
            f"Unable to delete rule {text}\n"
        ),
    )
    with published(podman, ("-t", spec)):
        done = podman.pesto("--add", "-t", spec, podman.path)
        assert (done.returncode, done.stdout) == (
            1,
            (
                f"Forwarding configuration conflict: {text} versus {text}\n"
                f"Unable to add rule {text}\n"
            ),
        )
    done = podman.pesto("--add", "-t", spec, f"{podman.path}-nowhere")
    assert done.returncode == 1
    assert done.stdout.startswith(f"Failed to connect to {podman.path}-nowhere: No ")


# rootlesskit


@pytest.fixture(scope="module")
def rootlesskit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("rootlesskit")
    pid = folder / "pid"
    script = "ip link set lo up; echo up; exec sleep 1000"
    child = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
    with Lab() as lab:
        inside = ["nsenter", f"--net={lab.host.path}", "--"]
        with Running([*inside, *command_line("root", *child)]) as running:
            assert running.line() == "up"
            target = running.popen.pid
            bench = Bench(lab, Namespace.of_process(target), folder)
            words = [
                *("--stderr", "--ns-ifname=tap0", "--mtu=65520", "--config-net"),
                *("--address=10.0.2.100", "--netmask=24", "--gateway=10.0.2.2"),
                *("--dns-forward=10.0.2.3", "--no-map-gw"),
                *("--tcp-ports=none", "--udp-ports=none", "--conf-path", bench.path),
                *("--pid", str(pid), str(target)),
            ]
            done = run([*inside, *pasta("root", *words)])
            assert done.returncode == 0, done.stdout
            daemon = int(pid.read_text())
            yield bench
        kill_all(identify([daemon]))


def test_the_version_is_asked_for_first(rootlesskit: Bench) -> None:
    done = rootlesskit.pesto("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("pesto ")


@pytest.mark.parametrize("option", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("host", "asked", "listen"),
    [
        ("0.0.0.0", HOST4, "0.0.0.0"),
        ("::", HOST6, "::"),
        (HOST4, HOST4, "0.0.0.0"),
        (HOST6, HOST6, "::"),
        ("127.0.0.1", "127.0.0.1", "0.0.0.0"),
    ],
)
def test_the_child_is_reached(
    rootlesskit: Bench, option: str, host: str, asked: str, listen: str
) -> None:
    spec = f"--{option}-ports={host}/{PORT}:80"
    short = {"tcp": "-t", "udp": "-u"}[option]
    lab = rootlesskit.lab
    client = lab.host if asked == "127.0.0.1" else lab.remote
    with KINDS[short](rootlesskit.server, listen, 80):
        rootlesskit.change("-A", spec)
        try:
            assert ANSWERS[short](client, asked, PORT)
        finally:
            rootlesskit.change("-D", spec)
    assert rootlesskit.rules() == []
    with pytest.raises(ConnectionRefusedError):
        ANSWERS[short](client, asked, PORT)


def test_a_port_that_is_taken_is_an_error(rootlesskit: Bench) -> None:
    with rootlesskit.lab.host.listen("0.0.0.0", PORT):
        spec = f"--tcp-ports=0.0.0.0/{PORT}:80"
        done = rootlesskit.pesto("-A", spec, rootlesskit.path)
    assert done.returncode == 1
    assert f"HOST TCP port 0.0.0.0/{PORT}: Address already in use" in done.stdout
    assert rootlesskit.rules() == []


@pytest.mark.parametrize("option", ["tcp", "udp"])
def test_a_port_of_the_child_may_be_had_again(rootlesskit: Bench, option: str) -> None:
    """Although flows that began there are not over."""
    spec, short = f"--{option}-ns={PORT}:81", {"tcp": "-t", "udp": "-u"}[option]
    rootlesskit.change("-D", f"--{option}-ns=auto")
    with KINDS[short](rootlesskit.lab.host, "127.0.0.1", 81):
        for _ in range(2):
            rootlesskit.change("-A", spec)
            assert ANSWERS[short](rootlesskit.server, "127.0.0.1", PORT)
            rootlesskit.change("-D", spec)
