# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that the caller asked for: log, PID file, capture."""

import os
import time
from contextlib import suppress
from typing import Final

from passtpy import __version__
from passtpy.config.model import Config
from passtpy.errors import SetupError
from passtpy.log import Log, LogSetup, journal_entry, open_log
from passtpy.logfile import AppendOutlet
from passtpy.sinks import (
    HoldOnly,
    JournalOutlet,
    Outlet,
    StreamOutlet,
    Writer,
)

FILE_MODE: Final = 0o600
JOURNALD: Final = "journald"  # for a file, where the journal is meant
LOG: Final = 0  # files that may be opened again by their names
AUDIT: Final = 1


class Files:
    """What is opened before the user changes: log, PID file, capture."""

    def __init__(self, config: Config) -> None:
        self.log = _open_log(config)
        self._pid_fd = _create("PID file", config.pid_file)
        self.pcap_fd = _create("capture file", config.pcap)
        self._audit_file: AppendOutlet | None = None
        self._audit = self._open_audit(config.audit)
        self._to_journal = config.audit == JOURNALD
        self.learn_fd = 1 if config.learn == "-" else _create("policy", config.learn)
        # Where --stats goes: standard error, log file or not
        self.stats = Writer(StreamOutlet(), lambda n: f"({n} lines lost)")
        self._with_stats = config.stats
        for text in config.warnings:
            self.log.warning("config", text=text)

    def write_pid(self) -> None:
        """Tell our PID: this is the process that serves the guest.

        The file stays when we end: callers look then which process it was (podman).
        """
        if self._pid_fd < 0:
            return
        with suppress(OSError):  # whoever had it to read from it may have left
            os.write(self._pid_fd, f"{os.getpid()}\n".encode())
        os.close(self._pid_fd)
        self._pid_fd = -1

    def _open_audit(self, path: str | None) -> Writer | None:
        if path is None:
            return None
        try:
            if path == JOURNALD:
                outlet: Outlet = JournalOutlet()
            else:
                outlet = self._audit_file = AppendOutlet(path)
        except OSError as error:
            raise SetupError(
                f"Couldn't open audit file {path}: {error.strerror}"
            ) from error
        return Writer(outlet, _lost_to_journal if path == JOURNALD else _lost)

    def audit(self, event: str, fields: dict[str, object]) -> None:
        """Write a record to the audit, if there is one."""
        if self._audit is None:
            return
        if self._to_journal:
            line = journal_entry("info", event, fields)
        else:
            import json  # is there by now: isolation.imports()

            head = {"time": round(time.time(), 3), "event": event}
            line = json.dumps(head | fields, default=str)
        self._audit.write("info", line)

    def reopened(self, config: Config) -> tuple[str | None, str | None]:
        """Return the names of log and audit, as far as they can be opened again."""
        audit = None if self._audit_file is None else config.audit
        return config.log_file, audit

    def go_on_with(self, which: int, fd: int) -> None:
        """Write to this descriptor of a file, LOG or AUDIT, from now on."""
        if which == LOG:
            self.log.reopen(fd)
        elif self._audit_file is not None:
            self._audit_file.reopen(fd)
        else:
            os.close(fd)

    def start_writing(self, hold_only: HoldOnly) -> None:
        """Write what was said until now, and everything from now on, by threads."""
        self.log.start_writing(hold_only)
        if self._audit is not None:
            self._audit.start(hold_only)
        if self._with_stats:
            self.stats.start(hold_only)

    def close(self) -> None:
        """Put the capture on the disk, close the log."""
        if self.pcap_fd >= 0:
            with suppress(OSError):  # a pipe has no disk
                os.fsync(self.pcap_fd)
            os.close(self.pcap_fd)
            self.pcap_fd = -1
        if self._with_stats:
            self.stats.close()
        if self._audit is not None:
            self._audit.close()
        self.log.close()


def _lost(count: int) -> str:
    return f'{{"event":"audit.lost","records":{count}}}'


def _lost_to_journal(count: int) -> str:
    return journal_entry("warning", "audit.lost", {"records": count})


def _open_log(config: Config) -> Log:
    setup = LogSetup(
        level=config.log_level,
        format=config.log_format,
        file=config.log_file,
        file_size=config.log_size,
        files=config.log_files,
        header=f"passtpy {__version__}: {config.program} ({os.getpid()})",
        syslog_ident=None if config.foreground else config.program,
    )
    return open_log(setup)


def _create(what: str, path: str | None) -> int:
    if path is None:
        return -1
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags, FILE_MODE)
    except OSError as error:
        raise SetupError(f"Couldn't open {what} {path}: {error.strerror}") from error
