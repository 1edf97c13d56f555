# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian 12's docker, without root, in the network of our slirp4netns."""

from collections.abc import Iterator

import pytest

from tests.lab import REMOTE4, Lab, tcp_echo
from tests.netns.dockerd import use_docker, why_missing
from tests.netns.rootless import RootlessUser, rootless_user

LACKS = why_missing()
pytestmark = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))


@pytest.fixture
def user(lab: Lab) -> Iterator[RootlessUser]:
    with rootless_user(lab) as made:
        made.offer("slirp4netns")
        yield made


@pytest.mark.parametrize("ports", ["builtin", "slirp4netns"])
def test_containers_reach_out_and_are_reached(
    lab: Lab, user: RootlessUser, ports: str
) -> None:
    with tcp_echo(lab.remote, REMOTE4) as server:
        inside = f"echo outside | busybox nc {REMOTE4} {server.port}"
        said = use_docker(user, "slirp4netns", ports, inside)
    words = [line for line in said.splitlines() if line in ("outside", "hello")]
    assert words == ["outside", "hello"], said
    calls = user.calls.read_text()
    assert " tap0\n" in calls
    assert ("--api-socket" in calls) == (ports == "slirp4netns")
