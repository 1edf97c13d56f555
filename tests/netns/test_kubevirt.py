# SPDX-License-Identifier: GPL-2.0-or-later
"""What passt is told in a pod of KubeVirt, word for word.

KubeVirt, or the sidecar of its binding plugin, describes an interface, and the libvirt
beside it makes these words of it: all ports where the machine names none, the ports
that it names, and all but those of Istio's proxy. The log has one place.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from scapy.layers.l2 import ARP

from tests.lab import GATEWAY4, Lab
from tests.lab.vhost_frontend import Frontend
from tests.netns.machine import Plug, arp, connect, program
from tests.netns.program import command_line, ended, run, wait_for

PLACE = Path("/var/run/kubevirt")
ISTIO = (15000, 15001, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090)


@dataclass(frozen=True, slots=True)
class Case:
    """What an interface's ports become, and ports that must then be open or not.

    `all` stops short of the host's ephemeral ports, and leaves out what exceeds the
    limit of open files, which is 20 000 on some machines.
    """

    name: str
    ephemeral: int
    words: tuple[str, ...]
    tcp: tuple[int, ...]
    udp: tuple[int, ...]
    closed: tuple[int, ...]


CASES = (
    Case(
        "all", 9000, ("--tcp-ports", "all", "--udp-ports", "all"), (8080,), (5353,), ()
    ),
    Case(
        "named",
        16000,
        ("--tcp-ports", "8080,9090", "--udp-ports", "5353"),
        *((8080, 9090), (5353,), (8081, 15001)),
    ),
    Case(
        "istio",
        16000,
        ("--tcp-ports", ",".join(f"~{port}" for port in ISTIO)),
        *((8080, 15002), (), ISTIO),
    ),
)
# How libvirt 11.3 begins, for an interface of each type; KubeVirt has had both
VHOST_USER = ("--vhost-user", "--one-off", "--socket")
STREAM = ("--one-off", "--socket")


@pytest.fixture
def folder() -> Iterator[Path]:
    """What the pod has as /var/run/kubevirt; a short path, which sockets need."""
    made = Path(mkdtemp(prefix="ptpy"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("begin", [VHOST_USER, STREAM], ids=["vhostuser", "user"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_pod_of_kubevirt_says(
    lab: Lab, folder: Path, case: Case, begin: tuple[str, ...]
) -> None:
    lab.host.sysctl("net.ipv4.ip_local_port_range", f"{case.ephemeral} 65535")
    lab.host.sysctl("net.ipv4.ip_unprivileged_port_start", "1")
    name = "1-default_vm-default"
    words = [
        *(*begin, f"{PLACE}/{name}.socket", "--pid", f"{PLACE}/{name}-passt.pid"),
        *("--interface", "eth0", "--log-file", f"{PLACE}/passt.log"),
        *case.words,
    ]
    prepare = f"mount -t tmpfs none /run; mkdir {PLACE}; mount --bind {folder} {PLACE}"
    argv = command_line("user", program(), *words, prepare=prepare)
    done = run(["nsenter", f"--net={lab.host.path}", "--", *argv])
    assert (done.returncode, done.stdout) == (0, "")
    for kind, ports in (("tcp", case.tcp), ("udp", case.udp)):
        assert all(lab.host.is_bound(kind, port) for port in ports)
    assert not any(lab.host.is_bound("tcp", port) for port in case.closed)
    sock = connect(folder / f"{name}.socket")
    if begin == VHOST_USER:
        Frontend(sock).close()
    else:
        with Plug(sock) as plug:
            plug.send(arp(GATEWAY4))
            assert plug.recv(lambda p: ARP in p and p[ARP].op == 2)
    pid = int((folder / f"{name}-passt.pid").read_text())
    wait_for(lambda: ended(pid), "--one-off ends it")
    assert "passt" in (folder / "passt.log").read_text().splitlines()[0]
