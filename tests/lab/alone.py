# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a whole process has, such as memory: without its other threads."""

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a copy of this process, which has only the thread that made it.

    A test runner has others. What a test has left is gone with the copy.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        child = os.fork()
        if child == 0:
            failed = True
            try:
                test(*args, **kwargs)
                failed = False
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(failed)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return run
