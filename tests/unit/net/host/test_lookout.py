# SPDX-License-Identifier: GPL-2.0-or-later
"""What the process that looks at files says and does, each message of it."""

import os
import socket
from errno import EACCES, EIO, EISDIR
from pathlib import Path

import pytest

from passtpy.egress.model import Policy
from passtpy.egress.source import PolicySource
from passtpy.errors import PolicyError
from passtpy.net.host.lookout import Opened
from passtpy.net.kernel.local import name_of
from tests.unit.net.host.looking import House

REASON = "it is no regular file"
POLICY = """\
version = 1
[sets]
a.include = "names"
[[rule]]
action = "allow"
to = "@a"
"""


def who_is(house: House, pid: int) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.who_is(pid, lambda uid, depth: answers.append((uid, depth)))
    house.loop.until(lambda: answers)
    return answers[0]


def opened(house: House, which: int = 0) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.open_log(which, lambda fd, error: answers.append((fd, error)))
    house.loop.until(lambda: answers)
    return answers[0]


def turned(house: House) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.turn_log(lambda fd, error: answers.append((fd, error)))
    house.loop.until(lambda: answers)
    return answers[0]


def test_it_says_who_a_process_is(house: House) -> None:
    uid, depth = who_is(house, os.getpid())
    assert uid == os.geteuid()
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("NSpid:")]
    assert depth == len(line.split()) - 1
    assert who_is(house, 2**31 - 1) == (0, 0)  # there is none


def test_answers_come_in_the_order_of_questions(house: House) -> None:
    seen: list[str] = []

    def opened(fd: int, error: int) -> None:
        os.close(fd)
        seen.append("log")

    house.lookout.who_is(os.getpid(), lambda uid, depth: seen.append(f"us {depth > 0}"))
    house.lookout.open_log(0, opened)
    house.lookout.who_is(2**31 - 1, lambda uid, depth: seen.append(f"{depth > 0}"))
    house.loop.until(lambda: len(seen) == 3)
    assert seen == ["us True", "log", "False"]


def test_it_opens_the_log_file_anew(house: House) -> None:
    house.log.write_text("line\n")
    fd, error = opened(house)
    assert error == 0
    os.write(fd, b"more\n")
    os.close(fd)
    assert house.log.read_text() == "line\nmore\n"


def test_it_says_why_a_log_file_cannot_be_opened(house: House) -> None:
    house.log.mkdir()
    assert opened(house) == (-1, EISDIR)
    assert opened(house, 1) == opened(house, 9) == (-1, 0)  # there are no such files


def test_it_gives_a_full_log_another_name(house: House, tmp_path: Path) -> None:
    """In the folder where the file is, wherever a link to it may be."""
    house.log_files = 2
    there = tmp_path / "there"
    there.mkdir()
    house.log.symlink_to(there / "file")
    house.log.write_text("first\n")
    for line in ("second\n", "third\n"):
        fd, error = turned(house)
        assert error == 0
        os.write(fd, line.encode())
        os.close(fd)
    assert sorted(os.listdir(there)) == ["file", "file.1"]
    assert (there / "file.1").read_text() == "second\n"
    assert house.log.read_text() == "third\n"


def test_it_says_why_a_full_log_keeps_its_name(house: House, tmp_path: Path) -> None:
    house.log_files = 2
    house.log.write_text("first\n")
    (tmp_path / "log.1").mkdir()
    assert turned(house) in ((-1, EISDIR), (-1, EACCES))  # Landlock is asked first
    assert house.log.read_text() == "first\n"


def test_it_turns_no_log_of_a_daemon_that_keeps_one(house: House) -> None:
    house.log.write_text("first\n")
    assert turned(house) == (-1, 0)
    assert sorted(os.listdir(house.log.parent)) == ["log", "resolv.conf"]


def test_it_opens_the_files_of_the_policy(house: House, tmp_path: Path) -> None:
    policy, names = tmp_path / "policy.toml", tmp_path / "names"
    policy.write_text(POLICY)
    names.write_text("a.example\n")
    source = house.policy = PolicySource(str(policy), (), None)
    before = source.load()
    answers: list[list[Opened]] = []

    def again() -> Policy:
        house.lookout.open_policy(answers.append)
        house.loop.until(lambda: answers)
        return source.load_opened(answers.pop())

    assert again() == before
    names.write_text("b.example\n")
    assert "b.example" in str(again())
    names.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        again()
    policy.unlink()
    os.mkfifo(policy)
    with pytest.raises(PolicyError, match="it was no file"):
        again()
    source.close()


def test_it_tells_what_resolv_conf_says(house: House) -> None:
    assert not house.lookout.gone
    house.loop.until(lambda: house.said)
    new = house.resolv.with_name("new")
    new.write_text("nameserver 192.0.2.2\n")
    new.rename(house.resolv)
    house.loop.until(lambda: len(house.said) > 1)
    assert house.said[0] == (b"nameserver 192.0.2.1\n", "")
    assert house.said[-1] == (b"nameserver 192.0.2.2\n", "")


def test_it_tells_why_resolv_conf_cannot_be_read(house: House) -> None:
    assert not house.lookout.gone
    house.loop.until(lambda: house.said)
    house.resolv.unlink()
    house.resolv.mkdir()
    house.loop.until(lambda: house.said[-1][0] is None)
    assert REASON in house.said[-1][1]


def test_it_tells_when_the_namespace_is_gone(house: House, tmp_path: Path) -> None:
    name = tmp_path / "net"
    name.touch()
    folder = os.open(tmp_path, os.O_PATH)
    house.namespace = folder, "net"
    gone: list[bool] = []
    house.lookout.on_namespace_gone(lambda: gone.append(name.exists()))
    who_is(house, os.getpid())
    name.unlink()
    house.loop.until(lambda: gone)
    assert gone == [False]
    os.close(folder)


def test_it_removes_the_names_of_our_sockets(house: House, tmp_path: Path) -> None:
    ours, taken = tmp_path / "ours", tmp_path / "taken"
    ours.touch()
    taken.touch()
    found = name_of(str(ours)), name_of(str(taken))
    house.names = tuple(name for name in found if name is not None)
    assert not house.lookout.gone
    taken.rename(tmp_path / "moved")
    taken.touch()  # somebody else's by now
    house.close()
    assert (ours.exists(), taken.exists()) == (False, True)


def test_nonsense_is_the_end(house: House) -> None:
    house.lookout._ask(b"open /etc/passwd")
    house.loop.until(lambda: house.lookout.gone)
    answers: list[object] = []
    house.lookout.who_is(os.getpid(), lambda uid, depth: answers.append((uid, depth)))
    house.lookout.open_log(0, lambda fd, error: answers.append(fd))
    house.lookout.open_policy(answers.append)
    assert answers == [(0, 0), -1, [(EIO, -1)]]
    assert house.said[-1][0] is None


def test_questions_without_an_answer_end_when_it_ends(house: House) -> None:
    """Some may find it gone already when they are asked."""
    depths: list[int] = []
    logs: list[int] = []
    policies: list[list[Opened]] = []
    house.lookout._ask(b"?")
    house.lookout.who_is(1, lambda uid, depth: depths.append(depth))
    house.lookout.open_log(0, lambda fd, error: logs.append(fd))
    house.lookout.open_policy(policies.append)
    house.loop.until(lambda: house.lookout.gone)
    assert (depths, logs, policies) == ([0], [-1], [[(EIO, -1)]])


def test_a_name_is_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert name_of(str(path)) is None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    first = name_of(str(path))
    path.unlink()
    (tmp_path / "other").touch()
    path.touch()
    assert first != name_of(str(path))
