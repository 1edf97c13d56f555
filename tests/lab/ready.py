# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits until a descriptor can be read, whatever its number: select() ends at 1024."""

import select
from typing import Any


def readable(waited: list[Any], seconds: float) -> list[int]:
    """Return the descriptors of `waited` that can be read by then."""
    poll = select.poll()
    for each in waited:
        poll.register(each, select.POLLIN)
    return [fd for fd, _ in poll.poll(seconds * 1000)]
