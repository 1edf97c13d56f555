# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets that the lookout makes, reaches and removes for its daemon."""

import os
import socket
from collections.abc import Iterator
from errno import (
    EACCES,
    EADDRINUSE,
    ECONNREFUSED,
    EEXIST,
    EINVAL,
    EIO,
    EMFILE,
    ENOENT,
    ENOTSOCK,
)
from pathlib import Path

import pytest

from passtpy.config.model import Seccomp
from passtpy.errors import SetupError
from passtpy.net.host.lookout import DIAL, LISTEN, LISTENS, WHICH
from passtpy.net.host.named import open_folders
from passtpy.net.kernel.local import name_of
from tests.unit.net.host.looking import House


def connected(house: House, path: str) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.connect(path, lambda fd, error: answers.append((fd, error)))
    house.loop.until(lambda: answers)
    return answers[0]


def test_it_connects_to_unix_sockets_that_were_named(
    house: House, tmp_path: Path
) -> None:
    there, other = str(tmp_path / "there"), str(tmp_path / "other")
    house.targets = (other, there)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(there)
        server.listen(1)
        fd, error = connected(house, there)
        assert error == 0
        with socket.socket(fileno=fd) as ours, server.accept()[0] as theirs:
            assert not os.get_blocking(fd)
            theirs.sendall(b"hello")
            theirs.close()
            ours.setblocking(True)
            assert ours.recv(9) == b"hello"
    assert connected(house, there) == (-1, ECONNREFUSED)
    assert connected(house, other) == (-1, ENOENT)


def test_it_connects_to_no_other_unix_socket(house: House, tmp_path: Path) -> None:
    house.targets = (str(tmp_path / "there"),)
    path = str(tmp_path / "elsewhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        assert connected(house, path) == (-1, EIO)  # not even asked
        house.lookout._targets = (house.targets[0], path)
        assert connected(house, path) == (-1, EIO)  # a daemon that lies


@pytest.fixture
def folder(house: House, tmp_path: Path) -> Iterator[Path]:
    """A folder in which the lookout may make sockets and reach some."""
    made = tmp_path / "sockets"
    made.mkdir()
    house.folders = open_folders((str(made),))
    house.seccomp = Seccomp.KILL
    yield made
    for _, fd in house.folders:
        os.close(fd)


def listens(house: House, path: str | Path, mode: int = 0o600) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.listen(str(path), mode, lambda fd, error: answers.append((fd, error)))
    house.loop.until(lambda: answers)
    return answers[0]


def removed(house: House, path: str | Path) -> int:
    answers: list[int] = []
    house.lookout.remove(str(path), answers.append)
    house.loop.until(lambda: answers)
    return answers[0]


def lie(house: House, request: bytes) -> tuple[int, int]:
    """Say what no daemon of ours would; return what `listen` or `connect` hears."""
    answers: list[tuple[int, int]] = []
    kept = house.lookout._connected
    if request[:1] == b"B":
        house.lookout._listens.append(
            ("/x", lambda fd, error: answers.append((fd, error)))
        )
    else:
        kept.append(lambda fd, error: answers.append((fd, error)))
    assert house.lookout._ask(request)
    house.loop.until(lambda: answers)
    return answers[0]


def test_what_is_made_anew_under_our_names_stays(house: House, tmp_path: Path) -> None:
    """By the next daemon: many a file system gives it the inode of ours."""
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        path.touch()
    house.names = tuple(filter(None, (name_of(str(path)) for path in paths)))
    answers: list[int] = []
    house.lookout.who_is(os.getpid(), lambda uid, depth: answers.append(depth))
    house.loop.until(lambda: answers)  # it is there
    for path in paths:
        path.unlink()
        path.touch()
    house.close()
    assert [path for path in paths if not path.exists()] == []


def serve(path: str | Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    return server


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_it_makes_a_socket_in_a_folder(house: House, folder: Path, mode: int) -> None:
    fd, error = listens(house, folder / "web.sock", mode)
    assert error == 0
    assert not os.get_blocking(fd)
    assert (folder / "web.sock").stat().st_mode & 0o7777 == mode
    with socket.socket(fileno=fd) as ours, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "web.sock"))
        ours.accept()[0].close()


def test_it_removes_the_name_of_a_socket_and_no_other(
    house: House, folder: Path
) -> None:
    path, taken = folder / "web.sock", folder / "taken"
    for each in (path, taken):
        fd, _ = listens(house, each)
        os.close(fd)
    taken.rename(folder / "moved")
    taken.touch()  # somebody else's by now
    assert (removed(house, path), removed(house, taken)) == (0, ENOENT)
    assert sorted(os.listdir(folder)) == ["moved", "taken"]
    assert removed(house, path) == ENOENT  # it is not ours any more


def test_it_removes_the_names_of_the_start_when_it_is_told(
    house: House, tmp_path: Path
) -> None:
    path = tmp_path / "of the start"
    with serve(path):
        name = name_of(str(path))
        assert name is not None
        house.names = (name,)
        same = tmp_path / "a second name of the same file"
        os.link(path, same)
        assert removed(house, path) == 0
        assert not path.exists()
        os.link(same, path)
        assert removed(house, path) == ENOENT  # once
    house.close()
    assert path.exists()


def test_names_that_are_left_go_with_the_daemon(house: House, folder: Path) -> None:
    fd, _ = listens(house, folder / "web.sock")
    os.close(fd)
    house.close()
    assert os.listdir(folder) == []


def test_it_reaches_a_socket_in_a_folder(house: House, folder: Path) -> None:
    path = folder / "docker.sock"
    with serve(path) as server:
        fd, error = connected(house, str(path))
        assert error == 0
        assert not os.get_blocking(fd)
        with socket.socket(fileno=fd), server.accept()[0] as theirs:
            theirs.sendall(b"hello")
    assert connected(house, str(path)) == (-1, ECONNREFUSED)
    assert connected(house, str(folder / "none")) == (-1, ENOENT)


