# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files our processes see once they serve: none, but for the lookout's.

In every way in which they are started; and what still works without files.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.lab.process import identify, kill_all, process_tree
from tests.netns.machine import program
from tests.netns.program import (
    USER,
    Running,
    Who,
    command_line,
    pasta,
    run,
    terminate,
    wait_for,
)

REFUSED = Path(__file__).parent / "attacks" / "refused.py"
Ended = Callable[[], int | None]
NOBODY = 65534
Serving = Iterator[int]
Way = Callable[[Who, Path], AbstractContextManager[int]]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _locked(pid: int, filters: int) -> bool:
    return int(status_of(pid)["Seccomp_filters"]) >= filters


def family(daemon: int) -> dict[str, int]:
    """The processes of a daemon that serves, each behind its door."""
    wait_for(lambda: _locked(daemon, 2), "the daemon is locked up")
    found = {"daemon": daemon}
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    for child in map(int, children):
        wait_for(lambda: _locked(child, 1), "so is its child")  # noqa: B023
        kind = "maker"
        if os.listdir(f"/proc/{child}/root/"):
            kind = "lookout"  # which has a filter of its start from the daemon
            wait_for(lambda: _locked(child, 2), "its own follows")  # noqa: B023
        found[kind] = child
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may use, with a short path for sockets."""
    made = Path(f"/tmp/passtpyroot-{os.getpid()}")
    made.mkdir()
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def pid_in(file: Path) -> int:
    def written() -> bool:
        return file.exists() and file.read_text().endswith("\n")

    wait_for(written, "the daemon tells its PID")
    return int(file.read_text())


@contextmanager
def of_command(who: Who, folder: Path) -> Serving:
    words = ["-q", "--config-net", "-P", str(folder / "pid"), "--", "sleep", "1000"]
    with Running(pasta(who, *words)):
        yield pid_in(folder / "pid")


@contextmanager
def container(who: Who) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in namespaces of its own, as root there."""
    argv = command_line(who, "unshare", "--user", "--map-root-user", "--net", "cat")
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as popen:
        comm = Path(f"/proc/{popen.pid}/comm")
        wait_for(lambda: comm.read_text() == "cat\n", "a container")
        yield popen


@contextmanager
def background(argv: list[str], folder: Path) -> Serving:
    done = run([*argv[:-1], argv[-1]])
    assert (done.returncode, done.stdout) == (0, "")
    pid = pid_in(folder / "pid")
    try:
        yield pid
    finally:
        family = identify(process_tree(pid))
        with suppress(ProcessLookupError):
            terminate(pid)
        kill_all(family)


@contextmanager
def of_process(who: Who, folder: Path) -> Serving:
    with container(who) as there:
        words = ["-q", "--config-net", "-P", str(folder / "pid"), str(there.pid)]
        with background(pasta(who, *words), folder) as pid:
            yield pid


@contextmanager
def of_netns(who: Who, folder: Path) -> Serving:
    namespace = Namespace.create(f"passtpyroot-{os.getpid()}")
    words = ["-f", "-q", "--config-net", "-P", str(folder / "pid")]
    try:
        with Running(pasta(who, *words, "--netns", str(namespace.path))):
            yield pid_in(folder / "pid")
    finally:
        namespace.delete()


@contextmanager
def of_machines(who: Who, folder: Path, *more: str) -> Serving:
    words = ["-q", "-P", str(folder / "pid"), "-s", str(folder / "socket"), *more]
    with background(command_line(who, program(), *words), folder) as pid:
        yield pid


@contextmanager
def of_vhost_user(who: Who, folder: Path) -> Serving:
    with of_machines(who, folder, "--vhost-user") as pid:
        yield pid


@contextmanager
def of_connected_machine(who: Who, folder: Path) -> Serving:
    ours, theirs = socket.socketpair()
    words = ["-q", "-f", "-P", str(folder / "pid"), "--fd", "0"]
    argv = command_line(who, program(), *words)
    null = subprocess.DEVNULL
    with ours, subprocess.Popen(argv, stdin=theirs.fileno(), stdout=null, stderr=null):
        theirs.close()
        try:
            yield pid_in(folder / "pid")
        finally:
            ours.close()  # which ends it


