# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's containerd, whose client attaches a container by our CNI plugin.

Behind ours in the list is one of the CNI project: it reads what ours has answered.
"""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.lab import HOST4, REMOTE4, Lab, TcpServer
from tests.netns.program import ROOT
from tests.netns.rootless import make_image, missing

PLUGINS = Path("/usr/lib/cni")
NEEDED = ("containerd", "ctr", "crun", "busybox", str(PLUGINS / "tuning"))
LACKS = missing(NEEDED)
PLUGIN = ROOT / ".venv" / "bin" / "passtpy-cni"
NETWORK = "passtpytest"
POLICY = 'version = 1\n[[rule]]\nto = "{}"\nports = {}\naction = "allow"\n'
PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
PATIENCE = 150.0

# Its paths are built in, so it has an /etc, an /opt and a /run of its own. Cgroups are
# left alone: those of the old kind want controllers that a machine may not have.
SCRIPT = """
cd "$0"
mount --make-rprivate /
mount -t tmpfs none changes
for name in etc opt; do
    mkdir changes/$name changes/$name.work
    mount -t overlay none -o \
        "lowerdir=/$name,upperdir=changes/$name,workdir=changes/$name.work" "/$name"
done
mount -t tmpfs none /run
umount -R /sys/fs/cgroup || :
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /opt/cni/bin /etc/cni/net.d
rm -f /etc/cni/net.d/*
ln -sf "$1" "$2" /opt/cni/bin/
cp network.conflist /etc/cni/net.d/
containerd --config config.toml >log 2>&1 &
until [ -S socket ]; do
    kill -0 $! || { cat log; exit 1; } >&2
    sleep 0.1
done
ctr="ctr --address $0/socket run --rm --runc-binary $0/runc --env PATH=/bin --cni"
$ctr --rootfs "$0/image" one sh -c "$3"
ls /run/passtpy/cni/*
"""
RUNC = '#!/bin/sh\nexec crun --cgroup-manager=disabled "$@"\n'
CONFIG = """\
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/socket"
[plugins."io.containerd.internal.v1.opt"]
path = "{0}/opt"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets; with an image, and a runtime without cgroups."""
    made = Path(mkdtemp(prefix="ptpy"))
    made.chmod(0o755)
    make_image(made)
    (made / "changes").mkdir()
    (made / "runc").write_text(RUNC)
    (made / "runc").chmod(0o755)
    (made / "config.toml").write_text(CONFIG.format(made))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def page(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(PAGE)


@pytest.mark.skipif(LACKS is not None, reason=f"{LACKS} is not installed")
def test_containerd_attaches_a_container_under_a_policy(lab: Lab, folder: Path) -> None:
    with (
        TcpServer(lab.remote, REMOTE4, page) as allowed,
        TcpServer(lab.remote, REMOTE4, page) as refused,
    ):
        policy = folder / "policy.toml"
        policy.write_text(POLICY.format(REMOTE4, allowed.port))
        plugins = [
            {"type": "passtpy-cni", "policy": str(policy)},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "97"}},
        ]
        document = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": plugins}
        (folder / "network.conflist").write_text(json.dumps(document))
        get = f"wget -q -O - http://{REMOTE4}:"
        inside = "ip address show eth0; cat /proc/sys/net/core/somaxconn; "
        inside += f"{get}{allowed.port}/; {get}{refused.port}/"
        new = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = ("sh", "-c", SCRIPT, str(folder), str(PLUGIN), NEEDED[-1], inside)
        done = lab.host.run("unshare", *new, *words, timeout=PATIENCE, check=False)
    assert f"inet {HOST4}/24" in done.stdout, done.stderr
    # The page once, and no file of a container that has left
    assert done.stdout.endswith("\n97\nhello"), done.stdout
    assert "Connection refused" in done.stderr
