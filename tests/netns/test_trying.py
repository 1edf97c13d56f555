# SPDX-License-Identifier: GPL-2.0-or-later
"""What pages say that their commands print: they are run, and must print it.

Those of docs/trying.md, and those of docs/control.md in the same network.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.process import identify, kill_all, process_tree
from tests.netns.program import ROOT, Running

PAGES = [ROOT / "docs" / name for name in ("trying.md", "control.md")]
BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "…"
TIMEOUT = 240  # seconds, of all attempts
# Pauses are made for a person's machine; who has a busy one tries again.
PAUSES = re.compile(r"\b(sleep|timeout|ask|traceroute)\b|ping -q -i|--for")
ATTEMPT = 50
# For a busy machine one pause is too short: until the servers of the page are there
SERVED = """
listening() { ip netns exec $1 ss -Hln$2 | wc -l; }
until [ "$(listening far t) $(listening near t) $(listening far u)" = "2 3 2" ]; do
    sleep 0.1
done"""


def blocks(language: str) -> list[str]:
    found = [each for page in PAGES for each in BLOCK.findall(page.read_text())]
    return [text for kind, text in found if kind == language]


def commands() -> list[tuple[str, str]]:
    """Each command of the pages and the lines below it."""
    text = "".join(blocks("console"))
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((command, output))
    return found


def plain(text: str) -> str:
    """Without what depends on the widest cell of a table."""
    return re.sub(" +", " ", text.strip("\n"))


def matches(expected: str, said: str) -> bool:
    pattern = ".*".join(map(re.escape, plain(expected).split(ANYTHING)))
    return re.fullmatch(pattern, plain(said), re.DOTALL) is not None


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    """The words that lead to the host of the page."""
    (setup,) = blocks("sh")
    ready = f"{SERVED}\necho ready; exec sleep 1000"
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    words += ["--mount-proc"]  # a daemon sees in /proc who asks it
    words += ["bash", "-ec", f"{setup}\n{ready}"]
    with Running(words) as holder:
        assert holder.line() == "ready"
        task = Path(f"/proc/{holder.popen.pid}/task/{holder.popen.pid}")
        inside = (task / "children").read_text().split()[0]
        yield [
            *("nsenter", "-t", inside, "--mount", "--net", "--pid"),
            *("ip", "netns", "exec", "near", "env", "-C", "/tmp/trying", "bash", "-c"),
        ]


@pytest.mark.parametrize(("command", "expected"), commands())
def test_a_command_prints_what_the_page_says(
    network: list[str], command: str, expected: str
) -> None:
    programs = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    again = PAUSES.search(command) is not None
    until = time.monotonic() + TIMEOUT
    said: list[str] = []
    while not said or (again and time.monotonic() < until):
        said.append(run(network, command, env, ATTEMPT if again else TIMEOUT))
        if matches(expected, said[-1]):
            return
    raise AssertionError(said)


def run(network: list[str], command: str, env: dict[str, str], timeout: float) -> str:
    """What a command says, as far as it comes in time."""
    with subprocess.Popen(
        [*network, command + "\nwait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    ) as popen:
        try:
            out, _ = popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_all(identify(process_tree(popen.pid)))
            out, _ = popen.communicate()
    return out
