# SPDX-License-Identifier: GPL-2.0-or-later
"""What podman and rootlesskit say to pasta, and what they do around it.

The argument vectors are theirs, word for word and in their order.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab import (
    GATEWAY4,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Lab,
    Namespace,
    UdpEcho,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.lab.process import identify, kill_all
from tests.lab.translators import Passtpy
from tests.netns.program import Running, Who, command_line, ended, pasta, run, wait_for
from tests.netns.resolvers import ask, resolver

DNS4, GUEST4 = "169.254.1.1", "169.254.1.2"
PORT = 18080


def on_host(lab: Lab, argv: Sequence[str]) -> list[str]:
    """The words that run `argv` in the lab's host."""
    return ["nsenter", f"--net={lab.host.path}", "--", *argv]


class Container:
    """A namespace as podman makes it: an nsfs file that it mounts and removes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "netns-52e4a9c1"
        self.pid_file = folder / "pid"
        self.path.touch()
        run(["unshare", f"--net={self.path}", "true"])
        self.guest = Namespace(self.path)
        self.inside("ip", "link", "set", "lo", "up")

    def inside(self, *argv: str) -> str:
        return run(["nsenter", f"--net={self.path}", "--", *argv]).stdout

    def daemon(self) -> int:
        return int(self.pid_file.read_text())

    def remove(self) -> None:
        run(["umount", str(self.path)])
        self.path.unlink(missing_ok=True)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    try:
        yield made
    finally:
        if made.path.exists():
            made.remove()
        if made.pid_file.exists() and made.pid_file.read_text():
            kill_all(identify([made.daemon()]))


def podman_words(
    netns: Path,
    options: Sequence[str] = (),
    published: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """The vector of podman's pasta_linux.go; `options` as in containers.conf."""
    words = ["--config-net", *(word for word in options if word != "--map-gw")]
    for option, spec in published:
        words += [option, spec]
    if "--dns-forward" not in words:
        words += ["--dns-forward", DNS4]
    for names in (
        ("-t", "--tcp-ports"),
        ("-u", "--udp-ports"),
        ("-T", "--tcp-ns"),
        ("-U", "--udp-ns"),
    ):
        if not set(names) & set(words):
            words += [names[0], "none"]
    if "--map-gw" not in options:
        words.append("--no-map-gw")
    if not {"-d", "--debug", "--trace"} & set(words):
        words.append("--quiet")
    words += ["--netns", str(netns)]
    if "--map-guest-addr" not in words:
        words += ["--map-guest-addr", GUEST4]
    return words


def start(
    lab: Lab,
    container: Container,
    options: Sequence[str] = (),
    published: Sequence[tuple[str, str]] = (),
) -> CompletedProcess[str]:
    """Do what podman does: run, and wait until nobody holds the pipe any more."""
    options = ["-P", str(container.pid_file), *options]
    words = podman_words(container.path, options, published)
    return run(on_host(lab, pasta("root", *words)))


# podman


def test_nothing_is_said_and_the_network_is_up(lab: Lab, container: Container) -> None:
    done = start(lab, container)
    assert (done.returncode, done.stdout) == (0, "")
    shown = container.inside("ip", "addr", "show", "dev", "eth0")
    assert "state UNKNOWN" in shown
    assert "UP" in shown
    assert "mtu 65520" in shown
    assert f"inet {HOST4}/24" in shown
    assert f"inet6 {HOST6}/64" in shown
    assert "tentative" not in shown
    assert f"default via {GATEWAY4}" in container.inside("ip", "route")


def test_the_daemon_holds_nothing_of_its_caller(lab: Lab, container: Container) -> None:
    start(lab, container)
    folder = Path(f"/proc/{container.daemon()}/fd")
    for fd in range(3):
        assert os.readlink(folder / str(fd)) == "/dev/null"
    stat = (folder.parent / "stat").read_text().rpartition(")")[2].split()
    assert stat[3] == str(container.daemon())  # a session of its own


@pytest.mark.parametrize("how", ["podman", "unlink"])
def test_it_quits_when_the_container_is_gone(
    lab: Lab, container: Container, how: str
) -> None:
    start(lab, container)
    pid = container.daemon()
    assert not ended(pid)
    if how == "podman":
        container.remove()
    else:  # detached first, as `podman system renumber` may find it
        run(["umount", "--lazy", str(container.path)])
        container.path.unlink()
    wait_for(lambda: ended(pid), "the daemon quits")


@pytest.mark.parametrize(
    ("host", "address"), [("", HOST4), (f"{HOST4}/", HOST4), (f"{HOST6}/", HOST6)]
)
def test_a_port_is_published(
    lab: Lab, container: Container, host: str, address: str
) -> None:
    spec = f"{host}{PORT}-{PORT}:80-80"
    assert start(lab, container, published=[("-t", spec)]).returncode == 0
    own = HOST6 if ":" in address else HOST4
    with (
        tcp_echo(container.guest, own, 80),
        lab.remote.connect(address, PORT) as sock,
    ):
        assert exchange(sock, b"hello") == b"hello"


