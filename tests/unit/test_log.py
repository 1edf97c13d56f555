# SPDX-License-Identifier: GPL-2.0-or-later
"""Log records: their forms, levels, limits and files."""

import json
import os
import re
import stat
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from passtpy.errors import SetupError
from passtpy.log import (
    BURST,
    MAX_NAMES,
    VALUE_MAX,
    WINDOW_NS,
    Log,
    LogFormat,
    LogLevel,
    LogSetup,
    RateLimit,
    open_log,
)
from passtpy.sinks import QUEUE_LEN
from passtpy.traces import FRAMES_MAX, trace
from tests.unit.fresh import said
from tests.unit.lines import Lines


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def make_log(
    level: LogLevel = LogLevel.INFO, form: LogFormat = LogFormat.HUMAN
) -> tuple[Log, Lines, Clock]:
    sink, clock = Lines(), Clock()
    return Log([sink], level, form, clock), sink, clock


def test_human_line_has_time_level_event_and_fields() -> None:
    log, sink, clock = make_log()
    clock.now = 12_345_600_000
    log.info("flow.new", flow=7, why="no route")
    assert sink.lines == ["12.3456 info flow.new flow=7 why='no route'"]


def test_steps_and_paths_stand_without_quotes() -> None:
    log, sink, _ = make_log(LogLevel.DEBUG)
    log.emit("debug", "flow_state", {"flow": 7, "step": "A -> B", "path": "x => y"})
    assert sink.lines == ["0.0000 debug flow_state A -> B x => y flow=7"]


@pytest.mark.parametrize("form", LogFormat)
def test_lines_are_the_same_without_structlog(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module("passtpy.structured")
    lines = []
    for plain in (False, True):
        log, sink, _ = make_log(form=form)
        if plain:
            monkeypatch.delitem(sys.modules, "passtpy.structured")
        log.import_no_more()
        log.warning("root.kept", reason="x" * (VALUE_MAX + 1), flow=7)
        lines.append(sink.lines)
        assert ("passtpy.structured" in sys.modules) is not plain
    assert lines[0] == lines[1] != []


def test_control_characters_cannot_forge_a_line() -> None:
    log, sink, _ = make_log()
    log.info("x", name="a\n0.0 error fake")
    assert len(sink.lines[0].splitlines()) == 1


def test_json_line_is_one_object_with_ordered_head() -> None:
    log, sink, clock = make_log(form=LogFormat.JSON)
    clock.now = 1_500_000_000
    log.warning("tap.gone", errno=5, mac=b"\1")
    record = json.loads(sink.lines[0])
    assert list(record)[:3] == ["time", "level", "event"]
    assert record["time"] == 1.5
    assert (record["event"], record["errno"]) == ("tap.gone", 5)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (LogLevel.QUIET, ["error", "warning"]),
        (LogLevel.INFO, ["error", "warning", "info"]),
        (LogLevel.DEBUG, ["error", "warning", "info", "debug"]),
        (LogLevel.TRACE, ["error", "warning", "info", "debug", "trace"]),
    ],
)
def test_each_level_includes_the_ones_before(level: LogLevel, said: list[str]) -> None:
    log, sink, _ = make_log(level)
    for name in ("error", "warning", "info", "debug", "trace"):
        getattr(log, name)(f"e.{name}")
    assert [line.split()[1] for line in sink.lines] == said
    assert log.enabled(level)


def test_event_time_comes_from_the_event() -> None:
    log, sink, clock = make_log(LogLevel.DEBUG)
    clock.now = 9_000_000_000
    log.emit("debug", "flow_state", {}, time_ns=2_000_000_000)
    assert sink.lines[0].startswith("2.0000 ")


def test_repeated_warnings_are_counted_not_written() -> None:
    log, sink, clock = make_log()
    for _ in range(BURST + 5):
        log.warning("guest.odd")
    assert len(sink.lines) == BURST
    assert "suppress" not in "".join(sink.lines[:-1])
    assert sink.lines[-1].endswith("guest.odd (suppressing further similar messages)")
    clock.now = WINDOW_NS
    log.warning("guest.odd")
    assert sink.lines[-1].endswith("guest.odd (suppressed 5 similar messages)")


def test_json_tells_of_repeated_warnings_in_fields() -> None:
    log, sink, _ = make_log(form=LogFormat.JSON)
    for _ in range(BURST):
        log.warning("guest.odd")
    said = [json.loads(line) for line in sink.lines]
    assert [each.get("suppressing") for each in said] == [None] * (BURST - 1) + [True]


def test_close_tells_what_was_suppressed() -> None:
    log, sink, _ = make_log()
    for _ in range(BURST + 2):
        log.warning("guest.odd")
    log.close()
    assert sink.lines[-1].endswith(
        "log.suppressed name=guest.odd (suppressed 2 similar messages)"
    )
    assert sink.closed


