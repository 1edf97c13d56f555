# SPDX-License-Identifier: GPL-2.0-or-later
"""How passt behaves as a process, with those who start it: a shell, libvirt, krun."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.dhcp import DHCP
from scapy.layers.l2 import ARP

from tests.lab import HOST4, REMOTE4, Lab, tcp_echo
from tests.netns.machine import (
    PATIENCE,
    Plug,
    arp,
    connect,
    dhcp,
    passt,
    program,
    told,
    wait_gone,
)
from tests.netns.program import (
    USER,
    Who,
    command_line,
    ended,
    run,
    terminate,
    wait_for,
)
from tests.netns.resolvers import content, etc, with_etc

BOTH = pytest.mark.parametrize("who", ["root", "user"])
OWN_MAC = "52:54:00:12:34:56"
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A short path for everybody; sockets take no long ones."""
    made = Path(f"/tmp/passtpyvm-{os.getpid()}")
    made.mkdir()
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def on_host(lab: Lab, who: Who, *words: str, fds: str = "") -> list[str]:
    """The words that run passt in the lab's host."""
    argv = command_line(who, program(), *words)
    return ["nsenter", f"--net={lab.host.path}", "--", *argv]


@contextmanager
def daemon(lab: Lab, folder: Path, who: Who, *words: str) -> Iterator[int]:
    """A daemon in the background, started as its callers do; its PID."""
    pid_file = folder / "pid"
    done = run(on_host(lab, who, "-P", str(pid_file), *words))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    pid = int(pid_file.read_text())
    try:
        yield pid
    finally:
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: ended(pid), "its end")


def is_served(plug: Plug) -> bool:
    plug.send(arp())
    return bool(plug.recv(lambda p: ARP in p and p[ARP].op == 2))


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


# In the background


@BOTH
def test_the_parent_returns_when_machines_can_come(
    lab: Lab, folder: Path, who: Who
) -> None:
    path = folder / "s"
    with daemon(lab, folder, who, "-q", "-s", str(path), "-t", "8080:80") as pid:
        assert lab.host.is_bound("tcp", 8080)
        for fd in range(3):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
        with Plug(connect(path)) as plug:
            assert is_served(plug)
        terminate(pid)
        wait_gone(path)
        assert (folder / "pid").read_text() == f"{pid}\n"  # stays


@BOTH
def test_the_daemon_has_no_privileges(lab: Lab, folder: Path, who: Who) -> None:
    with daemon(lab, folder, who, "-q", "-s", str(folder / "s")) as pid:
        status = status_of(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) == 0
        assert status["NoNewPrivs"] == "1"
        owner = USER if who == "user" else NOBODY
        assert set(status["Uid"].split()) == {str(owner)}


@BOTH
def test_the_socket_belongs_to_who_serves_it(lab: Lab, folder: Path, who: Who) -> None:
    path = folder / "s"
    with daemon(lab, folder, who, "-q", "-s", str(path)):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert found.st_uid == (USER if who == "user" else NOBODY)
        assert stat.S_IMODE(found.st_mode) == 0o755  # as umask says