@pytest.mark.parametrize("way", ["tap", "loopback"])
@pytest.mark.parametrize("option", ["-t", "-u"])
def test_a_range_is_published_and_shifted(
    lab: Lab, container: Container, option: str, way: str
) -> None:
    published = [(option, f"{PORT}-{PORT + 2}:90-92")]
    assert start(lab, container, published=published).returncode == 0
    source, address = {
        "tap": (lab.remote, HOST4),
        "loopback": (lab.host, "127.0.0.1"),
    }[way]
    for shift in range(3):
        if option == "-t":
            with (
                tcp_echo(container.guest, HOST4, 90 + shift),
                source.connect(address, PORT + shift) as sock,
            ):
                sent = os.urandom(10 << 20) if shift == 1 else b"hello"
                assert exchange(sock, sent) == sent
        else:
            with (
                UdpEcho(container.guest, HOST4, 90 + shift),
                source.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            ):
                sock.settimeout(30)
                sock.sendto(b"hello", (address, PORT + shift))
                assert sock.recv(99) == b"hello"


def test_a_port_is_published_on_one_interface(lab: Lab, container: Container) -> None:
    """As `--network pasta:-t,%eth0/18080:80` says it."""
    options = ["-t", f"%eth0/{PORT}:80"]
    assert start(lab, container, options).returncode == 0
    with tcp_echo(container.guest, HOST4, 80):
        with lab.remote.connect(HOST4, PORT) as sock:
            assert exchange(sock, b"hello") == b"hello"
        with pytest.raises(ConnectionRefusedError):
            lab.host.connect("127.0.0.1", PORT)


def test_the_names_that_podman_writes_into_hosts(
    lab: Lab, container: Container
) -> None:
    """host.containers.internal is the host, and its resolver answers."""
    options = ["--dns-host", REMOTE4]
    with (
        resolver(lab.remote, REMOTE4, "remote"),
        tcp_echo(lab.host, HOST4) as server,
    ):
        assert start(lab, container, options).returncode == 0
        assert ask(container.guest, DNS4) == "remote"
        with container.guest.connect(GUEST4, server.port) as sock:
            assert exchange(sock, b"host") == b"host"


def test_the_gateway_is_the_host_only_with_map_gw(
    lab: Lab, container: Container
) -> None:
    with tcp_echo(lab.host, "127.0.0.1") as server:
        start(lab, container, ["--map-gw"])
        with container.guest.connect(GATEWAY4, server.port) as sock:
            assert exchange(sock, b"host") == b"host"


def test_a_form_that_podman_does_not_recognise_conflicts(
    lab: Lab, container: Container
) -> None:
    """It looks for the word `--tcp-ports`, and then adds `-t none` itself."""
    done = start(lab, container, ["--tcp-ports=auto"])
    assert done.returncode == 1
    line = "-t none conflicts with previous options"
    assert done.stdout == f"pasta: {line}\n"


def test_an_error_is_shown_to_the_user(lab: Lab, container: Container) -> None:
    with lab.host.listen(HOST4) as taken:
        port = taken.getsockname()[1]
        spec = f"{HOST4}/{port}-{port}:80-80"
        done = start(lab, container, published=[("-t", spec)])
    assert done.returncode == 1
    assert f"Listen failed for HOST TCP port {HOST4}/{port}: Address" in done.stdout


def test_the_probe_for_an_old_version(lab: Lab, container: Container) -> None:
    """So podman learns that an option is unknown, and tries without."""
    words = podman_words(container.path)
    words[words.index("--map-guest-addr")] = "--map-guest-address"
    done = run(on_host(lab, pasta("root", *words)))
    assert done.returncode == 1
    assert "unrecognized option '--map-guest-addr" in done.stdout


def test_rootless_podman() -> None:
    """In its own user and mount namespaces, root there and nobody outside."""
    words = podman_words(Path("/run/netns-1"), ["-P", "/run/pid", "-I", "net0"])
    script = (
        "mount -t tmpfs none /run && touch /run/netns-1"
        " && unshare --net=/run/netns-1 true || exit 9;"
        f' out=$({Passtpy().program} {" ".join(words)} 2>&1); echo "$? [$out]";'
        " nsenter --net=/run/netns-1 ip -o addr show dev net0;"
        " pid=$(cat /run/pid); umount /run/netns-1; rm /run/netns-1;"
        " for i in $(seq 99); do"
        "  [ -d /proc/$pid ] || break; sleep 0.2; done; echo gone $i"
    )
    argv = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c"]
    done = run(command_line("user", *argv, script))
    lines = done.stdout.splitlines()
    assert lines[0] == "0 []"
    assert "inet " in done.stdout
    assert lines[-1] != "gone 99"  # it ended, and was reaped, within 20 s


# rootlesskit

COMMON = [
    *("--stderr", "--ns-ifname=tap0", "--mtu=65520", "--config-net"),
    *("--address=10.0.2.100", "--netmask=24", "--gateway=10.0.2.2"),
    *("--dns-forward=10.0.2.3", "--no-map-gw", "--ipv4-only"),
]


