# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's Landlock forbids each kind of process, which tries it."""

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from passtpy import _native
from passtpy.config.model import Seccomp
from passtpy.isolation import landlock, stages
from passtpy.isolation.calls import Process


def _version() -> int:
    with suppress(OSError):
        return _native.landlock_version()
    return 0


pytestmark = pytest.mark.skipif(_version() < 6, reason="an older kernel's Landlock")

KINDS = [Process.PASTA, Process.PASST, Process.FACTORY, Process.INIT, Process.LOOKOUT]
BY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
IT_WORKS = 0


def tried(
    kind: Process,
    attempt: Callable[[], object],
    beneath: landlock.Beneath = (),
    may_signal: bool = False,
) -> int:
    """The errno of what a process tries behind its rules; 0: it worked."""
    child = os.fork()
    if child == 0:
        result = 255
        try:
            _native.no_new_privs()
            if landlock.restrict(kind, beneath, may_signal) is None:
                attempt()
                result = IT_WORKS
        except OSError as error:
            result = error.errno or 254
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@BY_KIND
def test_there_are_no_files(kind: Process, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = os.open(tmp_path, os.O_PATH)
    attempts: Sequence[Callable[[], object]] = [
        lambda: os.open(tmp_path / "file", os.O_RDONLY),
        lambda: os.open("file", os.O_WRONLY, dir_fd=folder),
        lambda: os.listdir("/"),
        lambda: os.mkdir(tmp_path / "new"),
        lambda: os.unlink(tmp_path / "file"),
        lambda: os.truncate(tmp_path / "file", 0),
        lambda: os.mkfifo(tmp_path / "new"),
        lambda: os.execv("/bin/true", ["true"]),
    ]
    assert {tried(kind, each) for each in attempts} == {errno.EACCES}
    os.close(folder)


def test_what_was_opened_before_can_be_used(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)

    def use() -> None:
        os.write(fd, b"line")
        os.ftruncate(fd, 0)

    assert tried(Process.PASTA, use) == IT_WORKS
    os.close(fd)


def test_a_rule_allows_what_it_says_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    root = os.open("/", os.O_PATH)
    logs = os.open(tmp_path / "logs", os.O_PATH)
    beneath = ((root, landlock.READ), (logs, landlock.APPEND))

    def lookout(attempt: Callable[[], object]) -> int:
        return tried(Process.LOOKOUT, attempt, beneath)

    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND

    def append() -> None:
        os.ftruncate(os.open("new", flags, dir_fd=logs), 0)

    assert lookout(append) == IT_WORKS
    assert lookout(lambda: os.open("/etc/passwd", os.O_RDONLY)) == IT_WORKS
    other = tmp_path / "other" / "file"
    assert lookout(lambda: os.open(other, os.O_WRONLY)) == errno.EACCES
    assert lookout(lambda: os.open(f"{other}2", flags)) == errno.EACCES
    assert lookout(lambda: os.unlink(tmp_path / "logs" / "new")) == errno.EACCES
    turning = ((root, landlock.READ), (logs, landlock.TURN))
    there, apart = tmp_path / "logs" / "new", tmp_path / "other" / "new"

    def turn(where: Path) -> int:
        return tried(Process.LOOKOUT, lambda: os.rename(there, where), turning)

    assert turn(there.with_name("new.1")) == IT_WORKS
    there.touch()
    assert turn(apart) == errno.EACCES
    os.close(root)
    os.close(logs)


@BY_KIND
def test_others_get_no_signal(kind: Process) -> None:
    us = os.getpid()
    assert tried(kind, lambda: os.kill(us, 0)) == errno.EPERM
    assert tried(kind, lambda: os.kill(us, 0), may_signal=True) == IT_WORKS


@BY_KIND
def test_nobody_is_reached_by_an_abstract_name(kind: Process) -> None:
    name = f"\0passtpy-landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(name)
        waiting.listen()

        def connect() -> None:
            socket.socket(socket.AF_UNIX).connect(name)

        assert tried(kind, connect) == errno.EPERM


def test_a_connected_supervisor_goes_on_hearing(tmp_path: Path) -> None:
    """The service manager's socket may have an abstract name."""
    name = f"\0passtpy-supervisor-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
    ):
        manager.bind(name)
        ours.connect(name)
        assert tried(Process.PASTA, lambda: ours.send(b"READY=1")) == IT_WORKS
        assert manager.recv(99) == b"READY=1"


MAY = {
    Process.PASTA: (IT_WORKS, IT_WORKS),
    Process.PASST: (IT_WORKS, IT_WORKS),
    Process.FACTORY: (IT_WORKS, errno.EACCES),
    Process.INIT: (IT_WORKS, errno.EACCES),
    Process.LOOKOUT: (errno.EACCES, errno.EACCES),
}


@BY_KIND
def test_tcp_is_for_who_needs_it(kind: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        place = waiting.getsockname()
        bound = tried(kind, lambda: socket.socket().bind(("127.0.0.1", 0)))
        connected = tried(kind, lambda: socket.socket().connect(place))
    assert (bound, connected) == MAY[kind]


@pytest.mark.parametrize(
    ("stay", "expected"),
    [
        (lambda: stages.stay_in_namespace((), Seccomp.OFF), (Process.FACTORY, False)),
        (lambda: stages.stay_as_init(-1, (), Seccomp.OFF), (Process.INIT, True)),
    ],
)
def test_makers_obey(
    monkeypatch: pytest.MonkeyPatch,
    stay: Callable[[], None],
    expected: tuple[Process, bool],
) -> None:
    class Reached(Exception):
        pass

    asked: list[tuple[Process, bool]] = []

    def restrict(process: Process, may_signal: bool = False) -> None:
        asked.append((process, may_signal))
        raise Reached

    monkeypatch.setattr(landlock, "restrict", restrict)
    monkeypatch.setattr(stages, "_be_small", lambda capabilities: None)
    monkeypatch.setattr(stages, "_leave_files", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda number, action: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *arguments: -1)
        with pytest.raises(Reached):
            stay()
    assert asked == [expected]


@pytest.mark.parametrize("version", range(1, 8))
def test_an_old_kernel_is_asked_for_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    asked: list[tuple[int, int, int]] = []

    def rules(files: int, network: int, scopes: int) -> int:
        asked.append((files, network, scopes))
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(_native, "landlock_version", lambda: version)
    monkeypatch.setattr(_native, "landlock_rules", rules)
    monkeypatch.setattr(_native, "landlock_restrict", lambda fd: None)
    assert landlock.restrict(Process.LOOKOUT) is None
    kinds = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    (found,) = asked
    expected = (2**kinds - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    assert found == expected


def test_a_kernel_without_it_is_told_about() -> None:
    def missing() -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "landlock_version", missing)
        failed = landlock.restrict(Process.PASTA)
    assert failed is not None
    assert failed.errno == errno.EOPNOTSUPP
