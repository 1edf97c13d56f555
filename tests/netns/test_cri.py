# SPDX-License-Identifier: GPL-2.0-or-later
"""Pods as Kubernetes has them: Debian's containerd, asked as by a kubelet.

Its annotations choose a policy, and its host ports are forwarded, by our CNI plugin.
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.lab import HOST4, REMOTE4, Lab, exchange, tcp_echo, wait_until
from tests.netns.cri import Runtime, make_archive, pod
from tests.netns.program import ROOT
from tests.netns.rootless import make_image, missing

PLUGIN = ROOT / ".venv" / "bin" / "passtpy-cni"
LOOPBACK = Path("/usr/lib/cni/loopback")
LACKS = missing(("containerd", "ctr", "crun", "busybox", "curl", str(LOOPBACK)))
pytestmark = pytest.mark.skipif(LACKS is not None, reason=f"{LACKS} is not installed")

PATIENCE = 60.0
IMAGE = "localhost/pause:1"
PUBLISHED = 18090
LISTEN = (
    "nc -l -p 7 -e /bin/cat >/dev/null & "
    "until busybox grep -q ':0007 .* 0A ' /proc/net/tcp /proc/net/tcp6; "
    "do sleep 0.1; done"
)
POLICY = 'version = 1\n[[rule]]\nto = "{}"\nports = {}\naction = "allow"\n'
CONFIG = """\
version = 2
root = "{0}/root"
state = "{0}/state"
[grpc]
address = "{0}/socket"
[plugins."io.containerd.internal.v1.opt"]
path = "{0}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{1}"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{0}/plugins"
conf_dir = "{0}/networks"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{0}/runc"
"""
# Cgroups of the old kind want controllers that a machine may not have
RUNC = '#!/bin/sh\nexec crun --cgroup-manager=disabled "$@"\n'
START = """
mount --make-rprivate /
mount -t tmpfs none /run
umount -R /sys/fs/cgroup || :
mount -t cgroup2 none /sys/fs/cgroup
exec containerd --config "$0/config.toml"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """All that containerd is told, at a short path, for sockets."""
    made = Path(mkdtemp(prefix="ptpy"))
    made.chmod(0o755)
    make_image(made)
    make_archive(made / "image", made / "image.oci", IMAGE)
    for name in ("plugins", "networks", "policies", "fifos"):
        (made / name).mkdir()
    for plugin in (PLUGIN, LOOPBACK):
        (made / "plugins" / plugin.name).symlink_to(plugin)
    capabilities = {"portMappings": True, "io.kubernetes.cri.pod-annotations": True}
    plugin_words = {
        "type": PLUGIN.name,
        "policies": str(made / "policies"),
        "capabilities": capabilities,
    }
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin_words]}
    (made / "networks" / "1.conflist").write_text(json.dumps(network))
    (made / "runc").write_text(RUNC)
    (made / "runc").chmod(0o755)
    (made / "config.toml").write_text(CONFIG.format(made, IMAGE))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def ctr(folder: Path, *words: str) -> str:
    """What containerd's own client says, on both outputs."""
    argv = ["ctr", "--address", str(folder / "socket"), "--namespace", "k8s.io"]
    done = subprocess.run(
        [*argv, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout


@contextmanager
def containerd(lab: Lab, folder: Path) -> Iterator[Runtime]:
    """containerd on the lab's host, with the image; all that it starts ends with it."""
    new = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    process = lab.start(lab.host, "unshare", *new, "sh", "-c", START, str(folder))

    def serves() -> bool:
        assert process.running(), process.complaint()
        return (folder / "socket").exists()

    try:
        wait_until(serves, PATIENCE, "containerd's socket")
        ctr(
            folder, "images", "import", "--snapshotter", "native", f"{folder}/image.oci"
        )
        runtime = Runtime(folder / "socket")
        wait_until(lambda: runtime.has_image(IMAGE), PATIENCE, "the image")
        yield runtime
    finally:
        process.signal(signal.SIGKILL)  # unshare waits for its child otherwise
        process.stop()


def test_a_pod_chooses_its_policy_and_has_ports_of_the_host(
    lab: Lab, folder: Path
) -> None:
    with (
        tcp_echo(lab.remote, REMOTE4) as allowed,
        tcp_echo(lab.remote, REMOTE4) as refused,
        containerd(lab, folder) as runtime,
    ):
        policy = POLICY.format(REMOTE4, allowed.port)
        (folder / "policies" / "web.toml").write_text(policy)
        annotations = {"passtpy/policy": "web"}
        name = runtime.run_pod(pod("web", annotations, [(PUBLISHED, 7)]))
        script = "; ".join(
            f"echo hello | nc {REMOTE4} {server.port}" for server in (allowed, refused)
        )
        script += f"; ip addr show eth0; {LISTEN}"
        words = ("--fifo-dir", f"{folder}/fifos", "--exec-id", "one", name)
        said = ctr(folder, "tasks", "exec", *words, "sh", "-c", script)
        assert f"inet {HOST4}/24" in said
        assert said.splitlines().count("hello") == 1
        assert "Connection refused" in said
        with lab.remote.connect(HOST4, PUBLISHED) as sock:
            assert exchange(sock, b"published") == b"published"
        runtime.end_pod(name)
        assert not lab.host.is_bound("tcp", PUBLISHED)


def test_a_pod_without_its_policy_does_not_start(lab: Lab, folder: Path) -> None:
    request = pod("lost", {"passtpy/policy": "nowhere"}, [])
    with (
        containerd(lab, folder) as runtime,
        pytest.raises(AssertionError, match=r"nowhere.toml: there is no such file"),
    ):
        runtime.run_pod(request)


@pytest.mark.parametrize("program", ["crio", "kubelet"])
def test_who_else_gives_pods_a_network(program: str) -> None:
    """Not tried yet: docs/clients.md tells what is nearest to it."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed, and no Debian has a package of it")
    pytest.xfail(f"{program} is here, and nobody has tried it")
