# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI plugin: by its protocol, and with a real runtime, Debian's podman."""

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passtpy.config.cni import BAD_CONFIG, VALID
from tests.lab import HOST4, REMOTE4, Lab, Namespace, exchange, tcp_echo
from tests.lab.namespace import wait_until
from tests.lab.traffic import TcpServer
from tests.netns.program import ROOT
from tests.netns.rootless import make_image, missing

PLUGIN = ROOT / ".venv" / "bin" / "passtpy-cni"
NETWORK = "passtpytest"
POLICY = 'version = 1\n[[rule]]\naction = "allow"\nto = ["198.51.100.0/24"]\n'
IMAGE_WAIT = 150.0


class Runtime:
    """Calls the plugin as a container runtime on the lab's host does."""

    def __init__(self, lab: Lab, pod: Namespace) -> None:
        self._lab = lab
        self.pod = pod
        self.status = 0

    def call(self, command: str, *, container: str = "pod1", **more: Any) -> Any:
        """What the plugin answers; None: nothing."""
        config = {"cniVersion": "1.1.0", "name": NETWORK, "type": "passtpy-cni"}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(self.pod.path),
        }
        done = self._lab.host.run(
            str(PLUGIN),
            stdin=json.dumps({**config, **more}),
            env=environment,
            check=False,
        )
        self.status = done.returncode
        return json.loads(done.stdout) if done.stdout else None

    def refused(self, command: str, **more: Any) -> int:
        """The code of an error, as which alone the answer counts."""
        answer = self.call(command, **more)
        assert self.status == 1
        code: int = answer["code"]
        return code


@pytest.fixture
def runtime(lab: Lab) -> Iterator[Runtime]:
    made = Runtime(lab, lab.guest())
    yield made
    made.call("GC")


def test_a_pod_is_attached_checked_and_let_go(lab: Lab, runtime: Runtime) -> None:
    answer = runtime.call("ADD")
    assert runtime.status == 0
    (interface,) = answer["interfaces"]
    assert interface["name"] == "eth0"
    assert interface["sandbox"] == str(runtime.pod.path)
    shown = runtime.pod.ip("address", "show", "eth0")
    assert interface["mac"] in shown
    assert answer["ips"]
    assert all(each["address"] in shown for each in answer["ips"])
    assert {each["dst"] for each in answer["routes"]} == {"0.0.0.0/0", "::/0"}
    with (
        tcp_echo(lab.remote, REMOTE4) as server,
        runtime.pod.connect(REMOTE4, server.port) as sock,
    ):
        assert exchange(sock, b"pod") == b"pod"

    assert runtime.call("CHECK", prevResult=answer) is None
    assert runtime.status == 0
    assert runtime.refused("ADD") == 4  # attached already
    strange = {"ips": [{"address": "192.0.2.99/24"}]}
    assert runtime.refused("CHECK", prevResult=strange) == 100
    for _ in range(2):  # an end may be asked for again
        assert runtime.call("DEL") is None
        assert runtime.status == 0
    assert runtime.refused("CHECK", prevResult=answer) == 100
    wait_until(
        lambda: not runtime.pod.has_route4(), 30, "the interface is gone with the pod"
    )


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_result_has_the_form_of_its_version(runtime: Runtime, version: str) -> None:
    answer = runtime.call("ADD", cniVersion=version)
    assert runtime.status == 0
    assert answer["cniVersion"] == version
    for each in answer["ips"]:
        family = "6" if ":" in each["address"] else "4"
        assert each.get("version") == (family if version < "1" else None)
        assert each["interface"] == 0
    assert runtime.call("DEL", cniVersion=version, prevResult=answer) is None
    assert runtime.status == 0


def test_ports_of_the_host_lead_to_the_pod(lab: Lab, runtime: Runtime) -> None:
    with tcp_echo(runtime.pod, "0.0.0.0") as server:
        ports = [{"hostPort": 18080, "containerPort": server.port, "protocol": "tcp"}]
        runtime.call("ADD", runtimeConfig={"portMappings": ports})
        assert runtime.status == 0
        with lab.remote.connect(HOST4, 18080) as sock:
            assert exchange(sock, b"published") == b"published"


