# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue between those who say lines and those who write them."""

import os
import re
import socket
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from passtpy.isolation.stages import hold_in_thread
from passtpy.log import Log, LogFormat, LogLevel
from passtpy.logfile import FileOutlet
from passtpy.sinks import (
    JournalOutlet,
    Record,
    StreamOutlet,
    SyslogOutlet,
    Writer,
    is_journal,
)

LIMIT = 10_000
LINE = "x" * 872  # ten of them fill the queue


class Slow:
    """An outlet that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.go = threading.Event()
        self.entered = threading.Event()
        self.full = False
        self.closed = False

    def descriptors(self) -> Collection[int]:
        return ()

    def owned(self) -> Collection[int]:
        return ()

    def hang_up(self) -> None:
        pass

    def write(self, records: Sequence[Record], /) -> None:
        self.entered.set()
        self.go.wait()
        if self.full:
            raise OSError(28, "No space left on device")
        self.lines += [line for _, line in records]

    def close(self) -> None:
        self.closed = True


def notice(lost: int) -> str:
    return f"{lost} lost"


def test_who_writes_never_waits_and_what_is_lost_is_told() -> None:
    outlet = Slow()
    writer = Writer(outlet, notice, LIMIT)
    writer.start()
    for _ in range(25):
        writer.write("info", LINE)
    assert writer.lost == 15
    outlet.go.set()
    writer.close()
    assert outlet.lines == [LINE] * 10 + ["15 lost"]
    assert outlet.closed


def test_the_notice_stands_where_lines_are_missing() -> None:
    outlet = Slow()
    writer = Writer(outlet, notice, LIMIT)
    for _ in range(12):
        writer.write("info", LINE)
    outlet.go.set()
    writer.start()
    while writer._done < writer._put:  # until there is room again
        pass
    writer.write("info", "after")
    writer.close()
    assert outlet.lines == [LINE] * 10 + ["2 lost", "after"]


def test_lines_are_kept_before_the_thread_starts() -> None:
    outlet = Slow()
    outlet.go.set()
    writer = Writer(outlet, notice, LIMIT)
    writer.write("info", "early")
    assert not outlet.entered.is_set()
    writer.close()
    assert outlet.lines == ["early"]


def test_what_cannot_be_written_is_lost_and_told_later() -> None:
    outlet = Slow()
    outlet.full = True
    writer = Writer(outlet, notice, LIMIT)
    writer.start()
    writer.write("info", "a")
    outlet.entered.wait()
    outlet.go.set()
    while (writer.lost, writer._untold) != (2, 1):  # the line, the notice of its loss
        pass
    outlet.full = False
    writer.write("info", "b")
    writer.close()
    assert outlet.lines[-1] == "b"
    assert outlet.lines[0].endswith(" lost")


def test_the_end_does_not_wait_for_who_takes_nothing() -> None:
    outlet = Slow()
    writer = Writer(outlet, notice, LIMIT, patience=0.01)
    writer.write("info", "never")
    writer.close()
    assert not outlet.closed
    outlet.go.set()


def test_the_thread_takes_no_signals() -> None:
    blocked: list[int] = []

    class Asks(Slow):
        def write(self, _records: Sequence[Record], /) -> None:
            text = Path("/proc/thread-self/status").read_text()
            mask = next(x for x in text.splitlines() if x.startswith("SigBlk"))
            blocked.append(int(mask.split()[1], 16))

        def close(self) -> None:
            pass

    writer = Writer(Asks(), notice)
    writer.write("info", "x")
    writer.close()
    tostop = 1 << 21  # SIGTTOU
    assert blocked[0] & tostop


def test_a_pipe_that_others_made_non_blocking_loses_nothing() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    writer = Writer(StreamOutlet(write_end), notice)
    for number in range(3000):
        writer.write("info", f"{number} {'x' * 100}")
    writer.start()
    with open(read_end) as reader:
        lines = [reader.readline() for _ in range(3000)]
    writer.close()
    os.close(write_end)
    assert [int(line.split()[0]) for line in lines] == list(range(3000))


class Told:
    """The outlet of a file, whose thread tells what else it holds."""

    def __init__(self, path: Path) -> None:
        self.file = FileOutlet(str(path), 1 << 20, "header")
        self.held: list[int] = []

    def descriptors(self) -> Collection[int]:
        return self.file.descriptors()

    def owned(self) -> Collection[int]:
        return self.file.owned()

    def hang_up(self) -> None:
        self.file.hang_up()

    def write(self, records: Sequence[Record], /) -> None:
        self.file.write(records)
        listed = map(int, os.listdir("/proc/thread-self/fd"))
        self.held = sorted(filter(is_open, listed))  # without the list itself

    def close(self) -> None:
        self.file.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_thread_shares_no_descriptors(tmp_path: Path) -> None:
    outlet = Told(tmp_path / "log")
    needed = outlet.descriptors()
    writer = Writer(outlet, notice)
    writer.start(hold_in_thread)
    assert not any(map(is_open, needed))  # or a file that was renamed would stay
    with open(tmp_path / "next", "w") as following:
        writer.write("info", "before")
        while not outlet.held:
            pass
        assert outlet.held == sorted(needed)
        outlet.file.reopen(os.dup(following.fileno()))
    writer.write("info", "after")
    writer.close()
    assert (tmp_path / "log").read_text() == "header\nbefore\n"
    assert (tmp_path / "next").read_text() == "header\nafter\n"


def test_the_thread_shares_them_where_it_can_have_no_table(tmp_path: Path) -> None:
    outlet = FileOutlet(str(tmp_path / "log"), 1 << 20, "header")
    writer = Writer(outlet, notice)
    writer.start(lambda _: False)
    assert all(map(is_open, outlet.descriptors()))
    writer.write("info", "line")
    writer.close()
    assert (tmp_path / "log").read_text() == "header\nline\n"


def test_the_system_log_gets_lines_of_its_own_form(tmp_path: Path) -> None:
    path = str(tmp_path / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        outlet = SyslogOutlet("pasta", path)
        outlet.write([("error", "first"), ("debug", "second")])
        outlet.close()
        outlet.hang_up()
        first, second = system.recv(4096).decode(), system.recv(4096).decode()
    stamp = r"[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d"
    who = rf"pasta\[{os.getpid()}\]"
    assert re.fullmatch(rf"<27>{stamp} {who}: first", first)  # daemon, error
    assert re.fullmatch(rf"<31>{stamp} {who}: second", second)
    with pytest.raises(FileNotFoundError):
        SyslogOutlet("pasta", str(tmp_path / "none"))


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        log = Log([], LogLevel.INFO, LogFormat.JOURNAL)
        log.add(JournalOutlet(path))
        log.warning("listen.failed", side="HOST", reason="in use\nMESSAGE=forged")
        log.close()
        lines = journal.recv(4096).decode().splitlines()
    assert sorted(lines) == [
        r"MESSAGE=listen.failed side=HOST reason='in use\nMESSAGE=forged'",
        "PASSTPY_EVENT=listen.failed",
        r"PASSTPY_REASON='in use\nMESSAGE=forged'",
        "PASSTPY_SIDE=HOST",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=passtpy",
    ]


def test_only_the_descriptor_that_leads_to_the_journal_is_it() -> None:
    found = os.fstat(1)
    assert is_journal(1, f"{found.st_dev}:{found.st_ino}")
    for other in (None, "", "8:1", f"{found.st_dev}:", "x"):
        assert not is_journal(1, other)
