# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages for newcomers are typed, from top to bottom, and print what they say.

Each is one shell, as a reader has it, on a host of the lab whose internet is two web
servers. In docs/seen.md all numbers are of one run, and may be others.
"""

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.lab import REMOTE4, Lab, TcpServer
from tests.netns.nameserver import NameServer
from tests.netns.program import ROOT
from tests.netns.resolvers import etc, with_etc
from tests.netns.test_trying import ANYTHING, BLOCK, matches

DOCS = ROOT / "docs"
SEEN = DOCS / "seen.md"
PAGES = [*sorted((DOCS / "tutorials").glob("*.md")), SEEN]
SERVERS = {"example.com": "192.0.2.80", "tracker.example.org": "192.0.2.81"}
NUMBER = re.compile(r"\d[\d.]*(?:[kMG]?B)?")
MARK = "--- the next command"
BLOCK_SIZE = 1 << 16
PATIENCE = 240
HELLO = "hello from here\n"  # in a file that a page serves


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands of a page, and what stands below each."""
    text = "".join(t for kind, t in BLOCK.findall(page.read_text()) if kind != "sh")
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def serve(sock: socket.socket) -> None:
    """Say which name was asked for; /big has no end."""
    asked = sock.recv(4096).decode()
    name = re.search(r"^Host: (\S+)\r$", asked, re.MULTILINE)
    assert name is not None
    sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    if "GET /big " in asked:
        while True:
            sock.sendall(bytes(BLOCK_SIZE))
    sock.sendall(f"this is {name[1]}\n".encode())


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        made = stack.enter_context(Lab())
        made.host.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
        zone = [f"{name}. 300 A {address}" for name, address in SERVERS.items()]
        stack.enter_context(NameServer(*zone).serving(made.remote, REMOTE4))
        for address in SERVERS.values():
            made.remote.ip("addr", "add", f"{address}/32", "dev", "wire0")
            stack.enter_context(TcpServer(made.remote, address, serve, 80))
        yield made


def typed(lab: Lab, folder: Path, lines: list[str]) -> list[str]:
    """What one shell prints for each of these lines, typed one after the other."""
    etc(folder, REMOTE4)
    (folder / "hello").write_text(HELLO)
    script = "".join(f"{line}\necho; echo {shlex.quote(MARK)}\n" for line in lines)
    # A folder of control sockets of its own, and nobody left behind at its end
    shell = f"mount -t tmpfs -o mode=755 none /run; cd {folder}; {script}"
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv = with_etc(folder, [*words, "bash", "-c", f"exec 2>&1\n{shell}"])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    done = lab.host.run(*argv, env={"PATH": path}, timeout=PATIENCE, check=False)
    return done.stdout.split(f"{MARK}\n")[:-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_typed_from_top_to_bottom(
    lab: Lab, page: Path, tmp_path: Path
) -> None:
    lines = commands(page)
    for name in re.findall(r"^\$ cat (\w+)$", page.read_text(), re.MULTILINE):
        (tmp_path / name).write_text(dict(lines)[f"cat {name}"])
        (tmp_path / name).chmod(0o755)
    said = typed(lab, tmp_path, [command for command, _ in lines])
    for (command, expected), printed in zip_longest(lines, said):
        if page == SEEN:
            expected = NUMBER.sub(ANYTHING, expected)
        assert matches(expected, printed or ""), (command, printed)


def test_a_page_that_says_something_else_is_noticed(lab: Lab, tmp_path: Path) -> None:
    (said,) = typed(lab, tmp_path, ["curl -sS http://example.com/"])
    assert not matches("this is example.org", said)
    assert matches("this is example.com", said)
