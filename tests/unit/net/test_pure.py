# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of net/ that only compute."""

import struct
from sys import byteorder

import pytest

from passtpy.config.model import AttachPath, AttachPid, Config, SpawnCommand
from passtpy.net import command, netns, signals


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


def inotify(mask: int, name: bytes) -> bytes:
    padded = name + bytes(-len(name) % 16)
    head = [n.to_bytes(4, byteorder) for n in (1, mask, 0, len(padded))]
    return b"".join(head) + padded


def test_inotify_events_are_read_one_by_one() -> None:
    data = inotify(netns.IN_DELETE, b"a") + inotify(netns.IN_DELETE_SELF, b"")
    assert netns.inotify_events(data) == [
        (netns.IN_DELETE, b"a"),
        (netns.IN_DELETE_SELF, b""),
    ]


def test_half_an_inotify_event_is_no_event() -> None:
    assert netns.inotify_events(inotify(netns.IN_DELETE, b"a")[:10]) == []


def test_a_signal_tells_whether_the_kernel_sent_it() -> None:
    record = struct.Struct("=IiiI112x")
    data = record.pack(2, 0, 0x80, 0) + record.pack(15, 0, 0, 77)
    assert signals.parse_signals(data) == [
        signals.Signal(2, True),
        signals.Signal(15, False),
    ]


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
