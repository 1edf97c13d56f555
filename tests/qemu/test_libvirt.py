# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian 12's libvirt, in an ordinary user's session, and a machine in our network."""

import socket
from collections.abc import Iterator

import pytest

from tests.lab import HOST4, REMOTE4, Lab, TcpServer, exchange
from tests.netns.policed import only_port
from tests.netns.program import wait_for
from tests.netns.rootless import RootlessUser, missing, rootless_user
from tests.qemu.image import Image
from tests.qemu.machine import MAC
from tests.qemu.virsh import Domain

LACKS = missing(("virsh", "libvirtd", "busybox"))
pytestmark = pytest.mark.skipif(LACKS is not None, reason=f"{LACKS} is not installed")

PORT, OTHER, PUBLISHED = 7001, 7002, 2222
POLICY = f"""\
{only_port(PORT)}
[[rule]]
to = "{REMOTE4}"
proto = "icmp"
action = "allow"
"""
PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BACKEND = "<interface type='user'><backend type='passt'/></interface>"


def page(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(PAGE)


@pytest.fixture
def user(lab: Lab) -> Iterator[RootlessUser]:
    with rootless_user(lab) as made:
        yield made


def test_its_schema_has_no_passt(user: RootlessUser, image: Image) -> None:
    """Debian has taken it out of 9.0.0: who has another libvirt sees it start us."""
    user.offer("passt")
    domain = Domain(user, image, BACKEND)
    said = domain.create().stdout
    domain.destroy()
    domain.close()
    refusal = "Invalid value for attribute 'type' in element 'backend': 'passt'"
    assert refusal in said or user.calls.read_text().startswith("--one-off --socket")


def test_words_for_qemu_lead_to_our_socket_and_policy(
    lab: Lab, user: RootlessUser, image: Image
) -> None:
    user.offer("passt")
    (user.home / "policy.toml").write_text(POLICY)
    path = user.home / "run" / "net.socket"
    done = user.do(
        f"passt -q --one-off --pid run/pid --socket {path} "
        f"--policy policy.toml -t {PUBLISHED}:22"
    )
    assert (done.returncode, done.stdout) == (0, "")
    netdev = f"stream,id=n,server=off,addr.type=unix,addr.path={path}"
    device = f"virtio-net-pci,netdev=n,mac={MAC},romfile=,addr=0x1e"
    domain = Domain(user, image, words=("-netdev", netdev, "-device", device))
    with (
        TcpServer(lab.remote, REMOTE4, page, PORT),
        TcpServer(lab.remote, REMOTE4, page, OTHER),
    ):
        domain.boot()
        domain.take_lease()
        assert domain.run(f"wget -q -O - http://{REMOTE4}:{PORT}/") == "hello"
        assert domain.run(f"ping -c 1 -W 30 {REMOTE4}")
        assert not domain.succeeds(f"wget -q -O - http://{REMOTE4}:{OTHER}/")
    domain.background("nc -l -p 22 -e cat")
    domain.wait_bound("tcp", 22)
    with lab.remote.connect(HOST4, PUBLISHED) as sock:
        assert exchange(sock, b"published") == b"published"
    assert domain.destroy().returncode == 0
    domain.close()
    wait_for(lambda: not path.exists(), "--one-off ends it")
