# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hostile root of a namespace can do to our process in it, and what that costs.

The container has no PID namespace and runs as the same user: it sees the socket
factory, and may send it signals. New spliced flows are all that this costs.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import HOST4, Lab
from tests.lab.process import kill_tree
from tests.netns.program import Running, Who, command_line, pasta, wait_for

ATTACK = Path(__file__).parent / "attacks" / "neighbour.py"
BOTH = pytest.mark.parametrize("who", ["root", "user"])
MANY = 400  # connections: far more than sockets are kept ready for


class Scene:
    """A container whose root is hostile, our daemon, and our factory there."""

    def __init__(self, lab: Lab, folder: Path, who: Who, stack: ExitStack) -> None:
        self.lab, self.log = lab, folder / "log"
        words = ["unshare", "--user", "--map-root-user", "--net"]
        argv = command_line(who, *words, "/usr/bin/python3", str(ATTACK))
        self._popen = stack.enter_context(
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(lambda: kill_tree(self._popen.pid))
        assert self._read() == "ready"
        pid_file = folder / "pid"
        words = ["-f", "--config-net", "-t", "8080", "-P", str(pid_file)]
        argv = pasta(who, *words, "-l", str(self.log), str(self._popen.pid))
        enter = ["nsenter", f"--net={lab.host.path}", "--"]
        stack.enter_context(Running([*enter, *argv]))
        wait_for(lambda: pid_file.exists() and pid_file.read_text(), "a daemon")
        self.daemon = int(pid_file.read_text())
        wait_for(lambda: self._filters(self.daemon) >= 2, "it is locked up")
        children = Path(f"/proc/{self.daemon}/task/{self.daemon}/children").read_text()
        self.factory = next(c for c in map(int, children.split()) if self._is_there(c))
        wait_for(lambda: self._filters(self.factory) >= 1, "so is the factory")

    @staticmethod
    def _filters(pid: int) -> int:
        (line,) = [
            each
            for each in Path(f"/proc/{pid}/status").read_text().splitlines()
            if each.startswith("Seccomp_filters:")
        ]
        return int(line.split()[1])

    def _is_there(self, pid: int) -> bool:
        there = os.readlink(f"/proc/{self._popen.pid}/ns/net")
        return os.readlink(f"/proc/{pid}/ns/net") == there

    def _read(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()

    def order(self, word: str) -> str:
        """Have it attack the factory; what worked."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{word} {self.factory}\n")
        self._popen.stdin.flush()
        return self._read()

    def connect(self, address: str) -> socket.socket:
        sock = self.lab.host.connect(address, 8080)
        sock.settimeout(30)
        return sock

    def is_served(self, address: str) -> bool:
        """Whether a new connection gets its echo."""
        try:
            with self.connect(address) as sock:
                return says(sock)
        except ConnectionError:
            return False

    def _lines(self) -> list[str]:
        """The log so far, without a last line that is half written."""
        return self.log.read_text().rpartition("\n")[0].splitlines()

    def count(self, event: str) -> int:
        return sum(event in line for line in self._lines())

    def refused(self) -> int:
        """How many spliced flows were refused, as the daemon counts."""
        before = self.count("summary.counters")
        os.kill(self.daemon, signal.SIGUSR1)
        wait_for(lambda: self.count("summary.counters") > before, "a summary")
        words = [x for x in self._lines() if "summary.counters" in x][-1].split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        return int(named.get("splice_refused", 0))


def says(sock: socket.socket) -> bool:
    sock.sendall(b"hello")
    return sock.recv(5) == b"hello"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(f"/tmp/passtpyneighbour-{os.getpid()}")
    made.mkdir()
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["root", "user"])
def scene(request: pytest.FixtureRequest, folder: Path) -> Iterator[Scene]:
    with Lab() as lab, ExitStack() as stack:
        yield Scene(lab, folder, request.param, stack)


def test_it_gets_nothing(scene: Scene) -> None:
    assert scene.order("rob") == ""


def test_a_factory_that_is_stopped_or_killed_costs_new_spliced_flows(
    scene: Scene,
) -> None:
    spliced, tap = scene.connect("127.0.0.1"), scene.connect(HOST4)
    with spliced, tap:
        assert says(spliced)
        assert says(tap)
        assert scene.order("stop") == "stop"
        assert not all(scene.is_served("127.0.0.1") for _ in range(MANY))
        wait_for(lambda: scene.count("factory.silent") == 1, "it is missed")
        refused = scene.refused()
        assert refused > 0
        assert says(spliced)
        assert says(tap)
        assert scene.is_served(HOST4)
        assert scene.order("cont") == "cont"
        wait_for(lambda: scene.count("factory.answers") == 1, "it goes on")
        assert scene.is_served("127.0.0.1")
        assert scene.order("kill") == "kill"
        wait_for(lambda: scene.count("factory.gone") == 1, "it is missed")
        assert not all(scene.is_served("127.0.0.1") for _ in range(MANY))
        assert scene.refused() > refused
        assert says(spliced)
        assert says(tap)
        assert scene.is_served(HOST4)
        assert scene.count("factory.silent") == 1


@BOTH
def test_the_first_process_of_a_command_is_neither_stopped_nor_killed(who: Who) -> None:
    script = "kill -STOP 1; kill -KILL 1; sed -n s/^State:.//p /proc/1/status; echo on"
    argv = pasta(who, "--config-net", "-t", "auto", "--", "sh", "-c", script)
    with Running(argv) as running:
        # It may wait in the kernel for its own mounts and sockets to go: D.
        assert running.line()[:1] in "SRD"
        assert running.line() == "on"
        assert running.wait() == 0
