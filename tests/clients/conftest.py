# SPDX-License-Identifier: GPL-2.0-or-later
"""An ordinary user of a Debian 13, which .ci/setup-clients has made."""

from collections.abc import Iterator

import pytest

from tests.lab import REMOTE4, Lab, tcp_echo
from tests.netns.policed import only_port
from tests.netns.program import ROOT
from tests.netns.rootless import RootlessUser, rootless_user

DEBIAN = ROOT / "build" / "clients" / "root"
PORT, OTHER = 7001, 7002
POLICY = only_port(PORT)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A host with servers outside, which leaves ports that are not ephemeral."""
    with (
        Lab() as made,
        tcp_echo(made.remote, REMOTE4, PORT),
        tcp_echo(made.remote, REMOTE4, OTHER),
    ):
        made.host.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
        yield made


@pytest.fixture(scope="module")
def user(lab: Lab) -> Iterator[RootlessUser]:
    """The user, with all our names on the PATH, a policy, and an image for podman."""
    with rootless_user(lab, DEBIAN) as made:
        for name in ("pasta", "passt", "slirp4netns"):
            made.offer(name)
        (made.home / "policy.toml").write_text(POLICY)
        done = made.do("$P import image.tar t")
        assert done.returncode == 0, done.stdout
        yield made
        made.do("$P rm --all --force --time 0; $P pod rm --all --force")


@pytest.fixture(autouse=True)
def _calls_forgotten(user: RootlessUser) -> None:
    """A test sees what was said to us in it."""
    user.calls.write_text("")
