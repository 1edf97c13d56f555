# SPDX-License-Identifier: GPL-2.0-or-later
"""Where log records go, and in which form.

Records are events with fields, made into lines by structlog processors. structlog is
imported when the first record passes the level, so that a quiet start does not pay for
it. A record that the guest can provoke is rate-limited by its event name; flow events
(debug, trace) are not, because the ring they come through already is bounded.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any, Final

from passtpy.logfile import FileOutlet, Successors
from passtpy.record import record
from passtpy.sinks import (
    PRIORITIES,
    PRIORITY_DEBUG,
    HoldOnly,
    JournalOutlet,
    Meanwhile,
    Outlet,
    Sink,
    StreamOutlet,
    SyslogOutlet,
    Writer,
    is_journal,
)
from passtpy.traces import describe, trace

STDERR: Final = 2
DEFAULT_LOG_SIZE: Final = 1 << 20
BURST: Final = 5  # records of one name within one window, as in pasta
WINDOW_NS: Final = 2_000_000_000
MAX_NAMES: Final = 256  # limited names; the program has far fewer
VALUE_MAX: Final = 2000  # characters of a field: a line is for people to read

EventDict = MutableMapping[str, Any]


class LogLevel(IntEnum):
    """How much is said: each level includes the ones before it."""

    QUIET = 0  # warnings and errors
    INFO = 1
    DEBUG = 2  # the life of every flow
    TRACE = 3  # events and packets


class LogFormat(StrEnum):
    """The form of a log line."""

    HUMAN = "human"
    JSON = "json"
    JOURNAL = "journal"  # fields for systemd's journal; nobody asks for it by name


LEVEL_OF: Final = {
    "error": LogLevel.QUIET,
    "warning": LogLevel.QUIET,
    "info": LogLevel.INFO,
    "debug": LogLevel.DEBUG,
    "trace": LogLevel.TRACE,
}

# What Datapath.log_level must be for each level: life, life, events and packets.
DATAPATH_LEVEL: Final = {
    LogLevel.QUIET: 0,
    LogLevel.INFO: 0,
    LogLevel.DEBUG: 1,
    LogLevel.TRACE: 3,
}


def level_of_datapath_event(level: int) -> str:
    """Return the level name for an event of the datapath's ring."""
    return ("warning", "debug", "trace", "trace")[level]


@record(kw_only=True)
class LogSetup:
    """Where the records of this process shall go."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.HUMAN
    file: str | None = None
    file_size: int = DEFAULT_LOG_SIZE
    files: int = 1  # how many of that size
    header: str = "passtpy"  # first line of a log file: version, program, PID
    syslog_ident: str | None = None


@record(frozen=False)
class _Budget:
    """What one event name may still say in the current window."""

    since: int
    left: int = BURST
    suppressed: int = 0


class RateLimit:
    """At most BURST records per event name and window; the rest is counted."""

    def __init__(self) -> None:
        self._budgets: dict[str, _Budget] = {}

    def admit(self, name: str, now: int) -> tuple[int, bool] | None:
        """Return how many records were suppressed before this one; None: suppress.

        And whether more of them will be, for this is the last of its window.
        """
        budget = self._budgets.get(name)
        if budget is None:
            if len(self._budgets) >= MAX_NAMES:
                return None
            budget = self._budgets[name] = _Budget(now)
        if now - budget.since >= WINDOW_NS:
            budget.since, budget.left = now, BURST
        if not budget.left:
            budget.suppressed += 1
            return None
        budget.left -= 1
        suppressed, budget.suppressed = budget.suppressed, 0
        return suppressed, not budget.left

    def remaining(self) -> dict[str, int]:
        """Return the suppressed counts that no later record has told."""
        return {k: b.suppressed for k, b in self._budgets.items() if b.suppressed}


# Fields about records of the same name: how many before were left out, and whether
# more will be
SUPPRESSED: Final = "suppressed"
SUPPRESSING: Final = "suppressing"

# Fields that read as sentences on their own and need neither name nor quotes.
_BARE: Final = ("step", "path")


def _show_value(value: object) -> str:
    text = str(value)
    if not text or any(c in ' "=' or not c.isprintable() for c in text):
        return repr(text)
    return text


def _bounded(_logger: object, _level: str, event: EventDict) -> EventDict:
    """Cut the values of a record that are too long to be read."""
    for key, value in event.items():
        if isinstance(value, int | float | None):
            continue
        text = str(value)
        if len(text) > VALUE_MAX:
            event[key] = f"{text[:VALUE_MAX]}... ({len(text)} characters)"
    return event


def _show_suppression(event: EventDict) -> list[str]:
    """Take what is said about records like this one, and return it as people read it.

    The words are pasta's.
    """
    said = []
    if before := event.pop(SUPPRESSED, 0):
        said.append(f"(suppressed {before} similar messages)")
    if event.pop(SUPPRESSING, False):
        said.append("(suppressing further similar messages)")
    return said


def render_human(_logger: object, level: str, event: EventDict) -> str:
    """Make `12.3456 info flow.new key=value` of a record."""
    head = f"{event.pop('time'):.4f} {level} "
    return head + _message(event)


def _message(event: EventDict) -> str:
    said = _show_suppression(event)
    head = event.pop("event")
    bare = [str(event.pop(key)) for key in _BARE if key in event]
    pairs = [f"{key}={_show_value(value)}" for key, value in event.items()]
    return " ".join([head, *bare, *pairs, *said])


def render_json(_logger: object, level: str, event: EventDict) -> str:
    """Make one JSON object of a record; what JSON cannot say becomes text."""
    import json

    head = {
        "time": round(event.pop("time"), 6),
        "level": level,
        "event": event.pop("event"),
    }
    return json.dumps({**head, **event}, default=str)


def render_journal(_logger: object, level: str, event: EventDict) -> str:
    """Make the fields of a journal entry: MESSAGE, PRIORITY, and ours as PASSTPY_*."""
    event.pop("time")  # the journal has its own
    fields = {
        "PRIORITY": PRIORITIES.get(level, PRIORITY_DEBUG),
        "SYSLOG_IDENTIFIER": "passtpy",
        **{f"PASSTPY_{key.upper()}": value for key, value in event.items()},
    }
    fields["MESSAGE"] = _message(event)[:VALUE_MAX]
    return "".join(f"{name}={_one_line(value)}\n" for name, value in fields.items())


def journal_entry(level: str, event: str, fields: dict[str, object]) -> str:
    """Return an entry of the journal that does not come through a log."""
    return render_journal(None, level, {"time": 0.0, "event": event, **fields})


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)


RENDERERS: Final[dict[LogFormat, Callable[[object, str, EventDict], str]]] = {
    LogFormat.HUMAN: render_human,
    LogFormat.JSON: render_json,
    LogFormat.JOURNAL: render_journal,
}


class _Output:
    """The end of structlog's chain: hands a finished line to every sink."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def write(self, level: str, line: str) -> None:
        for sink in self._sinks:
            sink.write(level, line)

    def error(self, line: str) -> None:
        self.write("error", line)

    def warning(self, line: str) -> None:
        self.write("warning", line)

    def info(self, line: str) -> None:
        self.write("info", line)

    def debug(self, line: str) -> None:
        self.write("debug", line)

    def trace(self, line: str) -> None:
        self.write("trace", line)


