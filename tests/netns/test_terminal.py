# SPDX-License-Identifier: GPL-2.0-or-later
"""An interactive shell works: Ctrl-C, Ctrl-Z and job control belong to the command."""

import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.process import identify, kill_all, process_tree
from tests.netns.program import PATIENCE, pasta, wait_for

CTRL_C = "\x03"
CTRL_Z = "\x1a"


class Terminal:
    """A program that is the leader of a session on a terminal of its own."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"PS1": "ready> ", "TERM": "dumb"}
            os.execvp(argv[0], argv)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, text: str) -> str:
        """Wait until `text` comes; return what came up to and with it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came, but {self.said!r}"
            if select.select([self._fd], [], [], left)[0]:
                self.said += os.read(self._fd, 4096).decode()
        head, _, self.said = self.said.partition(text)
        return head + text

    def wait_foreground(self, name: str) -> None:
        """Wait until a job that is called so has the terminal."""

        def named() -> bool:
            with suppress(OSError):
                path = Path(f"/proc/{os.tcgetpgrp(self._fd)}/comm")
                return path.read_text().strip() == name
            return False

        wait_for(named, f"{name} has the terminal")

    def status(self) -> int:
        """Wait for the end; return the exit status."""
        found: list[int] = []

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                found.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        wait_for(ended, "the program ends")
        return found[0]

    def close(self) -> None:
        kill_all(identify(process_tree(self.pid)))
        os.close(self._fd)


@pytest.fixture(params=["root", "user"])
def shell(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """An interactive bash in its namespaces, at its prompt."""
    argv = pasta(request.param, "--", "bash", "--norc", "--noprofile", "-i")
    terminal = Terminal(argv)
    greeting = terminal.expect("ready> ")
    assert "job control" not in greeting
    yield terminal
    terminal.close()


def test_the_shell_ends_with_its_own_status(shell: Terminal) -> None:
    shell.type("exit 3\n")
    assert shell.status() == 3


def test_ctrl_c_goes_to_the_shells_job_only(shell: Terminal) -> None:
    shell.type("echo go; sleep 1000; echo status $?\n")
    shell.expect("go\r\n")
    shell.wait_foreground("sleep")
    shell.type(CTRL_C)
    shell.expect("ready> ")
    shell.type("echo alive\n")
    shell.expect("\r\nalive\r\n")
    shell.type("exit 8\n")
    assert shell.status() == 8


def test_job_control_works(shell: Terminal) -> None:
    shell.type("sleep 1000\n")
    shell.wait_foreground("sleep")
    shell.type(CTRL_Z)
    shell.expect("Stopped")
    shell.expect("ready> ")
    shell.type("bg; jobs\n")
    shell.expect("Running")
    shell.type("kill %1; wait; exit 4\n")
    assert shell.status() == 4


def test_ctrl_c_reaches_a_plain_command_once() -> None:
    script = "trap 'echo got; exit 5' INT; echo up; while :; do sleep 0.1; done"
    terminal = Terminal(pasta("root", "--", "sh", "-c", script))
    try:
        terminal.expect("up\r\n")
        terminal.type(CTRL_C)
        terminal.expect("got")
        assert terminal.status() == 5
        assert "got" not in terminal.said
    finally:
        terminal.close()


def test_ctrl_z_stops_us_with_the_command() -> None:
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"])
    try:
        terminal.expect("ready> ")
        line = " ".join(
            f"'{w}'" for w in pasta("root", "--", "sh", "-c", "echo up; exec cat")
        )
        terminal.type(line + "\n")
        terminal.expect("up\r\n")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.expect("ready> ")
        terminal.type("fg\n")
        terminal.expect("cat'\r\n")
        terminal.wait_foreground("passtpy-pasta")
        terminal.type("echoed?\n")
        terminal.expect("echoed?\r\nechoed?\r\n")
        terminal.type(CTRL_C)
        terminal.expect("ready> ")
        terminal.type("exit 6\n")
        assert terminal.status() == 6
    finally:
        terminal.close()


def test_a_hangup_ends_everything() -> None:
    terminal = Terminal(pasta("root", "--", "bash", "--norc", "--noprofile", "-i"))
    terminal.expect("ready> ")
    family = identify(process_tree(terminal.pid))
    os.close(terminal._fd)
    wait_for(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0], "we end")
    wait_for(lambda: not any(_running(pid) for pid in family), "all end")


def _running(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True