WAYS: list[tuple[Way, Who]] = [
    (of_command, "root"),
    (of_command, "user"),
    (of_process, "root"),
    (of_process, "user"),
    (of_netns, "root"),
    (of_machines, "root"),
    (of_machines, "user"),
    (of_vhost_user, "root"),
    (of_connected_machine, "user"),
]
HAVE_MAKERS: list[Way] = [of_command, of_process, of_netns]


KILL, BIND, ADMIN, RAW = 1 << 5, 1 << 10, 1 << 12, 1 << 13
# What a process may hold open: what its descriptors are called, without numbers
SOCKET, NULL, NAME_OF_SOCKET = "socket:", "/dev/null", "the file of a socket"
OF_STARTER = {NULL, "pipe:"}  # standard descriptors of what stays in the foreground
TABLES = {f"/proc/N/net/{name}" for name in ("tcp", "tcp6", "udp", "udp6")}
WAKERS = ("eventpoll", "eventfd", "timerfd", "signalfd", "pidfd")
HELD = {
    "daemon": {SOCKET, "/dev/net/tun", "anon_inode:inotify", *OF_STARTER, *TABLES}
    | {f"anon_inode:[{name}]" for name in WAKERS},
    "maker": {SOCKET, NULL, "anon_inode:[signalfd]", *TABLES},
    "lookout": {SOCKET, NULL, "anon_inode:inotify", NAME_OF_SOCKET},
}


def _sees_nothing(pid: int) -> None:
    there = f"/proc/{pid}/root"
    assert os.listdir(f"{there}/") == []
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(f"{there}/x")
    for kind in ("mnt", "ipc", "uts"):
        ours = os.readlink(f"/proc/self/ns/{kind}")
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != ours


