# SPDX-License-Identifier: GPL-2.0-or-later
"""rootlesskit 2 and docker 26 without root, by our pasta and our slirp4netns."""

import pytest

from tests.clients.conftest import PORT
from tests.lab import REMOTE4
from tests.netns.dockerd import use_docker
from tests.netns.rootless import RootlessUser
from tests.netns.rootlesskit import use_rootlesskit

DRIVERS = pytest.mark.parametrize(
    ("net", "ports"),
    [
        ("pasta", "implicit"),
        ("slirp4netns", "slirp4netns"),
        ("slirp4netns", "builtin"),
    ],
)
ECHO = f"echo outside | busybox nc {REMOTE4} {PORT}"


@DRIVERS
def test_rootlesskit(user: RootlessUser, net: str, ports: str) -> None:
    said = use_rootlesskit(user, net, ports, f"busybox ip addr show tap0; {ECHO}")
    for words in ("inet 10.0.2.100/24", "\noutside\n", "hello\n"):
        assert words in said, said
    first = {"pasta": "--foreground --stderr --ns-ifname=tap0", "slirp4netns": "--mtu"}
    assert f"\n{first[net]}" in "\n" + user.calls.read_text()


@DRIVERS
def test_docker(user: RootlessUser, net: str, ports: str) -> None:
    said = use_docker(user, net, ports, ECHO)
    words = [line for line in said.splitlines() if line in ("outside", "hello")]
    assert words == ["outside", "hello"], said
    calls = user.calls.read_text()
    assert ("--tcp-ports=auto" in calls) == (net == "pasta")
    assert ("--api-socket" in calls) == (ports == "slirp4netns")
