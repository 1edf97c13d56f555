# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of a socket is taken when it is free, or left behind, and never else."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from passtpy.config.model import ServeFd, ServeSocket
from passtpy.errors import SetupError
from passtpy.net.machine import unix_socket
from passtpy.net.machine.unix_socket import MachineSocket, open_socket


@pytest.fixture
def opened() -> Iterator[list[MachineSocket]]:
    """What is closed at the end."""
    made: list[MachineSocket] = []
    yield made
    for each in made:
        each.close()


def at(path: Path) -> MachineSocket:
    return open_socket(ServeSocket(str(path)), None)


def refused(path: Path) -> str:
    with pytest.raises(SetupError) as caught:
        at(path)
    return str(caught.value)


def left_behind(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))


def test_a_free_name_is_taken_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = at(path)
    assert made.listens
    assert made.path == str(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    made.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_was_left_behind_is_replaced(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    left_behind(path, kind)
    at(path).close()


@pytest.mark.parametrize(
    "kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
)
def test_what_somebody_holds_is_not(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        assert refused(path) == f"Socket path {path} already in use"
        if kind != socket.SOCK_DGRAM:
            sock.listen()
            assert refused(path) == f"Socket path {path} already in use"
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.accept()  # nobody was disturbed


def test_what_is_no_socket_is_not_either(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    assert refused(path) == f"Socket path {path} is no socket"
    assert path.read_text() == "precious"


def test_a_link_is_no_socket_wherever_it_leads(tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    left_behind(other)
    path.symlink_to(other)
    assert refused(path) == f"Socket path {path} is no socket"
    assert other.exists()


def test_a_name_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = at(path)
    path.unlink()
    path.touch()
    made.close()
    assert path.exists()


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "s"
    assert refused(path) == f"Couldn't open socket {path}: No such file or directory"


def test_the_first_free_default_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[MachineSocket]
) -> None:
    paths = [str(tmp_path / f"passt_{n}.socket") for n in range(1, 5)]
    monkeypatch.setattr(unix_socket, "DEFAULT_PATHS", tuple(paths))
    Path(paths[0]).touch()
    left_behind(Path(paths[2]))
    for expected in paths[1:]:
        opened.append(open_socket(ServeSocket(), None))
        assert opened[-1].path == expected
    with pytest.raises(SetupError, match="No free socket path"):
        open_socket(ServeSocket(), None)


def test_the_defaults_are_those_of_the_manual() -> None:
    assert unix_socket.DEFAULT_PATHS[0] == "/tmp/passt_1.socket"
    assert unix_socket.DEFAULT_PATHS[-1] == "/tmp/passt_64.socket"
    assert len(unix_socket.DEFAULT_PATHS) == 64


def test_a_connected_socket_is_taken_over() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        fd = theirs.detach()
        made = open_socket(ServeFd(fd), None)
        assert not made.listens
        assert made.sock.fileno() != fd
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert not os.get_inheritable(made.sock.fileno())
        made.close()
        assert ours.recv(1) == b""


@pytest.mark.parametrize("what", ["pipe", "datagrams", "unconnected", "closed"])
def test_what_is_no_connected_stream_is_refused(what: str) -> None:
    fds: list[int] = []
    if what == "pipe":
        fds += os.pipe()
    elif what == "datagrams":
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        fds += [end.detach() for end in pair]
    elif what == "unconnected":
        fds.append(socket.socket(socket.AF_UNIX).detach())
    fd = fds[0] if fds else 999_999
    with pytest.raises(SetupError, match=f"Invalid --fd: {fd}: "):
        open_socket(ServeFd(fd), None)
    for each in fds:
        with suppress(OSError):
            os.close(each)
