# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be told about namespaces and commands without entering any."""

import pytest

from passtpy.config.model import AttachPath, AttachPid, Config, SpawnCommand
from passtpy.net.namespace import command, netns


def test_a_namespace_has_a_path() -> None:
    assert netns.netns_path(AttachPid(7)) == "/proc/7/ns/net"
    assert netns.netns_path(AttachPath("blue")) == "/run/netns/blue"
    assert netns.netns_path(AttachPath("./blue")) == "./blue"


def test_a_user_namespace_is_joined_only_when_asked_or_with_a_process() -> None:
    joined = [
        Config(target=AttachPid(7)),
        Config(target=AttachPid(7), netns_only=True),
        Config(target=AttachPath("/x"), netns_only=True),
        Config(target=AttachPath("/x"), userns="/y"),
        Config(target=SpawnCommand()),
    ]
    found = [netns.userns_path(config) for config in joined]
    assert found == ["/proc/7/ns/user", None, None, "/y", None]


@pytest.mark.parametrize(
    ("status", "shell"), [(0, 0), (7 << 8, 7), (9, 137), (15 | 0x80, 143)]
)
def test_a_status_is_told_as_a_shell_tells_it(status: int, shell: int) -> None:
    assert command.shell_status(status) == shell


def test_no_command_is_the_login_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert command.program(()) == ("/bin/bash", ["-bash"])
    monkeypatch.delenv("SHELL")
    assert command.program(()) == ("/bin/sh", ["-sh"])
    assert command.program(("ls", "-l")) == ("ls", ["ls", "-l"])