NO_NAMES = (
    b"..",
    b".",
    b"../outside",
    b"/etc/x",
    b"a/b",
    b"\0abstract",
    b"a\0b",
    b"new\nline",
    b"x" * 107,
    b"x" * 200,
)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_daemon_that_lies_gets_no_further_than_the_folder(
    house: House, folder: Path, name: bytes
) -> None:
    asked = LISTEN.pack(b"B", 0, 0o600) + name, DIAL.pack(b"D", 0) + name
    with serve(folder.parent / "outside"):
        assert [lie(house, each) for each in asked] == [(-1, EINVAL)] * 2
    assert os.listdir(folder) == []


def test_there_are_no_other_folders_and_no_odd_modes(
    house: House, folder: Path
) -> None:
    assert lie(house, LISTEN.pack(b"B", 1, 0o600) + b"x") == (-1, EINVAL)
    assert lie(house, DIAL.pack(b"D", 1) + b"x") == (-1, EINVAL)
    assert lie(house, LISTEN.pack(b"B", 0, 0o4755) + b"x") == (-1, EINVAL)
    answers: list[int] = []
    house.lookout._removed.append(answers.append)
    house.lookout._ask(WHICH.pack(b"X", 99))
    house.loop.until(lambda: answers)
    assert answers == [ENOENT]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("where", ["elsewhere", "sockets/../elsewhere", "sockets/a/b"])
def test_what_is_in_no_folder_is_not_even_asked(
    house: House, folder: Path, where: str
) -> None:
    path = f"{folder.parent}/{where}"
    answers: list[tuple[int, int]] = []
    house.lookout.listen(path, 0o600, lambda fd, error: answers.append((fd, error)))
    house.lookout.connect(path, lambda fd, error: answers.append((fd, error)))
    assert answers == [(-1, EIO)] * 2


def test_a_link_in_the_folder_leads_nowhere(house: House, folder: Path) -> None:
    outside, link = folder.parent / "outside", folder / "link"
    link.symlink_to(outside)
    assert listens(house, link) == (-1, EEXIST)
    with serve(outside) as server:
        server.setblocking(False)
        assert listens(house, link) == (-1, EEXIST)
        assert connected(house, str(link)) == (-1, ENOTSOCK)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert link.is_symlink()


def test_a_file_in_the_folder_is_never_removed(house: House, folder: Path) -> None:
    (folder / "precious").write_text("precious")
    (folder / "deep").mkdir()
    os.mkfifo(folder / "fifo")
    for name in ("precious", "deep", "fifo"):
        assert listens(house, folder / name) == (-1, EEXIST)
        assert connected(house, str(folder / name)) == (-1, ENOTSOCK)
    assert (folder / "precious").read_text() == "precious"


def test_a_socket_that_somebody_serves_stays_theirs(house: House, folder: Path) -> None:
    path = folder / "theirs"
    with serve(path) as server:
        before = path.stat().st_ino
        assert listens(house, path) == (-1, EADDRINUSE)
        for _ in range(3):  # nobody accepts: its queue is full
            assert listens(house, path) == (-1, EADDRINUSE)
        assert path.stat().st_ino == before
        server.accept()[0].close()
    fd, error = listens(house, path)  # what was left behind gives way
    assert error == 0
    os.close(fd)


def test_a_folder_that_is_moved_stays_the_folder(house: House, folder: Path) -> None:
    assert not house.lookout.gone
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.mkdir()  # another one
    fd, error = listens(house, folder / "web.sock")
    assert error == 0
    os.close(fd)
    assert (os.listdir(moved), os.listdir(folder)) == (["web.sock"], [])
    assert removed(house, folder / "web.sock") == 0
    moved.rmdir()
    assert listens(house, folder / "web.sock") == (-1, ENOENT)


def test_it_has_the_rights_of_its_user_and_says_so(house: House, folder: Path) -> None:
    path = folder / "web.sock"
    os.close(listens(house, path)[0])
    folder.chmod(0o555)
    assert listens(house, folder / "more") == (-1, EACCES)
    assert removed(house, path) == EACCES
    folder.chmod(0o755)
    assert os.listdir(folder) == ["web.sock"]


def test_a_socket_for_which_there_is_no_room_leaves_no_name(
    house: House, folder: Path
) -> None:
    fd, _ = listens(house, folder / "web.sock")
    os.close(fd)
    answers: list[tuple[int, int]] = []
    again = str(folder / "web.sock")
    house.lookout._listens.append(
        (again, lambda fd, error: answers.append((fd, error)))
    )
    house.lookout._hear(LISTENS.pack(b"B", 0, 0), [])
    assert answers == [(-1, EMFILE)]
    connected(house, str(folder / "none"))  # answers come in order
    assert os.listdir(folder) == []


def test_sockets_are_refused_when_it_has_ended(house: House, folder: Path) -> None:
    answers: list[object] = []
    path = str(folder / "web.sock")
    house.lookout._ask(b"?")
    house.lookout.listen(path, 0o600, lambda fd, error: answers.append(error))
    house.lookout.connect(path, lambda fd, error: answers.append(error))
    house.loop.until(lambda: house.lookout.gone)
    house.lookout.listen(path, 0o600, lambda fd, error: answers.append(error))
    house.lookout.connect(path, lambda fd, error: answers.append(error))
    assert answers == [EIO] * 4


def test_a_folder_that_is_none_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("none", "No such file or directory"), ("file", "Not a directo")):
        with pytest.raises(SetupError, match=f"Couldn't open {tmp_path}/{name}: {why}"):
            open_folders((str(tmp_path / name),))
