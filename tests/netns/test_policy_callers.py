# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies where somebody else writes the command line: podman and libvirt.

podman 5 makes options of pasta of what stands behind `--network pasta:`, at each comma.
libvirt has no words for a policy: what it calls is a script that adds them. Any
podman's containers may also be in the network of `passtpy run`.
"""

import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.lab import HOST4, REMOTE4, Lab, TcpServer, tcp_echo
from tests.netns.machine import GUEST_MAC, PATIENCE, Plug, connect
from tests.netns.nameserver import NameServer
from tests.netns.policed import only_port, tcp_to
from tests.netns.program import PROGRAM, ROOT, ended, pasta, run, wait_for
from tests.netns.resolvers import etc, with_etc
from tests.netns.rootless import PODMAN, missing
from tests.netns.test_podman import Container, container, podman_words

__all__ = ["container"]
PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
Words = Sequence[str]
PORT, OTHER = 7001, 7002
POLICY = only_port(PORT)
REFUSED = "ConnectionRefusedError"
EVIL = "evil.example"
SECTION = (ROOT / "docs" / "policy.md").read_text().partition("\n## Examples\n")[2]
AGENT, CI = re.findall(r"^```toml\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[:2]
SCRIPT = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[0]
NAMES = (
    "api.anthropic.com",
    "github.com",
    "pypi.org",
    "deb.debian.org",
    "evil.example",
)
PROBE = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 30) as sock:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % host.encode())
            print("open" if sock.recv(99).startswith(b"HTTP/1.0 200") else "refused")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    zone = [f"{name}. 300 A {REMOTE4}" for name in NAMES]

    def page(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(PAGE)

    with ExitStack() as stack:
        made = stack.enter_context(Lab())
        stack.enter_context(NameServer(*zone).serving(made.remote, REMOTE4))
        for port in (22, 80, 443):
            stack.enter_context(TcpServer(made.remote, REMOTE4, page, port))
        for port in (PORT, OTHER):
            stack.enter_context(tcp_echo(made.remote, REMOTE4, port))
        made.dir.joinpath("host").mkdir()
        etc(made.dir / "host", REMOTE4)
        (made.dir / "policy.toml").write_text(POLICY)
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, which sockets and podman need."""
    made = Path(mkdtemp(prefix="ptpy"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _words(lab: Lab, text: str, *argv: str, options: Words = ()) -> list[str]:
    """The words that run a command under a policy."""
    path = lab.dir / "example.toml"
    path.write_text(text)
    return [str(PROGRAM), "run", *options, "--policy", str(path), "--", *argv]


def _said(lab: Lab, text: str, *places: str) -> list[str]:
    """What becomes of connections to these places under a policy."""
    words = _words(lab, text, sys.executable, "-c", PROBE, *places)
    words = with_etc(lab.dir / "host", words)
    return lab.host.run(*words, timeout=100).stdout.splitlines()


def test_the_policy_of_an_agent(lab: Lab) -> None:
    text = AGENT.replace("ask_timeout = 60", "ask_timeout = 1")
    places = "api.anthropic.com:443", "github.com:443", "pypi.org:443", "pypi.org:80"
    evil = "evil.example:443", f"{REMOTE4}:22"
    said = _said(lab, text, *places, *evil)
    assert said == ["open"] * 3 + [REFUSED, "refused", REFUSED]


def test_the_policy_of_a_job(lab: Lab) -> None:
    places = "deb.debian.org:80", "pypi.org:443", "github.com:443", "github.com:22"
    evil = "evil.example:443", "github.com:80", f"{REMOTE4}:7001"
    said = _said(lab, CI, *places, *evil)
    assert said == ["open"] * 4 + ["gaierror", "refused", REFUSED]


def test_podmans_options_after_a_comma_are_a_policy(
    lab: Lab, container: Container
) -> None:
    network = f"pasta:--policy,{lab.dir}/policy.toml"
    options = network.removeprefix("pasta:").split(",")
    words = podman_words(
        container.path, ["-P", str(container.pid_file), *options], [("-t", "8080:80")]
    )
    done = run(["nsenter", f"--net={lab.host.path}", "--", *pasta("root", *words)])
    assert (done.returncode, done.stdout) == (0, "")
    assert tcp_to(container.guest, REMOTE4, PORT, PATIENCE) == "open"
    assert tcp_to(container.guest, REMOTE4, OTHER, PATIENCE) == REFUSED


# cgroups of the new form, and a resolver of the lab's host
PREPARE = """
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /dev/shm
mount --bind "$0/resolv.conf" /etc/resolv.conf
exec "$@"
"""
IMAGE = """
mkdir -p image/bin image/etc image/tmp
cp {busybox} image/bin/busybox
for name in sh wget; do ln -s busybox image/bin/$name; done
tar -C image -cf image.tar .
{podman} import -q image.tar t
"""


@pytest.mark.skipif(missing() is not None, reason=f"{missing()} is not installed")
def test_a_container_in_the_network_of_a_run(lab: Lab, folder: Path) -> None:
    podman = " ".join(
        ["podman", f"--root={folder}/root", f"--runroot={folder}/run", *PODMAN[1:]]
    )
    image = IMAGE.format(busybox=shutil.which("busybox"), podman=podman)
    get = "wget -q -O - http://{}/ || echo refused"
    inside = "; ".join(get.format(name) for name in ("deb.debian.org", "evil.example"))
    script = f"cd {folder}; {podman} run --rm --network host --cgroups disabled t "
    run(["sh", "-ec", f"cd {folder}{image}"])
    script += f"sh -c '{inside}'"
    argv = _words(lab, CI, "sh", "-c", script, options=["--netns-only"])
    words = ["unshare", "--mount", "sh", "-ec", PREPARE, f"{lab.dir}/host/etc"]
    assert lab.host.run(*words, *argv, timeout=100).stdout == "hellorefused\n"


def _from(port: int) -> Callable[[Packet], bool]:
    return lambda packet: TCP in packet and packet[TCP].sport == port


def test_a_script_in_the_place_of_libvirts_passt(lab: Lab, folder: Path) -> None:
    script = folder / "passt"
    ours = f"{ROOT}/.venv/bin/passtpy-passt"
    text = SCRIPT.replace("passtpy-passt", ours)
    policy = lab.dir / "policy.toml"
    script.write_text(text.replace("/etc/passtpy/machines.toml", str(policy)))
    script.chmod(0o755)
    path, pid_file = folder / "socket", folder / "pid"
    words = [str(script), "--one-off", "--socket", str(path), "--pid", str(pid_file)]
    words += ["--log-file", str(folder / "log"), "--interface", "eth0"]
    words += ["--address", HOST4, "--netmask", "24"]
    done = run(["nsenter", f"--net={lab.host.path}", "--", *words])
    assert (done.returncode, done.stdout) == (0, "")
    pid = int(pid_file.read_text())
    with Plug(connect(path)) as plug:
        for port, flags in ((PORT, "SA"), (OTHER, "RA")):
            syn = IP(src=HOST4, dst=REMOTE4) / TCP(sport=40000, dport=port, flags="S")
            plug.send(Ether(src=GUEST_MAC, dst="ff:ff:ff:ff:ff:ff") / syn)
            found = plug.recv(_from(port))
            assert str(found[TCP].flags) == flags
    wait_for(lambda: ended(pid), "--one-off ends it")
