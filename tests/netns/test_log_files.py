# SPDX-License-Identifier: GPL-2.0-or-later
"""A log file that is full, behind closed doors: in every mode, whoever has started us.

What fills it is a guest that sends datagrams, each of a flow of its own. They go to a
port of the host's loopback at which nobody listens.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.lab.namespace import Namespace
from tests.netns.machine import GUEST_MAC, Plug, connect, program
from tests.netns.program import command_line, pasta, run, terminate, wait_for

HOST = "198.51.100.9"  # stands for the host's loopback
FIRST, LAST = 10000, 10150  # the ports that datagrams come from
SIZE = 40960
LOG: tuple[str, ...] = ("-d", "--log-size", str(SIZE), "--map-host-loopback", HOST)
LOG += ("-4", "-t", "none", "-u", "none")
NOT_BACK = ("-T", "none", "-U", "none", "--config-net")
SEND = f"""
import socket
for port in range({FIRST}, {LAST}):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", port))
        sock.sendto(b"x", ("{HOST}", 9))
"""
# The same of a command, which is there before its daemon serves, and after that ends:
# it begins when one datagram is in the log, and stays until all are, in several files
COMMAND = f"""
import pathlib, socket, sys, time
def told(port):
    files = list(pathlib.Path(sys.argv[1]).glob("log*"))
    try:
        return files if any(f":{{port}} ->" in f.read_text() for f in files) else []
    except FileNotFoundError:  # it is getting another name
        return []
def wait(files, port, again=lambda: None):
    until = time.monotonic() + 25
    while len(told(port)) < files and time.monotonic() < until:
        again()
        time.sleep(0.1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("", {FIRST - 1}))
    wait(1, {FIRST - 1}, lambda: sock.sendto(b"x", ("{HOST}", 9)))
{SEND}
wait(2, {LAST - 1})
"""

# Where its files are, and how it is told more
Start = Callable[[Path, "tuple[str, ...]"], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may use: pytest's own are below one that is closed."""
    made = Path(mkdtemp(prefix="passtpylog-"))
    made.chmod(0o777)  # the daemon of root is nobody by then
    yield made
    rmtree(made)


def of_a_command(folder: Path, words: tuple[str, ...]) -> None:
    client = ("python3", "-c", COMMAND, str(folder))
    done = run(pasta("user", *words, *NOT_BACK, "--", *client))
    assert (done.returncode, done.stdout) == (0, "")


def of_a_namespace(folder: Path, words: tuple[str, ...]) -> None:
    guest = Namespace.create(f"passtpylog-{os.getpid()}")
    try:
        at = ("-P", str(folder / "pid"), "--netns", str(guest.path))
        done = run(pasta("root", *words, *NOT_BACK, *at))
        assert (done.returncode, done.stdout) == (0, "")
        guest.run("python3", "-c", SEND)
        end(folder)
    finally:
        guest.delete()


def of_a_machine(who: str) -> Start:
    def start(folder: Path, words: tuple[str, ...]) -> None:
        path = folder / "socket"
        at = ("-P", str(folder / "pid"), "-s", str(path))
        done = run(command_line(who, program(), *words, *at))
        assert done.returncode == 0, done.stdout
        with Plug(connect(path)) as plug:
            ether = Ether(src=GUEST_MAC, dst="ff:ff:ff:ff:ff:ff")
            for port in range(FIRST, LAST):
                packet = IP(src="192.0.2.2", dst=HOST) / UDP(sport=port, dport=9)
                plug.send(ether / packet / b"x")
            wait_for(lambda: LAST - 1 in ports(*files_of(folder)), "the last flow")
        end(folder)

    return start


def end(folder: Path) -> None:
    wait_for(lambda: LAST - 1 in ports(*files_of(folder)), "the last flow")
    terminate(int((folder / "pid").read_text()))


def files_of(folder: Path) -> list[Path]:
    """All files of the log, the oldest first."""
    old = sorted(folder.glob("log.*"), key=lambda path: -int(path.suffix[1:]))
    return [*old, folder / "log"]


def ports(*files: Path) -> list[int]:
    """The ports of the flows that began, the oldest first."""
    text = ""
    for path in files:
        with suppress(FileNotFoundError):  # it is getting another name
            text += path.read_text()
    found = map(int, re.findall(r"flow_opened TAP \S+:(\d+) ->", text))
    return [port for port in found if port >= FIRST]


WAYS = {
    "command, user": of_a_command,
    "namespace, root": of_a_namespace,
    "machine, root": of_a_machine("root"),
    "machine, user": of_a_machine("user"),
}
EACH_WAY = pytest.mark.parametrize("start", WAYS.values(), ids=WAYS)


@EACH_WAY
def test_a_full_log_goes_on_in_the_next_file(folder: Path, start: Start) -> None:
    start(folder, (*LOG, "-l", str(folder / "log"), "--log-files", "9"))
    found = files_of(folder)
    assert len(found) > 1
    assert ports(*found) == list(range(FIRST, LAST))  # not one is lost
    for each in found:
        assert each.read_text().startswith("passtpy ")
        assert each.stat().st_size <= SIZE


@pytest.mark.parametrize("start", [of_a_namespace, of_a_machine("user")])
def test_one_log_that_is_full_keeps_its_newest_part(folder: Path, start: Start) -> None:
    """With nothing that depends on its name."""
    start(folder, (*LOG, "-l", str(folder / "log")))
    (log,) = files_of(folder)
    assert log.read_text().startswith("passtpy ")
    assert "(older lines were discarded)" in log.read_text()
    assert log.stat().st_size <= SIZE
    kept = ports(log)
    assert kept == list(range(kept[0], LAST))


def test_a_folder_that_is_not_ours_keeps_one_file_and_says_so(folder: Path) -> None:
    folder.chmod(0o755)  # nobody may not write there
    words = (*LOG, "-l", str(folder / "log"), "--log-files", "9")
    of_a_namespace(folder, (*words, "--log-size", "90000"))
    (log,) = files_of(folder)
    text = log.read_text()
    assert text.count(f"log.kept {log} reason='Permission denied'") == 1
    assert "(older lines were discarded)" in text
    assert log.stat().st_size <= 90000