class Log:
    """What the rest of the program logs to: an event name and its fields."""

    def __init__(
        self,
        sinks: list[Sink] | None = None,
        level: LogLevel = LogLevel.INFO,
        format: LogFormat = LogFormat.HUMAN,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.level = level
        self.failures = 0  # exceptions that nobody expected
        self._sinks = sinks if sinks is not None else []
        self._terminal: Writer | None = None
        self._file: FileOutlet | None = None
        self._file_writer: Writer | None = None
        self._format = format
        self._clock = clock
        self._start = clock()
        self._limit = RateLimit()
        self._logger: Any = None
        self._plain = False
        # Somebody who wants to know as well: level, event, fields
        self.watcher: Callable[[str, str, dict[str, object]], None] | None = None

    def enabled(self, level: LogLevel) -> bool:
        """Tell whether records of `level` go anywhere: ask before costly fields."""
        return self.level >= level and bool(self._sinks)

    def error(self, event: str, **fields: object) -> None:
        """Say what went wrong and will not be tried again."""
        self._limited("error", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what went wrong although the program goes on."""
        self._limited("warning", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Say what an operator wants to know once."""
        if self.level >= LogLevel.INFO or self.watcher is not None:
            self._limited("info", event, fields)

    def debug(self, event: str, **fields: object) -> None:
        """Say what happens to a flow."""
        if self.level >= LogLevel.DEBUG:
            self.emit("debug", event, fields)

    def trace(self, event: str, **fields: object) -> None:
        """Say what happens to a packet."""
        if self.level >= LogLevel.TRACE:
            self.emit("trace", event, fields)

    def say(self, event: str, lines: Iterable[str]) -> None:
        """Write text for people to read, a line each."""
        if self.level < LogLevel.INFO:
            return
        for line in lines:
            if self._format is not LogFormat.JSON:
                self.emit("info", line, {})
            else:
                self.emit("info", event, {"text": line.strip()})

    def emit(
        self,
        level: str,
        event: str,
        fields: dict[str, object],
        time_ns: int | None = None,
    ) -> None:
        """Write a record without rate limit; `time_ns` is on the monotonic clock."""
        if not self._sinks or self.level < LEVEL_OF[level]:
            return
        at = self._clock() if time_ns is None else time_ns
        seconds = (at - self._start) / 1e9
        if self._plain:
            self._write(level, {"time": seconds, **fields, "event": event})
            return
        if self._logger is None:
            self._logger = self._build()
        getattr(self._logger.bind(time=seconds), level)(event, **fields)

    def import_no_more(self) -> None:
        """Do without structlog if it is not there yet: no file can be read any more.

        That is so once a command has ended sooner than everything was imported.
        """
        self._plain = "passtpy.structured" not in sys.modules

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """Say that something was raised that nobody expected, and where."""
        self.failures += 1
        fields["error"] = describe(error)
        if self._format is LogFormat.JSON:
            fields["traceback"] = trace(error)
        if self._limited("error", event, fields) and self._format is not LogFormat.JSON:
            for line in trace(error):
                self.emit("error", f"  {line}", {})

    def add(self, outlet: Outlet) -> Writer:
        """Write to this outlet as well, once there is a thread for it."""
        writer = Writer(outlet, self._notice)
        self._sinks.append(writer)
        return writer

    def add_file(self, outlet: FileOutlet) -> None:
        """Write to this file, which reopen() is about."""
        self._file, self._file_writer = outlet, self.add(outlet)

    def add_terminal(self, fd: int) -> None:
        """Write to this descriptor, until the process becomes a daemon."""
        self._terminal = self.add(StreamOutlet(fd))

    def start_writing(self, hold_only: HoldOnly | None = None) -> None:
        """Have a thread write for each sink: privileges are given up by now."""
        if self._file is not None:
            self._file.leave_name()
        for sink in self._sinks:
            sink.start(hold_only)

    def reopen(self, fd: int) -> None:
        """Write to this descriptor of the log file from now on."""
        if self._file is not None:
            self._file.reopen(fd)
        else:
            os.close(fd)

    @property
    def successors(self) -> Successors | None:
        """Return what hands over a file when the log's is full; None: it has none."""
        return None if self._file is None else self._file.successors

    def leave_terminal(self) -> None:
        """Stop writing to stderr: the process becomes a daemon."""
        if self._terminal is not None:
            self._sinks.remove(self._terminal)
            self._terminal.close()
            self._terminal = None

    @property
    def lost(self) -> int:
        """Return how many lines found no room in a queue, or could not be written."""
        return sum(sink.lost for sink in self._sinks)

    def close(self, meanwhile: Meanwhile | None = None) -> None:
        """Tell what was suppressed, then flush and close every sink.

        `meanwhile` opens files that follow a full one, as long as there are lines.
        """
        for name, count in self._limit.remaining().items():
            fields: dict[str, object] = {"name": name, SUPPRESSED: count}
            self.emit("warning", "log.suppressed", fields)
        for sink in self._sinks:
            if sink is self._file_writer:
                self._file_writer.close(meanwhile)
            else:
                sink.close()
        self._sinks.clear()

    def _limited(self, level: str, event: str, fields: dict[str, object]) -> bool:
        admitted = self._limit.admit(event, self._clock())
        if admitted is None:
            return False
        suppressed, last = admitted
        if suppressed:
            fields[SUPPRESSED] = suppressed
        if last:
            fields[SUPPRESSING] = True
        if self.watcher is not None:
            self.watcher(level, event, fields)
        self.emit(level, event, fields)
        return True

    def _write(self, level: str, record: EventDict) -> None:
        """Do what the chain of structlog does."""
        line = RENDERERS[self._format](None, level, _bounded(None, level, record))
        _Output(self._sinks).write(level, line)

    def _notice(self, lost: int) -> str:
        """Return the line that tells of lost ones; called by any thread."""
        at = (self._clock() - self._start) / 1e9
        record = {"time": at, "event": "log.lost", "records": lost}
        return RENDERERS[self._format](None, "warning", record)

    def _build(self) -> Any:
        from passtpy.structured import BoundLogger

        # wrap_logger() would also consult structlog's global configuration; ours is
        # complete and belongs to this object only.
        return BoundLogger(
            _Output(self._sinks), [_bounded, RENDERERS[self._format]], {}
        )


def _journal() -> JournalOutlet | None:
    """Return a way to the journal, if that is where our stderr leads."""
    if not is_journal(STDERR, os.environ.get("JOURNAL_STREAM")):
        return None
    try:
        return JournalOutlet()
    except OSError:
        return None


def open_log(setup: LogSetup) -> Log:
    """Open what `setup` asks for; SetupError when the log file cannot be opened.

    A log file is the only place when given, and so is systemd's journal where stderr
    leads there. Otherwise stderr, until the process becomes a daemon, and the system
    log, except when the user is watching (debug).
    """
    if setup.file is None and setup.format is LogFormat.HUMAN:
        journal = _journal()
        if journal is not None:
            log = Log([], setup.level, LogFormat.JOURNAL)
            log.add(journal)
            return log
    log = Log([], setup.level, setup.format)
    if setup.file is not None:
        log.add_file(FileOutlet(setup.file, setup.file_size, setup.header, setup.files))
    else:
        log.add_terminal(sys.stderr.fileno() if sys.stderr else 2)
        if setup.syslog_ident and setup.level < LogLevel.DEBUG:
            with suppress(OSError):  # there may be no system log
                log.add(SyslogOutlet(setup.syslog_ident))
    return log