def test_the_mode_of_the_socket_is_the_callers_umask(lab: Lab, folder: Path) -> None:
    path = folder / "s"
    argv = on_host(lab, "root", "-q", "-P", str(folder / "pid"), "-s", str(path))
    run(["sh", "-c", 'umask 0117 && exec "$@"', "sh", *argv])
    pid = int((folder / "pid").read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    terminate(pid)


def test_a_folder_of_roots_is_no_obstacle(lab: Lab, folder: Path) -> None:
    folder.chmod(0o755)
    path = folder / "s"
    with daemon(lab, folder, "root", "-q", "-s", str(path)):
        assert path.stat().st_uid == 0
        with Plug(connect(path)) as plug:
            assert is_served(plug)


def test_a_relative_path_is_meant_from_where_we_start(lab: Lab, folder: Path) -> None:
    argv = on_host(lab, "root", "-q", "-P", "pid", "-s", "s", "-l", "log")
    run(["sh", "-c", f'cd {folder} && exec "$@"', "sh", *argv])
    pid = int((folder / "pid").read_text())
    with Plug(connect(folder / "s")) as plug:
        assert is_served(plug)
    terminate(pid)
    wait_gone(folder / "s")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(lab: Lab, number: signal.Signals) -> None:
    with passt(lab, dies=True) as made, made.plug() as plug:
        assert is_served(plug)
        os.kill(made.process.pid, number)
        assert made.process.wait(PATIENCE) == 0
        wait_gone(made.path)


# libvirt


def test_what_libvirt_says(lab: Lab, folder: Path) -> None:
    """It waits for the parent, reads the PID file, and starts qemu."""
    path, log = folder / "1-vm-net0.socket", folder / "vm.log"
    words = ["--one-off", "--socket", str(path)]
    words += ["--pid", str(folder / "pid"), "--log-file", str(log)]
    words += ["--mac-addr", OWN_MAC, "--interface", "eth0"]
    words += ["--address", HOST4, "--netmask", "24", "--tcp-ports", "2222:22"]
    done = run(on_host(lab, "user", *words))
    assert (done.returncode, done.stdout) == (0, "")
    pid = int((folder / "pid").read_text())
    assert "passt" in log.read_text().splitlines()[0]
    assert lab.host.is_bound("tcp", 2222)
    with Plug(connect(path)) as plug:
        plug.send(arp())
        assert plug.recv(lambda p: ARP in p and p[ARP].op == 2).src == OWN_MAC
        plug.send(dhcp("discover"))
        offer = plug.recv(lambda p: DHCP in p)
        assert told(offer)["subnet_mask"] == "255.255.255.0"
    wait_for(lambda: ended(pid), "--one-off ends it")
    assert "machine.left" in log.read_text()


def test_capabilities_are_printed(lab: Lab) -> None:
    for words in (["--print-capabilities"], ["--vhost-user", "--print-capabilities"]):
        done = run(on_host(lab, "user", *words))
        assert (done.returncode, json.loads(done.stdout)) == (0, {"type": "net"})


# A socket that is there already


@contextmanager
def inherited(lab: Lab, *words: str, fd: int, end: socket.socket) -> Iterator[int]:
    """Start it with a descriptor, in the background; the parent's exit status."""
    script = f'exec {fd}<&"$0" "$@"'
    argv = on_host(lab, "user", "-q", "--fd", str(fd), *words)
    with subprocess.Popen(
        ["bash", "-c", script, str(end.fileno()), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[end.fileno()],
        text=True,
    ) as popen:
        end.close()
        said, _ = popen.communicate(timeout=PATIENCE)
        assert said == ""
        yield popen.returncode


@pytest.mark.parametrize("fd", [0, 3, 9])
def test_a_machine_that_is_connected_already(lab: Lab, folder: Path, fd: int) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    pid_file = folder / "pid"
    with inherited(lab, "-P", str(pid_file), fd=fd, end=theirs) as status:
        assert status == 0
        pid = int(pid_file.read_text())
        with Plug(ours) as plug:
            assert is_served(plug)
        wait_for(lambda: ended(pid), "it ends with its machine")


def bad_fds() -> Sequence[tuple[str, str]]:
    return [
        ("77", "passt: Invalid --fd: 77: Bad file descriptor\n"),
        ("0", "passt: Invalid --fd: 0: Socket operation on non-socket\n"),
    ]


@pytest.mark.parametrize(("fd", "said"), bad_fds())
@pytest.mark.parametrize("where", [[], ["-f"]])
def test_what_is_no_socket_is_refused(
    lab: Lab, fd: str, said: str, where: list[str]
) -> None:
    done = run(on_host(lab, "user", "--fd", fd, *where))
    assert (done.returncode, done.stdout) == (1, said)


@pytest.mark.parametrize(
    ("kind", "connected", "said"),
    [
        (socket.SOCK_DGRAM, True, "not a stream socket"),
        (socket.SOCK_STREAM, False, "Transport endpoint is not connected"),
    ],
)
def test_an_odd_socket_is_refused(
    lab: Lab, kind: int, connected: bool, said: str
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs, socket.socket(socket.AF_UNIX, kind) as lonely:
        chosen = theirs if connected else lonely
        done = subprocess.run(
            on_host(lab, "root", "--fd", "0"),
            stdin=chosen.fileno(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert (done.returncode, done.stderr) == (1, f"passt: Invalid --fd: 0: {said}\n")


# Names of sockets


def test_two_find_default_paths_of_their_own(lab: Lab) -> None:
    """Whichever are free here; the log tells."""
    paths = []
    processes = [lab.start(lab.host, program(), "-f") for _ in range(2)]
    for process in processes:
        process.wait_output("machine.awaited")
        found = re.search("socket=(/tmp/passt_[0-9]+.socket) ", process.stderr())
        assert found is not None
        paths.append(Path(found[1]))
        with Plug(connect(paths[-1])) as plug:
            assert is_served(plug)
    for process, path in zip(processes, paths, strict=True):
        process.signal(signal.SIGTERM)
        process.wait(PATIENCE)
        wait_gone(path)
    assert paths[0] != paths[1]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_replaced(lab: Lab, folder: Path, what: str) -> None:
    path = folder / "s"
    if what == "file":
        path.touch()
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    done = run(on_host(lab, "root", "-s", str(path)))
    said = f"passt: Socket path {path} is no socket\n"
    assert (done.returncode, done.stdout) == (1, said)
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_not_there(lab: Lab) -> None:
    done = run(on_host(lab, "user", "-s", "/nowhere/s"))
    said = "passt: Couldn't open socket /nowhere/s: No such file or directory\n"
    assert (done.returncode, done.stdout) == (1, said)


@BOTH
def test_a_busy_port_leaves_no_socket_behind(lab: Lab, folder: Path, who: Who) -> None:
    path = folder / "s"
    with tcp_echo(lab.host, HOST4, 8088):
        done = run(on_host(lab, who, "-s", str(path), "-t", "8088"))
    assert done.returncode == 1
    assert done.stdout.endswith("Couldn't listen on requested ports\n")
    assert not path.exists()


# The host's network


def test_a_host_without_a_network_has_a_guest_all_the_same(folder: Path) -> None:
    argv = ["unshare", "--net", program(), "-P", str(folder / "pid")]
    argv += ["-s", str(folder / "s"), "-q"]
    assert run(argv).returncode == 0
    with Plug(connect(folder / "s")) as plug:
        plug.send(dhcp("discover"))
        offer = plug.recv(lambda p: DHCP in p)
        assert (told(offer)["router"], told(offer)["subnet_mask"]) == (
            "169.254.2.2",
            "255.255.0.0",
        )
    terminate(int((folder / "pid").read_text()))


def test_machines_are_told_of_a_change_of_the_host(folder: Path) -> None:
    """Its address, and its resolver, without anybody entering a namespace."""
    with Lab() as lab:
        path = etc(lab.dir, REMOTE4)
        words = [program(), "-f", "-d", "-s", str(folder / "s")]
        process = lab.start(lab.host, *with_etc(lab.dir, words))
        process.wait_output("machine.awaited")
        lab.host.ip("addr", "del", f"{HOST4}/24", "dev", "eth0")
        lab.host.ip("addr", "add", "198.51.100.33/24", "dev", "eth0")
        lab.host.ip("route", "add", "default", "via", "198.51.100.254")
        path.write_text(content("192.0.2.53"))
        process.wait_output("guest4=198.51.100.33")
        process.wait_output("resolvers=192.0.2.53")
        with Plug(connect(folder / "s")) as plug:
            plug.send(dhcp("discover"))
            offer = plug.recv(lambda p: DHCP in p)
            assert told(offer)["name_server"] == "192.0.2.53"
            assert offer["BOOTP"].yiaddr == "198.51.100.33"
