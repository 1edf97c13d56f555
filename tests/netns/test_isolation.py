# SPDX-License-Identifier: GPL-2.0-or-later
"""What a container's root can get out of our processes: it tries, and gets nothing."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.netns.program import (
    Running,
    Who,
    command_line,
    pasta,
    run,
    wait_for,
)

BOTH = pytest.mark.parametrize("who", ["root", "user"])
ATTACKS = Path(__file__).parent / "attacks"


def attack(name: str) -> list[str]:
    return [sys.executable, str(ATTACKS / f"{name}.py")]


@BOTH
def test_the_first_process_of_the_namespaces_gives_nothing(who: Who) -> None:
    words = ["--config-net", "-t", "auto", "--", "sh", "-c"]
    # It locks itself up while the command starts: what it gives for good is asked.
    locked = "until grep -q '^Seccomp:.2$' /proc/1/status; do sleep 0.05; done"
    script = f"{locked}; {' '.join(attack('first_process'))}"
    done = run(pasta(who, *words, script))
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()
    _, capabilities, _, seccomp = line.split()
    # CAP_KILL, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
    assert int(capabilities, 16) == 1 << 5 | 1 << 10 | 1 << 12 | 1 << 13
    assert seccomp == "2"  # it has a filter


def test_the_first_process_gives_nothing_even_at_once() -> None:
    argv = ["--config-net", "-t", "auto", "--", *attack("first_process")]
    done = run(pasta("user", *argv))
    assert [w for w in done.stdout.splitlines() if not w.startswith("Cap")] == []


@BOTH
def test_it_holds_nothing_of_the_hosts(who: Who, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    words = ["--config-net", "-t", "auto", "-P", str(tmp_path / "pid")]
    words += ["-l", str(tmp_path / "log"), "-p", str(tmp_path / "capture"), "--"]
    parents = tmp_path.parents if who == "user" else ()
    for folder in (f for f in parents if f.owner() == "root" and f != Path("/tmp")):
        folder.chmod(folder.stat().st_mode | 0o011)
    with Running(pasta(who, *words, "sh", "-c", "echo up; exec sleep 100")) as running:
        assert running.line() == "up"
        daemon = int((tmp_path / "pid").read_text())
        children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
        (init,) = [c for c in children if _is_first(int(c))]
        wait_for(lambda: _is_locked(init), "it has settled")
        held = []
        for entry in os.scandir(f"/proc/{init}/fd"):
            with suppress(FileNotFoundError):  # just closed
                held.append(os.readlink(entry.path))
        named = {name for name in held if name.startswith("/")}
        tables = {f"/proc/1/net/{name}" for name in ("tcp", "tcp6", "udp", "udp6")}
        assert named == {"/dev/null", *tables}
        assert sum(name.startswith("socket:") for name in held) <= 3
        wait_for(lambda: os.readlink(f"/proc/{daemon}/cwd") == "/", "so has the daemon")


def _is_locked(pid: str) -> bool:
    return "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()


def _is_first(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return False
    (line,) = [w for w in status.splitlines() if w.startswith("NSpid:")]
    return line.split()[-1] == "1"


@BOTH
def test_who_joins_a_namespace_cannot_be_caught(who: Who, tmp_path: Path) -> None:
    container = ["unshare", "--user", "--map-root-user", "--net", *attack("joiner")]
    with subprocess.Popen(
        command_line(who, *container),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "ready\n"
        tmp_path.chmod(0o777)
        words = ["-q", "--config-net", "-f", "--stats", "1", str(attacker.pid)]
        with Running(pasta(who, *words)) as running:
            wait_for(lambda: _has_tap(attacker.pid), "a tap")
            assert running.popen.poll() is None
            said, _ = attacker.communicate("\n", timeout=60)
            running.popen.terminate()
        assert said == ""


def _has_tap(pid: int) -> bool:
    """Tell whether there is another interface than `lo`."""
    links = run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-br", "link"])
    return len(links.stdout.splitlines()) > 1


@BOTH
def test_the_working_directory_is_left(who: Who) -> None:
    with Running(
        pasta(who, "-q", "-f", "--", "sh", "-c", "pwd; exec sleep 1000")
    ) as running:
        assert running.line() == os.getcwd()
        pid = running.popen.pid
        wait_for(lambda: os.readlink(f"/proc/{pid}/cwd") == "/", "it is left")
