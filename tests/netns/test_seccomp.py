# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon that has been taken over can still ask the kernel for: nothing.

The real program runs, and makes a call itself once its door is shut; the kernel ends it
there. tests/unit/isolation/ has the table, and what its programs say to any call.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.netns.program import Running, has_landlock, run, wait_for

TAKEOVER = Path(__file__).parent / "attacks" / "takeover.py"
UNIX, NETLINK, PACKET, INET = 1, 16, 17, 2
STREAM, DGRAM, RAW = 1, 2, 3
AT_FDCWD = -100
NEW_USER = 0x1000_0000

# Number on x86-64/arm64, and arguments
ATTACKS = {
    "a local socket": ("41/198", UNIX, DGRAM, 0),
    "a pair that sends anywhere": ("53/199", UNIX, DGRAM, 0, 0),
    "a netlink socket": ("41/198", NETLINK, RAW, 0),
    "a raw socket": ("41/198", INET, RAW, 1),
    "a packet socket": ("41/198", PACKET, DGRAM, 0),
    "a program": ("59/221", "/bin/true", 0, 0),
    "a process": ("56/220", signal.SIGCHLD, 0, 0, 0, 0),
    "a thread": ("435/435", 0, 0),
    "a user namespace": ("272/97", NEW_USER),
    "another namespace": ("308/268", 0, 0),
    "io_uring": ("425/425", 1, 0),
    "perf": ("298/241", 0, 0, -1, -1, 0),
    "the keyring": ("250/219", 0, -3, 0),
    "userfaultfd": ("323/282", 1),
    "ptrace": ("101/117", 16, 1, 0, 0),
    "bpf": ("321/280", 0, 0, 0),
    "memory of others": ("310/270", 1, 0, 0, 0, 0, 0),
    "code": ("9/222", 0, 4096, 7, 0x22, -1, 0),
    "a mount": ("165/40", "none", "/", "tmpfs", 0, 0),
    "another root": ("161/51", "/"),
    "a handle": ("304/265", AT_FDCWD, 0, 0),
    "another user": ("105/146", 0),
    "the descriptor of another": ("438/438", 0, 0, 0),
}
# Libraries try these by themselves; they are told no.
REFUSED = {
    "a file": (("257/56", AT_FDCWD, "/etc/passwd", 0), errno.ENOENT),
    "what a name is": (("267/78", AT_FDCWD, "/proc/self/exe", 0, 0), errno.ENOENT),
    "a name less": (("263/35", AT_FDCWD, "/nonexistent", 0), errno.EACCES),
    "core dumps": (("157/167", 4, 1, 0, 0, 0), errno.EPERM),
}


@pytest.fixture(scope="module")
def guest() -> Iterator[Namespace]:
    namespace = Namespace.create(f"passtpyseccomp-{os.getpid()}")
    yield namespace
    namespace.delete()


@pytest.fixture(params=["pasta", "passt"])
def words(
    request: pytest.FixtureRequest, guest: Namespace, tmp_path: Path
) -> list[str]:
    """The command line of a daemon."""
    if request.param == "passt":
        return ["passt", "-f", "-q", "-s", str(tmp_path / "socket")]
    return ["pasta", "-f", "-q", "--config-net", "--netns", str(guest.path)]


def attack(
    words: list[str], folder: Path, call: tuple[object, ...], *more: str
) -> tuple[int, list[str]]:
    """Return how the daemon ended, and what it noted."""
    notes = folder / "notes"
    argv = [sys.executable, str(TAKEOVER), str(notes), *map(str, call), "--"]
    status = run([*argv, *words, *more]).returncode
    return status, notes.read_text().splitlines()


def test_whoever_takes_over_the_daemon_is_ended(
    words: list[str], tmp_path: Path
) -> None:
    """The whole process, with its threads, while it serves."""
    ended = attack(words, tmp_path, ATTACKS["a local socket"])
    assert ended == (-signal.SIGSYS, ["ready"])


@pytest.mark.parametrize("name", REFUSED)
def test_there_are_no_files(words: list[str], tmp_path: Path, name: str) -> None:
    call, error = REFUSED[name]
    assert attack(words, tmp_path, call) == (0, ["ready", f"-1 {error}"])


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/etc/passwd", errno.ENOENT),  # an empty root
        pytest.param(
            "/",
            errno.EACCES,
            marks=pytest.mark.skipif(not has_landlock(), reason="no Landlock"),
        ),
    ],
)
def test_there_are_no_files_without_a_filter(
    words: list[str], tmp_path: Path, path: str, error: int
) -> None:
    call = ("257/56", AT_FDCWD, path, 0)
    ended = attack(words, tmp_path, call, "--seccomp", "off")
    assert ended == (0, ["ready", f"-1 {error}"])


def test_a_listener_is_no_more_than_a_forward_needs(
    words: list[str], tmp_path: Path
) -> None:
    """A negative control: TCP and UDP are the daemon's business."""
    status, (ready, said) = attack(words, tmp_path, ("41/198", INET, STREAM, 0))
    assert (status, ready) == (0, "ready")
    assert int(said.split()[0]) > 0


@pytest.mark.parametrize("action", ["log", "off"])
def test_another_action_ends_nobody(
    words: list[str], tmp_path: Path, action: str
) -> None:
    call = ATTACKS["a local socket"]
    status, (_, said) = attack(words, tmp_path, call, "--seccomp", action)
    assert (status, int(said.split()[0]) > 0) == (0, True)


@pytest.mark.parametrize(
    ("action", "mode", "filters"), [("kill", 2, 2), ("log", 2, 2), ("off", 0, 0)]
)
def test_every_process_is_behind_its_door(
    guest: Namespace, tmp_path: Path, action: str, mode: int, filters: int
) -> None:
    """The daemon, its factory in the namespace, and the lookout."""
    pid_file = tmp_path / "pid"
    argv = [str(Path(sys.executable).with_name("passtpy-pasta"))]
    argv += ["-f", "-q", "--config-net", "-P", str(pid_file), "--seccomp", action]
    argv += ["-T", "auto", "--netns", str(guest.path)]
    with Running(argv) as running:
        pid = running.popen.pid
        # The first filter is only about io_uring
        wait_for(lambda: pid_file.exists() and _locked(pid, mode, filters), "its door")
        place = Path(f"/proc/{pid}/task/{pid}/children")
        wait_for(lambda: len(place.read_text().split()) == 2, "two children")
        for child in map(int, place.read_text().split()):
            wait_for(lambda: _locked(child, mode), "theirs")  # noqa: B023


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _locked(pid: int, mode: int, filters: int = 0) -> bool:
    found = {name: int(_status(pid)[name]) for name in ("NoNewPrivs", "Seccomp")}
    many = int(_status(pid)["Seccomp_filters"]) >= filters
    return found == {"NoNewPrivs": 1, "Seccomp": mode} and many
