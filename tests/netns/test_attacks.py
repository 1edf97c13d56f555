# SPDX-License-Identifier: GPL-2.0-or-later
"""What each process of ours can still ask the kernel for, once taken over: it tries.

The real program is started. Each of its processes makes a copy of itself for each
attack just before its door shuts; the copy shuts it and makes one call. So a copy has
the namespaces, rights, rules and descriptors of the process, and its filter.
"""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.netns.program import Running, Who, command_line, has_landlock, wait_for
from tests.netns.test_seccomp import ATTACKS

COPIES = Path(__file__).parent / "attacks" / "copies.py"
AT_FDCWD, WRITE_ONLY, CREATE, CORE = -100, 1, 0o100, 4
TIOCSTI = 0x5412
ENDED = f"ended {int(signal.SIGSYS)}"
DONE = "told 0"
MAKERS = ("FACTORY", "INIT")
DAEMONS = ("PASTA", "PASST")
EVERYBODY = (*DAEMONS, *MAKERS, "LOOKOUT")


def _told(number: int) -> str:
    return f"told {number}"


def _numbers(numbers: object, *arguments: object) -> list[object]:
    return [*map(int, str(numbers).split("/")), *arguments]


# Who makes one of them is ended, but for those of ANSWERED
CALLS = {name: _numbers(*given) for name, given in ATTACKS.items()} | {
    "a file by another way": [437, 437, AT_FDCWD, "/etc/passwd", "", 24],
    "a link": [265, 37, AT_FDCWD, "/a", AT_FDCWD, "/b", 0],
    "a folder": [258, 34, AT_FDCWD, "/a", 0o755],
    "another folder": [80, 49, "/"],
    "a changed mode": [268, 53, AT_FDCWD, "/", 0o777],
    "memory for a program": [319, 279, "x", 0],
    "a signal for everybody": [62, 129, -1, 0],
    "a queued signal": [129, 138, 1, 0, ""],
    "a process by descriptor": [434, 434, 1, 0],
    "rights": [126, 91, "", ""],
    "another filter": [317, 277, 1, 0, ""],
    "the clock": [227, 112, 0, ""],
    "the host's name": [170, 161, "x", 1],
    "the terminal's input": [16, 29, 0, TIOCSTI, "x"],
    "core dumps": [157, 167, CORE, 1, 0, 0, 0],
}
# What is answered instead, because others need the call, or libraries try it
ANSWERED = {
    "the terminal's input": dict.fromkeys(EVERYBODY, _told(errno.ENOTTY)),
    "core dumps": dict.fromkeys(EVERYBODY, _told(errno.EPERM)),
    "a signal for everybody": {"INIT": DONE},  # the command is all that it can signal
    "a netlink socket": {},
}
# The same of files, that everybody may read and write
OF_FILES = {
    "a file to read": ([257, 56, AT_FDCWD, "{file}", 0, 0], errno.ENOENT, 0),
    "a file to write": ([257, 56, AT_FDCWD, "{file}", WRITE_ONLY], errno.ENOENT, 13),
    "a new file": ([257, 56, AT_FDCWD, "{file}2", CREATE, 0o600], errno.ENOENT, 13),
    "a file less": ([263, 35, AT_FDCWD, "{file}", 0], errno.EACCES, 13),
    "another name": ([264, 38, AT_FDCWD, "{file}", AT_FDCWD, "{file}2"], None, 13),
}


def expected(process: str) -> dict[str, str]:
    """What comes of each attack, by its name."""
    answers = {name: ANSWERED.get(name, {}).get(process, ENDED) for name in CALLS}
    for name, (_, by_others, by_lookout) in OF_FILES.items():
        if process == "LOOKOUT":
            answers[name] = _told(by_lookout)
        else:
            answers[name] = ENDED if by_others is None else _told(by_others)
    return answers


def of_a_command(folder: Path) -> list[str]:
    return ["pasta", "-q", "--config-net", "-t", "auto", "--", "sleep", "1000"]


def of_a_namespace(folder: Path) -> list[str]:
    return ["pasta", "-q", "-f", "-T", "auto", "--netns", str(folder / "net")]


def of_machines(folder: Path) -> list[str]:
    return ["passt", "-q", "-f", "-s", str(folder / "sockets" / "socket")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may use, with a short path for sockets, and a namespace."""
    made = Path(f"/tmp/passtpyattacks-{os.getpid()}")
    namespace = Namespace.create(made.name)
    (made / "files").mkdir(parents=True)
    (made / "sockets").mkdir()  # names in there go with the daemon
    for each in (made, made / "files", made / "sockets"):
        each.chmod(0o777)
    (made / "net").symlink_to(namespace.path)
    (made / "files" / "file").touch()
    (made / "files" / "file").chmod(0o666)
    yield made
    namespace.delete()
    shutil.rmtree(made)


WAYS = [
    (of_a_command, "root", {"INIT", "PASTA", "LOOKOUT"}),
    (of_a_command, "user", {"INIT", "PASTA", "LOOKOUT"}),
    (of_a_namespace, "root", {"FACTORY", "PASTA", "LOOKOUT"}),
    (of_machines, "root", {"PASST", "LOOKOUT"}),
    (of_machines, "user", {"PASST", "LOOKOUT"}),
]


@pytest.mark.skipif(not has_landlock(), reason="it is what stops the lookout")
@pytest.mark.parametrize(("way", "who", "whose"), WAYS)
def test_whoever_takes_over_a_process_gets_nothing(
    folder: Path, way: Callable[[Path], list[str]], who: Who, whose: set[str]
) -> None:
    attacks, notes, file = folder / "attacks", folder / "notes", folder / "files/file"
    tried = CALLS | {name: given for name, (given, _, _) in OF_FILES.items()}
    attacks.write_text(json.dumps(tried).replace("{file}", str(file)))
    words = [sys.executable, str(COPIES), str(notes), str(attacks), *way(folder)]

    def done() -> bool:
        text = notes.read_text() if notes.exists() else ""
        return all(f"{process}\tis done" in text for process in whose)

    with Running(command_line(who, *words)) as running:
        wait_for(lambda: done() or running.popen.poll() is not None, "all attacks")
        assert running.popen.poll() is None, running.popen.communicate()
    lines = [line.split("\t") for line in notes.read_text().splitlines()]
    for process in whose:
        found = {line[1]: line[2] for line in lines if line[0] == process and line[2:]}
        assert found == expected(process), process
    assert sorted(os.listdir(folder / "files")) == ["file"]