@contextmanager
def child(lab: Lab, who: Who) -> Iterator[int]:
    """The process whose namespaces rootlesskit wants connected."""
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
    script = "ip link set lo up; echo up; exec sleep 1000"
    with Running(on_host(lab, command_line(who, *argv, script))) as running:
        assert running.line() == "up"
        yield running.popen.pid


def test_the_probe_of_a_feature() -> None:
    done = run(pasta("root", "--host-lo-to-ns-lo", "--version"))
    assert done.returncode == 0
    assert done.stdout.startswith("pasta ")


@pytest.mark.parametrize("who", ["root", "user"])
@pytest.mark.parametrize("target", ["pid", "paths"])
def test_rootlesskit(lab: Lab, who: Who, target: str, tmp_path: Path) -> None:
    with child(lab, who) as pid:
        where = [f"--userns=/proc/{pid}/ns/user", f"--netns=/proc/{pid}/ns/net"]
        ports = ["--tcp-ports=none", "--udp-ports=none"]
        words = [*COMMON, *ports, *([str(pid)] if target == "pid" else where)]
        with resolver(lab.host, "127.0.0.1", "here"):
            extra = ["--dns-host", "127.0.0.1"]
            done = run(on_host(lab, pasta(who, *extra, *words)))
            assert done.returncode == 0, done.stdout
            guest = Namespace.of_process(pid)
            shown = run(["nsenter", f"--net={guest.path}", "ip", "addr"]).stdout
            assert "inet 10.0.2.100/24" in shown
            assert ask(guest, "10.0.2.3") == "here"
        with (
            tcp_echo(lab.remote, REMOTE4) as server,
            guest.connect(REMOTE4, server.port) as sock,
        ):
            assert exchange(sock, b"out") == b"out"


def test_the_daemon_of_rootlesskit_ends_with_its_child(
    lab: Lab, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with child(lab, "root") as pid:
        words = [*COMMON, "--tcp-ports=auto", "--udp-ports=auto", "-P", str(pid_file)]
        assert run(on_host(lab, pasta("root", *words, str(pid)))).returncode == 0
        daemon = int(pid_file.read_text())
        assert not ended(daemon)
    wait_for(lambda: ended(daemon), "the daemon quits")


def test_ports_are_found_by_themselves(lab: Lab) -> None:
    """The driver that rootlesskit calls implicit: what listens is published."""
    lab.host.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
    with child(lab, "root") as pid:
        auto = ["--tcp-ports=auto", "--udp-ports=auto", "--host-lo-to-ns-lo"]
        assert (
            run(on_host(lab, pasta("root", *COMMON, *auto, str(pid)))).returncode == 0
        )
        guest = Namespace.of_process(pid)
        with tcp_echo(guest, "127.0.0.1", 18085):
            wait_until(lambda: lab.host.is_bound("tcp", 18085), 30, "the port is open")
            with lab.host.connect("127.0.0.1", 18085) as sock:
                assert exchange(sock, b"in") == b"in"


def test_both_families_are_left_to_us_unless_said(lab: Lab) -> None:
    with child(lab, "root") as pid:
        words = [word for word in COMMON if word != "--ipv4-only"]
        words += ["--tcp-ports=none", "--udp-ports=none", str(pid)]
        assert run(on_host(lab, pasta("root", *words))).returncode == 0
        guest = Namespace.of_process(pid)
        with (
            tcp_echo(lab.remote, REMOTE6) as server,
            guest.connect(REMOTE6, server.port) as sock,
        ):
            assert exchange(sock, b"v6") == b"v6"


def test_rootlesskit_2_0_makes_the_tap_itself(lab: Lab, tmp_path: Path) -> None:
    """It keeps pasta as its child, and does not wait for it to be ready; we do.

    The kernel asks for three seconds who has the gateway, which a busy machine needs.
    """
    pid_file = tmp_path / "pid"
    made = (
        "tuntap add name tap0 mode tap",
        "link set tap0 up",
        "address add 10.0.2.100/24 dev tap0",
        "route add default via 10.0.2.2 dev tap0",
    )
    words = [word for word in COMMON if word != "--config-net"]
    words[3:3] = ["--no-dhcp", "--no-ra"]
    with child(lab, "root") as pid:
        guest = Namespace.of_process(pid)
        for line in made:
            run(["nsenter", f"--net={guest.path}", "ip", *line.split()])
        words += ["--tcp-ports=none", "--udp-ports=none", str(pid)]
        words = ["--foreground", "-P", str(pid_file), *words]
        argv = on_host(lab, pasta("root", *words))
        with Running(argv) as running, tcp_echo(lab.remote, REMOTE4) as server:
            wait_for(lambda: pid_file.exists() and pid_file.read_text(), "it serves")
            with guest.connect(REMOTE4, server.port) as sock:
                assert exchange(sock, b"out") == b"out"
            assert running.popen.poll() is None
            kill_all(identify([pid]))
            assert running.wait() == 0
