# SPDX-License-Identifier: GPL-2.0-or-later
"""Log records: their forms, levels, limits and files."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from passtpy.errors import SetupError
from passtpy.log import (
    BURST,
    MAX_NAMES,
    WINDOW_NS,
    FileSink,
    Log,
    LogFormat,
    LogLevel,
    LogSetup,
    RateLimit,
    open_log,
)


class Lines:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed = False

    def write(self, _level: str, line: str, /) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed = True


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
    clock.now = WINDOW_NS
    log.warning("guest.odd")
    assert sink.lines[-1].endswith("guest.odd suppressed=5")


def test_close_tells_what_was_suppressed() -> None:
    log, sink, _ = make_log()
    for _ in range(BURST + 2):
        log.warning("guest.odd")
    log.close()
    assert sink.lines[-1].endswith("log.suppressed name=guest.odd suppressed=2")
    assert sink.closed


def test_flow_events_are_not_rate_limited() -> None:
    log, sink, _ = make_log(LogLevel.DEBUG)
    for _ in range(BURST * 3):
        log.debug("flow.gone")
    assert len(sink.lines) == BURST * 3


def test_limited_names_are_bounded() -> None:
    limit = RateLimit()
    for number in range(MAX_NAMES):
        assert limit.admit(f"n{number}", 0) == 0
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


def test_full_log_file_forgets_its_oldest_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = FileSink(str(path), 4096, "header")
    for number in range(1000):
        sink.write("info", f"line {number}")
    sink.close()
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= 4096
    assert lines[0] == "header"
    assert lines[-1] == "line 999"
    numbers = [int(line[5:]) for line in lines[2:]]
    assert numbers == list(range(numbers[0], 1000))


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
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
