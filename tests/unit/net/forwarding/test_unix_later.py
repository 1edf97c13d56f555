# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets that become ends of forwards, or cease to be, while a guest is served.

Somebody else makes and removes them, and is played by the test.
"""

import os
from collections.abc import Callable, Sequence
from errno import EACCES, EADDRINUSE, EEXIST, EIO, ENOENT
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from passtpy.config.model import Config
from passtpy.config.portrule import PortRule, PortTable, Side
from passtpy.log import Log
from passtpy.net.forwarding.listeners import Forwarding
from passtpy.net.kernel import local
from tests.unit.net.forwarding.test_change import ALL, Datapath, Loop, rule

FOLDER = "/run/user/1000/sockets"
OTHER = "/run/other"
NOT_THERE = f"not directly in {FOLDER} or {OTHER} (--unix-folder)"


class Names:
    """Makes sockets in a folder of the test, when it says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, int]] = []
        self.due: list[Callable[[], None]] = []
        self.fails: dict[str, int] = {}
        self.removed: list[str] = []
        self.stays = 0
        self.waits = False  # removals are answered when the test says so

    def listen(self, path: str, mode: int, then: Callable[[int, int], None]) -> None:
        self.asked.append((path, mode))

        def answer() -> None:
            error = self.fails.get(path, 0)
            place = str(self.folder / os.path.basename(path))
            then(*((-1, error) if error else (local.listen(place).detach(), 0)))

        self.due.append(answer)

    def remove(self, path: str, then: Callable[[int], None]) -> None:
        self.removed.append(path)
        self.due.append(lambda: then(self.stays))
        if not self.waits:
            self.due.pop()()

    def answer(self) -> None:
        while self.due:
            self.due.pop(0)()


class Run:
    def __init__(
        self,
        folder: Path,
        *folders: str,
        host: tuple[PortRule, ...] = (),
        ns: tuple[PortRule, ...] = (),
    ) -> None:
        self.datapath, self.loop, self.log = Datapath(), Loop(), Log()
        self.names = Names(folder)
        self.said: list[tuple[str, dict[str, object]]] = []
        self.log.watcher = lambda level, event, fields: self.said.append(
            (event, dict(fields))
        )
        config = Config(unix_folders=folders, host_ports=host, ns_ports=ns)
        first = PortTable(Side.HOST, ALL, host), PortTable(Side.SPLICE, ALL)
        it: Any = self.datapath
        self.forwarding = Forwarding(config, first, it, None, self.log)
        self.forwarding.open()
        self.forwarding.name_by(self.names)
        loop: Any = self.loop
        self.forwarding.start(loop)

    def replace(self, *rules: PortRule, side: Side = Side.HOST) -> list[str]:
        answers: list[Sequence[str]] = []
        old = self.forwarding.tables()
        new = tuple(PortTable(t.side, ALL, rules) if t.side is side else t for t in old)
        self.forwarding.replace(old, new, answers.append)
        for _ in range(3):
            self.names.answer()
            self.loop.run()
        (reasons,) = answers
        return list(reasons)

    def paths(self) -> list[str | None]:
        return [each.rule.path for each in self.forwarding.forwards]

    def close(self) -> None:
        for fd in self.datapath.heard.values():
            os.close(fd)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    made = Run(tmp_path, FOLDER, OTHER)
    yield made
    made.close()


def at(path: str, **more: Any) -> PortRule:
    return rule(80, addr=None, path=path, **more)


def to(path: str, port: int = 2375) -> PortRule:
    return PortRule(6, None, "lo", port, port, to_path=path)


def test_a_socket_is_made_elsewhere_and_heard_here(run: Run) -> None:
    path = f"{FOLDER}/web.sock"
    assert run.replace(at(path, mode=0o660)) == []
    assert run.names.asked == [(path, 0o660)]
    (standing,) = run.forwarding.standing()
    assert (standing.open_ports, len(run.datapath.heard)) == (1, 1)
    assert run.names.removed == []
    assert run.replace() == []
    assert (run.datapath.heard, run.names.removed) == ({}, [path])


def test_a_change_is_over_when_the_file_is_gone(run: Run) -> None:
    path = f"{FOLDER}/web.sock"
    assert run.replace(at(path)) == []
    run.names.waits = True
    answers: list[Sequence[str]] = []
    old = run.forwarding.tables()
    none = PortTable(Side.HOST, ALL), old[1]
    run.forwarding.replace(old, none, answers.append)
    run.forwarding.replace(none, old, answers.append)
    assert (run.datapath.heard, answers) == ({}, [])
    assert len(run.names.asked) == 1  # who asked next waits
    run.names.answer()
    assert answers == [[], []]
    assert len(run.datapath.heard) == 1


def test_a_socket_of_the_start_stays_wherever_it_is(tmp_path: Path) -> None:
    first, path = tmp_path / "first", tmp_path / "web.sock"
    run = Run(tmp_path, str(tmp_path), host=(at(f"{tmp_path}//first"),))
    assert run.replace(at(f"{tmp_path}//first"), at(str(path))) == []
    assert (first.is_socket(), path.is_socket()) == (True, True)
    assert run.replace(at(str(path))) == []
    assert run.names.removed == [f"{tmp_path}//first"]
    run.close()


@pytest.mark.parametrize(
    "path",
    [
        "/elsewhere/web.sock",
        f"{FOLDER}/deeper/web.sock",
        f"{FOLDER}/../web.sock",
        f"{FOLDER}/..",
        f"{FOLDER}/.",
        f"{FOLDER}//web.sock",
        f"{FOLDER}x",
        FOLDER,
        f"/x/..{FOLDER}/web.sock",
    ],
)
def test_no_other_folder_will_do(run: Run, path: str) -> None:
    assert run.replace(at(path)) == [f"unix:{path}: {NOT_THERE}"]
    assert run.replace(to(path), side=Side.SPLICE) == [f"unix:{path}: {NOT_THERE}"]
    assert run.names.asked == []


def test_without_the_option_there_is_a_line_that_names_it(tmp_path: Path) -> None:
    said = "unix:/x/y: only at start, or with --unix-folder"
    assert Run(tmp_path).replace(at("/x/y")) == [said]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (EADDRINUSE, "it is in use"),
        (EEXIST, "it is there, and no socket"),
        (EACCES, "Permission denied"),
        (ENOENT, "No such file or directory"),
        (EIO, "the process that makes sockets by name has ended"),
    ],
)
def test_one_socket_that_cannot_be_made_leaves_everything_as_it_was(
    run: Run, error: int, why: str
) -> None:
    good, bad, old = (f"{FOLDER}/{name}" for name in ("good", "bad", "old"))
    assert run.replace(at(old)) == []
    before = dict(run.datapath.heard)
    run.names.fails[bad] = error
    told = run.replace(at(old), at(good), at(bad))
    assert told == [f"Listen failed for UNIX socket {bad}: {why}"]
    assert run.paths() == [old]
    assert run.datapath.heard == before
    assert run.names.removed == [good]


def test_a_port_that_is_taken_takes_the_sockets_with_it(run: Run) -> None:
    path = f"{FOLDER}/web.sock"
    nowhere = rule(80, addr=ip_address("203.0.113.1"))
    (told,) = run.replace(at(path), nowhere)
    assert told.startswith("Listen failed for HOST TCP port 203.0.113.1/80")
    assert (run.paths(), run.names.removed) == ([], [path])


def test_a_socket_that_leads_elsewhere_comes_back_if_that_fails(run: Run) -> None:
    path = f"{FOLDER}/web.sock"
    assert run.replace(at(path)) == []
    run.names.fails[path] = EADDRINUSE  # as long as ours is there
    answers: list[Sequence[str]] = []
    old = run.forwarding.tables()
    new = PortTable(Side.HOST, ALL, (at(path, mode=0o666),)), old[1]
    run.forwarding.replace(old, new, answers.append)
    run.names.answer()  # it is in the way, and goes first
    assert run.names.removed == [path]
    run.names.answer()
    (reasons,) = answers
    assert len(reasons) == 1
    assert [mode for _, mode in run.names.asked] == [0o600, 0o666, 0o666, 0o600]


def test_what_was_named_at_start_may_be_reached_again(tmp_path: Path) -> None:
    named = to("/run/docker.sock")
    run = Run(tmp_path, ns=(named,))
    (told,) = run.replace(to("/run/other.sock"), side=Side.SPLICE)
    assert "--unix-folder" in told
    (told,) = run.replace(named, side=Side.SPLICE)
    assert "no way into the namespace" in told  # as far as it gets here


def test_a_file_that_stays_is_told_about(run: Run) -> None:
    path = f"{FOLDER}/web.sock"
    for error, why in ((EACCES, "Permission denied"), (EIO, "has ended"), (ENOENT, "")):
        run.names.stays = error
        run.said.clear()
        assert run.replace(at(path)) == []
        assert run.replace() == []
        kept = [fields for event, fields in run.said if event == "unix.kept"]
        assert len(kept) == (error != ENOENT)
        assert all(fields["path"] == path for fields in kept)
        assert all(str(fields["reason"]).endswith(why) for fields in kept)
