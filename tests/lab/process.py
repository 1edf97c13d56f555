# SPDX-License-Identifier: GPL-2.0-or-later
"""A background process of the lab: its output, its end, and what it has used.

Output goes to files, never to pipes, so that a talkative process cannot block.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
STOP_PATIENCE = 20.0
KILL_PATIENCE = 30.0
TAIL = 400

# Positions in /proc/PID/stat after the command name, see proc(5).
_CPU = slice(11, 15)  # utime, stime, cutime, cstime
_START = slice(19, 20)  # starttime


@dataclass(frozen=True, slots=True)
class Process:
    """A running command with its output files."""

    popen: subprocess.Popen[bytes]
    stdout_path: Path
    stderr_path: Path
    label: str

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        log_dir: Path,
        env: Mapping[str, str] | None = None,
        label: str = "",
    ) -> Self:
        """Start ``argv``, its input an open pipe, its output in ``log_dir``."""
        name = Path(label or argv[0]).name
        out_fd, out = mkstemp(prefix=f"{name}-", suffix=".out", dir=log_dir)
        err_fd, err = mkstemp(prefix=f"{name}-", suffix=".err", dir=log_dir)
        try:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=out_fd,
                stderr=err_fd,
                env={**os.environ, **(env or {})},
            )
        finally:
            os.close(out_fd)
            os.close(err_fd)
        return cls(popen, Path(out), Path(err), name)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def running(self) -> bool:
        return self.popen.poll() is None

    def stdout(self) -> str:
        return self.stdout_path.read_text(errors="replace")

    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def complaint(self) -> str:
        """The last it said, on one line, for error messages."""
        text = self.stderr().strip() or self.stdout().strip()
        return " / ".join(text[-TAIL:].splitlines())

    def wait(self, timeout: float) -> int:
        """Wait for the end; the exit status. ``TimeoutExpired`` if it goes on."""
        return self.popen.wait(timeout)

    def end_input(self) -> None:
        """Close its standard input: for many tools the polite way to end them."""
        if self.popen.stdin:
            with suppress(BrokenPipeError):
                self.popen.stdin.close()

    def signal(self, number: int) -> None:
        if self.running():
            self.popen.send_signal(number)

    def stop(self, patience: float = STOP_PATIENCE) -> int:
        """End it: SIGTERM, and SIGKILL when that does not help; the exit status.

        Descendants that outlive it are killed: an orphan would disturb what follows.
        """
        family = identify(self.tree())
        self.end_input()
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(patience)
        finally:
            kill_all(family)

    def tree(self) -> Iterator[int]:
        """Its process id and those of all its descendants."""
        return process_tree(self.pid)

    def cpu_seconds(self) -> float:
        """User and system time of all threads and descendants, also ended ones."""
        return sum(_stat(pid, _CPU) for pid in self.tree()) / TICKS

    def waited_seconds(self) -> float:
        """How long it and its descendants could have run, and others did."""
        return sum(_waited_ns(pid) for pid in self.tree()) / 1e9

    def rss_bytes(self) -> int:
        """Resident memory of the process and its descendants."""
        return sum(_rss(pid) for pid in self.tree())

    def maps(self) -> str:
        """The list of mapped files, to see which library was really loaded."""
        return Path(f"/proc/{self.pid}/maps").read_text()

    def wait_output(self, text: str, timeout: float = 60) -> None:
        """Wait until ``text`` stands in the output or the error output."""
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.running()  # asked first: it may say it and end
            if text in self.stdout() or text in self.stderr():
                return
            if ended:
                raise RuntimeError(f"{self.label} ended: {self.complaint()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.label} never said {text!r}")
            time.sleep(0.01)


def process_tree(pid: int) -> Iterator[int]:
    """A process id and those of all descendants."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from process_tree(int(child))


def identify(pids: Iterable[int]) -> dict[int, int]:
    """Start times of processes: they tell a process from a later one of its number."""
    return {pid: start for pid in pids if (start := _stat(pid, _START))}


def kill_tree(pid: int) -> None:
    """Kill a process and all below it, also those that it starts meanwhile."""
    seen: set[int] = set()
    while new := {*process_tree(pid)} - seen:
        for each in new:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        seen |= new
    kill_all(identify(seen))


def kill_all(family: Mapping[int, int]) -> None:
    """Kill those of the processes that still are who :func:`identify` saw.

    They are gone on return, and with them the ports and files that they had.
    """
    for pid, start in family.items():
        if _stat(pid, _START) == start:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_PATIENCE
    while any(_lives(*each) for each in family.items()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"killed, and not gone: {[*family]}")
        time.sleep(0.005)


def _lives(pid: int, start: int) -> bool:
    """Whether it is still that process, and more than something to be reaped.

    The first thread may have ended before others have, and all hold the files.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = stat[0] in "ZX" and len(threads) == 1
        return not ended and int(stat[_START][0]) == start
    return False


def _stat(pid: int, fields: slice) -> int:
    """Sum of some fields of /proc/PID/stat; 0 if the process is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return sum(map(int, stat.rpartition(")")[2].split()[fields]))
    return 0


def _waited_ns(pid: int) -> int:
    """Time in the queue of a processor, of the first thread; 0 if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return 0


def _rss(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0
