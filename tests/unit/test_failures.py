# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions that nobody caught reach the sinks of the log."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from passtpy.failures import log_failures
from passtpy.log import Log, LogSetup, open_log


@pytest.fixture
def hooks() -> Iterator[None]:
    """Leave the interpreter's hooks as they were."""
    kept = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = kept


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return open_log(LogSetup(file=str(tmp_path / "log")))


def fail_here() -> None:
    raise KeyError("nobody expects this")


@pytest.mark.usefixtures("hooks")
def test_a_callback_that_fails_is_logged_and_the_loop_goes_on(
    loop: asyncio.AbstractEventLoop,
    log: Log,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    log_failures(log, loop)
    went_on: list[bool] = []
    loop.call_soon(fail_here)
    loop.call_soon(went_on.append, True)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (went_on, log.failures) == ([True], 1)
    log.close()
    text = (tmp_path / "log").read_text()
    assert "error loop.failed" in text
    assert "nobody expects this" in text
    assert "in fail_here" in text
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("hooks")
def test_threads_finalizers_and_the_end_of_the_program_are_logged_too(
    loop: asyncio.AbstractEventLoop, log: Log, tmp_path: Path
) -> None:
    class Bad:
        def __del__(self) -> None:
            fail_here()

    log_failures(log, loop)
    thread = threading.Thread(target=fail_here)
    thread.start()
    thread.join()
    Bad()
    try:
        fail_here()
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    log.close()
    text = (tmp_path / "log").read_text()
    for event in ("thread.failed", "object.failed", "program.failed"):
        assert f"error {event}" in text
    assert text.count("in fail_here") == 3
    assert log.failures == 3
