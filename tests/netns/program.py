# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts the program as its users do: as root, or as an ordinary user."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from passtpy import _native
from tests.lab import Lab
from tests.lab.process import identify, kill_all, kill_tree, process_tree
from tests.lab.translators import Passtpy

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("passtpy")
USER = 47811  # nobody has it, and so no right to anything
PATIENCE = 60.0
Who = str  # "root" or "user"


def _closed_above(path: Path) -> Path | None:
    """The first folder on the way to `path` that others may not search."""
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def _open_ways() -> list[str]:
    """Shell lines that let everybody reach the interpreter, in a mount namespace.

    It may live in a home that only root may search (pyenv).
    """
    lines = ["set -e"]
    needed = [Path(sys.base_prefix).resolve(), ROOT]
    for number, path in enumerate(needed):
        closed = _closed_above(path)
        if closed is None:
            continue
        stage = f"/mnt/{number}"
        lines += [
            "mountpoint -q /mnt || mount -t tmpfs stage /mnt",
            f"mkdir {stage}",
            f"mount --bind {shlex.quote(str(path))} {stage}",
            f"mount -t tmpfs -o mode=755 open {shlex.quote(str(closed))}",
            f"mkdir -p {shlex.quote(str(path))}",
            f"mount --bind {stage} {shlex.quote(str(path))}",
        ]
    return lines


def command_line(who: Who, *argv: str, prepare: str = "") -> list[str]:
    """Return the words that run `argv` as root or as an ordinary user.

    `prepare` is a shell line for root to run first, in a mount namespace of its own.
    """
    if who == "root" and not prepare:
        return list(argv)
    lines = [*_open_ways(), prepare or ":"]
    prefix = ["exec"]
    if who == "user":
        prefix += ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    lines.append(shlex.join([*prefix, *argv]))
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines)]


def pasta(who: Who, *words: str, prepare: str = "") -> list[str]:
    """Return the words that run passtpy-pasta."""
    return command_line(who, Passtpy().program, *words, prepare=prepare)


def run(
    argv: Sequence[str], timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run to the end, with both outputs on one pipe, as podman does."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as popen:
        try:
            out, _ = popen.communicate(timeout=timeout)
        except BaseException:
            kill_tree(popen.pid)
            raise
    return subprocess.CompletedProcess(argv, popen.returncode, out)


class Running:
    """A started program and everything below it."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: dict[int, int] = {}

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exc: object) -> None:
        kill_all(self._family | identify(process_tree(self.popen.pid)))
        self.popen.kill()
        self.popen.communicate()

    def line(self) -> str:
        """The next line of its output; it must come in time."""
        assert self.popen.stdout is not None
        text = self.popen.stdout.readline().strip()
        self._family |= identify(process_tree(self.popen.pid))
        return text

    def wait(self, timeout: float = PATIENCE) -> int:
        return self.popen.wait(timeout)

    def survivors(self) -> list[int]:
        """Processes once seen below it that are still there, not counting zombies."""
        return [pid for pid in self._family if _alive(pid)]

    def wait_survivors_gone(self) -> None:
        wait_for(lambda: not self.survivors(), "no process survives")


def _alive(pid: int) -> bool:
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped."""
    return not _alive(pid)


def terminate(pid: int) -> None:
    """Send SIGTERM to a daemon and wait for its end."""
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: ended(pid), f"process {pid} ends")


def has_landlock() -> bool:
    """Whether this kernel has it."""
    with suppress(OSError):
        return _native.landlock_version() > 0
    return False


class Commands:
    """Asks a daemon on the host of a lab, as people do: by commands."""

    def __init__(self, lab: Lab, control: Path) -> None:
        self.lab, self.control = lab, str(control)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        first, *rest = words
        argv = [str(PROGRAM), first, "-i", self.control, *rest]
        return self.lab.host.run(*argv, check=False)

    def say(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout
