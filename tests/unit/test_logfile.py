# SPDX-License-Identifier: GPL-2.0-or-later
"""Log files of bounded size: one that forgets, or several that follow each other."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from passtpy import logfile
from passtpy.errors import SetupError
from passtpy.logfile import FileOutlet, turn
from passtpy.sinks import Writer

PATIENCE_S = 30.0
SIZE = 4096


class Turner:
    """Answers a full log, as who opens files for it does."""

    def __init__(self, outlet: FileOutlet, answer: Callable[[], None]) -> None:
        self._asked = outlet.successors
        self._answer = answer
        self.count = 0
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.closing.wait(0.0005):
            if self._asked.was_asked():
                self.count += 1
                self._answer()

    def stop(self) -> None:
        self.closing.set()
        self._thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers may be slow on a machine that has much to do."""
    monkeypatch.setattr(logfile, "ANSWER_S", PATIENCE_S)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    held = os.open(tmp_path, os.O_PATH)
    yield held
    os.close(held)


def say(outlet: FileOutlet, numbers: range) -> None:
    for number in numbers:
        outlet.write([("info", f"line {number}")])


def end(outlet: FileOutlet) -> None:
    outlet.close()
    outlet.hang_up()


def numbers(*paths: Path) -> list[int]:
    """The numbers of the lines in these files, the oldest first."""
    lines = [line for each in paths for line in each.read_text().splitlines()]
    return [int(line.split()[1]) for line in lines if line.startswith("line ")]


def files_of(path: Path) -> list[Path]:
    """All files of a log, the oldest first."""
    old = sorted(path.parent.glob("log.*"), key=lambda p: -int(p.suffix[1:]))
    return [*old, path]


# One file


def test_full_log_file_forgets_its_oldest_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    outlet = FileOutlet(str(path), 4096, "header")
    for number in range(0, 1000, 8):
        outlet.write([("info", f"line {n}") for n in range(number, number + 8)])
    outlet.close()
    outlet.hang_up()
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= 4096
    assert lines[0] == "header"
    assert lines[-1] == "line 999"
    numbers = [int(line[5:]) for line in lines[2:]]
    assert numbers == list(range(numbers[0], 1000))


def test_a_log_file_stays_bounded_whatever_comes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    outlet = FileOutlet(str(path), 4096, "header")
    outlet.write([("info", f"line {n}") for n in range(1000)])
    outlet.close()
    outlet.hang_up()
    assert path.stat().st_size <= 4096
    assert path.read_text().endswith("line 999\n")


def test_a_moved_file_is_left_for_the_one_that_the_name_means(tmp_path: Path) -> None:
    path = tmp_path / "log"
    outlet = FileOutlet(str(path), 4096, "header")
    outlet.write([("info", "before")])
    path.rename(tmp_path / "old")
    outlet.write([("info", "still the old one")])
    outlet.reopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND))
    outlet.write([("info", "after")])
    outlet.close()
    outlet.hang_up()
    assert path.read_text() == "header\nafter\n"
    assert (tmp_path / "old").read_text().endswith("still the old one\n")


# Several


def write_turning(path: Path, files: int, lines: int) -> int:
    """Write so many lines into files that are turned; return how often that was."""
    outlet = FileOutlet(str(path), SIZE, "header", files)
    outlet.leave_name()
    folder = os.open(path.parent, os.O_PATH)
    name = path.name

    def answer() -> None:
        outlet.successors.put(turn(folder, name, files))

    turner = Turner(outlet, answer)
    try:
        say(outlet, range(lines))
    finally:
        turner.stop()
        end(outlet)
        os.close(folder)
    return turner.count


@pytest.mark.usefixtures("patient")
def test_a_full_file_is_followed_by_the_next(path: Path) -> None:
    assert write_turning(path, 9, 1500) >= 3
    found = files_of(path)
    assert numbers(*found) == list(range(1500))
    for each in found:
        assert each.read_text().startswith("header\n")
        assert each.stat().st_size <= SIZE
        assert each.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("patient")
def test_only_so_many_are_kept(path: Path) -> None:
    write_turning(path, 3, 3000)
    found = files_of(path)
    assert [each.name for each in found] == ["log.2", "log.1", "log"]
    kept = numbers(*found)
    assert kept == list(range(kept[0], 3000))
    assert len(kept) > 2 * 4000 / len("line 1234\n")


@pytest.mark.usefixtures("patient")
def test_where_there_is_no_next_file_the_oldest_lines_go(path: Path) -> None:
    outlet = FileOutlet(str(path), SIZE, "header", 3)
    outlet.leave_name()
    turner = Turner(outlet, outlet.successors.refuse)
    say(outlet, range(1000))
    turner.stop()
    end(outlet)
    assert turner.count > 1  # what was wrong may be right the next time
    assert path.stat().st_size <= SIZE
    kept = numbers(path)
    assert kept == list(range(kept[0], 1000))


def test_who_does_not_answer_is_waited_for_and_asked_once(path: Path) -> None:
    outlet = FileOutlet(str(path), SIZE, "header", 3)
    outlet.leave_name()
    waits = []

    class Poll:
        def register(self, *_: object) -> None:
            pass

        def poll(self, milliseconds: float) -> list[object]:
            waits.append(milliseconds)
            return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("select.poll", Poll)
        say(outlet, range(2000))
    assert waits == [logfile.ANSWER_S * 1000]
    assert (outlet.successors.was_asked(), outlet.successors.was_asked()) == (1, 0)
    assert path.stat().st_size <= SIZE
    late = path.with_name("late")
    outlet.successors.put(os.open(late, os.O_RDWR | os.O_CREAT | os.O_APPEND))
    say(outlet, range(2000, 2001))
    end(outlet)
    assert late.read_text() == "header\nline 2000\n"


@pytest.mark.usefixtures("patient")
def test_the_end_does_not_wait_for_other_files(path: Path) -> None:
    """Nobody answers any more by then."""
    outlet = FileOutlet(str(path), SIZE, "header", 3)
    outlet.leave_name()
    writer = Writer(outlet, str, patience=PATIENCE_S)
    for number in range(5000):
        writer.write("info", f"line {number}")
    writer.close()
    assert numbers(path)[-1] == 4999
    assert path.stat().st_size <= SIZE


@pytest.mark.usefixtures("patient")
def test_the_end_waits_for_who_answers_to_the_end(path: Path) -> None:
    outlet = FileOutlet(str(path), SIZE, "header", 30)
    outlet.leave_name()
    asked = outlet.successors
    folder = os.open(path.parent, os.O_PATH)

    def answer(_: float) -> None:
        poll = select.poll()
        poll.register(asked, select.POLLIN)
        while poll.poll(PATIENCE_S * 1000):
            if not asked.was_asked():
                break  # the thread has ended
            asked.put(turn(folder, path.name, 30))

    writer = Writer(outlet, str)
    for number in range(5000):
        writer.write("info", f"line {number}")
    writer.close(answer)
    os.close(folder)
    assert numbers(*files_of(path)) == list(range(5000))


def test_before_the_door_is_closed_names_are_its_own(path: Path) -> None:
    outlet = FileOutlet(str(path), SIZE, "header", 30)
    say(outlet, range(1500))
    end(outlet)
    assert numbers(*files_of(path)) == list(range(1500))
    assert path.stat().st_size <= SIZE


def test_what_a_run_has_left_is_kept_by_the_next(path: Path) -> None:
    for run in range(5):
        outlet = FileOutlet(str(path), SIZE, f"run {run}", 3)
        say(outlet, range(run, run + 1))
        end(outlet)
    assert numbers(*files_of(path)) == [2, 3, 4]
    end(FileOutlet(str(path), SIZE, "alone"))
    assert path.read_text() == "alone\n"  # as pasta does


def test_a_link_stays_and_the_file_behind_it_is_turned(path: Path) -> None:
    there = path.parent / "there"
    there.mkdir()
    path.symlink_to(there / "file")
    for number in range(2):
        outlet = FileOutlet(str(path), SIZE, "header", 2)
        say(outlet, range(number, number + 1))
        end(outlet)
    assert path.is_symlink()
    assert numbers(there / "file.1", there / "file") == [0, 1]


def test_what_is_no_file_is_written_to_and_left(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    outlet = FileOutlet(str(path), SIZE, "header", 3)
    say(outlet, range(1000))
    end(outlet)
    assert os.read(reader, 1 << 16).endswith(b"line 999\n")
    assert os.listdir(path.parent) == ["log"]
    os.close(reader)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(5))
def test_whenever_it_is_killed_no_file_is_lost(
    path: Path, folder: int, after: int
) -> None:
    """Of four files, the oldest one goes as it would have; that once, not twice."""
    for number, each in enumerate(["log.3", "log.2", "log.1", "log"]):
        path.with_name(each).write_text(f"line {number}\n")
    done = 0
    rename, open_ = os.rename, os.open

    def count() -> None:
        nonlocal done
        if done == after:
            raise Killed
        done += 1

    def renamed(*names: str, **folders: Any) -> None:
        count()
        rename(*names, **folders)

    def opened(*arguments: object, **folder: int) -> int:
        count()
        return open_(*arguments, **folder)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", renamed)
        patch.setattr(os, "open", opened)
        if after < 4:
            with pytest.raises(Killed):
                turn(folder, "log", 4)
        else:
            os.close(turn(folder, "log", 4))
    assert numbers(*(p for p in files_of(path) if p.exists()))[-3:] == [1, 2, 3]
    end(FileOutlet(str(path), SIZE, "header", 4))  # the next run
    assert numbers(*files_of(path))[-3:] == [1, 2, 3]


def test_nobody_can_put_another_file_in_the_place_of_the_new_one(
    path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("line 0\n")
    other = path.with_name("other")
    rename = os.rename

    def raced(*names: str, **folders: Any) -> None:
        rename(*names, **folders)
        if not path.is_symlink():
            path.symlink_to(other)

    monkeypatch.setattr(os, "rename", raced)
    with pytest.raises(FileExistsError):
        turn(folder, "log", 2)
    assert not other.exists()


def test_a_start_says_that_it_may_not_turn_files(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("line 0\n")
    path.with_name("log.1").mkdir()
    with pytest.raises(SetupError, match=f"Couldn't open log file {path}: "):
        FileOutlet(str(path), SIZE, "header", 2)
    assert path.read_text() == "line 0\n"
