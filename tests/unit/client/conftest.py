# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands run within the test runner, and leave no trace there."""

import signal
from collections.abc import Iterator

import pytest

from passtpy.client.capture import ENDING


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What signals do is as before: Ctrl-C is to end a command, and a capture."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    yield
    for number, action in before.items():
        signal.signal(number, action)