def _may_do_nothing(kind: str, pid: int, rights: int, who: Who) -> None:
    found = status_of(pid)
    sets = {name: int(found[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh", "Amb")}
    assert sets == {"Eff": rights, "Prm": rights, "Inh": 0, "Amb": 0}
    if (kind, who) != ("lookout", "user"):  # it is in no namespace where it may do that
        assert int(found["CapBnd"], 16) == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    if kind == "daemon":
        assert found["Groups"].split() in ([], [str(NOBODY)])
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    # The kernel gives files there to root where memory is nobody's to read
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0


def _holds(kind: str, pid: int) -> None:
    if kind == "lookout":  # it reads resolv.conf behind its door, and closes it again
        with contextlib.suppress(AssertionError):  # it says below what is held
            wait_for(lambda: _held(pid) <= HELD[kind], "nothing more is held")
    found = _held(pid)
    assert found <= HELD[kind], found - HELD[kind]


def _held(pid: int) -> set[str]:
    names = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            name = os.readlink(each)
            is_file = name.startswith("/") and each.is_socket()
            names.add(NAME_OF_SOCKET if is_file else name)
    return {re.sub(r":\[\d+\]$", ":", re.sub(r"/\d+/", "/N/", n)) for n in names}


@pytest.mark.parametrize(("way", "who"), WAYS)
def test_each_process_has_given_up_everything(way: Way, who: Who, folder: Path) -> None:
    with way(who, folder) as daemon:
        found = family(daemon)
        expected = {"daemon", "lookout"}
        if way in HAVE_MAKERS:
            expected.add("maker")
        assert found.keys() == expected
        for kind, pid in found.items():
            if kind != "lookout":
                _sees_nothing(pid)
            rights = BIND | ADMIN | RAW if kind == "maker" else 0
            if kind == "maker" and way is of_command:
                rights |= KILL
            _may_do_nothing(kind, pid, rights, who)
            _holds(kind, pid)


def refused(call: str, error: int, folder: Path, *words: str) -> list[str]:
    given = ["passt", "-f", "-P", str(folder / "pid"), "-s", str(folder / "socket")]
    argv = [sys.executable, str(REFUSED), call, str(error), *given]
    return command_line("user", *argv, "-l", str(folder / "log"), *words)


def test_where_the_root_cannot_be_exchanged_it_is_covered(folder: Path) -> None:
    argv = refused("pivot_root", errno.EINVAL, folder, "--chroot-fallback")
    with Running(argv):
        found = family(pid_in(folder / "pid"))
        assert os.listdir(f"/proc/{found['daemon']}/root/") == []
        assert "root.kept" not in (folder / "log").read_text()


CHROOT = """
root=$1; shift
for each in /*; do
    if [ -L "$each" ]; then cp -P "$each" "$root"
    elif [ -d "$each" ]; then mkdir "$root$each"; mount --rbind "$each" "$root$each"; fi
done
exec chroot "$root" "$@"
"""


@pytest.mark.parametrize(
    "prepare", ["", 'mount --make-rshared /; mount --bind "$1" "$1"\n']
)
def test_who_starts_in_a_chroot_leaves_it_for_an_empty_root(
    folder: Path, prepare: str
) -> None:
    """Be it the root of a mount or not, and whoever else has that mount."""
    root, log = folder / "root", folder / "log"
    root.mkdir()
    words = ["-P", str(folder / "pid"), "-s", str(folder / "socket"), "-l", str(log)]
    enter = ["unshare", "-m", "sh", "-ec", prepare + CHROOT, "sh", str(root)]
    with Running([*enter, program(), "-f", *words]):
        found = family(pid_in(folder / "pid"))
        assert os.listdir(f"/proc/{found['daemon']}/root/") == []
        assert "root.kept" not in log.read_text()


@pytest.mark.parametrize(
    ("call", "error"), [("pivot_root", errno.EINVAL), ("unshare", errno.EPERM)]
)
def test_without_an_empty_root_we_serve_and_say_so(
    folder: Path, call: str, error: int
) -> None:
    with Running(refused(call, error, folder)):
        pid = pid_in(folder / "pid")
        family(pid)
        log = folder / "log"
        wait_for(lambda: "root.kept" in log.read_text(), "a line about that")
        lines = [x for x in log.read_text().splitlines() if "root.kept" in x]
        assert len(lines) == 1
        assert os.strerror(error) in lines[0]


def test_a_name_below_proc_is_watched(folder: Path) -> None:
    """By the lookout, since there are no events and the daemon sees no name."""
    with container("root") as there:
        words = ["-f", "-q", "-P", str(folder / "pid"), "-l", str(folder / "log")]
        path = f"/proc/{there.pid}/task/{there.pid}/ns/net"
        with Running(pasta("root", *words, "--netns", path)) as running:
            family(pid_in(folder / "pid"))
            time.sleep(2.5)  # it is looked up each second, and is there
            assert running.popen.poll() is None
            there.kill()
            there.wait()
            assert running.wait() == 0


@pytest.mark.parametrize("client", [0, USER], ids=["root", "owner"])
def test_clients_are_known_behind_the_door(folder: Path, client: int) -> None:
    """In its own user namespace a daemon sees no user, and has to be told."""
    control = folder / "control"
    words = ["-q", "-f", "-P", str(folder / "pid"), "-s", str(folder / "socket")]
    argv = command_line("user", program(), *words, "--control", str(control))
    with Running(argv):
        family(pid_in(folder / "pid"))
        request = "GET /v1/instance HTTP/1.1\r\nHost: x\r\n\r\n"
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX);"
            f"s.connect({str(control)!r}); s.sendall({request.encode()!r});"
            "print(s.recv(99).split()[:2])"
        )
        asker = ["setpriv", f"--reuid={client}", "--clear-groups"]
        done = run([*asker, "/usr/bin/python3", "-c", script])
        assert done.stdout == "[b'HTTP/1.1', b'200']\n"