def test_flow_events_are_not_rate_limited() -> None:
    log, sink, _ = make_log(LogLevel.DEBUG)
    for _ in range(BURST * 3):
        log.debug("flow.gone")
    assert len(sink.lines) == BURST * 3


def test_limited_names_are_bounded() -> None:
    limit = RateLimit()
    for number in range(MAX_NAMES):
        assert limit.admit(f"n{number}", 0) == (0, False)
    assert limit.admit("one more", 0) is None


def test_log_file_is_private_and_begins_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(LogSetup(file=str(path), header="passtpy 1 (PID 2)"))
    log.info("a.b")
    log.close()
    first, second = path.read_text().splitlines()
    assert first == "passtpy 1 (PID 2)"
    assert second.endswith("info a.b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_log_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"Couldn't open log file .*: Is a directory"):
        open_log(LogSetup(file=str(tmp_path)))


def test_daemon_leaves_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log(LogSetup())
    log.info("before")
    log.leave_terminal()
    log.info("after")
    assert "before" in capfd.readouterr().err
    assert not log.enabled(LogLevel.INFO)


def test_structlog_is_loaded_with_the_first_record_only() -> None:
    code = (
        "import sys\n"
        "from passtpy.log import LogSetup, LogLevel, open_log\n"
        "log = open_log(LogSetup(level=LogLevel.QUIET))\n"
        "log.info('unsaid')\n"
        "assert 'structlog' not in sys.modules\n"
        "log.warning('said')\n"
        "assert 'structlog' in sys.modules\n"
    )
    assert said(code) == ""


def raise_deep(depth: int) -> None:
    if depth:
        raise_deep(depth - 1)
    raise ValueError("odd")


def caught(depth: int = 0) -> BaseException:
    try:
        raise_deep(depth)
    except ValueError as error:
        return error
    raise AssertionError


def test_a_failure_is_told_with_the_place_where_it_was_raised() -> None:
    log, sink, _ = make_log()
    log.failure("loop.failed", caught(), why="callback")
    first, *rest = sink.lines
    assert "error loop.failed why=callback error='ValueError: odd'" in first
    assert rest[-1].endswith("in raise_deep")
    assert __file__ in rest[-1]
    assert log.failures == 1


def test_a_failure_is_one_object_in_json() -> None:
    log, sink, _ = make_log(form=LogFormat.JSON)
    log.failure("loop.failed", caught())
    (line,) = sink.lines
    assert json.loads(line)["traceback"][-1].endswith("in raise_deep")


def test_failures_in_a_flood_are_counted_and_limited() -> None:
    log, sink, _ = make_log()
    for _ in range(BURST + 90):
        log.failure("loop.failed", caught())
    assert log.failures == BURST + 90
    assert sum("loop.failed" in line for line in sink.lines) == BURST
    assert len(sink.lines) == BURST * (1 + len(trace(caught())))


def test_a_traceback_has_a_bounded_number_of_frames() -> None:
    assert len(trace(caught(500))) == FRAMES_MAX


def test_a_traceback_tells_what_it_was_raised_from() -> None:
    error = KeyError("x")
    error.__cause__ = caught()
    assert "raised from ValueError: odd" in trace(error)


@pytest.mark.parametrize("form", list(LogFormat))
def test_a_value_too_long_to_read_is_cut(form: LogFormat) -> None:
    log, sink, _ = make_log(form=form)
    addresses = ",".join(f"192.0.2.{n % 256}" for n in range(5000))
    log.info("host.changed", addresses=addresses, more=set(range(5000)))
    assert len(sink.lines[0]) < 4 * VALUE_MAX
    assert f"({len(addresses)} characters)" in sink.lines[0]


def test_lines_wait_until_threads_may_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(LogSetup(file=str(path)))
    before = {*threading.enumerate()}  # some of them may end meanwhile
    log.info("early")
    assert not {*threading.enumerate()} - before
    log.start_writing()
    assert len({*threading.enumerate()} - before) == 1
    log.close()
    assert path.read_text().endswith("info early\n")


def test_a_terminal_that_nobody_reads_does_not_stop_the_log() -> None:
    read_end, write_end = os.pipe()
    log = Log([], LogLevel.TRACE)
    log.add_terminal(write_end)
    log.start_writing()
    line, wanted = "x" * 1000, 4 * QUEUE_LEN
    for _ in range(wanted // len(line)):
        log.trace(line)
    assert log.lost > wanted // len(line) // 2
    lost, texts = log.lost, list[str]()
    with open(read_end) as reader:  # now somebody does
        thread = threading.Thread(target=lambda: texts.append(reader.read()))
        thread.start()
        log.close()
        os.close(write_end)
        thread.join()
    assert texts[0].count("trace") + lost == wanted // len(line)
    told = re.findall(r"warning log\.lost records=(\d+)", texts[0])
    assert sum(map(int, told)) == lost
