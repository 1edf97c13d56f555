# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever call of a start fails: one line, and nothing is left; or it starts anyway.

Each program starts under a kernel that says no to the n-th call of a name, and is told
to end. All of `kernel.ERRORS`; of names that are called often only the first few,
unless PASSTPY_FAULT_ALL is set.
"""

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.kernel import ERRORS, Fault, Kernel, why_not
from tests.lab.namespace import Namespace
from tests.lab.translators import Passtpy

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or ""),
    pytest.mark.timeout(1800 if "PASSTPY_FAULT_ALL" in os.environ else 120),
]
FEW = 1000 if "PASSTPY_FAULT_ALL" in os.environ else 3
MOST = {"seccomp": 4}  # its last call is the one that shuts the door
PAIRS = int(os.environ.get("PASSTPY_FAULT_PAIRS", "60")) // 3
PATIENCE = 60.0
NEVER = re.compile("Traceback|internal error|unhandled|failed error=", re.IGNORECASE)
# What comes before the last line: which port; what a process says that cannot report
# to its parent; what is said of a loop that could not be made or started
MORE = re.compile(
    "Listen failed|listen.failed|All listens failed|Namespace process failed"
    "|deallocating an open event|loop.missing"
)
CLOSED = "203.0.113.1/9"  # the gateway, which is the host, and nobody listens there
COMMAND_STATUS = {0, 1, 126, 127}
# libuv ends the process if it gets no pipe, though we had one the moment before
OF_LIBUV = Fault("pipe2", 2)


@dataclass
class Place:
    """A host with a network, a namespace on it, and a folder."""

    host: Namespace
    guest: Namespace
    folder: Path

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()


def command(place: Place) -> list[str]:
    """A command in namespaces of its own, which ends when it has been served.

    It says something where nobody listens, and is told so, or waits for a while.
    """
    talk = f"{{ echo >&3; read -t 5 <&3; }} 3<> /dev/udp/{CLOSED}"
    script = f"exec 2> /dev/null; {talk}; exit 0"
    words = ["--config-net", "--", "bash", "-c", script]
    return [Passtpy().program, *_common(place), *words]


def namespace(place: Place) -> list[str]:
    """A daemon for a namespace."""
    words = [*_common(place), "--config-net", "--netns", str(place.guest.path)]
    return [Passtpy().program, *words]


def machine(place: Place) -> list[str]:
    """A daemon for virtual machines."""
    program = Passtpy().program.replace("pasta", "passt")
    return [program, *_common(place), "--socket", str(place.folder / "socket")]


def _common(place: Place) -> list[str]:
    folder = place.folder
    return [
        *("-q", "-t", "8080", "-u", "8081", "-P", str(place.pid_file)),
        *("--control", str(folder / "control"), "-p", str(folder / "pcap")),
    ]


PROGRAMS: list[Callable[[Place], list[str]]] = [command, namespace, machine]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    number = os.getpid()
    host = Namespace.create(f"passtpy-says-no-{number}")
    guest = Namespace.create(f"passtpy-guest-{number}")
    host.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.ip("address", "add", "203.0.113.2/24", "dev", "eth0")
    for name in ("eth0", "eth1"):
        host.ip("link", "set", name, "up")
    host.ip("route", "add", "default", "via", "203.0.113.1")
    folder = tmp_path_factory.mktemp("start")
    folder.chmod(0o777)
    yield Place(host, guest, folder)
    host.delete()
    guest.delete()


@dataclass
class Outcome:
    """What came of a start."""

    calls: dict[str, int]
    failed: list[Fault]
    status: int
    said: list[str]


def start(
    place: Place, program: Callable[[Place], list[str]], faults: list[Fault]
) -> Outcome:
    """Start it while calls fail, have it end, and wait until all of it is gone."""
    place.clear()
    with place.host.entered():
        kernel = Kernel(program(place), faults)
    with kernel:
        try:
            _, err = kernel.popen.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            kernel.kill()
            raise
        if program is not command and kernel.popen.returncode == 0:
            os.kill(int(place.pid_file.read_text()), signal.SIGTERM)
        kernel.wait(PATIENCE)
    said = err.decode().splitlines()
    return Outcome(kernel.calls, kernel.failed, kernel.popen.returncode, said)


def check(place: Place, outcome: Outcome) -> None:
    """One line, no traceback, and nothing left in the namespace."""
    said = outcome.said
    expected = COMMAND_STATUS
    if OF_LIBUV in outcome.failed:
        expected = {*COMMAND_STATUS, -signal.SIGABRT}
    assert outcome.status in expected, said
    assert not [line for line in said if NEVER.search(line)]
    most = len(outcome.failed) + sum(bool(MORE.search(line)) for line in said)
    least = int(outcome.status == 1)
    assert least <= len(said) <= most, [outcome.status, *said]
    assert re.findall(r"^\d+: (\w+)", place.guest.ip("link"), re.MULTILINE) == ["lo"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize("name", ERRORS)
def test_one_fails(
    place: Place, program: Callable[[Place], list[str]], name: str
) -> None:
    for nth in range(1, max(FEW, MOST.get(name, 0)) + 1):
        outcome = start(place, program, [Fault(name, nth)])
        if not outcome.failed:
            break
        check(place, outcome)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize("seed", range(PAIRS))
def test_two_fail(
    place: Place, program: Callable[[Place], list[str]], seed: int
) -> None:
    dice = random.Random(seed)
    names = dice.choices(list(ERRORS), k=2)
    faults = [Fault(name, dice.choice((1, 1, 2, 3, 5, 8))) for name in names]
    check(place, start(place, program, faults))
