# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI project's own client: a pod is attached by our plugin, checked, let go."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.clients.conftest import DEBIAN
from tests.lab import HOST4, Lab, Namespace, exchange, tcp_echo
from tests.lab.namespace import wait_until
from tests.netns.program import ROOT

CNITOOL = DEBIAN / "usr" / "local" / "bin" / "cnitool"
PLUGINS = ROOT / ".venv" / "bin"
NETWORK = "passtpytest"
PUBLISHED = 18091
# It keeps what ADD answered below /var/lib/cni, a folder of its own here.
PLACE = 'mount --bind "$0" /var/lib && exec "$@"'


class CniTool:
    """Calls it on the lab's host."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._kept = folder / "kept"
        self._kept.mkdir()
        plugin = {"type": "passtpy-cni", "capabilities": {"portMappings": True}}
        network = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin]}
        (folder / "1.conflist").write_text(json.dumps(network))
        self._env = {"CNI_PATH": str(PLUGINS), "NETCONFPATH": str(folder)}
        self.pod = lab.guest()

    def call(self, command: str, **arguments: object) -> CompletedProcess[str]:
        own = ("unshare", "--mount", "sh", "-c", PLACE, str(self._kept))
        words = (str(CNITOOL), command, NETWORK, str(self.pod.path))
        env = self._env | {"CAP_ARGS": json.dumps(arguments)}
        return self._lab.host.run(*own, *words, env=env, check=False)


@pytest.fixture
def cnitool(lab: Lab, tmp_path: Path) -> Iterator[CniTool]:
    made = CniTool(lab, tmp_path)
    yield made
    made.call("del")


def reached(lab: Lab, pod: Namespace) -> bytes:
    """What comes back from the pod by the host's port."""
    with tcp_echo(pod, "0.0.0.0", 7), lab.remote.connect(HOST4, PUBLISHED) as sock:
        return exchange(sock, b"published")


def test_a_pod_is_attached_checked_and_let_go(lab: Lab, cnitool: CniTool) -> None:
    mapping = {"hostPort": PUBLISHED, "containerPort": 7, "protocol": "tcp"}
    added = cnitool.call("add", portMappings=[mapping])
    assert added.returncode == 0, added.stderr
    addresses = [each["address"] for each in json.loads(added.stdout)["ips"]]
    assert f"{HOST4}/24" in addresses
    assert reached(lab, cnitool.pod) == b"published"
    assert cnitool.call("check").returncode == 0
    assert cnitool.call("del").returncode == 0
    wait_until(lambda: not lab.host.is_bound("tcp", PUBLISHED), 30, "the port is free")
    assert cnitool.call("check").returncode != 0
