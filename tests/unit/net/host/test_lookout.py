# SPDX-License-Identifier: GPL-2.0-or-later
"""What the process that looks at files says and does, each message of it."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from errno import ECONNREFUSED, EIO, EISDIR, ENOENT
from pathlib import Path

import pytest

from passtpy.config.model import Seccomp
from passtpy.egress.model import Policy
from passtpy.egress.source import PolicySource
from passtpy.errors import PolicyError
from passtpy.net.host.lookout import Lookout, Opened
from passtpy.net.host.lookout_process import Orders, start
from passtpy.net.kernel.local import Name, name_of

PATIENCE_S = 30.0
REASON = "it is no regular file"
POLICY = """\
version = 1
[sets]
a.include = "names"
[[rule]]
action = "allow"
to = "@a"
"""


class Loop:
    """A loop that a test turns by hand."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def until(self, done: Callable[[], object]) -> None:
        while not done():
            ready, _, _ = select.select(list(self.readers), [], [], PATIENCE_S)
            assert ready, "it said nothing"
            for fd in ready:
                self.readers[fd]()


class House:
    """A lookout of its own, with the daemon's end of it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.resolv = folder / "resolv.conf"
        self.resolv.write_text("nameserver 192.0.2.1\n")
        self.loop = Loop()
        self.said: list[tuple[bytes | None, str]] = []
        self.names: tuple[Name, ...] = ()
        self.policy: PolicySource | None = None
        self.namespace: tuple[int, str] | None = None
        self.targets: tuple[str, ...] = ()
        self._lookout: Lookout | None = None

    @property
    def lookout(self) -> Lookout:
        """The daemon's end; it is started when first asked for."""
        if self._lookout is None:
            orders = Orders(
                None,
                (str(self.log), None),
                self.policy,
                self.names,
                Seccomp.OFF,
                self.targets,
                str(self.resolv),
                self.namespace,
            )
            self._lookout = start(orders)
            self._lookout.on_resolver(lambda text, why: self.said.append((text, why)))
            self._lookout.start(self.loop)
        return self._lookout

    def close(self) -> None:
        if self._lookout is not None:
            self._lookout.close()
            self._lookout = None
            os.wait()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


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


def connected(house: House, path: str) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []
    house.lookout.connect(path, lambda fd, error: answers.append((fd, error)))
    house.loop.until(lambda: answers)
    return answers[0]


def test_it_connects_to_unix_sockets_that_were_named(
    house: House, tmp_path: Path
) -> None:
    there, other = str(tmp_path / "there"), str(tmp_path / "other")
    house.targets = (other, there)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(there)
        server.listen(1)
        fd, error = connected(house, there)
        assert error == 0
        with socket.socket(fileno=fd) as ours, server.accept()[0] as theirs:
            assert not os.get_blocking(fd)
            theirs.sendall(b"hello")
            theirs.close()
            ours.setblocking(True)
            assert ours.recv(9) == b"hello"
    assert connected(house, there) == (-1, ECONNREFUSED)
    assert connected(house, other) == (-1, ENOENT)


def test_it_connects_to_no_other_unix_socket(house: House, tmp_path: Path) -> None:
    house.targets = (str(tmp_path / "there"),)
    path = str(tmp_path / "elsewhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        assert connected(house, path) == (-1, EIO)  # not even asked
        house.lookout._targets = (house.targets[0], path)
        assert connected(house, path) == (-1, EIO)  # a daemon that lies


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
    answers: list[object] = []
    house.lookout._ask(b"?")
    house.lookout.who_is(1, lambda uid, depth: answers.append(depth))
    house.lookout.open_log(0, lambda fd, error: answers.append(fd))
    house.lookout.open_policy(answers.append)
    house.loop.until(lambda: house.lookout.gone)
    assert answers == [-1, [(EIO, -1)], 0]


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