def test_a_pod_reaches_what_its_policy_says(
    lab: Lab, runtime: Runtime, tmp_path: Path
) -> None:
    path = tmp_path / "web.toml"
    path.write_text(POLICY)
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    asked = {"io.kubernetes.cri.pod-annotations": {"passtpy/policy": "web"}}
    answer = runtime.call("ADD", policies=str(tmp_path), runtimeConfig=asked)
    assert runtime.status == 0, answer
    with tcp_echo(lab.remote, REMOTE4) as server:
        with runtime.pod.connect(REMOTE4, server.port) as sock:
            assert exchange(sock, b"allowed") == b"allowed"
        with pytest.raises(ConnectionRefusedError):
            runtime.pod.connect("203.0.113.1", server.port)


def test_what_cannot_be_attached_leaves_nothing(lab: Lab, runtime: Runtime) -> None:
    answer = runtime.call("ADD", options=["--mtu", "1"])
    assert runtime.status == 1
    assert answer["cniVersion"] == "1.1.0"
    assert "MTU" in answer["msg"]
    with lab.host.listen(HOST4, 0) as taken:
        mapping = {"hostPort": taken.getsockname()[1], "containerPort": 80}
        code = runtime.refused("ADD", runtimeConfig={"portMappings": [mapping]})
    assert code == BAD_CONFIG
    assert "eth0" not in runtime.pod.ip("link", "show")
    assert runtime.refused("CHECK") == 100


def test_what_nobody_wants_any_more_is_collected(lab: Lab, runtime: Runtime) -> None:
    runtime.call("ADD", container="kept")
    kept, runtime.pod = runtime.pod, lab.guest()
    runtime.call("ADD", container="lost")
    wanted: dict[str, Any] = {VALID: [{"containerID": "kept", "ifname": "eth0"}]}
    assert runtime.call("GC", **wanted) is None
    assert runtime.status == 0
    lost, runtime.pod = runtime.pod, kept
    assert runtime.call("CHECK", container="kept") is None
    assert runtime.status == 0
    runtime.pod = lost
    runtime.call("CHECK", container="lost")
    assert runtime.status == 1


def test_versions_and_status_are_told(runtime: Runtime) -> None:
    assert "1.1.0" in runtime.call("VERSION")["supportedVersions"]
    assert runtime.call("STATUS") is None
    assert runtime.status == 0
    assert runtime.refused("UNKNOWN") == 4
    assert runtime.refused("ADD", cniVersion="0.2.0") == 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: podman's limit is 50 characters."""
    made = Path(tempfile.mkdtemp(prefix="ptpy"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.skipif(missing() is not None, reason=f"{missing()} is not installed")
def test_podman_attaches_its_containers_by_it(lab: Lab, folder: Path) -> None:
    """As root, with the CNI back-end of podman 4."""
    make_image(folder)
    networks = folder / "networks"
    networks.mkdir()
    ports = {"portMappings": True}
    plugin = {"type": "passtpy-cni", "capabilities": ports, "options": ["--no-map-gw"]}
    document = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin]}
    (networks / f"{NETWORK}.conflist").write_text(json.dumps(document))
    (folder / "containers.conf").write_text(
        f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{PLUGIN.parent}"]\n'
        f'network_config_dir = "{networks}"\n'
    )
    podman = (
        f"podman --root {folder}/root --runroot {folder}/run --storage-driver=vfs "
        "--cgroup-manager=cgroupfs --log-level=error --events-backend=file"
    )

    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with TcpServer(lab.remote, REMOTE4, serve) as server:
        script = f"""
mount --make-rshared /
umount -R /sys/fs/cgroup || :
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /dev/shm
{podman} import {folder}/image.tar t
{podman} run --rm --cgroups=disabled --ulimit nofile=1024 --ulimit nproc=1024 \
    --network {NETWORK} t sh -c \
    'ip address show eth0; wget -q -O - http://{REMOTE4}:{server.port}/'
"""
        done = lab.host.run(
            *("unshare", "--mount", "sh", "-ec", script),
            env={"CONTAINERS_CONF": str(folder / "containers.conf")},
            timeout=IMAGE_WAIT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert HOST4 in done.stdout
    assert done.stdout.endswith("hello"), done.stdout
