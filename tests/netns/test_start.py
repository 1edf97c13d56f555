# SPDX-License-Identifier: GPL-2.0-or-later
"""Odd ways to be started: closed descriptors, tight limits, names that are no text."""

import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab import REMOTE4, REMOTE6, TRANSLATORS, Lab
from tests.lab.namespace import Namespace
from tests.lab.translators import Passtpy
from tests.netns.program import PATIENCE, command_line, ended, terminate, wait_for

pytestmark = pytest.mark.netns
LATE_S = 5.0
TRIES = 100
DATA = bytes(8 << 20)
LATIN1 = os.fsdecode(b"b\xfcro")


def start(
    *words: str, prepare: Callable[[], object] = lambda: None, fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the program, after `prepare` in the process that becomes it."""
    return subprocess.run(
        [Passtpy().program, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        errors="surrogateescape",
        timeout=PATIENCE,
        preexec_fn=prepare,
        pass_fds=fds,
        check=False,
    )


@pytest.fixture
def guest() -> Iterator[Namespace]:
    namespace = Namespace.create(f"passtpystart-{os.getpid()}")
    yield namespace
    if namespace.path.exists():
        namespace.delete()


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])
def test_first_packets_wait_for_a_daemon_that_is_late(remote: str) -> None:
    """By itself a guest's kernel asks for three seconds where its next hop is."""
    with (
        Lab() as lab,
        lab.remote.listen(remote) as listener,
        lab.attach(TRANSLATORS["passtpy"]) as attached,
    ):
        assert attached.process is not None
        daemon = [*attached.process.tree()]
        for pid in daemon:
            os.kill(pid, signal.SIGSTOP)
        goes_on = threading.Event()
        go_on = threading.Timer(LATE_S, _continue, (daemon, goes_on))
        go_on.start()
        try:
            attached.guest.connect(remote, listener.getsockname()[1]).close()
            assert goes_on.is_set()
        finally:
            go_on.join()


def _continue(pids: list[int], begun: threading.Event) -> None:
    begun.set()  # the first of them may answer before the last one goes on
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


# What the parent left us with


def test_a_parent_that_ignores_its_children_learns_the_status() -> None:
    done = start(
        *("--config-net", "--", "sh", "-c", "exit 7"),
        prepare=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_so_does_one_that_starts_a_daemon(guest: Namespace, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    done = start(
        *("-q", "-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("-P", str(pid_file), "--netns", str(guest.path)),
        prepare=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (0, "")
    terminate(int(pid_file.read_text()))


@pytest.mark.parametrize("closed", [(1, 2), (0, 1, 2), (0,), (2,)])
def test_closed_descriptors_change_no_status(closed: tuple[int, ...]) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    assert (
        start("--config-net", "--", "sh", "-c", "exit 3", prepare=close).returncode == 3
    )
    assert start("--version", prepare=close).returncode == 0
    assert start("--bad", prepare=close).returncode == 1


def test_a_daemon_may_be_started_without_any(guest: Namespace, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    argv = ["--config-net", "-I", "net0", "-P", str(pid_file), "--netns", guest.name]
    done = start(*argv, prepare=lambda: os.closerange(0, 3))
    assert done.returncode == 0
    pid = int(pid_file.read_text())
    assert "net0" in guest.ip("link")
    assert not ended(pid)
    for fd in range(3):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    terminate(pid)


@pytest.mark.parametrize("number", [6, 8, 12, 16, 20, 31, 39])
@pytest.mark.parametrize("words", [["--config-net", "--", "true"], ["-f", "1"]])
def test_too_few_descriptors_are_named(number: int, words: list[str]) -> None:
    limits = (number, number)
    done = start(
        *words, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    )
    line = f"pasta: Limit of open files (ulimit -n) is {number}, 40 are needed\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_as_few_as_are_asked_for_are_enough() -> None:
    words = ("-t", "none", "-u", "none", "-T", "none", "-U", "none")
    for _ in range(TRIES):
        done = fetch(resource.RLIMIT_NOFILE, 40, *words)
        if "Too many references" not in done.stderr:
            break  # descriptors that others of the user have sent count, too
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(DATA)


@pytest.mark.parametrize("kib", [60_000, 100_000])
def test_too_little_memory_is_named(kib: int) -> None:
    limits = (kib << 10, kib << 10)
    done = start(
        *("--config-net", "--", "true"),
        prepare=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
    )
    line = f"pasta: Limit of memory (ulimit -v, in KiB) is {kib}\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("kib", [200_000, 400_000, 600_000])
def test_little_memory_serves_all_the_same(kib: int) -> None:
    done = fetch(resource.RLIMIT_AS, kib << 10)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(DATA)


def fetch(limit: int, most: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Have a command count DATA that the host sends it; the program has a limit."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)  # or nobody is told why no guest came

        def send() -> None:
            with suppress(OSError), server.accept()[0] as peer:
                peer.sendall(DATA)

        thread = threading.Thread(target=send)
        thread.start()
        port = server.getsockname()[1]
        script = f"wc -c < /dev/tcp/192.0.2.77/{port}"
        try:
            return start(
                *(*words, "--config-net", "-a", "192.0.2.5/24", "-g", "192.0.2.1"),
                *("--map-host-loopback", "192.0.2.77", "--", "bash", "-c", script),
                prepare=lambda: resource.setrlimit(limit, (most, most)),
            )
        finally:
            server.shutdown(socket.SHUT_RD)  # if nobody came
            thread.join()


# Files that are none


def test_a_pid_goes_into_a_pipe_that_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert start("-P", str(pipe), "--", "true").returncode == 0
    assert int(os.read(reader, 100)) > 1
    assert pipe.is_fifo()
    os.close(reader)


def test_a_pid_goes_to_standard_output() -> None:
    done = start("-P", "/dev/stdout", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1


@pytest.mark.parametrize("option", ["-P", "-l", "-p"])
def test_a_device_is_left_where_it_is(option: str, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
    done = start(option, str(device), "--config-net", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert device.is_char_device()


# Names that are bytes


@pytest.mark.parametrize("option", ["-l", "-p", "-P"])
@pytest.mark.parametrize("name", [LATIN1, "büro"])
def test_a_file_may_have_any_name(option: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    done = start(option, str(path), "--config-net", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert path.stat().st_size > 0


@pytest.mark.parametrize("name", [LATIN1, "büro"])
def test_an_interface_may_have_any_name(name: str, tmp_path: Path) -> None:
    """One of the host, as template, for output and to listen on; and the guest's."""
    log = tmp_path / "log"
    setup = (
        f"ip link add '{name}' type veth peer name v1 && ip link set v1 up"
        f" && ip link set '{name}' up && ip addr add 192.0.2.9/24 dev '{name}'"
        f' && ip route add default via 192.0.2.1 && exec "$@"'
    )
    words = ["-i", name, "-I", name, "-t", f"%{name}/18211", "--outbound-if4", name]
    words += ["-d", "-l", str(log), "--config-net", "--", "ip", "-br", "-4", "addr"]
    argv = ["unshare", "-n", "sh", "-c", setup, "sh", Passtpy().program, *words]
    done = subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[1].split()[0] == os.fsencode(name)


def test_a_wrong_name_is_told_in_its_own_bytes() -> None:
    done = start("-i", LATIN1, "--", "true")
    line = f"pasta: Invalid interface name {LATIN1}: No such device\n"
    assert (done.returncode, done.stderr) == (1, line)


# Names that lead through the caller's descriptors


def test_namespaces_may_be_named_by_descriptors(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    holder = subprocess.Popen(
        command_line("root", "unshare", "-Urn", "sh", "-c", "echo; exec sleep 1000"),
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder.stdout as output:
        output.readline()
    net = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
    user = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
    try:
        done = start(
            *("-q", "--config-net", "-I", "net0", "-P", str(pid_file)),
            *("--netns", f"/proc/self/fd/{net}", "--userns", f"/proc/self/fd/{user}"),
            fds=(net, user),
        )
        assert (done.returncode, done.stderr) == (0, "")
        pid = int(pid_file.read_text())
        inside = ["nsenter", "-t", str(holder.pid), "-U", "-n", "ip", "link"]
        assert b"net0" in subprocess.run(inside, capture_output=True, check=True).stdout
        opened = []
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                opened.append(os.readlink(each))
        assert not [name for name in opened if name.startswith(("net:", "user:"))]
        assert not ended(pid)
        terminate(pid)
    finally:
        holder.kill()
        holder.wait()
        os.close(net)
        os.close(user)


def test_a_name_behind_a_descriptor_is_watched(
    guest: Namespace, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    net = os.open(guest.path, os.O_RDONLY)
    argv = ["-q", "-P", str(pid_file), "--netns", f"/dev/fd/{net}"]
    assert start(*argv, fds=(net,)).returncode == 0
    os.close(net)
    pid = int(pid_file.read_text())
    guest.delete()
    wait_for(lambda: ended(pid), "the daemon quits")


def test_files_may_be_named_by_descriptors(guest: Namespace, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    paths = {option: tmp_path / option for option in ("-P", "-l", "-p")}
    fds = {o: os.open(p, os.O_RDWR | os.O_CREAT) for o, p in paths.items()}
    words = [w for o, fd in fds.items() for w in (o, f"/proc/self/fd/{fd}")]
    done = start(
        *("--config-net", "--netns", str(guest.path), *words),
        fds=(*fds.values(), theirs.fileno()),
    )
    theirs.close()
    assert done.returncode == 0
    pid = int(paths["-P"].read_text())
    assert ours.recv(1) == b""  # what nobody named is closed in the background
    ours.close()
    terminate(pid)
    assert paths["-p"].stat().st_size > 0
    assert "namespace.ready" in paths["-l"].read_text()
    for fd in fds.values():
        os.close(fd)
